"""Leaving out dull material: black, static and repeated stretches, which teach a model nothing but to stand still.

Used for video folders on request (`filter_dull`), never for games: there a moment without movement belongs to the game. Each cut
ends an episode, so that no clip jumps over a gap.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

BLACK_LEVEL = 12.0  # a frame whose brightest 1 percent is darker, on the scale 0 to 255, is black
STATIC_CHANGE = 0.25  # mean absolute change to the frame before, on the same scale, below which nothing moves
SHORTEST_STATIC = 8  # frames; a shorter rest is part of the action
SHORTEST_REPEATED = 16  # frames in a row that were all seen earlier, in this video or another, make a repeated stretch
SHORTEST_KEPT = 8  # frames; shorter remains between two cuts are dropped with them


@dataclass
class DullFilter:
    """Remembers what it has seen, so that the same scene in two videos is kept once. `dropped` counts frames by reason."""

    dropped: Counter = field(default_factory=Counter)
    num_seen: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def __call__(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames: uint8 (T, H, W, 3), consecutive. Returns the stretches worth keeping, in order."""
        self.num_seen += len(frames)
        reasons = np.full(len(frames), "", dtype=object)
        for name, dull, shortest in (
            ("repeated", self._repeated(frames), SHORTEST_REPEATED),
            ("static", _static(frames), SHORTEST_STATIC),
            ("black", _black(frames), 1),
        ):
            for start, stop in stretches(dull):
                if stop - start >= shortest:
                    reasons[start:stop] = name
        kept = []
        for start, stop in stretches(reasons == ""):
            if stop - start >= min(SHORTEST_KEPT, len(frames)):
                kept.append(frames[start:stop])
            else:
                reasons[start:stop] = "remains"
        self.dropped.update(reason for reason in reasons if reason)
        return kept

    def describe(self) -> str:
        """For example: dropped 120 of 1,000 frames as dull: 80 static, 40 black."""
        parts = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())
        return f"dropped {self.dropped.total():,} of {self.num_seen:,} frames as dull" + (f": {parts}" if parts else "")

    def _repeated(self, frames: np.ndarray) -> np.ndarray:
        """bool (T,): exactly this frame was seen before, as in a file that lies in the folder twice or a scene that loops."""
        seen = np.zeros(len(frames), dtype=bool)
        for f, frame in enumerate(frames):
            key = hashlib.blake2b(frame.tobytes(), digest_size=16).digest()
            seen[f] = key in self._seen
            self._seen.add(key)
        return seen


def stretches(marked: np.ndarray) -> list[tuple[int, int]]:
    """The runs of True: [F, T, T, F, T] -> [(1, 3), (4, 5)]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _black(frames: np.ndarray) -> np.ndarray:
    return np.quantile(frames.reshape(len(frames), -1), 0.99, axis=1) < BLACK_LEVEL


def _static(frames: np.ndarray) -> np.ndarray:
    """bool (T,): nothing has moved since the frame before; the first frame of a rest is kept."""
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return np.concatenate([[False], change < STATIC_CHANGE])
