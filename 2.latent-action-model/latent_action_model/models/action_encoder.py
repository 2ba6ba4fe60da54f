"""Which action was it? Frames up to t + 1 become one latent per transition."""

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from latent_action_model.models.frame_features import CELL, FilmBlock, FrameFeatures, SpaceTimeContext, flatten_frames

POOLED_CELL = 2 * CELL
"""side of the cells that are pooled, in pixels"""
STILL = 0.001
"""added to the total change of a frame (sum over its cells of the mean absolute change of their pixels), so that a frame at rest
gives zeros; where something moves in Breakout it is 0.04 in the median"""


class ActionEncoder(nn.Module):
    """Looks at both sides of a transition: the latent of t -> t + 1 sees every frame up to t + 1, and nothing later.

    config.pooling: how the cells of a frame become one vector.
    "change": their mean, each cell weighted by how much its pixels changed. A plain mean drowns the few cells in which the
    player moved; this one ignores the rest. And since no cell keeps its place, going left is the same vector wherever the player
    stands, and resting is the same everywhere.
    "flatten": one long vector in which every cell keeps its place. It says too much: codes then say where the player is.
    """

    def __init__(self, config: LatentActionConfig, latent_dim: int):
        super().__init__()
        self.pooling = config.pooling
        self.features = FrameFeatures(config.conv_width)
        self.residual = FilmBlock(config.conv_width)
        channels = config.conv_width if config.pooling == "change" else 16
        self.context = None
        if config.encoder_blocks:
            self.context = SpaceTimeContext(config, config.encoder_blocks)  # halves the grid
            self.to_channels = nn.Conv2d(config.embed_dim, channels, kernel_size=1)
        else:
            self.to_channels = nn.Conv2d(config.conv_width, channels, kernel_size=3, stride=2, padding=1)
        height, width = config.frame_height_width
        num_cells = (height // POOLED_CELL) * (width // POOLED_CELL)
        pooled = channels if config.pooling == "change" else num_cells * channels
        self.to_latent = nn.Sequential(nn.Linear(pooled, 64), nn.GELU(), nn.Linear(64, latent_dim))

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, T - 1, latent_dim)."""
        batch_size = video.shape[0]
        after, before = flatten_frames(video[:, 1:]), flatten_frames(video[:, :-1])
        features = self.residual(self.features(after, before))  # (M, width, H/4, W/4), M = B*(T-1)
        if self.context is not None:
            features = self.context(features, batch_size)  # (M, E, H/8, W/8)
        cells = F.gelu(rearrange(self.to_channels(features), "m c h w -> m (h w) c"))  # (M, N, channels)
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
