"""What the animator is told: first frame, caption and motion. How flow becomes a picture, and what training leaves out."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

IMAGE, TEXT, MOTION = range(3)
LEFT_OUT = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
"""image, text and motion: nothing is left out, one of them, or two"""
SHARE = 0.1
"""share of the examples in which each condition, and each pair, is left out; in the rest nothing is"""
MOTION_SHARE = 0.5
"""share in which the motion is left out on top of that, so that one network animates with and without flow"""


class Films(NamedTuple):
    """B clips, and what can be said about them."""

    video: np.ndarray
    """(B, T, H, W, 3) uint8"""
    flow: np.ndarray
    """(B, T, 2, H, W) displacement in pixels from frame t - 1 to frame t"""
    words: np.ndarray
    """(B, L) int64, the captions"""


@dataclass(frozen=True)
class Conditions:
    """B sets of conditions. Where `given` is False the network takes its null, so the rest of that row has no effect."""

    image: Tensor
    """(B, C, h, w) latents of the first frame"""
    words: Tensor
    """(B, L) int64, the caption"""
    motion: Tensor
    """(B, T, C, h, w) latents of the flow pictures"""
    magnitude: Tensor
    """(B,) mean length of the flow, in pixels per frame"""
    given: Tensor
    """(B, 3) bool: image, text, motion"""

    def __getitem__(self, rows: Tensor) -> "Conditions":
        return Conditions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def only(self, given: tuple[bool, bool, bool]) -> "Conditions":
        """The same without what is not in `given`."""
        return replace(self, given=self.given & torch.tensor(given, device=self.given.device))


def draw_given(count: int) -> Tensor:
    """Which conditions a batch is trained with, (B, 3) bool. All three are missing where a pair is image and text, and motion
    is left out on top."""
    probability = torch.tensor([1 - 6 * SHARE, *[SHARE] * 6])
    given = ~LEFT_OUT[torch.multinomial(probability, count, replacement=True)]
    given[:, MOTION] &= torch.rand(count) >= MOTION_SHARE
    return given


def flow_pictures(flow: np.ndarray) -> np.ndarray:
    """Flow as colors: (..., 2, H, W) in pixels -> (..., H, W, 3) uint8. White rests, the hue is the direction.

    The saturation is the length over the longest of the same field, as RAFT's pictures have it. So it says which pixels are
    faster than others, and the speed itself is lost.
    """
    x, y = flow[..., 0, :, :], flow[..., 1, :, :]
    length = np.hypot(x, y)
    saturation = length / np.maximum(length.max(axis=(-2, -1), keepdims=True), 1e-6)
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1 * 6  # 0 red, 1 yellow, ... 5 magenta
    pure = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=-1).clip(0, 1)
    return np.round(255 * (1 - saturation[..., None] * (1 - pure))).astype(np.uint8)


def mean_magnitude(flow: np.ndarray) -> np.ndarray:
    """The number that the pictures lose: mean length over the pixels of all fields but the first, (B, T, 2, H, W) -> (B,)."""
    return np.hypot(flow[:, 1:, 0], flow[:, 1:, 1]).mean(axis=(1, 2, 3))
