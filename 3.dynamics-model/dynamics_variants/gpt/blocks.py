"""The parts of the autoregressive transformer: positions, attention with a fixed memory, norms and blocks with conditions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from video_tokenizer.models.st_transformer import KeysValues, Mask, TransformerBlock, attention

Rotation = tuple[Tensor, Tensor]
"""cosines and sines (S, d/2) of the angles by which the queries and keys of S tokens turn"""
Attend = Callable[[Tensor, Tensor, Tensor, Mask], Tensor]
"""the one `attention`, or a backend with its arguments"""


def rotation(frames: Tensor, head_dim: int, base: float) -> Rotation:
    """Angles of RoPE (arXiv:2104.09864) for the frame numbers (S,) of S tokens: pair i turns by base^(-2i/d) a frame."""
    speeds = base ** -(torch.arange(0, head_dim, 2, device=frames.device) / head_dim)  # (d/2,)
    angles = frames[:, None] * speeds
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Turn the pairs (x_i, x_{i + d/2}). x: (B, heads, S, d). The product of two turned vectors knows their distance in time."""
    cosine, sine = turn
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1).to(x.dtype)


def alibi_slopes(num_heads: int) -> list[float]:
    """How much each head loses per frame of distance (ALiBi, arXiv:2108.12409): 4 heads have 1/4, 1/16, 1/64, 1/256."""
    return [2 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)]


def attention_with_bias(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V. queries: (B, heads, S, d); bias: (heads, S, R), -inf where a query may not attend.

    PyTorch's flash kernel knows "causal" and no bias, so this leaves it: on CUDA the memory-efficient kernel takes over.
    """
    if queries.is_cuda:
        return F.scaled_dot_product_attention(queries, keys, values, bias.to(queries.dtype))
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5 + bias  # (B, heads, S, R)
    return scores.softmax(dim=-1).to(values.dtype) @ values


class Memory:
    """Keys and values of one block for the frames that attention reaches, in a buffer that never grows."""

    def __init__(self, length: int):
        """length: tokens that fit in."""
        self.length, self.filled = length, 0
        self.buffer: Tensor | None = None  # (2, B, heads, length, d)

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Write keys and values (B, heads, S, d) behind those that are there. Returns all of them."""
        if self.buffer is None:
            self.buffer = keys.new_empty(2, *keys.shape[:2], self.length, keys.shape[-1])
        start, self.filled = self.filled, self.filled + keys.shape[2]
        self.buffer[0, :, :, start : self.filled] = keys
        self.buffer[1, :, :, start : self.filled] = values
        return self.buffer[0, :, :, : self.filled], self.buffer[1, :, :, : self.filled]

    def keep(self, num_tokens: int) -> None:
        """Forget the oldest tokens, so that at most num_tokens are left."""
        too_many = self.filled - num_tokens
        if self.buffer is not None and too_many > 0:
            self.buffer[..., :num_tokens, :] = self.buffer[..., too_many : self.filled, :].clone()
            self.filled = num_tokens


class CausalAttention(nn.Module):
    """Self-attention over the flattened tokens, each of which may turn (RoPE) or lose with distance (ALiBi)."""

    def __init__(self, embed_dim: int, num_heads: int, attend: Attend = attention):
        super().__init__()
        self.num_heads, self.attend = num_heads, attend
        self.to_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Mask, turn: Rotation | None = None, memory: Memory | None = None) -> Tensor:
        """x: (B, S, E). mask: as `attention` takes it, or a bias (heads, S, R). Returns x's update (B, S, E)."""
        queries, keys, values = rearrange(self.to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        if turn is not None:
            queries, keys = rotate(queries, turn), rotate(keys, turn)
        if memory is not None:
            keys, values = memory.append(keys, values)
        if isinstance(mask, Tensor) and mask.is_floating_point():
            mixed = attention_with_bias(queries, keys, values, mask)
        else:
            mixed = self.attend(queries, keys, values, mask)
        return self.output(rearrange(mixed, "b h s d -> b s (h d)"))


class ContextAttention(nn.Module):
    """Cross-attention: every token of a frame attends to the features of whole earlier frames."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.to_queries = nn.Linear(embed_dim, embed_dim, bias=False)
        self.to_keys_values = nn.Linear(embed_dim, 2 * embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim)

    def keys_and_values(self, features: Tensor) -> KeysValues:
        """features: (B*T, R, E). Returns keys and values (B*T, heads, R, d)."""
        keys, values = rearrange(self.to_keys_values(features), "b r (two h d) -> two b h r d", two=2, h=self.num_heads)
        return keys, values

    def forward(self, x: Tensor, context: KeysValues) -> Tensor:
        """x: (B, T, M, E), M tokens of each frame. context: keys and values of the features for each of the B*T frames."""
        queries = rearrange(self.to_queries(x), "b t m (h d) -> (b t) h m d", h=self.num_heads)
        mixed = attention(queries, *context)
        return self.output(rearrange(mixed, "(b t) h m d -> b t m (h d)", b=x.shape[0]))


class ConditionalNorm(nn.Module):
    """LayerNorm whose scale and shift come from a condition: (1 + W_scale c) * normalised x + W_shift c."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.to_scale_and_shift = nn.Linear(embed_dim, 2 * embed_dim, bias=False)

    def forward(self, x: Tensor, scale_and_shift: Tensor) -> Tensor:
        """x: (B, T, M, E). scale_and_shift: (B, T, 1, 2 E), `to_scale_and_shift` of each frame's condition."""
        scale, shift = scale_and_shift.chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), within two hundredths of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class GPTBlock(TransformerBlock):
    """Causal self-attention, attention to the context frames, feed-forward network; each behind a norm that knows the action."""

    def __init__(self, embed_dim: int, num_heads: int, has_context: bool, dropout: float, attend: Attend = attention):
        super().__init__()
        self.attention_norm = ConditionalNorm(embed_dim)
        self.attention = CausalAttention(embed_dim, num_heads, attend)
        self.context_norm = ConditionalNorm(embed_dim) if has_context else None
        self.context_attention = ContextAttention(embed_dim, num_heads) if has_context else None
        self.feed_forward_norm = ConditionalNorm(embed_dim)
        self.feed_forward = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), QuickGELU(), nn.Linear(4 * embed_dim, embed_dim))
        self.dropout = nn.Dropout(dropout)

    def conditions(self, condition: Tensor, features: Tensor | None) -> tuple[list[Tensor], KeysValues | None]:
        """What the block needs to know of a frame, computed once for all of its tokens.

        condition: (B, T, 1, E), of the action. features: (B*T, R, E), of the frames before. Returns the scales and shifts of the
        norms, and the keys and values of the features.
        """
        norms = [self.attention_norm, *([self.context_norm] if self.context_norm else []), self.feed_forward_norm]
        context = self.context_attention.keys_and_values(features) if self.context_attention else None  # type: ignore[arg-type]
        return [norm.to_scale_and_shift(condition) for norm in norms], context

    def forward(
        self, x: Tensor, norms: list[Tensor], context: KeysValues | None, mask: Mask, turn: Rotation | None, memory: Memory | None
    ) -> Tensor:
        """x: (B, T, M, E), M tokens of each of T frames. norms, context: from `conditions`. Returns the same shape."""
        tokens = self.attention_norm(x, norms[0]).flatten(1, 2)  # (B, T*M, E): one sequence, frame after frame
        x = x + self.dropout(self.attention(tokens, mask, turn, memory)).view(x.shape)
        if self.context_norm is not None and self.context_attention is not None and context is not None:
            x = x + self.dropout(self.context_attention(self.context_norm(x, norms[1]), context))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x, norms[-1])))


class GridPositions(nn.Module):
    """Learned vectors of frame, row and column, side by side; without the frame where attention itself knows the time."""

    def __init__(self, embed_dim: int, grid_size: tuple[int, int], time_rows: int):
        """time_rows: rows of the table of frames, which repeats after the last; 0: none."""
        super().__init__()
        self.grid_size, self.time_rows = grid_size, time_rows
        part = embed_dim // 3 if time_rows else 0
        height_part = (embed_dim - part) // 2
        self.time = nn.Embedding(time_rows, part) if time_rows else None
        self.rows = nn.Embedding(grid_size[0], height_part)
        self.columns = nn.Embedding(grid_size[1], embed_dim - part - height_part)
        for table in self.children():
            nn.init.normal_(table.weight, std=0.5)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (B, T) int64, numbers of the frames. Returns (B, T, N, E)."""
        height, width = self.grid_size
        space = torch.cat([self.rows.weight.repeat_interleave(width, dim=0), self.columns.weight.repeat(height, 1)], dim=-1)
        space = space.expand(*frames.shape, -1, -1)  # (B, T, N, .)
        if self.time is None:
            return space
        time = self.time(frames % self.time_rows)  # (B, T, .)
        return torch.cat([time[:, :, None].expand(-1, -1, height * width, -1), space], dim=-1)


class FrameFeatures(nn.Module):
    """A ResNet over the codes of one frame: unlike a causal token, a cell of it knows its neighbours on all sides."""

    def __init__(self, code_length: int, embed_dim: int, grid_size: tuple[int, int], num_blocks: int):
        super().__init__()
        self.grid_size = grid_size
        self.stem = nn.Conv2d(code_length, embed_dim, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(embed_dim) for _ in range(num_blocks))
        self.places = nn.Parameter(0.5 * torch.randn(grid_size[0] * grid_size[1], embed_dim))

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns (B, T, N, E)."""
        height, width = self.grid_size
        x = self.stem(rearrange(codes, "b t (h w) d -> (b t) d h w", h=height, w=width))
        for block in self.blocks:
            x = block(x)
        return rearrange(x, "(b t) e h w -> b t (h w) e", b=codes.shape[0]) + self.places


class ResidualBlock(nn.Module):
    """Norm over the channels, then convolutions of 1x1, 3x3 and 1x1, the middle one at half the width."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.shrink = nn.Conv2d(channels, channels // 2, 1)
        self.mix = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
        self.grow = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, E, H, W). Returns the same shape."""
        inner = F.gelu(self.mix(F.gelu(self.shrink(F.gelu(self.norm(x))))))
        return x + self.grow(inner)
