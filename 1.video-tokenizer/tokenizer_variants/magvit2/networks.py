"""Encoder and decoder of MAGVIT-2: residual blocks at several resolutions, each level half the size of the previous one."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer_variants.magvit2.causal_convolutions import (
    AdaptiveNorm,
    CausalConv3d,
    CausalResidualBlock,
    Downsample,
    FrameCache,
    TimeSettings,
    Upsample,
    frame_norm,
    name_slots,
    without_first,
)


class Level(nn.Module):
    """The residual blocks of one resolution."""

    recompute = False
    """set to True, they compute their activations again in the backward pass of a training"""

    def __init__(self, channels: int, num_blocks: int, time: TimeSettings):
        super().__init__()
        self.blocks = nn.ModuleList(CausalResidualBlock(channels, time) for _ in range(num_blocks))

    def forward(self, x: Tensor, cache: FrameCache | None) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and self.training else block(x, cache)
        return x


class Encoder(nn.Module):
    """Frames to latents: every level halves the size, and the last levels may also halve the number of frames."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], code_length: int, time: TimeSettings, strides):
        super().__init__()
        self.from_pixels = CausalConv3d(3, channels[0], time)
        self.levels = nn.ModuleList(Level(width, number, time) for width, number in zip(channels, blocks, strict=True))
        self.downsamples = nn.ModuleList(
            Downsample(before, after, time, stride)
            for before, after, stride in zip(channels, channels[1:], strides, strict=False)
        )
        self.norm = frame_norm(channels[-1])
        self.to_latents = nn.Conv3d(channels[-1], code_length, kernel_size=1)
        name_slots(self)

    def forward(self, video: Tensor, cache: FrameCache | None = None) -> Tensor:
        """video: (B, 3, 1 + s*t, H, W) in [-0.5, 0.5]. Returns latents (B, D, 1 + t, h, w)."""
        x = self.levels[0](self.from_pixels(video, cache), cache)
        for downsample, level in zip(self.downsamples, self.levels[1:], strict=True):
            x = level(downsample(x, cache), cache)
        return self.to_latents(F.silu(self.norm(x)))


class Decoder(nn.Module):
    """Codes to frames: the encoder's levels in reverse. Each starts with a norm that is conditioned on the codes."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], code_length: int, time: TimeSettings, strides):
        super().__init__()
        self.strides = strides[::-1]
        widths = channels[::-1]
        self.from_codes = CausalConv3d(code_length, widths[0], time)
        self.adaptive_norms = nn.ModuleList(AdaptiveNorm(width, code_length) for width in widths)
        self.levels = nn.ModuleList(Level(width, number, time) for width, number in zip(widths, blocks[::-1], strict=True))
        self.upsamples = nn.ModuleList(
            Upsample(before, after, time, stride) for before, after, stride in zip(widths, widths[1:], self.strides, strict=False)
        )
        self.norm = frame_norm(widths[-1])
        self.to_pixels = CausalConv3d(widths[-1], 3, time)
        name_slots(self)

    def forward(self, codes: Tensor, cache: FrameCache | None = None) -> Tensor:
        """codes: (B, D, 1 + t, h, w). Returns video (B, 3, 1 + s*t, H, W), centered at 0, not clamped."""
        x = self.levels[0](self.adaptive_norms[0](self.from_codes(codes, cache), codes), cache)
        rest = zip(self.upsamples, self.adaptive_norms[1:], self.levels[1:], self.strides, strict=True)
        for upsample, adaptive_norm, level, stride in rest:
            x = upsample(x, cache)
            codes = without_first(codes.repeat_interleave(stride, dim=2), stride, cache)  # the code of each frame's step
            x = level(adaptive_norm(x, codes), cache)
        return self.to_pixels(F.silu(self.norm(x)), cache)
