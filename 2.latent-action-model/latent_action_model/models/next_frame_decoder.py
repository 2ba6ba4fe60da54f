"""Predict what an action does: the frames up to t and the code of step t become frame t + 1."""

import torch
from einops import rearrange
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from latent_action_model.models.frame_features import CELL, FilmBlock, FrameFeatures, SpaceTimeContext, previous_frames


class NextFrameDecoder(nn.Module):
    """Predict the change from frame t to t + 1.

    The code of step t is injected after the attention over time, so that it affects only its own step. If two steps have the same
    past, exchanging their codes exchanges their predictions.
    """

    def __init__(self, config: LatentActionConfig, code_dim: int):
        super().__init__()
        width = config.conv_width
        self.features = FrameFeatures(width)
        self.context = None
        if config.decoder_blocks:
            self.context = SpaceTimeContext(config, config.decoder_blocks)
            self.from_context = nn.ConvTranspose2d(config.embed_dim, width, self.context.cells, self.context.cells)
        self.blocks = nn.ModuleList(FilmBlock(width, code_dim) for _ in range(3))
        self.output = nn.Conv2d(width, 3 * CELL**2, kernel_size=3, padding=1)
        nn.init.zeros_(self.output.weight)  # training starts from the prediction "nothing changes", which is already a good one
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        self.shuffle = nn.PixelShuffle(CELL)

    def forward(self, past: Tensor, codes: Tensor) -> Tensor:
        """past: (B, T-1, C, H, W) in [0, 1], the frame before each transition. codes: (B, T-1, A).

        Returns the change to add to each frame, (B, T-1, C, H, W).
        """
        batch_size = past.shape[0]
        x = self.features(past.flatten(0, 1), previous_frames(past).flatten(0, 1))  # (M, width, H/4, W/4), M = B*(T-1)
        if self.context is not None:
            x = x + self.from_context(self.context(x, batch_size))[..., : x.shape[-2], : x.shape[-1]]
        code = rearrange(codes, "b t a -> (b t) a")
        for block in self.blocks:
            x = block(x, code)
        change = self.shuffle(self.output(x))  # (M, C, H, W)
        return rearrange(change, "(b t) c h w -> b t c h w", b=batch_size).float()


def logits_of(frames: Tensor) -> Tensor:
    """Inverse of the sigmoid for pixels in [0, 1], clamped to stay finite: 0 -> -4.6, 0.5 -> 0, 1 -> 4.6."""
    bounded = frames.clamp(0.01, 0.99)
    return torch.log(bounded / (1 - bounded))
