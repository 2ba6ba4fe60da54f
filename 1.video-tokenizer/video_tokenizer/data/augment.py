"""Crop and flip, for the tokenizer only and off by default.

A tokenizer only has to redraw what it is shown, so a mirrored or shifted game is more material for it. Wherever actions matter
it is wrong: a flip swaps left and right, so under LEFT the paddle would run right, and a crop moves the whole picture as a
scroll would. Chapters 2 and 3 therefore never augment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Flips and crops whole clips: all frames of a clip get the same, or the video would jump.

    The random numbers are drawn from the seed and the clip numbers of the batch, so that a resumed run repeats them exactly, and
    a clip is cut differently each time it meets other neighbours.
    """

    flip_probability: float = 0.5
    """share of the clips that are mirrored left to right, in [0, 1]"""
    smallest_crop: float = 0.8
    """side of the smallest crop as a share of the frame's side, in (0, 1]; the crop is resized back; 1 switches cropping off"""
    seed: int = 0

    def __call__(self, frames: np.ndarray, indices: Sequence[int]) -> np.ndarray:
        """frames: uint8 (B, T, H, W, 3); indices: the clip numbers (B,). Returns the same shape and type."""
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
