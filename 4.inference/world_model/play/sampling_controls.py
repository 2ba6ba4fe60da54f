"""The sampling settings of a dynamics model as a list from which the page builds its controls."""

import ast
import inspect
from dataclasses import fields
from itertools import pairwise
from textwrap import dedent
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def sampling_controls(sampling_class: type) -> list[dict[str, Any]]:
    """Name, kind, default, limits, choices and help of each field that the page can show: numbers, switches and menus.

    The limits are a field's metadata "smallest" and "largest", the choices its Literal type, the help the docstring below it.
    """
    lines = ast.parse(dedent(inspect.getsource(sampling_class))).body[0].body  # type: ignore[attr-defined]
    helps = {
        ast.unparse(line.target): below.value.value
        for line, below in pairwise(lines)
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
    hints, controls = get_type_hints(sampling_class), []
    for field in fields(sampling_class):
        hint = hints[field.name]
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        kind = str if choices else next((kind for kind in get_args(hint) if kind is not NoneType), hint)
        if kind not in (bool, int, float) and not choices:
            continue
        control = {"name": field.name, "kind": kind.__name__, "default": field.default, "choices": choices}
        control |= {"smallest": field.metadata.get("smallest", 0), "largest": field.metadata.get("largest", 2**31 - 1)}
        controls.append(control | {"help": helps.get(field.name, "")})
    return controls
