"""A transformer over one flat sequence of tokens: full attention inside a block of frames, causal attention between blocks.

The space-time block of chapter 1 attends inside a frame, then over time. Here the tokens of several frames form one sequence, and
a single attention does both: a token attends to all tokens of its block and of earlier blocks (ElasticTok, Yan, "Learning About
The World Through Video Generation", EECS-2024-193, chapter 4). Attention, SwiGLU and caches are those of chapter 1.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer_variants.dreamer4.block_causal_transformer import RootMeanSquareNorm, angles, rotate
from video_tokenizer.models.st_transformer import KeysValues, SwiGLU, TransformerBlock, attention


class BlockwiseAttention(nn.Module):
    """Full attention inside a block, causal attention across blocks. window: blocks to attend to, the present one included."""

    def __init__(self, embed_dim: int, num_heads: int, window: int):
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.to_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(
        self, x: Tensor, block_length: int, turns: Tensor, past_kv: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x: (B, S, E), blocks of block_length tokens; the last block may be shorter. turns: (M + S, d/2) radians.
        past_kv: keys and values (B, heads, M, d) of complete blocks before x.

        Returns the update of x, (B, S, E), and the keys and values of the last window - 1 blocks, for the next call. Keys are
        cached before rotation and rotated by their position in the window. Rotary attention depends on distances only, so
        positions never exceed those of training, however long the stream.
        """
        queries, keys, values = rearrange(self.to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        if past_kv is not None:
            keys, values = torch.cat([past_kv[0], keys], dim=2), torch.cat([past_kv[1], values], dim=2)  # (B, heads, M + S, d)
        total, past = keys.shape[2], keys.shape[2] - x.shape[1]
        turned_queries, turned_keys = rotate(queries, turns[past:]), rotate(keys, turns)
        mixed = []
        for first in range(past, total, block_length):  # no mask is needed: each block gets only the keys it may attend to
            last = min(first + block_length, total)
            window = slice(max(0, first - (self.window - 1) * block_length), last)
            block_queries = turned_queries[:, :, first - past : last - past]
            mixed.append(attention(block_queries, turned_keys[:, :, window], values[:, :, window]))
        update = self.output(rearrange(torch.cat(mixed, dim=2), "b h s d -> b s (h d)"))
        kept = max(0, total - (self.window - 1) * block_length)
        return update, (keys[:, :, kept:], values[:, :, kept:])


class BlockwiseLayer(TransformerBlock):
    """Attention, then a gated feed-forward network, each after an RMSNorm (arXiv:1910.07467)."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, window: int):
        super().__init__()
        self.attention_norm = RootMeanSquareNorm(embed_dim)
        self.attention = BlockwiseAttention(embed_dim, num_heads, window)
        self.feed_forward_norm = RootMeanSquareNorm(embed_dim)
        self.feed_forward = SwiGLU(embed_dim, hidden_dim)

    def forward(
        self, x: Tensor, block_length: int, turns: Tensor, past_kv: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x: (B, S, E); the rest as in `BlockwiseAttention`. Returns x (B, S, E), and the keys and values to cache."""
        update, kept = self.attention(self.attention_norm(x), block_length, turns, past_kv)
        x = x + update
        return x + self.feed_forward(self.feed_forward_norm(x)), kept


class BlockwiseTransformer(nn.Module):
    """A stack of blockwise layers. A longer context needs no new parameters, only a larger window.

    block_frames: frames per block. window: blocks to attend to, the present one included. base: the slowest rotary pair turns by
    about 1/base radians per token.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_layers: int,
        hidden_dim: int,
        block_frames: int,
        window: int,
        base: float = 10_000.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        self.num_pairs, self.base = embed_dim // num_heads // 2, base
        self.block_frames = block_frames
        self.activation_checkpointing = activation_checkpointing
        self.layers = nn.ModuleList(BlockwiseLayer(embed_dim, num_heads, hidden_dim, window) for _ in range(num_layers))
        self.norm = RootMeanSquareNorm(embed_dim)

    def forward(self, x: Tensor, cache: list[KeysValues] | None = None) -> tuple[Tensor, list[KeysValues]]:
        """x: (B, T, N, E), frames that follow those in the cache. Returns the same shape, normalized, and the new cache.

        cache: per layer, keys and values of at most window - 1 blocks; its size does not grow with time.
        """
        num_frames, num_patches = x.shape[1:3]
        x = rearrange(x.float(), "b t n e -> b (t n) e")  # one sequence of tokens
        past = cache[0][0].shape[2] if cache else 0
        turns = angles(torch.arange(past + x.shape[1], device=x.device), self.num_pairs, self.base)  # (M + S, d/2)
        block_length = self.block_frames * num_patches
        kept = []
        for number, layer in enumerate(self.layers):
            past_kv = cache[number] if cache else None
            if self.activation_checkpointing and self.training:
                x, own = checkpoint(layer, x, block_length, turns, past_kv, use_reentrant=False)  # type: ignore[misc]
            else:
                x, own = layer(x, block_length, turns, past_kv)
            kept.append(own)
        return self.norm(rearrange(x, "b (t n) e -> b t n e", t=num_frames)), kept
