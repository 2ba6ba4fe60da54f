"""A transformer over one flat line of tokens: everything inside a block of frames sees everything, and blocks see the past.

Chapter 1's space-time block looks around in a frame and back in time in two steps. Here the tokens of several frames stand in one
line, and one attention does both: a token looks at all tokens of its own block and of the blocks before it (ElasticTok, Yan,
"Learning About The World Through Video Generation", EECS-2024-193, chapter 4). Attention, gate and caches are chapter 1's.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer_variants.dreamer4.block_causal_transformer import RootMeanSquareNorm, angles, rotate
from video_tokenizer.models.st_transformer import KeysValues, MultiHeadAttention, SwiGLU, TransformerBlock, attention


class BlockwiseAttention(MultiHeadAttention):
    """Full attention inside a block, causal attention across blocks, over a window of blocks."""

    def forward(  # type: ignore[override]
        self, x: Tensor, block_length: int, window: int, turns: Tensor, memory: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x: (B, S, E), blocks of block_length tokens, of which the last may be shorter. memory: keys and values (B, heads, M, d)
        of the whole blocks before. turns: (M + S, d/2) radians. A block looks at itself and the window - 1 blocks before it.

        Returns x's update (B, S, E), and the keys and values of the last window - 1 blocks: a memory for what comes next. Keys
        are remembered as they were before turning, and turned anew by their place in the line of memory and x, because only
        distances count: a stream of any length never comes to a place that training did not know.
        """
        queries, keys, values = rearrange(self.to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        if memory is not None:
            keys, values = torch.cat([memory[0], keys], dim=2), torch.cat([memory[1], values], dim=2)  # (B, heads, M + S, d)
        total, past = keys.shape[2], keys.shape[2] - x.shape[1]
        turned_queries, turned_keys = rotate(queries, turns[past:]), rotate(keys, turns)
        mixed = []
        for first in range(past, total, block_length):  # no mask: a block is only shown what it may see
            last = min(first + block_length, total)
            seen = slice(max(0, first - (window - 1) * block_length), last)
            mixed.append(attention(turned_queries[:, :, first - past : last - past], turned_keys[:, :, seen], values[:, :, seen]))
        update = self.output(rearrange(torch.cat(mixed, dim=2), "b h s d -> b s (h d)"))
        kept = max(0, total - (window - 1) * block_length)
        return update, (keys[:, :, kept:], values[:, :, kept:])


class BlockwiseLayer(TransformerBlock):
    """Attention, then a gated feed-forward network, each behind an RMSNorm (arXiv:1910.07467)."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int):
        super().__init__()
        self.attention_norm = RootMeanSquareNorm(embed_dim)
        self.attention = BlockwiseAttention(embed_dim, num_heads)
        self.feed_forward_norm = RootMeanSquareNorm(embed_dim)
        self.feed_forward = SwiGLU(embed_dim, hidden_dim)

    def forward(self, x: Tensor, *line, memory: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """x: (B, S, E). line: block length, window and turns, as in `BlockwiseAttention.forward`. Returns x, and the memory."""
        update, kept = self.attention(self.attention_norm(x), *line, memory=memory)
        x = x + update
        return x + self.feed_forward(self.feed_forward_norm(x)), kept


class BlockwiseTransformer(nn.Module):
    """A stack of such layers. More blocks need no new parameters: only the window grows.

    block_frames: frames in a block. window: how many blocks a block looks back, itself included. base: of the slowest turn.
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
        self.block_frames, self.window = block_frames, window
        self.activation_checkpointing = activation_checkpointing
        self.layers = nn.ModuleList(BlockwiseLayer(embed_dim, num_heads, hidden_dim) for _ in range(num_layers))
        self.norm = RootMeanSquareNorm(embed_dim)

    def forward(self, x: Tensor, cache: list[KeysValues] | None = None) -> tuple[Tensor, list[KeysValues]]:
        """x: (B, T, N, E), frames that follow those in the cache. Returns the same shape, normalised, and the new cache.

        cache: per layer, keys and values of at most window - 1 blocks; its size does not grow with time.
        """
        num_frames, num_patches = x.shape[1:3]
        x = rearrange(x.float(), "b t n e -> b (t n) e")  # one line of tokens
        past = cache[0][0].shape[2] if cache else 0
        turns = angles(torch.arange(past + x.shape[1], device=x.device), self.num_pairs, self.base)  # (M + S, d/2)
        line = (self.block_frames * num_patches, self.window, turns)
        kept = []
        for number, layer in enumerate(self.layers):
            memory = cache[number] if cache else None
            if self.activation_checkpointing and self.training:
                x, own = checkpoint(layer, x, *line, memory=memory, use_reentrant=False)  # type: ignore[misc]
            else:
                x, own = layer(x, *line, memory=memory)
            kept.append(own)
        return self.norm(rearrange(x, "b (t n) e -> b t n e", t=num_frames)), kept
