"""The reconstruction loss. Plain mean squared error would lose the ball."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes

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
    frames: uint8 (F, H, W, 3). Returns float (3, H, W) in [0, 1]. In films nearly every pixel is foreground; all count alike."""
    median = np.median(sample_of(frames, num_samples), axis=0)
    return torch.from_numpy(median).float().permute(2, 0, 1) / 255


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
    patch_weight: float = 0.0,
    patch_size: int = 1,
    patches: Tensor | None = None,
) -> Tensor:
    """Weighted mean squared error: a pixel has weight 1, plus foreground_weight where it differs from the background, plus
    moving_weight where it changes between frames, plus patch_weight where anything in its patch does.

    The ball of Breakout is 3 of 4,096 pixels. Erasing it costs a plain mean 0.0001, less than a slight blur of the bricks.
    reconstruction, video: (B, T, 3, H, W) in [0, 1]. background: (3, H, W). The first two weights are numbers, or one per pixel:
    (B, T, 1, H, W). patches: (B, K), the only patches that count; None: all.
    """
    foreground, moving = foreground_pixels(video, background), moving_pixels(video)
    weight = 1 + foreground_weight * foreground + moving_weight * moving
    if patch_weight:
        cells = F.max_pool2d(moving.flatten(0, 1).float(), patch_size)  # (B*T, 1, H/P, W/P)
        weight = weight + patch_weight * F.interpolate(cells, scale_factor=patch_size).unflatten(0, video.shape[:2])
    if patches is not None:
        weight = weight * pixels_of(patches, video.shape[-2:], patch_size)
    error = (reconstruction - video).square().mean(dim=2, keepdim=True)
    return (weight * error).sum() / mean_over_processes(weight.sum())


def choose_patches(interest: Tensor, share: float) -> Tensor:
    """(B, K) patches to work on, K / N = share. In a game, 95 of 100 patches show what they showed a frame ago.
    interest: float (B, N); with 1 more a patch always comes first, with less more often."""
    noise = local_shard(torch.rand(global_batch_size(len(interest)), interest.shape[1], device=interest.device))
    return (interest + 0.9 * noise).topk(max(1, round(share * interest.shape[1])), dim=1).indices


def patch_interest(video: Tensor, background: Tensor, patch_size: int) -> Tensor:
    """(B, N) for `choose_patches`: 2 where something moves during the clip, 0.5 more where it differs from the background."""
    interest = 2.0 * moving_pixels(video) + 0.5 * foreground_pixels(video, background)  # (B, T, 1, H, W)
    return F.max_pool2d(interest.amax(dim=1), patch_size).flatten(1)


def pixels_of(patches: Tensor, frame_size: Sequence[int], patch_size: int) -> Tensor:
    """(B, 1, 1, H, W) bool: the pixels of the patches (B, K)."""
    rows, columns = frame_size[0] // patch_size, frame_size[1] // patch_size
    chosen = torch.zeros(len(patches), rows * columns, device=patches.device).scatter_(1, patches, 1.0)
    return F.interpolate(chosen.view(-1, 1, rows, columns), scale_factor=patch_size)[:, None] > 0


def temporal_consistency_loss(latents: Tensor, video: Tensor, patch_size: int, patches: Tensor | None = None) -> Tensor:
    """Mean squared step of the latents, after tanh, of patches whose pixels do not change: a static patch should keep its token.
    Otherwise it flickers between equivalent tokens, which the dynamics model cannot predict.

    latents: (B, S, N, D), of `patches` (B, N) or all. video: (B, T, C, H, W), T = S, or T = 1 + s * (S - 1) if time is shortened.
    """
    change = (video[:, 1:] - video[:, :-1]).abs().amax(dim=2)  # (B, T-1, H, W)
    change = change.unflatten(1, (latents.shape[1] - 1, -1)).amax(dim=2)  # (B, S-1, H, W): the largest within a step
    at_rest = F.max_pool2d(change, patch_size).flatten(2) < 0.01  # (B, S-1, N)
    if patches is not None:
        at_rest = at_rest.take_along_dim(patches[:, None], dim=2)
    bounded = latents.float().tanh()
    steps = (bounded[:, 1:] - bounded[:, :-1]).square().mean(dim=-1)  # (B, S-1, N)
    return (steps * at_rest).sum() / mean_over_processes(at_rest.sum().float()).clamp(min=1)
