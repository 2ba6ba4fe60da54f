"""Results as a table in the terminal, and as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.training.atomic_files import write_text_atomically


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A text table with one row per predictor and one column per metric, "-" where a predictor has no such score.

    rows: row label -> {metric name: value}. The columns are the metrics in order of first appearance.
    """
    names = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    cells = {label: [format_number(scores.get(name)) for name in names] for label, scores in rows.items()}
    label_width = max((len(label) for label in rows), default=0)
    widths = [max([len(name), *(len(row[column]) for row in cells.values())]) for column, name in enumerate(names)]
    lines = [" " * label_width + "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))]
    for label, row in cells.items():
        lines.append(f"{label:<{label_width}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
    return "\n".join(lines)


def format_number(value: Any) -> str:
    """Integers as they are, other numbers with about four significant digits, "-" for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def to_json(results: Any) -> str:
    """JSON of nested dictionaries and lists. Numpy and torch numbers become plain ones, NaN and infinity null."""
    return json.dumps(plain(results), indent=2) + "\n"


def settings_of(config: Any, *left_out: str) -> dict[str, Any]:
    """The fields of a config that decide its numbers, for the JSON file. left_out: those that say where things lie."""
    return {name: value for name, value in asdict(config).items() if name not in left_out}


def plain(value: Any) -> Any:
    """The same value, made of dictionaries, lists, strings, numbers and None only."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def save_json(path: Path | str, results: Any) -> None:
    """Write results as JSON, atomically."""
    write_text_atomically(path, to_json(results))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def look_up(scores: Mapping[str, Any], name: str) -> float | None:
    """The number at a dotted name: "a.b" in {"a": {"b": 1.5}} is 1.5; None if there is none."""
    value: Any = scores
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None
