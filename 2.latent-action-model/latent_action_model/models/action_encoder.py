"""Which action was it? Frames up to t + 1 become one latent per transition."""

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from latent_action_model.models.frame_features import CELL, FrameFeatures, ResidualBlock, flatten_frames
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import SpaceTimeTransformer

POOLED_CELL = 2 * CELL
"""side of the cells that are pooled, in pixels"""
STILL = 0.001
"""added to the total change of a frame (sum over its cells of the mean absolute change of their pixels), so that a frame at rest
gives zeros; where something moves in Breakout it is 0.04 in the median"""


class ActionEncoder(nn.Module):
    """Looks at both sides of a transition: the latent of t -> t + 1 sees every frame up to t + 1, and nothing later.

    pooling: how the cells of a frame become one vector.
    "change": their mean, each cell weighted by how much its pixels changed. A plain mean drowns the few cells in which the
    player moved; this one looks nowhere else. And since no cell has a place of its own, going left is the same vector wherever
    the player stands, and resting is the same everywhere.
    "flatten": one long vector in which every cell keeps its place. Tells more, too much: codes then say where the player is.
    """

    def __init__(
        self,
        width: int,
        embed_dim: int,
        num_blocks: int,
        num_heads: int,
        window: int,
        frame_size: tuple[int, int],
        latent_dim: int,
        pooling: str = "change",
    ):
        super().__init__()
        self.pooling = pooling
        self.features = FrameFeatures(width)
        self.residual = ResidualBlock(width)
        rows, columns = frame_size[0] // POOLED_CELL, frame_size[1] // POOLED_CELL
        self.transformer = None
        channels = width if pooling == "change" else 16
        if num_blocks:
            self.to_tokens = nn.Conv2d(width, embed_dim, kernel_size=2, stride=2)  # one vector per 8x8 pixels
            self.positions = SpaceTimePositions(embed_dim, (rows, columns))
            self.transformer = SpaceTimeTransformer(embed_dim, num_heads, num_blocks, window)
            self.to_channels = nn.Linear(embed_dim, channels)
        else:
            self.to_channels = nn.Conv2d(width, channels, kernel_size=3, stride=2, padding=1)
        pooled = channels if pooling == "change" else rows * columns * channels
        self.to_latent = nn.Sequential(nn.Linear(pooled, 64), nn.GELU(), nn.Linear(64, latent_dim))

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, T - 1, latent_dim)."""
        batch_size = video.shape[0]
        after, before = flatten_frames(video[:, 1:]), flatten_frames(video[:, :-1])
        features = self.residual(self.features(after, before))  # (B*(T-1), width, H/4, W/4)
        if self.transformer is None:
            cells = rearrange(self.to_channels(features), "m c h w -> m (h w) c")
        else:
            tokens = rearrange(self.to_tokens(features), "(b t) e h w -> b t (h w) e", b=batch_size)
            tokens = self.transformer(self.positions(tokens))  # (B, T-1, N, E)
            cells = rearrange(self.to_channels(tokens), "b t n c -> (b t) n c")
        cells = F.gelu(cells)  # (M, N, channels), M = B*(T-1)
        pooled = pool_by_change(cells, before, after) if self.pooling == "change" else cells.flatten(1)
        return rearrange(self.to_latent(pooled), "(b t) a -> b t a", b=batch_size)


def pool_by_change(cells: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Mean of the cells (M, N, channels), each weighted by the change of its pixels from `before` to `after`, (M, C, H, W).

    A ball that moves in one cell and a paddle in two cells of equal change: each has a third. Where nothing moved: zeros.
    """
    change = (after - before).abs()
    size = POOLED_CELL
    weights = reduce(change, "m c (h p) (w q) -> m (h w) 1", "mean", p=size, q=size)  # (M, N, 1)
    return (weights * cells).sum(dim=1) / (weights.sum(dim=1) + STILL)
