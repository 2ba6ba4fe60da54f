"""Convolutions over space and time that never look at a later frame, and what is built from them.

A kernel of k_t frames needs k_t - 1 frames before the first one. All padding in time goes there and none behind the last frame,
so frame t depends on frames up to t only, the first frame on itself only, and a picture is a video of one frame (MAGVIT-2,
arXiv:2310.05737, section 3.2). Videos inside the network are (B, C, T, H, W), as PyTorch's convolutions want them.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

TimePadding = Literal["replicate", "zeros"]


class TimeSettings(NamedTuple):
    """What the convolutions of a network have in common where time is concerned."""

    kernel: int = 3
    """frames that a kernel covers (k_t)"""
    dilation: int = 1
    """frames between the taps of a residual block's second convolution"""
    padding: TimePadding = "replicate"
    """what stands before the first frame: copies of it, or zeros"""
    causal: bool = True
    """False splits the padding evenly, so that half of a kernel looks ahead"""


class FrameMemory:
    """The last frames that each convolution of a stack has seen, so that a stream can go on where it was.

    Convolutions ask in the order in which they run: `frames_before` for what the last call left, `keep` for what the next call
    will need. A memory that follows no other stands at the start of a stream. What was kept is never changed afterwards, so
    a stream can be continued from the same memory twice.
    """

    def __init__(self, before: "FrameMemory | None" = None):
        self.past: list[Tensor] | None = None if before is None else before.kept
        self.kept: list[Tensor] = []

    @property
    def at_start(self) -> bool:
        """Whether no frame has been seen yet."""
        return self.past is None

    def frames_before(self) -> Tensor | None:
        """What the convolution whose turn it is kept of the frames before; None at the start."""
        return None if self.past is None else self.past[len(self.kept)]

    def keep(self, frames: Tensor) -> None:
        """Keep frames (B, C, T, H, W) for the next call. A copy, because a slice would keep the whole video in memory."""
        self.kept.append(frames.detach().clone())


class CausalConv3d(nn.Module):
    """A 3x3 convolution in space and one of `time.kernel` frames in time, with its padding in front.

    stride: (in time, in space). With stride s in time 1 + s * t frames become 1 + t: output j sees frames up to s * j.
    dilation d spreads the taps: the kernel reaches d * (k_t - 1) frames back, and as many are padded. looks_back False: one frame
    in, one frame out, for layers that leave time alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time: TimeSettings,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        looks_back: bool = True,
    ):
        super().__init__()
        self.time, self.stride = time, stride
        kernel = time.kernel if looks_back else 1
        self.reach = dilation * (kernel - 1)
        """frames that are looked at besides the present one"""
        if self.reach + 1 < stride[0]:
            raise ValueError(f"a kernel that spans {self.reach + 1} frames would skip some with a stride of {stride[0]}")
        self.convolution = nn.Conv3d(
            in_channels, out_channels, (kernel, 3, 3), (stride[0], stride[1], stride[1]), (0, 1, 1), (dilation, 1, 1)
        )
        see_the_present_only(self.convolution, present=kernel - 1 if time.causal else kernel // 2)

    def forward(self, x: Tensor, memory: FrameMemory | None = None) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C', T', H', W'), T' = (T - 1) / stride + 1, and T / stride where a stream goes on."""
        if self.reach:
            past = None if memory is None else memory.frames_before()
            x = self._padded(x) if past is None else torch.cat([past, x], dim=2)
            if memory is not None:
                memory.keep(x[:, :, x.shape[2] - (self.reach + 1 - self.stride[0]) :])
        return self.convolution(x)

    def _padded(self, x: Tensor) -> Tensor:
        """x with `reach` frames more: all in front, or half on either side where the future may be seen."""
        behind = 0 if self.time.causal else self.reach // 2
        before = x[:, :, :1].expand(-1, -1, self.reach - behind, -1, -1)
        after = x[:, :, -1:].expand(-1, -1, behind, -1, -1)
        if self.time.padding == "zeros":
            before, after = torch.zeros_like(before), torch.zeros_like(after)
        return torch.cat([before, x, after], dim=2)


@torch.no_grad()
def see_the_present_only(convolution: nn.Conv3d, present: int) -> None:
    """Start as a convolution of single pictures: every tap but `present` becomes 0, and that one as much larger as keeps the size
    of what passes through. A network that begins with frames mixed evenly must first learn which one it is to draw. MAGVIT
    starts so from a trained network of pictures (central inflation, arXiv:2212.05199); here the pictures' network is fresh."""
    weight = convolution.weight  # (C', C, k_t, 3, 3)
    scale = torch.zeros(weight.shape[2], 1, 1)
    scale[present] = weight.shape[2] ** 0.5
    weight.mul_(scale)


class FrameNorm(nn.GroupNorm):
    """Group norm of each frame by itself. Statistics over a clip would tell a frame how bright later ones are."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape; every group of channels of a frame has mean 0 and variance 1."""
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", b=x.shape[0])


def frame_norm(channels: int, affine: bool = True) -> FrameNorm:
    """Groups of 8 channels where they fit, at most 32 groups as in the paper."""
    return FrameNorm(min(32, max(1, channels // 8)), channels, eps=1e-6, affine=affine)


class AdaptiveNorm(nn.Module):
    """Group norm whose scale and shift are read off the quantized latents, as StyleGAN's are off its style (arXiv:1812.04948).

    The style of a frame is the mean and the standard deviation of its step's codes over all places, 2D numbers; one linear map
    makes them a scale and a shift for each channel.
    """

    def __init__(self, channels: int, code_length: int):
        super().__init__()
        self.norm = frame_norm(channels, affine=False)
        self.to_scale_and_shift = nn.Linear(2 * code_length, 2 * channels)
        nn.init.zeros_(self.to_scale_and_shift.weight)
        nn.init.zeros_(self.to_scale_and_shift.bias)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """x: (B, C, T, H, W). codes: (B, D, T, h, w), of each frame's step. Returns (B, C, T, H, W)."""
        style = torch.cat([codes.mean(dim=(3, 4)), codes.var(dim=(3, 4), correction=0).add(1e-4).sqrt()], dim=1)  # (B, 2D, T)
        scale, shift = self.to_scale_and_shift(style.transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)  # (B, C, T) each
        return self.norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]


class ResidualBlock(nn.Module):
    """x + two causal convolutions of it, each behind a norm. The second one is dilated in time: it looks back further."""

    def __init__(self, channels: int, time: TimeSettings):
        super().__init__()
        self.norm_1, self.norm_2 = frame_norm(channels), frame_norm(channels)
        self.convolution_1 = CausalConv3d(channels, channels, time)
        self.convolution_2 = CausalConv3d(channels, channels, time, dilation=time.dilation)

    def forward(self, x: Tensor, memory: FrameMemory | None = None) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape."""
        y = self.convolution_1(F.silu(self.norm_1(x)), memory)
        return x + self.convolution_2(F.silu(self.norm_2(y)), memory)


def space_to_depth(x: Tensor, time: int, space: int) -> Tensor:
    """(B, C, T*time, H*space, W*space) -> (B, C*time*space*space, T, H, W): the pixels of a cell become its channels."""
    return rearrange(x, "b c (t r) (h p) (w q) -> b (c r p q) t h w", r=time, p=space, q=space)


def depth_to_space(x: Tensor, time: int, space: int) -> Tensor:
    """The way back: (B, C*time*space*space, T, H, W) -> (B, C, T*time, H*space, W*space)."""
    return rearrange(x, "b (c r p q) t h w -> b c (t r) (h p) (w q)", r=time, p=space, q=space)


class Downsample(nn.Module):
    """Half the rows and columns, and one step for every `stride` frames, by a convolution that takes steps."""

    def __init__(self, in_channels: int, out_channels: int, time: TimeSettings, stride: int = 1):
        super().__init__()
        self.convolution = CausalConv3d(in_channels, out_channels, time, stride=(stride, 2), looks_back=stride > 1)

    def forward(self, x: Tensor, memory: FrameMemory | None = None) -> Tensor:
        """x: (B, C, 1 + stride*T, 2H, 2W). Returns (B, C', 1 + T, H, W)."""
        return self.convolution(x, memory)


class Upsample(nn.Module):
    """Twice the rows and columns, and `stride` frames for every step: a convolution makes the values, depth-to-space places them.

    1 + T steps become stride * (1 + T) frames, of which the first stride - 1 lie before the video's start and are dropped.
    """

    def __init__(self, in_channels: int, out_channels: int, time: TimeSettings, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.convolution = CausalConv3d(in_channels, out_channels * 4 * stride, time, looks_back=stride > 1)

    def forward(self, x: Tensor, memory: FrameMemory | None = None) -> Tensor:
        """x: (B, C, 1 + T, H, W). Returns (B, C', 1 + stride*T, 2H, 2W); where a stream goes on, stride frames for every step."""
        x = depth_to_space(self.convolution(x, memory), self.stride, 2)
        return without_first(x, self.stride, memory)


def without_first(x: Tensor, stride: int, memory: FrameMemory | None) -> Tensor:
    """x (B, C, T, H, W) without the stride - 1 frames before the video's start, unless a stream is already under way."""
    return x[:, :, stride - 1 :] if memory is None or memory.at_start else x
