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
    """How the convolutions of a network treat time."""

    kernel: int = 3
    """frames that a kernel covers (k_t)"""
    dilation: int = 1
    """frames between the taps of a residual block's second convolution"""
    padding: TimePadding = "replicate"
    """padding before the first frame: copies of it, or zeros"""
    causal: bool = True
    """False splits the padding evenly, so that half of a kernel looks ahead"""


class FrameCache:
    """The last frames that each causal convolution of a network has seen, so that a stream can go on.

    Each convolution reads and writes the slot of its own name. A cache is written once, by the call that returns it: `past` is
    what the previous call has kept, `kept` what the next one will need. So a stream can be continued twice from the same cache.
    """

    def __init__(self, previous: "FrameCache | None" = None):
        self.at_start = previous is None
        self.past: dict[str, Tensor] = {} if previous is None else previous.kept
        self.kept: dict[str, Tensor] = {}

    def keep(self, slot: str, frames: Tensor) -> None:
        """Keep frames (B, C, T, H, W) for the next call. A copy, because a slice would keep the whole video in memory."""
        self.kept[slot] = frames.detach().clone()


def name_slots(network: nn.Module) -> None:
    """Give every causal convolution of a network a cache slot of its own, named after its place in the network."""
    for name, module in network.named_modules():
        if isinstance(module, CausalConv3d):
            module.slot = name


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
        self.slot = ""
        """name of its frames in a `FrameCache`; `name_slots` sets it"""
        kernel = time.kernel if looks_back else 1
        self.reach = dilation * (kernel - 1)
        """frames it looks at besides the present one"""
        if self.reach + 1 < stride[0]:
            raise ValueError(f"a kernel that spans {self.reach + 1} frames would skip some with a stride of {stride[0]}")
        self.convolution = nn.Conv3d(
            in_channels, out_channels, (kernel, 3, 3), (stride[0], stride[1], stride[1]), (0, 1, 1), (dilation, 1, 1)
        )
        see_the_present_only(self.convolution, present=kernel - 1 if time.causal else kernel // 2)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C', T', H', W'), T' = (T - 1) / stride + 1, and T / stride when a stream continues."""
        if self.reach:
            past = None if cache is None else cache.past.get(self.slot)
            x = self._padded(x) if past is None else torch.cat([past, x], dim=2)
            if cache is not None:
                cache.keep(self.slot, x[:, :, x.shape[2] - (self.reach + 1 - self.stride[0]) :])
        return self.convolution(x)

    def _padded(self, x: Tensor) -> Tensor:
        """x with `reach` frames more: all in front, or half on either side if it may see the future."""
        behind = 0 if self.time.causal else self.reach // 2
        before = x[:, :, :1].expand(-1, -1, self.reach - behind, -1, -1)
        after = x[:, :, -1:].expand(-1, -1, behind, -1, -1)
        if self.time.padding == "zeros":
            before, after = torch.zeros_like(before), torch.zeros_like(after)
        return torch.cat([before, x, after], dim=2)


@torch.no_grad()
def see_the_present_only(convolution: nn.Conv3d, present: int) -> None:
    """Start as a convolution of single pictures: every tap but `present` becomes 0, and that one grows, so that activations keep
    their size. A network that begins by mixing frames evenly must first learn which of them it should draw. MAGVIT starts like
    this from a trained network of pictures (central inflation, arXiv:2212.05199); here its weights are fresh."""
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


class CausalResidualBlock(nn.Module):
    """x + two causal convolutions of it, each behind a norm. The second one is dilated in time: it looks back further."""

    def __init__(self, channels: int, time: TimeSettings):
        super().__init__()
        self.norm_1, self.norm_2 = frame_norm(channels), frame_norm(channels)
        self.convolution_1 = CausalConv3d(channels, channels, time)
        self.convolution_2 = CausalConv3d(channels, channels, time, dilation=time.dilation)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape."""
        y = self.convolution_1(F.silu(self.norm_1(x)), cache)
        return x + self.convolution_2(F.silu(self.norm_2(y)), cache)


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

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, 1 + stride*T, 2H, 2W). Returns (B, C', 1 + T, H, W)."""
        return self.convolution(x, cache)


class Upsample(nn.Module):
    """Twice the rows and columns, and `stride` frames for every step: a convolution makes the values, depth-to-space places them.

    1 + T steps become stride * (1 + T) frames, of which the first stride - 1 lie before the video's start and are dropped.
    """

    def __init__(self, in_channels: int, out_channels: int, time: TimeSettings, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.convolution = CausalConv3d(in_channels, out_channels * 4 * stride, time, looks_back=stride > 1)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, 1 + T, H, W). Returns (B, C', 1 + stride*T, 2H, 2W); when a stream continues, stride frames a step."""
        x = depth_to_space(self.convolution(x, cache), self.stride, 2)
        return without_first(x, self.stride, cache)


def without_first(x: Tensor, stride: int, cache: FrameCache | None) -> Tensor:
    """x (B, C, T, H, W) without the stride - 1 frames before the video's start, unless a stream continues."""
    return x[:, :, stride - 1 :] if cache is None or cache.at_start else x
