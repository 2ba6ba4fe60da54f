"""The reconstruction loss. Plain mean squared error would lose the ball."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor, from_numpy

from video_tokenizer.global_batch import mean_over_processes

MOVING = 0.05
"""a pixel moves if a channel changes by more than this between two frames"""
FOREGROUND = 0.1
"""a pixel is foreground if a channel differs from the background by more than this"""


def sample_of(frames: np.ndarray, number: int = 256) -> np.ndarray:
    """At most `number` frames, evenly spaced from the first to the last. frames: uint8 (F, H, W, 3); only the chosen are read."""
    chosen = np.linspace(0, len(frames) - 1, min(number, len(frames))).astype(int)
    return np.stack([frames[index] for index in chosen])


def background_of(frames: np.ndarray, num_samples: int = 256) -> Tensor:
    """The background behind everything that moves: the median over evenly spaced frames of the recording, validation included.

    frames: uint8 (F, H, W, 3). Returns float (3, H, W) in [0, 1]. Films have no fixed background: there nearly every pixel counts
    as foreground, so all pixels have the same weight.
    """
    median = np.median(sample_of(frames, num_samples), axis=0)
    return from_numpy(median).float().permute(2, 0, 1) / 255


def foreground_pixels(video: Tensor, background: Tensor) -> Tensor:
    """(B, T, 1, H, W) bool: pixels that differ from the background."""
    return (video - background).abs().amax(dim=2, keepdim=True) > FOREGROUND


def moving_pixels(video: Tensor) -> Tensor:
    """(B, T, 1, H, W) bool: pixels that differ from the frame before; none in the first frame."""
    change = (video[:, 1:] - video[:, :-1]).abs().amax(dim=2, keepdim=True) > MOVING
    return F.pad(change, (0, 0, 0, 0, 0, 0, 1, 0))  # one frame of False in front


def weighted_mse(
    reconstruction: Tensor,
    video: Tensor,
    background: Tensor,
    foreground_weight: float | Tensor,
    moving_weight: float | Tensor = 0.0,
) -> Tensor:
    """Weighted mean squared error: a pixel has weight 1, plus foreground_weight where it differs from the background, plus
    moving_weight where it changes between frames. With both at 0 it is the plain mean.

    The ball of Breakout is 3 of 4,096 pixels. Erasing it costs a plain mean 0.0001, less than a slight blur of the bricks.
    reconstruction, video: (B, T, 3, H, W) in [0, 1]. background: (3, H, W). A weight is a number, or one per pixel:
    (B, T, 1, H, W).
    """
    foreground, moving = foreground_pixels(video, background), moving_pixels(video)
    weight = 1 + foreground_weight * foreground + moving_weight * moving
    error = (reconstruction - video).square().mean(dim=2, keepdim=True)
    return (weight * error).sum() / mean_over_processes(weight.sum())


def temporal_consistency_loss(latents: Tensor, video: Tensor, patch_size: int) -> Tensor:
    """Mean squared step of the latents, after tanh, of patches whose pixels do not change: a static patch should keep its token.
    Otherwise it flickers between equivalent tokens, which the dynamics model cannot predict.

    latents: (B, S, N, D). video: (B, T, C, H, W) in [0, 1], T = S, or T = 1 + s * (S - 1) where time is shortened s times.
    """
    change = (video[:, 1:] - video[:, :-1]).abs().amax(dim=2)  # (B, T-1, H, W)
    change = change.unflatten(1, (latents.shape[1] - 1, -1)).amax(dim=2)  # (B, S-1, H, W): the largest within a step
    at_rest = F.max_pool2d(change, patch_size).flatten(2) < 0.01  # (B, S-1, N)
    bounded = latents.float().tanh()
    steps = (bounded[:, 1:] - bounded[:, :-1]).square().mean(dim=-1)  # (B, S-1, N)
    return (steps * at_rest).sum() / mean_over_processes(at_rest.sum().float()).clamp(min=1)
