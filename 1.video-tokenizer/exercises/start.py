"""Starting points for the exercises of chapter 1. Fill in the functions, then check them:

make exercises CHAPTER=1
"""

import numpy as np
from torch import Tensor


def sizes_of_tokens(
    batch_size: int, num_frames: int, frame_size: int, patch_size: int, levels: tuple[int, ...]
) -> tuple[tuple[int, int, int], int, float]:
    """Exercise 1. The shape of `encode(video).indices`, the codebook size, and the bits that one frame's tokens carry."""
    raise NotImplementedError


def token_of(latents: list[float], levels: list[int]) -> int:
    """Exercise 2. The number that FSQ makes of one latent vector, for odd levels, in plain Python.

    Bound each value by tanh to (L - 1) / 2 either side of 0, round it, and read the results as digits, lowest first.
    """
    raise NotImplementedError


def attend_to_the_past(queries: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
    """Exercise 3. Attention over time with loops: frame t looks at the frames t - window + 1 .. t that exist.

    queries, keys, values: (T, d). Returns (T, d).
    """
    raise NotImplementedError


def round_with_slope(x: Tensor) -> Tensor:
    """Exercise 4. Rounds in the forward pass; in the backward pass gradients go through as if nothing had happened."""
    raise NotImplementedError


def without_ball(frames: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """Exercise 5. Frames in which the ball is painted over, to see what PSNR says about that.

    frames: uint8 (F, H, W, 3). ball: (F, 2) x and y in pixels, NaN where there is none. Replace the 5 x 5 pixels around the ball
    by the median of the frames.
    """
    raise NotImplementedError
