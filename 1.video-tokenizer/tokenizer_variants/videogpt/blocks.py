"""The building blocks of VideoGPT's tokenizer: strided 3D convolutions, and residual blocks with axial attention."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer_variants.conv3d_workaround import Float32TwoFrameConv3d
from video_tokenizer.models.st_transformer import MultiHeadAttention

Stride = tuple[int, int, int]
"""factors along (T, H, W)"""


def stage_strides(time_stride: int, space_stride: int) -> list[Stride]:
    """Split the strides into stages of at most 2 per axis: time 2, space 8 -> (2, 2, 2), (1, 2, 2), (1, 2, 2)."""
    stages = max(time_stride, space_stride).bit_length() - 1  # 8 -> 3
    step = [tuple(2 if factor >= 2 ** (stage + 1) else 1 for factor in (time_stride, space_stride)) for stage in range(stages)]
    return [(time, space, space) for time, space in step]


def kernel_of(stride: Stride) -> Stride:
    """4 along an axis with stride 2, else 3. With a padding of 1, the output is then exactly half, double or the same length."""
    time, height, width = (4 if step == 2 else 3 for step in stride)
    return time, height, width


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each cell, which depends on no other cell or clip, unlike BatchNorm."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns the same shape."""
        return rearrange(self.norm(rearrange(x, "b c t h w -> b t h w c")), "b t h w c -> b c t h w")


class AxialPositions(nn.Module):
    """Position embeddings: the sum of a learned vector for the step, one for the row and one for the column."""

    def __init__(self, channels: int, grid: Sequence[int]):
        """grid: steps, rows and columns of latents."""
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(length, channels) for length in grid)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.5)  # type: ignore[arg-type]  # about the scale of the features they are added to

    def forward(self, num_steps: int) -> Tensor:
        """The vectors of the first num_steps steps: (T, H, W, C)."""
        time, rows, columns = (table.weight for table in self.tables)
        return time[:num_steps, None, None] + rows[:, None] + columns  # type: ignore[index, operator]


class AxialAttention(nn.Module):
    """The sum of three attentions over the same input, each along one axis (arXiv:1912.12180).

    In a 4 x 8 x 8 grid, every cell attends to 4 + 8 + 8 = 20 cells instead of 256. Attention over time is not causal.
    """

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.along_time = MultiHeadAttention(channels, num_heads)
        self.along_height = MultiHeadAttention(channels, num_heads)
        self.along_width = MultiHeadAttention(channels, num_heads)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """x: (B, C, T, H, W). places: (T, H, W, C). Returns (B, C, T, H, W)."""
        size = dict(zip("thw", x.shape[2:], strict=True))
        x = rearrange(x, "b c t h w -> b t h w c") + places
        over_time, _ = self.along_time(rearrange(x, "b t h w c -> (b h w) t c"))
        over_rows, _ = self.along_height(rearrange(x, "b t h w c -> (b t w) h c"))
        over_columns, _ = self.along_width(rearrange(x, "b t h w c -> (b t h) w c"))
        return (
            rearrange(over_time, "(b h w) t c -> b c t h w", h=size["h"], w=size["w"])
            + rearrange(over_rows, "(b t w) h c -> b c t h w", t=size["t"], w=size["w"])
            + rearrange(over_columns, "(b t h) w c -> b c t h w", t=size["t"], h=size["h"])
        )


class AxialResidualBlock(nn.Module):
    """x + [norm, ReLU, 3x3x3 convolution to fewer channels, norm, ReLU, 1x1x1 convolution back, norm, ReLU, axial attention]."""

    def __init__(self, channels: int, inner_channels: int, num_heads: int):
        """num_heads: 0 omits the attention and the norm in front of it."""
        super().__init__()
        self.convolutions = nn.Sequential(
            ChannelNorm(channels),
            nn.ReLU(),
            Float32TwoFrameConv3d(nn.Conv3d(channels, inner_channels, 3, padding=1, bias=False)),
            ChannelNorm(inner_channels),
            nn.ReLU(),
            nn.Conv3d(inner_channels, channels, 1, bias=False),
        )
        self.before_attention = nn.Sequential(ChannelNorm(channels), nn.ReLU()) if num_heads else None
        self.attention = AxialAttention(channels, num_heads) if num_heads else None

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        """x: (B, C, T, H, W). places: (T, H, W, C), None without attention. Returns (B, C, T, H, W)."""
        update = self.convolutions(x)
        if self.attention is not None and self.before_attention is not None:
            update = self.attention(self.before_attention(update), places)
        return x + update


class ResidualStack(nn.Module):
    """Residual blocks, then a norm and a ReLU."""

    def __init__(self, channels: int, inner_channels: int, num_heads: int, num_blocks: int, checkpointing: bool = False):
        """num_heads: 0 for the baseline without attention, which has more blocks, so that it has about as many parameters."""
        super().__init__()
        if not num_heads:
            num_blocks = blocks_without_attention(channels, inner_channels, num_blocks)
        self.blocks = nn.ModuleList(AxialResidualBlock(channels, inner_channels, num_heads) for _ in range(num_blocks))
        self.output = nn.Sequential(ChannelNorm(channels), nn.ReLU())
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C, T, H, W)."""
        recompute = self.checkpointing and self.training
        for block in self.blocks:
            x = checkpoint(block, x, places, use_reentrant=False) if recompute else block(x, places)  # type: ignore[assignment]
        return self.output(x)


def blocks_without_attention(channels: int, inner_channels: int, num_blocks: int) -> int:
    """How many blocks without attention have about as many parameters as num_blocks with attention.

    With 64 channels, a block has 106,816 parameters with attention and 57,536 without. Two of the first match 3.7, rounded to 4,
    of the second. This is the baseline of an experiment in LOG.md.
    """

    def parameters(num_heads: int) -> int:
        with torch.device("meta"):  # allocates no memory
            return sum(parameter.numel() for parameter in AxialResidualBlock(channels, inner_channels, num_heads).parameters())

    return round(num_blocks * parameters(1) / parameters(0))


class Encoder(nn.Module):
    """Pixels to features: strided 3D convolutions downsample time and space, then residual blocks."""

    def __init__(self, channels: int, strides: Sequence[Stride], stack: ResidualStack):
        super().__init__()
        widths = [3] + [channels] * len(strides)
        self.shorten = nn.Sequential()
        for stride, inputs, outputs in zip(strides, widths[:-1], widths[1:], strict=True):
            convolution = nn.Conv3d(inputs, outputs, kernel_of(stride), stride, padding=1)
            self.shorten.extend([Float32TwoFrameConv3d(convolution), nn.ReLU()])
        self.shorten.append(Float32TwoFrameConv3d(nn.Conv3d(channels, channels, 3, padding=1)))
        self.stack = stack

    def forward(self, video: Tensor, places: Tensor | None) -> Tensor:
        """video: (B, T, 3, H, W) in [-0.5, 0.5]. Returns (B, C, T / time_stride, H / space_stride, W / space_stride)."""
        return self.stack(self.shorten(rearrange(video, "b t c h w -> b c t h w")), places)


class Decoder(nn.Module):
    """Features to pixels, the mirror image of the encoder: residual blocks, then transposed 3D convolutions."""

    def __init__(self, channels: int, strides: Sequence[Stride], stack: ResidualStack):
        super().__init__()
        widths = [channels] * len(strides) + [3]
        self.stack = stack
        self.lengthen = nn.Sequential()
        for stride, inputs, outputs in zip(reversed(strides), widths[:-1], widths[1:], strict=True):
            convolution = nn.ConvTranspose3d(inputs, outputs, kernel_of(stride), stride, padding=1)
            self.lengthen.extend([Float32TwoFrameConv3d(convolution), nn.ReLU()])
        del self.lengthen[-1]  # no ReLU after the pixels

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        """x: (B, C, T / time_stride, H / space_stride, W / space_stride). Returns video (B, T, 3, H, W), centered at 0."""
        return rearrange(self.lengthen(self.stack(x, places)), "b c t h w -> b t c h w")
