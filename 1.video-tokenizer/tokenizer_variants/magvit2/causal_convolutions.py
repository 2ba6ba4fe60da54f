"""Convolutions over space and time that never depend on a later frame, and the layers built from them.

A kernel of k_t frames needs k_t - 1 frames of padding in time. All of it goes before the first frame, so frame t depends only on
the frames up to t. The first frame depends only on itself, so a picture is a video of one frame (MAGVIT-2, arXiv:2310.05737,
section 3.2). Videos inside the network are (B, C, T, H, W), the order of PyTorch's convolutions.
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
    """dilation in time of the second convolution of a residual block, in frames"""
    padding: TimePadding = "replicate"
    """padding before the first frame: copies of it, or zeros"""
    causal: bool = True
    """False splits the padding evenly, so that half of a kernel covers later frames"""


class FrameCache:
    """The last input frames of each causal convolution of a network, so that a stream can continue.

    Each convolution reads and writes the slot with its name. `past` holds the frames kept by the previous call, and `kept` those
    for the next one. A cache never changes after the call that returned it, so a stream can continue twice from the same cache.
    """

    def __init__(self, previous: "FrameCache | None" = None):
        self.at_start = previous is None
        self.past: dict[str, Tensor] = {} if previous is None else previous.kept
        self.kept: dict[str, Tensor] = {}

    def keep(self, slot: str, frames: Tensor) -> None:
        """Keep a copy of frames (B, C, T, H, W) for the next call; a slice would keep the whole video in memory."""
        self.kept[slot] = frames.detach().clone()


def name_slots(network: nn.Module) -> None:
    """Give every causal convolution its own cache slot, named after the module."""
    for name, module in network.named_modules():
        if isinstance(module, CausalConv3d):
            module.slot = name


class CausalConv3d(nn.Module):
    """A convolution over 3x3 pixels and `time.kernel` frames, with the padding in time before the first frame.

    stride: (in time, in space). With stride s in time, 1 + s*t frames become 1 + t, and output j depends on frames up to s*j.
    dilation: in time. With dilation d, the kernel covers d * (k_t - 1) earlier frames, and the padding is as long.
    looks_back: False makes a kernel of a single frame.
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
        """key of its frames in a `FrameCache`; set by `name_slots`"""
        kernel = time.kernel if looks_back else 1
        self.reach = dilation * (kernel - 1)
        """earlier frames that it covers"""
        if self.reach + 1 < stride[0]:
            raise ValueError(f"a kernel that spans {self.reach + 1} frames would skip some with a stride of {stride[0]} in time")
        self.convolution = nn.Conv3d(
            in_channels, out_channels, (kernel, 3, 3), (stride[0], stride[1], stride[1]), (0, 1, 1), (dilation, 1, 1)
        )
        see_the_present_only(self.convolution, present=kernel - 1 if time.causal else kernel // 2)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C', T', H', W'), T' = (T - 1) / stride + 1, or T / stride if a stream continues."""
        if self.reach:
            past = None if cache is None else cache.past.get(self.slot)
            x = self._padded(x) if past is None else torch.cat([past, x], dim=2)
            if cache is not None:
                cache.keep(self.slot, x[:, :, x.shape[2] - (self.reach + 1 - self.stride[0]) :])
        return self.convolution(x)

    def _padded(self, x: Tensor) -> Tensor:
        """Add `reach` frames to x: all before it, or half on each side if not causal."""
        behind = 0 if self.time.causal else self.reach // 2
        before = x[:, :, :1].expand(-1, -1, self.reach - behind, -1, -1)
        after = x[:, :, -1:].expand(-1, -1, behind, -1, -1)
        if self.time.padding == "zeros":
            before, after = torch.zeros_like(before), torch.zeros_like(after)
        return torch.cat([before, x, after], dim=2)


@torch.no_grad()
def see_the_present_only(convolution: nn.Conv3d, present: int) -> None:
    """Initialize a convolution to use the present frame only: all other taps become 0, and this one is scaled up to keep the
    variance of activations. A network that starts by mixing frames evenly must first learn which of them to reconstruct. MAGVIT
    does the same with the weights of a trained image tokenizer (central inflation, arXiv:2212.05199); ours are random."""
    weight = convolution.weight  # (C', C, k_t, 3, 3)
    scale = torch.zeros(weight.shape[2], 1, 1)
    scale[present] = weight.shape[2] ** 0.5
    weight.mul_(scale)


class FrameNorm(nn.GroupNorm):
    """GroupNorm of each frame separately. Statistics over a clip would make a frame depend on later ones."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape; every group of channels of a frame has mean 0 and variance 1."""
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", b=x.shape[0])


def num_groups(channels: int) -> int:
    """Groups of 8 channels, but at most 32 groups as in the paper."""
    return min(32, max(1, channels // 8))


def frame_norm(channels: int, affine: bool = True) -> FrameNorm:
    """A FrameNorm with `num_groups` groups."""
    return FrameNorm(num_groups(channels), channels, eps=1e-6, affine=affine)


class AdaptiveNorm(nn.Module):
    """GroupNorm whose scale and shift depend on the codes, as those of StyleGAN depend on its style (arXiv:1812.04948).

    The style of a frame is the mean and standard deviation of its step's codes over all positions, 2D numbers. A linear map turns
    them into a scale and a shift per channel.
    """

    def __init__(self, channels: int, code_length: int):
        super().__init__()
        self.norm = frame_norm(channels, affine=False)
        self.to_scale_and_shift = nn.Linear(2 * code_length, 2 * channels)
        nn.init.zeros_(self.to_scale_and_shift.weight)
        nn.init.zeros_(self.to_scale_and_shift.bias)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """x: (B, C, T, H, W). codes: (B, D, T, h, w), for each frame those of its step. Returns (B, C, T, H, W)."""
        style = torch.cat([codes.mean(dim=(3, 4)), codes.var(dim=(3, 4), correction=0).add(1e-4).sqrt()], dim=1)  # (B, 2D, T)
        scale, shift = self.to_scale_and_shift(style.transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)  # (B, C, T) each
        return self.norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]


class CausalResidualBlock(nn.Module):
    """x + two causal convolutions, each after a norm. The second one is dilated in time, to cover earlier frames."""

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
    """The inverse: (B, C*time*space*space, T, H, W) -> (B, C, T*time, H*space, W*space)."""
    return rearrange(x, "b (c r p q) t h w -> b c (t r) (h p) (w q)", r=time, p=space, q=space)


class Downsample(nn.Module):
    """Halve rows and columns, and divide the frames by `stride`, with a strided convolution."""

    def __init__(self, in_channels: int, out_channels: int, time: TimeSettings, stride: int = 1):
        super().__init__()
        self.convolution = CausalConv3d(in_channels, out_channels, time, stride=(stride, 2), looks_back=stride > 1)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, 1 + stride*T, 2H, 2W). Returns (B, C', 1 + T, H, W)."""
        return self.convolution(x, cache)


class Upsample(nn.Module):
    """Double rows and columns, and turn each step into `stride` frames, with a convolution followed by depth-to-space.

    1 + T steps become stride * (1 + T) frames. The first stride - 1 of them are before the start of the video and are dropped.
    """

    def __init__(self, in_channels: int, out_channels: int, time: TimeSettings, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.convolution = CausalConv3d(in_channels, out_channels * 4 * stride, time, looks_back=stride > 1)

    def forward(self, x: Tensor, cache: FrameCache | None = None) -> Tensor:
        """x: (B, C, 1 + T, H, W). Returns (B, C', 1 + stride*T, 2H, 2W), or stride frames per step if a stream continues."""
        x = depth_to_space(self.convolution(x, cache), self.stride, 2)
        return without_first(x, self.stride, cache)


def without_first(x: Tensor, stride: int, cache: FrameCache | None) -> Tensor:
    """Drop the stride - 1 frames before the start of the video, unless a stream continues. x: (B, C, T, H, W)."""
    return x[:, :, stride - 1 :] if cache is None or cache.at_start else x
