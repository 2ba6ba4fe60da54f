"""Drops black, static and repeated stretches of video, which teach a model nothing but to stand still.

Used for videos and images on request, never for games, where a moment without movement is part of play. Each cut ends an episode,
so that no clip jumps over a gap.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

BLACK_LEVEL = 12.0  # on the scale 0 to 255; a frame is black when 99 percent of its values are darker
STATIC_CHANGE = 0.25  # on the same scale; a frame is static when it differs less than this from the one before, on average
SHORTEST_STATIC = 8  # frames; a shorter rest is part of the action
SHORTEST_REPEATED = 16  # frames; a run this long of frames that were all seen earlier, in any video, is a repetition
SHORTEST_KEPT = 8  # frames; a shorter remainder between two cuts is dropped as well


@dataclass
class StaticFilter:
    """Remembers the frames it has seen, so that a scene in two videos is kept once. `dropped` counts frames by reason."""

    dropped: Counter = field(default_factory=Counter)
    num_seen: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def __call__(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames: uint8 (T, H, W, 3), consecutive. Returns the stretches to keep, in order."""
        self.num_seen += len(frames)
        reasons = np.full(len(frames), "", dtype=object)
        for name, marked, shortest in (
            ("repeated", self._repeated(frames), SHORTEST_REPEATED),
            ("static", _static(frames), SHORTEST_STATIC),
            ("black", _black(frames), 1),
        ):
            for start, stop in runs_of_true(marked):
                if stop - start >= shortest:
                    reasons[start:stop] = name
        kept = []
        for start, stop in runs_of_true(reasons == ""):
            if stop - start >= min(SHORTEST_KEPT, len(frames)):
                kept.append(frames[start:stop])
            else:
                reasons[start:stop] = "too short"
        self.dropped.update(reason for reason in reasons if reason)
        return kept

    def describe(self) -> str:
        """For example: the static filter dropped 120 of 1,000 frames: 80 static, 40 black."""
        parts = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())
        return f"the static filter dropped {self.dropped.total():,} of {self.num_seen:,} frames" + (f": {parts}" if parts else "")

    def _repeated(self, frames: np.ndarray) -> np.ndarray:
        """bool (T,): exactly this frame was seen before, as in a duplicate file or a scene that loops."""
        seen = np.zeros(len(frames), dtype=bool)
        for f, frame in enumerate(frames):
            key = hashlib.blake2b(frame.tobytes(), digest_size=16).digest()
            seen[f] = key in self._seen
            self._seen.add(key)
        return seen


def runs_of_true(marked: np.ndarray) -> list[tuple[int, int]]:
    """[F, T, T, F, T] -> [(1, 3), (4, 5)]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _black(frames: np.ndarray) -> np.ndarray:
    return np.quantile(frames.reshape(len(frames), -1), 0.99, axis=1) < BLACK_LEVEL


def _static(frames: np.ndarray) -> np.ndarray:
    """bool (T,): no change since the frame before. The first frame of a static stretch is kept."""
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return np.concatenate([[False], change < STATIC_CHANGE])
