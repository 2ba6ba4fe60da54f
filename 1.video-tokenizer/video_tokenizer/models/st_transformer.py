"""The space-time transformer: attention inside a frame, then over time, then a feed-forward network (solutions 5 to 7)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KeysValues = tuple[Tensor, Tensor]
Conditioning = list[Tensor] | None
Mask = Tensor | Literal["causal"] | None


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, the one place where attention is computed.

    queries: (..., S, d), keys and values: (..., R, d). mask: (S, R) bool, True where a query may attend; "causal" if each may
    attend to itself and all before it, for which CUDA has its fastest kernel. Returns (..., S, d).
    On CUDA the fused kernels are fastest. On CPU their bfloat16 backward pass is several times slower than the lines below.
    """
    if queries.is_cuda:
        is_causal = isinstance(mask, str)
        return F.scaled_dot_product_attention(queries, keys, values, None if is_causal else mask, is_causal=is_causal)
    if isinstance(mask, str):
        mask = causal_mask(queries.shape[-2], queries.shape[-2], device=queries.device)
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5  # (..., S, R)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ values


def causal_mask(num_frames: int, window: int, num_past: int = 0, device: torch.device | None = None) -> Tensor:
    """(T, past + T) bool, True where frame t may attend to frame s: not later than t, and at most window - 1 frames back.

    Three frames, window 2, no past:   1 0 0
                                       1 1 0
                                       0 1 1
    """
    now = torch.arange(num_past, num_past + num_frames, device=device)[:, None]
    then = torch.arange(num_past + num_frames, device=device)[None, :]
    return (then <= now) & (then > now - window)


@dataclass
class KVCache:
    """Keys and values of the last window - 1 frames, per block.

    It does not grow: memory and cost of a step are the same at frame 10 and at frame 10,000.
    """

    position: int = 0
    """number of frames seen so far"""
    blocks: list[KeysValues] = field(default_factory=list)
    """one pair per block, each (B*N, heads, at most window - 1, head_dim)"""

    @property
    def num_kept(self) -> int:
        """frames whose keys and values are cached"""
        return self.blocks[0][0].shape[2] if self.blocks else 0


class MultiHeadAttention(nn.Module):
    """Self-attention over sequences, with optional keys and values of earlier frames to attend to (`past_kv`)."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int | None = None):
        """head_dim: length d of a head's queries, keys and values; None: embed_dim / num_heads."""
        super().__init__()
        self.num_heads = num_heads
        inner_dim = embed_dim if head_dim is None else num_heads * head_dim
        self.to_qkv = nn.Linear(embed_dim, 3 * inner_dim, bias=False)
        self.output = nn.Linear(inner_dim, embed_dim, bias=False)

    def forward(self, x: Tensor, mask: Mask = None, past_kv: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """x: (batch, S, E). past_kv: keys and values (batch, heads, M, d) put before x's own.

        Returns x's update (batch, S, E), and x's own keys and values.
        """
        queries, keys, values = rearrange(self.to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        own = (keys, values)
        if past_kv is not None:
            keys, values = torch.cat([past_kv[0], keys], dim=2), torch.cat([past_kv[1], values], dim=2)
        mixed = attention(queries, keys, values, mask)
        return self.output(rearrange(mixed, "b h s d -> b s (h d)")), own

    def keys_and_values(self, x: Tensor) -> KeysValues:
        """The keys and values of x alone, as `forward` returns them. x: (batch, S, E)."""
        _, keys, values = rearrange(self.to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        return keys, values


class SwiGLU(nn.Module):
    """Feed-forward network with a gate (arXiv:2002.05202): silu(x W_gate) * (x W_value), then back to E."""

    def __init__(self, embed_dim: int, hidden_dim: int | None = None):
        super().__init__()
        # 8/3 E instead of the usual 4 E: three matrices then have the parameters of two
        hidden = 32 * round(embed_dim * 8 / 3 / 32) if hidden_dim is None else hidden_dim
        self.gate_and_value = nn.Linear(embed_dim, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., E). Returns (..., E)."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.output(F.silu(gate) * value)


class TransformerBlock(nn.Module):
    """A block of a transformer, the main line's or a variant's: the optimizer and sharding find it by this mark."""

    is_transformer_block = True


class SpaceTimeBlock(TransformerBlock):
    """Attention inside each frame, causal attention over time at each position, one feed-forward (Genie, arXiv:2402.15391)."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int | None = None):
        super().__init__()
        self.space_norm = nn.LayerNorm(embed_dim)
        self.space_attention = MultiHeadAttention(embed_dim, num_heads, head_dim)
        self.time_norm = nn.LayerNorm(embed_dim)
        self.time_attention = MultiHeadAttention(embed_dim, num_heads, head_dim)
        self.feed_forward_norm = nn.LayerNorm(embed_dim)
        self.feed_forward = SwiGLU(embed_dim)

    def forward(self, x: Tensor, time_mask: Mask, past_kv: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """x: (B, T, N, E). time_mask: (T, M + T). past_kv: keys and values of M earlier frames.

        Returns x (B, T, N, E), and its own keys and values.
        """
        x = self.attend_space(x)
        columns = rearrange(x, "b t n e -> (b n) t e")  # each position is a sequence of T frames
        update, own = self.time_attention(self.time_norm(columns), time_mask, past_kv)
        x = x + rearrange(update, "(b n) t e -> b t n e", n=x.shape[2])
        return x + self.feed_forward(self.feed_forward_norm(x)), own

    def attend_space(self, x: Tensor) -> Tensor:
        """Attention inside each frame, the first third of the block. x: (B, T, N, E)."""
        frames = rearrange(x, "b t n e -> (b t) n e")  # each frame is a sequence of N patches
        update, _ = self.space_attention(self.space_norm(frames))
        return x + rearrange(update, "(b t) n e -> b t n e", b=x.shape[0])

    def prefill_kv(self, x: Tensor) -> KeysValues:
        """Only the keys and values that `forward` returns. x: (B, T, N, E)."""
        columns = rearrange(self.attend_space(x), "b t n e -> (b n) t e")
        return self.time_attention.keys_and_values(self.time_norm(columns))


class SpaceTimeTransformer(nn.Module):
    """A stack of space-time blocks. Frame t attends to frames t - window + 1 to t, never to a later one."""

    def __init__(
        self, embed_dim: int, num_heads: int, num_blocks: int, window: int, activation_checkpointing: bool = False,
        head_dim: int | None = None,
    ):  # fmt: skip
        super().__init__()
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.window = window
        self.activation_checkpointing = activation_checkpointing
        self.blocks = nn.ModuleList(SpaceTimeBlock(embed_dim, num_heads, head_dim) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, N, E), all frames at once. Returns the same shape, normalised."""
        return self.run(x, self._mask_of(x))[0]

    def step(self, x: Tensor, cache: KVCache | None, conditioning: Conditioning = None) -> tuple[Tensor, KVCache]:
        """The same for frames that follow those in the cache: x (B, T_new, N, E). Returns their output and the new cache."""
        cache = cache or KVCache()
        mask = causal_mask(x.shape[1], self.window, cache.num_kept, x.device)
        output, own = self.run(x, mask, cache.blocks or None, conditioning)
        kept = [last_frames(old, new, self.window) for old, new in zip(cache.blocks or [None] * len(own), own, strict=True)]
        return output, KVCache(cache.position + x.shape[1], kept)

    def run(
        self, x: Tensor, mask: Mask, past_kv: list[KeysValues] | None = None, conditioning: Conditioning = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Every block in turn. x: (B, T, N, E); mask: (T, M + T).

        past_kv: per block, keys and values of M earlier frames. conditioning: per block, what is added to x before it,
        broadcast to (B, T, N, E). Returns the normalised output and per block x's own keys and values.
        """
        x, kept = self._run_blocks(x, len(self.blocks), mask, past_kv, conditioning)
        return self.norm(x), kept

    def prefill_kv(self, x: Tensor, conditioning: Conditioning = None) -> list[KeysValues]:
        """Per block, the keys and values of frames x (B, T, N, E). Unlike `run` it skips most of the last block."""
        last = len(self.blocks) - 1
        x, kept = self._run_blocks(x, last, self._mask_of(x), None, conditioning)
        if conditioning is not None:
            x = x + conditioning[last]
        return [*kept, self.blocks[last].prefill_kv(x)]  # type: ignore[operator]

    def _mask_of(self, x: Tensor) -> Mask:
        """The mask of frames x (B, T, N, E) without a past: in a clip no longer than the window, only later frames are hidden."""
        return "causal" if x.shape[1] <= self.window else causal_mask(x.shape[1], self.window, device=x.device)

    def _run_blocks(
        self, x: Tensor, num_blocks: int, mask: Mask, past_kv: list[KeysValues] | None, conditioning: Conditioning
    ) -> tuple[Tensor, list[KeysValues]]:
        kept: list[KeysValues] = []
        for number, block in enumerate(self.blocks[:num_blocks]):
            if conditioning is not None:
                x = x + conditioning[number]
            past = past_kv[number] if past_kv is not None else None
            if self.activation_checkpointing and self.training:
                x, own = checkpoint(block, x, mask, past, use_reentrant=False)
            else:
                x, own = block(x, mask, past)
            kept.append(own)
        return x, kept


def last_frames(past_kv: KeysValues | None, own: KeysValues, window: int) -> KeysValues:
    """Keys and values of the last window - 1 frames: all that a later frame may attend to."""
    keys, values = own if past_kv is None else (torch.cat([past_kv[0], own[0]], dim=2), torch.cat([past_kv[1], own[1]], dim=2))
    first = max(0, keys.shape[2] - (window - 1))
    return keys[:, :, first:], values[:, :, first:]
