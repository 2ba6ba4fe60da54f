"""Where the exhibits are kept: bad input that readers must refuse, and unusual input that they must read.

Every maker takes an empty folder and returns what is to be read and, for exhibits that are merely unusual, how many frames a
reader must find; None means that the reader must refuse it with one sentence.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Exhibit = tuple[Path, int | None]
KINDS = ("source", "store", "checkpoint", "actions", "start")
EXHIBITS: dict[str, dict[str, Callable[[Path], Exhibit]]] = {kind: {} for kind in KINDS}
"""kind of reader -> name -> maker"""
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)


def exhibit(kind: str) -> Callable:
    """Put a maker into the museum."""

    def add(make: Callable[[Path], Exhibit]) -> Callable[[Path], Exhibit]:
        EXHIBITS[kind][make.__name__] = make
        return make

    return add
