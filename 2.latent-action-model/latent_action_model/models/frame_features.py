"""The parts that encoder and decoder share: a convolutional stem, residual blocks that an action can modulate, and an optional
space-time transformer."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import SpaceTimeTransformer

CELL = 4
"""side of a feature cell, in pixels"""


class FrameFeatures(nn.Module):
    """A convolutional stem over two neighboring frames, on a grid 4 times coarser than the pixels.

    Motion is a difference between neighbors in time and space. A small convolution over two stacked frames detects it directly;
    a linear patch projection takes many times longer to learn it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(CELL)  # (3, H, W) -> (48, H / 4, W / 4), a lossless rearrangement
        self.input = nn.Conv2d(2 * 3 * CELL**2, width, kernel_size=3, padding=1)

    def forward(self, frames: Tensor, neighbors: Tensor) -> Tensor:
        """frames, neighbors: (M, 3, H, W) in [0, 1]. Returns (M, width, H / 4, W / 4)."""
        change = frames - neighbors
        return self.input(torch.cat([self.unshuffle(frames - 0.5), self.unshuffle(change)], dim=1))


class FilmBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection. A code scales and shifts the hidden channels (FiLM, arXiv:1709.07871).

    width: channels of the feature map. code_dim: length of the code; 0 builds a block without conditioning.
    """

    def __init__(self, width: int, code_dim: int = 0):
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.activation = nn.GELU()
        self.film = nn.Linear(code_dim, 2 * width) if code_dim else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x: (M, width, h, w). code: (M, code_dim). Returns (M, width, h, w)."""
        hidden = self.first(self.activation(self.norm(x)))
        if self.film is not None and code is not None:
            scale, shift = self.film(code)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return x + self.second(self.activation(hidden))


class SpaceTimeContext(nn.Module):
    """A space-time transformer that adds what is outside the stem's receptive field: the rest of the frame and earlier frames.

    It is off by default (`encoder_blocks` and `decoder_blocks` are 0), because it is slower and lets the encoder leak more of
    the next frame through the code.
    """

    def __init__(self, config: LatentActionConfig, num_blocks: int):
        super().__init__()
        rows, columns = (-(-side // config.patch_size) for side in config.frame_height_width)
        self.cells = config.patch_size // CELL  # of the stem, along each side of a token
        self.to_tokens = nn.Conv2d(config.conv_width, config.embed_dim, kernel_size=self.cells, stride=self.cells)
        self.positions = SpaceTimePositions(config.embed_dim, (rows, columns), config.context_frames)
        sizes = (config.embed_dim, config.num_heads, num_blocks, config.context_frames)
        self.transformer = SpaceTimeTransformer(*sizes, config.activation_checkpointing)

    def forward(self, features: Tensor, batch_size: int) -> Tensor:
        """features: (B*T, width, h, w). Returns (B*T, E, h/c, w/c), c cells of the stem per token, rounded up."""
        height, width = features.shape[-2:]
        features = F.pad(features, (0, -width % self.cells, 0, -height % self.cells))
        tokens = self.to_tokens(features)  # (B*T, E, h/c, w/c)
        rows = tokens.shape[2]
        tokens = rearrange(tokens, "(b t) e h w -> b t (h w) e", b=batch_size)
        tokens = self.transformer(self.positions(tokens))  # (B, T, N, E)
        return rearrange(tokens, "b t (h w) e -> (b t) e h w", h=rows)


def previous_frames(video: Tensor) -> Tensor:
    """(B, T, C, H, W) -> the frame before each frame; the first frame is its own predecessor."""
    return torch.cat([video[:, :1], video[:, :-1]], dim=1)
