"""Positional encoding of column, row and frame by sine waves (solution 4 of the chapter)."""

import math

import torch
from torch import Tensor, nn

from video_tokenizer.global_batch import global_batch_size, local_shard


def split_embedding(embed_dim: int) -> tuple[int, int, int]:
    """How many of the E values hold x, y and t: three even parts that add up to exactly E. 128 -> (42, 42, 44)."""
    if embed_dim % 2 or embed_dim < 6:
        raise ValueError(f"embed_dim {embed_dim} must be even and at least 6: x, y and t need a sine and a cosine each")
    part = 2 * (embed_dim // 6)
    return part, part, embed_dim - 2 * part


def sine_code(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Sines then cosines of each position under each frequency (radians per step): (S,), (F,) -> (S, 2F) in [-1, 1]."""
    angles = positions[:, None].float() * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def space_frequencies(num: int, length: int) -> Tensor:
    """Geometric frequencies, as in "Attention Is All You Need" (arXiv:1706.03762), for positions 0 .. length-1.

    The fastest wave turns by pi/2 a step, the slowest by a quarter turn over the whole side: no two positions share a code, and
    even the slowest wave separates left from right.
    """
    slowest = (math.pi / 2) / max(length, 2)
    return torch.logspace(math.log10(math.pi / 2), math.log10(slowest), num)


def time_frequencies(num: int, period: int) -> Tensor:
    """Whole harmonics of a clock with `period` frames: 1, 2, 3 ... turns per period, so frame `period` looks like frame 0."""
    harmonics = torch.arange(num) % max(1, period // 2) + 1
    return 2 * math.pi * harmonics / period


class SpaceTimePositions(nn.Module):
    """Adds a fixed code of (x, y, t) to every patch vector.

    Space has an edge. Time has none: a rollout may last 10,000 frames, so the code of t is periodic, like the hands of a clock.
    Attention only reaches back a few frames, and within those the hands never show the same time twice. In training every clip
    starts at a random time, so the model cannot rely on absolute frame numbers.
    """

    space: Tensor
    time: Tensor

    def __init__(self, embed_dim: int, grid_size: tuple[int, int], context_frames: int = 1, period: int = 64):
        super().__init__()
        rows, columns = grid_size
        self.period = period = max(period, context_frames)  # no two frames that attention sees show the same time
        x_dim, y_dim, t_dim = split_embedding(embed_dim)
        x_code = sine_code(torch.arange(columns), space_frequencies(x_dim // 2, columns))  # (columns, x_dim)
        y_code = sine_code(torch.arange(rows), space_frequencies(y_dim // 2, rows))  # (rows, y_dim)
        t_code = sine_code(torch.arange(period), time_frequencies(t_dim // 2, period))  # (period, t_dim)
        space = torch.cat([x_code.repeat(rows, 1), y_code.repeat_interleave(columns, dim=0)], dim=-1)  # (N, x_dim + y_dim)
        self.register_buffer("space", space, persistent=False)
        self.register_buffer("time", t_code, persistent=False)

    def forward(self, x: Tensor, start: Tensor | int = 0, patches: Tensor | None = None) -> Tensor:
        """x: (B, T, N, E). start: number of the first frame, one for all clips or (B,). Returns x plus the code.
        patches: (B, N), which patches these are, if not all of them."""
        batch_size, num_frames, num_patches, _ = x.shape
        start = start[:, None] if isinstance(start, Tensor) else start
        frame_numbers = (start + torch.arange(num_frames, device=x.device).expand(batch_size, -1)) % self.period  # (B, T)
        time = self.time[frame_numbers][:, :, None].expand(-1, -1, num_patches, -1)  # (B, T, N, t_dim)
        space = self.space if patches is None else self.space[patches][:, None]
        space = space.expand(batch_size, num_frames, -1, -1)  # (B, T, N, x_dim + y_dim)
        return x + torch.cat([space, time], dim=-1).to(x.dtype)

    def random_start(self, batch_size: int, device: torch.device) -> Tensor:
        """(B,) random first frame numbers for training."""
        return local_shard(torch.randint(self.period, (global_batch_size(batch_size),), device=device))
