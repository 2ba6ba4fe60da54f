"""The four parts of TECO: encoder of changes with its codebook, temporal transformer, prior, decoder."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from video_tokenizer.models.fsq import Quantized
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import (
    KVCache,
    MultiHeadAttention,
    TransformerBlock,
    causal_mask,
    last_frames,
)


def begin_as_published(module: nn.Module) -> None:
    """Weights of convolutions and linear maps as in TECO's code, which is written in Flax: variance 1 / inputs, biases of 0.

    PyTorch begins with a third of this variance and with random biases. In the encoder these biases outweigh what differs between
    two changes, all changes point in nearly the same direction, and at first a handful of codes serves them all.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """GroupNorm, ELU and a convolution, twice; the sum is scaled by 0.1, so that a fresh block does little."""

    def __init__(self, channels: int):
        super().__init__()
        groups = max(group for group in range(1, channels // 16 + 2) if channels % group == 0)
        half = [nn.GroupNorm(groups, channels), nn.ELU(), nn.Conv2d(channels, channels, 3, padding=1)]
        other_half = [nn.GroupNorm(groups, channels), nn.ELU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.inner = nn.Sequential(*half, *other_half)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns the same shape."""
        return x + 0.1 * self.inner(x)


class ChangeEncoder(nn.Module):
    """What is new in a frame, seen beside the frame before: z_t = E(x_{t-1}, x_t)."""

    def __init__(self, code_length: int, channels: int, num_blocks: int, downsample: int, change_channels: int):
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(2 * code_length, channels, 3, padding=1),
            ResidualBlock(channels),
            nn.AvgPool2d(downsample),
            nn.Conv2d(channels, wide, 1),
            *[ResidualBlock(wide) for _ in range(num_blocks)],
            nn.Conv2d(wide, change_channels, 1),
        )

    def forward(self, before: Tensor, frames: Tensor) -> Tensor:
        """before, frames: (B, T, D, H, W), the tokenizer's codes of each frame and of the one before. Returns (B, T, C, h, w)."""
        pairs = torch.cat([before, frames], dim=2)  # (B, T, 2 D, H, W)
        return self.layers(pairs.flatten(0, 1)).unflatten(0, frames.shape[:2])


class CosineCodebook(nn.Module):
    """K codes on the unit sphere. A vector is projected, scaled to length 1, and replaced by the code that points most alike.

    Where only directions count, a code cannot grow out of reach of the encoder. Source: arXiv:2110.04627, section 3.1.
    """

    def __init__(self, num_codes: int, code_length: int, channels: int, commitment_weight: float):
        super().__init__()
        self.commitment_weight = commitment_weight
        self.to_code = nn.Linear(channels, code_length)
        self.codes = nn.Embedding(num_codes, code_length)
        nn.init.normal_(self.codes.weight, std=code_length**-0.5)  # of length 1, more or less
        self.from_code = nn.Linear(code_length, channels)

    def forward(self, changes: Tensor) -> Quantized:
        """changes: (B, T, C, h, w). Returns codes of the same shape, indices (B, T, h*w), and the losses of the codebook."""
        with torch.autocast(changes.device.type, enabled=False):
            latents = F.normalize(self.to_code(rearrange(changes.float(), "b t c h w -> b t h w c")), dim=-1)
            directions = F.normalize(self.codes.weight, dim=-1)  # (K, D)
            with torch.no_grad():
                indices = (latents @ directions.T).argmax(dim=-1)  # (B, T, h, w), the largest cosine
            codes = F.embedding(indices, directions)
            losses = {
                "codebook": 0.5 * F.mse_loss(codes, latents.detach()),
                "commitment": 0.5 * self.commitment_weight * F.mse_loss(latents, codes.detach()),
            }
            straight_through = latents + (codes - latents).detach()  # the gradient skips the choice, which has none
            vectors = rearrange(self.from_code(straight_through), "b t h w c -> b t c h w")
        return Quantized(vectors, indices.flatten(2), losses)

    def indices_to_changes(self, indices: Tensor, grid: tuple[int, int]) -> Tensor:
        """indices: (..., h*w). Returns (..., C, h, w)."""
        with torch.autocast(indices.device.type, enabled=False):
            vectors = self.from_code(F.embedding(indices, F.normalize(self.codes.weight, dim=-1)))  # (..., h*w, C)
        return vectors.transpose(-1, -2).unflatten(-1, grid)


class Block(TransformerBlock):
    """Attention and a feed-forward network, each behind a norm."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(embed_dim)
        self.feed_forward = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.GELU(), nn.Linear(4 * embed_dim, embed_dim))

    def forward(self, x: Tensor, mask: Tensor | None = None, past_kv: tuple[Tensor, Tensor] | None = None) -> tuple:
        """x: (B, S, E). Returns x (B, S, E), and its own keys and values."""
        update, own = self.attention(self.attention_norm(x), mask, past_kv)
        x = x + update
        return x + self.feed_forward(self.feed_forward_norm(x)), own


def run_block(block: nn.Module, recompute: bool, *inputs: Tensor | tuple | None) -> tuple:
    """block(*inputs); with `recompute` its activations are computed again in the backward pass."""
    return checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)


class TemporalTransformer(nn.Module):
    """All changes up to frame t - 1 and all actions up to t become h_t, what is known of frame t before it is there.

    A strided convolution shrinks each change to a few tokens, often a single one, and a transposed convolution brings the output
    back onto the grid. In between, a token attends to its whole frame and to all frames before.
    """

    def __init__(
        self, channels: int, action_dim: int, grid: tuple[int, int], stride: tuple[int, int], embed_dim: int, num_heads: int,
        num_blocks: int, num_frames: int, activation_checkpointing: bool,
    ):  # fmt: skip
        """num_frames: how many frames attention covers."""
        super().__init__()
        self.window, self.activation_checkpointing = num_frames, activation_checkpointing
        self.token_grid = (grid[0] // stride[0], grid[1] // stride[1])
        self.tokens_per_frame = self.token_grid[0] * self.token_grid[1]
        self.shrink = nn.Conv2d(channels + action_dim, embed_dim, stride, stride)
        self.positions = SpaceTimePositions(embed_dim, self.token_grid, num_frames)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.LayerNorm(embed_dim))
        self.grow = nn.ConvTranspose2d(embed_dim, channels, stride, stride)

    def forward(self, changes: Tensor, actions: Tensor, start: Tensor | int = 0, cache: KVCache | None = None) -> tuple:
        """changes: (B, T, C, h, w), of frames s. actions: (B, T, A), vectors of the actions that led to frames s + 1.

        start: number of the first frame on the periodic clock, where there is no cache. cache: keys and values of earlier frames.
        Returns h of frames s + 1, (B, T, C, h, w), and the cache that includes frames s.
        """
        cache = cache or KVCache()
        batch_size, num_frames, _, rows, columns = changes.shape
        tiled = actions[..., None, None].expand(-1, -1, -1, rows, columns)
        pairs = torch.cat([changes, tiled.to(changes.dtype)], dim=2).flatten(0, 1)  # (B*T, C + A, h, w)
        x = rearrange(self.shrink(pairs), "(b t) e h w -> b t (h w) e", b=batch_size)
        x = self.positions(x, cache.position if cache.blocks else start).flatten(1, 2)  # (B, T*M, E), M tokens a frame
        mask = self._mask(num_frames, cache.num_kept // self.tokens_per_frame, x.device)
        kept = []
        for number, block in enumerate(self.blocks):
            past = cache.blocks[number] if cache.blocks else None
            x, own = run_block(block, self.activation_checkpointing and self.training, x, mask, past)
            kept.append(last_frames(past, own, (self.window - 1) * self.tokens_per_frame + 1))
        x = self.head(self.norm(x)).unflatten(1, (num_frames, *self.token_grid))  # (B, T, h', w', E)
        known = self.grow(rearrange(x, "b t h w e -> (b t) e h w")).unflatten(0, (batch_size, num_frames))
        return known, KVCache(cache.position + num_frames, kept)

    def _mask(self, num_frames: int, num_past: int, device: torch.device) -> Tensor:
        """(T*M, (past + T)*M) bool: causal from frame to frame, everything within a frame."""
        frames = causal_mask(num_frames, self.window, num_past, device)
        return frames.repeat_interleave(self.tokens_per_frame, 0).repeat_interleave(self.tokens_per_frame, 1)


class ChangePrior(nn.Module):
    """MaskGIT over the codes of one change, given what the temporal transformer says about the frame: p(z_t | h_t)."""

    def __init__(self, num_codes: int, channels: int, grid: tuple[int, int], embed_dim: int, num_heads: int, num_blocks: int,
                 activation_checkpointing: bool):  # fmt: skip
        super().__init__()
        self.mask_code, self.activation_checkpointing = num_codes, activation_checkpointing
        self.code_embedding = nn.Embedding(num_codes + 1, embed_dim)
        nn.init.normal_(self.code_embedding.weight, std=embed_dim**-0.5)
        self.merge = nn.Linear(embed_dim + channels, embed_dim)
        self.rows = nn.Parameter(0.02 * torch.randn(grid[0], 1, embed_dim))
        self.columns = nn.Parameter(0.02 * torch.randn(grid[1], embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.LayerNorm(embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_codes))

    def forward(self, codes: Tensor, known: Tensor) -> Tensor:
        """codes: (F, h*w), `mask_code` where masked. known: (F, C, h, w), h of the same frames. Returns logits (F, h*w, K)."""
        x = torch.cat([self.code_embedding(codes), rearrange(known, "f c h w -> f (h w) c").to(known.dtype)], dim=-1)
        x = self.merge(x) + (self.rows + self.columns).flatten(0, 1)
        for block in self.blocks:
            x, _ = run_block(block, self.activation_checkpointing and self.training, x)
        # the table of codes is also the matrix that tells them apart
        return F.linear(self.head(self.norm(x)), self.code_embedding.weight[:-1], self.bias)


class FrameDecoder(nn.Module):
    """The tokens of a frame from what is new in it and from what was known before: p(x_t | z_t, h_t)."""

    def __init__(self, change_channels: int, channels: int, num_blocks: int, upsample: int, codebook_size: int):
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(2 * change_channels, wide, 3, padding=1),
            *[ResidualBlock(wide) for _ in range(num_blocks)],
            nn.Upsample(scale_factor=upsample, mode="nearest"),
            nn.Conv2d(wide, channels, 3, padding=1),
            *[ResidualBlock(channels) for _ in range(num_blocks)],
        )
        self.norm = nn.LayerNorm(channels)
        self.to_logits = nn.Linear(channels, codebook_size)

    def forward(self, changes: Tensor, known: Tensor) -> Tensor:
        """changes, known: (B, T, C, h, w). Returns logits (B, T, N, K)."""
        x = self.layers(torch.cat([changes, known.to(changes.dtype)], dim=2).flatten(0, 1))
        return self.to_logits(self.norm(rearrange(x, "f c h w -> f (h w) c"))).unflatten(0, changes.shape[:2])
