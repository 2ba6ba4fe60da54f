"""Infer the action: the frames up to t + 1 become one latent for the transition t -> t + 1."""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from latent_action_model.models.frame_features import CELL, FilmBlock, FrameFeatures, SpaceTimeContext

POOLED_CELL = 2 * CELL
"""side of the cells that are pooled, in pixels, where no space-time blocks choose another"""
STILL = 0.001
"""added to the total change of a frame, so that a still one pools to zeros; in Breakout a frame with motion has 0.04 (median)"""


class ActionEncoder(nn.Module):
    """Encode both sides of a transition: the latent of t -> t + 1 depends on the frames up to t + 1 and on no later one.

    config.pooling decides how the cells of a frame become one vector:
    "change": the mean of the cells, each weighted by how much its pixels changed, times their `place_weights`. In a plain mean,
    the few cells in which the player moved would vanish among the others. The mean also discards positions, so that moving left
    gives the same vector wherever the player is.
    "flatten": the cells one after another, which keeps their positions. The codes then tend to encode where the player is.
    """

    def __init__(self, config: LatentActionConfig, latent_dim: int):
        super().__init__()
        self.pooling = config.pooling
        self.features = FrameFeatures(config.conv_width)
        self.residual = FilmBlock(config.conv_width)
        channels = config.conv_width if config.pooling == "change" else 16
        self.context, self.pooled_cell = None, POOLED_CELL
        if config.encoder_blocks:
            self.context, self.pooled_cell = SpaceTimeContext(config, config.encoder_blocks), config.patch_size
            self.to_channels = nn.Conv2d(config.embed_dim, channels, kernel_size=1)
        else:
            self.to_channels = nn.Conv2d(config.conv_width, channels, kernel_size=3, stride=2, padding=1)
        size = config.frame_height_width
        self.place_weights = nn.Buffer(torch.ones(size if config.place_power else (1,)), persistent=config.place_power > 0)
        num_cells = -(-size[0] // self.pooled_cell) * -(-size[1] // self.pooled_cell)
        pooled = channels if config.pooling == "change" else num_cells * channels
        self.to_latent = nn.Sequential(nn.Linear(pooled, 64), nn.GELU(), nn.Linear(64, latent_dim))

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, T - 1, latent_dim)."""
        batch_size = video.shape[0]
        after, before = video[:, 1:].flatten(0, 1), video[:, :-1].flatten(0, 1)
        features = self.residual(self.features(after, before))  # (M, width, H/4, W/4), M = B*(T-1)
        if self.context is not None:
            features = self.context(features, batch_size)  # (M, E, H/P, W/P)
        cells = F.gelu(rearrange(self.to_channels(features), "m c h w -> m (h w) c"))  # (M, N, channels)
        change = (after - before).abs() * self.place_weights
        pooled = pool_by_change(cells, change, self.pooled_cell) if self.pooling == "change" else cells.flatten(1)
        return rearrange(self.to_latent(pooled), "(b t) a -> b t a", b=batch_size)


def pool_by_change(cells: Tensor, change: Tensor, size: int = POOLED_CELL) -> Tensor:
    """Mean of the cells, each weighted by how much its pixels changed; zeros where nothing moved.

    cells: (M, N, channels), each of `size` pixels. change: (M, C, H, W), not negative. Returns (M, channels).
    If three cells change equally, one with the ball and two with the paddle, each has a weight of 1/3.
    """
    change = F.pad(change, (0, -change.shape[-1] % size, 0, -change.shape[-2] % size))  # to whole cells
    weights = reduce(change, "m c (h p) (w q) -> m (h w) 1", "mean", p=size, q=size)  # (M, N, 1)
    return (weights * cells).sum(dim=1) / (weights.sum(dim=1) + STILL)
