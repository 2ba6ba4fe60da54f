"""Random crops and flips, for the tokenizer only and off by default.

A tokenizer only reconstructs its input, so mirrored and shifted clips are additional training data. Where actions matter they
would be wrong: after a flip, LEFT would move the paddle right, and a crop looks like scrolling. Chapters 2 and 3 never augment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Flips and crops clips, all frames of a clip alike.

    The random numbers depend only on the seed and the clip indices of the batch, so that a resumed run repeats them exactly. The
    same clip is cropped differently in different batches.
    """

    flip_probability: float = 0.5
    """probability that a clip is mirrored left to right"""
    smallest_crop: float = 0.8
    """side of the smallest crop as a share of the frame's side, in (0, 1]; crops are resized back; 1 disables cropping"""
    seed: int = 0

    def __call__(self, frames: np.ndarray, indices: Sequence[int]) -> np.ndarray:
        """frames: uint8 (B, T, H, W, 3); indices: the clip indices (B,). Returns the same shape and type."""
        rng = np.random.default_rng([self.seed, *map(int, indices)])
        return np.stack([self._augment_clip(clip, rng) for clip in frames])

    def _augment_clip(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _, height, width, _ = clip.shape
        if rng.random() < self.flip_probability:
            clip = clip[:, :, ::-1]
        share = rng.uniform(self.smallest_crop, 1.0)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        if (rows, columns) == (height, width):
            return clip
        cropped = np.ascontiguousarray(clip[:, top : top + rows, left : left + columns])
        return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in cropped])
