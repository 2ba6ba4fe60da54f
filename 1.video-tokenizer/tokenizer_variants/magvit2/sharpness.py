"""How sharp a reconstruction is: the one thing that squared errors pay badly for, and what a discriminator is there to buy."""

import torch.nn.functional as F
from torch import Tensor

from video_tokenizer.losses import moving_pixels


def moving_sharpness(reconstruction: Tensor, video: Tensor, reach: int = 2) -> float:
    """Energy of the edges near what moves, reconstruction over real: 1 is as sharp as the video, 0.5 a visible blur, 0 nothing.

    Both (B, T, C, H, W) in [0, 1]. An edge is the difference of neighbouring pixels, its energy the square; counted are pixels at
    most `reach` rows and columns from one that moves. Right places are not asked for: a ball drawn sharp and wrong counts as
    sharp. Where nothing moves it is 1.
    """
    near = F.max_pool2d(moving_pixels(video).flatten(0, 1).float(), 2 * reach + 1, 1, reach)  # (B*T, 1, H, W)
    drawn, real = (edge_energy(frames.flatten(0, 1)) for frames in (reconstruction, video))
    total = float((real * near).sum())
    return float((drawn * near).sum()) / total if total else 1.0


def edge_energy(frames: Tensor) -> Tensor:
    """(M, C, H, W) to (M, 1, H, W): squared differences to the right and lower neighbours, summed over channels."""
    right = F.pad(frames.diff(dim=3).square(), (0, 1))
    below = F.pad(frames.diff(dim=2).square(), (0, 0, 0, 1))
    return (right + below).sum(dim=1, keepdim=True)
