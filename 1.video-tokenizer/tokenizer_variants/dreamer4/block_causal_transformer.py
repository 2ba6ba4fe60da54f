"""Dreamer 4's transformer: most layers attend inside a step, and every fourth layer attends over time instead.

One class for two models (arXiv:2509.24527): the tokenizer here, and a dynamics model over its latents. Its interface:

    tokens       (B, T, S, E): T steps of S tokens, of any kinds, in a fixed order
    step_mask    (S, S) bool, True where token i may attend to token j of the same step; every token attends to itself
    places       (S, 2) row and column of each token, for rotary positions inside a step; (0, 0) for a token without a position
    time         token i of step t attends to token i of the steps t - window + 1 ... t, never to a later one
    cache        keys and values of the last window - 1 steps of every time layer; its size does not grow with time

`forward` takes all steps at once; `step` takes the next steps and the cache. The two agree for streams of any length: keys are
cached before rotation, so attention depends on the distance between two steps, never on their absolute numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from video_tokenizer.models.st_transformer import (
    KeysValues,
    KVCache,
    SwiGLU,
    TransformerBlock,
    attention,
    causal_mask,
    last_frames,
)

SPACE_BASE, TIME_BASE = 100.0, 10_000.0
"""the slowest rotary pair turns by about 1/base radians per token: slow enough for 100 patches per axis, and for any context"""


@dataclass(frozen=True)
class BlockCausalSizes:
    """The sizes of a block-causal transformer."""

    embed_dim: int
    """width (E); a multiple of 4 * num_heads, because a head's rotary pairs are shared between rows and columns"""
    num_heads: int
    num_layers: int
    window: int
    """steps that attention over time covers, the present one included"""
    time_every: int = 4
    """one layer in this many attends over time, the others inside the step"""
    key_value_heads: int | None = None
    """heads of keys and values, each shared by several query heads (GQA, arXiv:2305.13245); None: as many as query heads"""
    query_key_scale: float = 2.0
    """initial value of the learned scale of normalized queries and keys. At 1, the scores of different tokens differ by about 1,
    and attention is nearly a mean over all of them; at 2, they differ by about 4, and attention selects a few"""
    soft_cap: float = 0.0
    """attention scores s become cap * tanh(s / cap) (arXiv:2408.00118); 0 is off"""
    activation_checkpointing: bool = False


def step_mask(group_sizes: Sequence[int], attends_to: Sequence[Sequence[int]]) -> Tensor:
    """(S, S) bool: attends_to[i][j] is 1 where tokens of group i may attend to those of group j.

    Two latents that attend to all tokens, and a patch that attends to itself:
    step_mask([2, 1], [[1, 1], [0, 1]])  is  1 1 1
                                             1 1 1
                                             0 0 1
    """
    group_of = [group for group, size in enumerate(group_sizes) for _ in range(size)]  # (S,)
    return torch.tensor(attends_to).bool()[group_of][:, group_of]


def angles(positions: Tensor, num_pairs: int, base: float) -> Tensor:
    """Rotation angle of each pair of numbers (RoPE, arXiv:2104.09864).

    positions: (S,). Returns (S, num_pairs) radians: per position, 1 for the first pair and about 1/base for the last.
    """
    rates = base ** (-torch.arange(num_pairs, device=positions.device) / num_pairs)
    return positions[:, None].float() * rates


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate every pair of neighboring numbers, as a complex number. x: (..., S, d); turns: (S, d/2) radians.

    The dot product of two rotated vectors depends only on the difference of their angles: positions 5 and 3 give the same as 2
    and 0.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (..., S, d/2)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(turns), turns)).flatten(-2).to(x.dtype)


class RootMeanSquareNorm(nn.Module):
    """Divide each vector by its root mean square (RMSNorm, arXiv:1910.07467). For (3, 4) it is 3.54, which gives (0.85, 1.13)."""

    def __init__(self, length: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(length))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., length), any float dtype. Returns the same shape and dtype."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)  # sqrt(n) times the root mean square
        return x * (x.shape[-1] ** 0.5 / (length + 1e-6)).to(x.dtype) * self.weight.to(x.dtype)


class RotaryAttention(nn.Module):
    """Attention with normalized queries and keys (QK-norm), rotary positions, grouped queries (GQA) and a soft cap."""

    def __init__(self, sizes: BlockCausalSizes):
        super().__init__()
        self.num_heads, self.soft_cap = sizes.num_heads, sizes.soft_cap
        self.key_value_heads = sizes.key_value_heads or sizes.num_heads
        head_dim = sizes.embed_dim // sizes.num_heads
        self.to_qkv = nn.Linear(sizes.embed_dim, (self.num_heads + 2 * self.key_value_heads) * head_dim, bias=False)
        self.query_norm = RootMeanSquareNorm(head_dim)
        self.key_norm = RootMeanSquareNorm(head_dim)
        for norm in (self.query_norm, self.key_norm):
            nn.init.constant_(norm.weight, sizes.query_key_scale)
        self.output = nn.Linear(sizes.embed_dim, sizes.embed_dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor, turns: Tensor, past_kv: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """x: (batch, S, E). mask: (S, M + S). turns: (M + S, d/2). past_kv: earlier keys and values (batch, heads, M, d).

        Returns the update of x, (batch, S, E), and the keys and values of x, before rotation.
        """
        heads = rearrange(self.to_qkv(x), "b s (h d) -> b h s d", d=self.query_norm.weight.shape[0])
        queries, keys, values = heads.split([self.num_heads, self.key_value_heads, self.key_value_heads], dim=1)
        queries, keys = self.query_norm(queries), self.key_norm(keys)
        own = (keys, values)
        if past_kv is not None:
            keys, values = torch.cat([past_kv[0], keys], dim=2), torch.cat([past_kv[1], values], dim=2)
        queries, keys = rotate(queries, turns[-x.shape[1] :]), rotate(keys, turns)
        shared = self.num_heads // self.key_value_heads
        if shared > 1:
            keys, values = keys.repeat_interleave(shared, dim=1), values.repeat_interleave(shared, dim=1)
        mixed = self._attend(queries, keys, values, mask)
        return self.output(rearrange(mixed, "b h s d -> b s (h d)")), own

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if not self.soft_cap:
            return attention(queries, keys, values, mask)
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5  # (..., S, M + S)
        scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
        return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ values


class BlockCausalLayer(TransformerBlock):
    """One attention, inside the step or over time, and one feed-forward network, each after its own norm."""

    def __init__(self, sizes: BlockCausalSizes, looks_back: bool):
        super().__init__()
        self.looks_back = looks_back
        self.attention_norm = RootMeanSquareNorm(sizes.embed_dim)
        self.attention = RotaryAttention(sizes)
        self.feed_forward_norm = RootMeanSquareNorm(sizes.embed_dim)
        self.feed_forward = SwiGLU(sizes.embed_dim)

    def forward(self, x: Tensor, mask: Tensor, turns: Tensor, past_kv: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """x: (B, T, S, E). mask, turns, past_kv: as in `RotaryAttention`, over T steps if looks_back, else over S tokens.

        Returns x (B, T, S, E), and its keys and values.
        """
        batch_size = x.shape[0]
        pattern = "(b s) t e" if self.looks_back else "(b t) s e"
        sequences = rearrange(self.attention_norm(x), f"b t s e -> {pattern}")
        update, own = self.attention(sequences, mask, turns, past_kv)
        x = x + rearrange(update, f"{pattern} -> b t s e", b=batch_size)
        return x + self.feed_forward(self.feed_forward_norm(x)), own


class BlockCausalTransformer(nn.Module):
    """A stack of layers over steps of S tokens; see the top of this file. step_mask: (S, S); places: (S, 2)."""

    step_mask: Tensor
    step_turns: Tensor

    def __init__(self, sizes: BlockCausalSizes, step_mask: Tensor, places: Tensor):
        super().__init__()
        if step_mask.shape != (len(places), len(places)):
            raise ValueError(f"step_mask has shape {tuple(step_mask.shape)}; it needs {len(places)} rows and columns")
        self.sizes = sizes
        self.num_pairs = sizes.embed_dim // sizes.num_heads // 2
        self.register_buffer("step_mask", step_mask, persistent=False)
        rows_and_columns = [angles(axis, self.num_pairs // 2, SPACE_BASE) for axis in places.unbind(dim=1)]
        self.register_buffer("step_turns", torch.cat(rows_and_columns, dim=-1), persistent=False)  # (S, d/2)
        # the second layer of each group, so that later layers can spread what it reads from the past to the rest of the step
        self.time_layers = [number for number in range(sizes.num_layers) if number % sizes.time_every == 1]
        self.layers = nn.ModuleList(BlockCausalLayer(sizes, number in self.time_layers) for number in range(sizes.num_layers))
        self.norm = RootMeanSquareNorm(sizes.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, S, E), all steps at once. Returns the same shape, normalized."""
        return self._run(x, KVCache())[0]

    def step(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """`forward` for steps that follow those in the cache. x: (B, T_new, S, E). Returns the output and the new cache."""
        cache = cache or KVCache()
        output, own = self._run(x, cache)
        past = cache.blocks or [None] * len(own)
        kept = [last_frames(old, new, self.sizes.window) for old, new in zip(past, own, strict=True)]
        return output, KVCache(cache.position + x.shape[1], kept)

    def _run(self, x: Tensor, cache: KVCache) -> tuple[Tensor, list[KeysValues]]:
        """Returns the normalized output (B, T, S, E), and the keys and values of x for each time layer."""
        num_past, num_steps = cache.num_kept, x.shape[1]
        time_mask = causal_mask(num_steps, self.sizes.window, num_past, x.device)
        time_turns = angles(torch.arange(num_past + num_steps, device=x.device), self.num_pairs, TIME_BASE)
        past_kv = dict(zip(self.time_layers, cache.blocks, strict=False))  # empty at the start of a stream
        kept = []
        for number, layer in enumerate(self.layers):
            back = number in self.time_layers
            mask, turns = (time_mask, time_turns) if back else (self.step_mask, self.step_turns)
            if self.sizes.activation_checkpointing and self.training:
                x, own = checkpoint(layer, x, mask, turns, past_kv.get(number), use_reentrant=False)
            else:
                x, own = layer(x, mask, turns, past_kv.get(number))
            if back:
                kept.append(own)
        return self.norm(x), kept
