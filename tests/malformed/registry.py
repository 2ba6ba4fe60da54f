"""The table of malformed files: what readers must refuse in one sentence, and unusual files that they must read.

A maker writes its file into an empty folder and returns what is to be read.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Maker = Callable[[Path], Path]
CASES: dict[str, dict[str, tuple[Maker, int | None]]] = {
    kind: {} for kind in ("source", "store", "checkpoint", "actions", "start")
}
"""kind of reader -> name -> (maker, how many frames a reader finds; None: it must refuse)"""
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)


def add(kind: str, makers: dict[str, Maker], frames: int | None = None) -> None:
    """Put several makers into the table."""
    CASES[kind] |= {name: (make, frames) for name, make in makers.items()}


def case(kind: str, frames: int | None = None) -> Callable[[Maker], Maker]:
    """Put the decorated maker into the table under its own name."""

    def add_one(make: Maker) -> Maker:
        add(kind, {make.__name__: make}, frames)
        return make

    return add_one


def written(path: Path, content: str | bytes) -> Path:
    """The path of a file that now has this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cut(path: Path, length: int | None = None) -> Path:
    """The file cut to a length, negative from its end; in half without one."""
    content = path.read_bytes()
    return written(path, content[: len(content) // 2 if length is None else length])
