"""Convolutional pieces: pixels to a grid of features, and residual blocks that an action can steer."""

import torch
from einops import rearrange
from torch import Tensor, nn

CELL = 4
"""side of a feature cell, in pixels"""


class FrameFeatures(nn.Module):
    """A convolutional stem over two neighbouring frames, on a grid 4 times coarser than the pixels.

    Movement is a difference between neighbours in time and space, which is what a small convolution over two stacked frames
    sees at once. A linear patch projection takes many times longer to find it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(CELL)  # (3, H, W) -> (48, H / 4, W / 4), no pixel is lost
        self.input = nn.Conv2d(2 * 3 * CELL**2, width, kernel_size=3, padding=1)

    def forward(self, frames: Tensor, neighbours: Tensor) -> Tensor:
        """frames, neighbours: (M, 3, H, W) in [0, 1]. Returns (M, width, H / 4, W / 4)."""
        change = frames - neighbours
        return self.input(torch.cat([self.unshuffle(frames - 0.5), self.unshuffle(change)], dim=1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip. A code, where given, scales and shifts the channels between (FiLM, arXiv:1709.07871)."""

    def __init__(self, width: int, code_dim: int = 0):
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.activation = nn.GELU()
        self.film = nn.Linear(code_dim, 2 * width) if code_dim else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x: (M, width, h, w). code: (M, code_dim). Returns the same shape as x."""
        hidden = self.first(self.activation(self.norm(x)))
        if self.film is not None and code is not None:
            scale, shift = self.film(code)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return x + self.second(self.activation(hidden))


def previous_frames(video: Tensor) -> Tensor:
    """(B, T, C, H, W) -> the frame before each frame; the first frame stands in for its own predecessor."""
    return torch.cat([video[:, :1], video[:, :-1]], dim=1)


def flatten_frames(video: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B*T, C, H, W)."""
    return rearrange(video, "b t c h w -> (b t) c h w")
