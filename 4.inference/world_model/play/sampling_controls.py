"""The sampling settings of a dynamics model as a list from which the page builds its sliders, and which checks their values."""

import ast
import inspect
from dataclasses import fields
from itertools import pairwise
from textwrap import dedent
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from world_model.play.protocol import Field


def sampling_controls(sampling_class: type) -> dict[str, Field]:
    """One control per field of the dataclass that the page can show: numbers, switches, and strings with listed choices.

    A field's metadata may name its "smallest" and "largest" value. Without them a control ends at four times the default of a
    whole number, and at twice the default of any other.
    """
    hints, controls = get_type_hints(sampling_class), {}
    for field in fields(sampling_class):
        hint, default = hints[field.name], field.default
        low, high = field.metadata.get("smallest"), field.metadata.get("largest")
        choices = get_args(hint) if get_origin(hint) is Literal else tuple(field.metadata.get("choices", ()))
        kind = str if choices else next((kind for kind in get_args(hint) if kind is not NoneType), hint)
        if kind in (int, float):
            low = (1 if kind is int else 0.0) if low is None else low
            high = (4 if kind is int else 2) * (default or 16) if high is None else high  # type: ignore[operator]
            controls[field.name] = Field(kind, default, low, high)
        elif kind is bool or choices:
            controls[field.name] = Field(kind, default, choices=choices)
    return controls


def describe_controls(sampling_class: type) -> list[dict[str, Any]]:
    """What the page has to know of each control. help: the docstring below the dataclass field."""
    lines = ast.parse(dedent(inspect.getsource(sampling_class))).body[0].body  # type: ignore[attr-defined]
    helps = {
        ast.unparse(line.target): below.value.value
        for line, below in pairwise(lines)
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
    return [
        {"name": name, "help": helps.get(name, "")} | vars(control) | {"kind": control.kind.__name__}
        for name, control in sampling_controls(sampling_class).items()
    ]
