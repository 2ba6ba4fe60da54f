"""Which action was it? Frames up to t + 1 become one latent per transition."""

from einops import rearrange
from torch import Tensor, nn

from latent_action_model.models.frame_features import CELL, FrameFeatures, ResidualBlock, flatten_frames
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import SpaceTimeTransformer


class ActionEncoder(nn.Module):
    """Looks at both sides of a transition: the latent of t -> t + 1 sees every frame up to t + 1, and nothing later.

    The features are not averaged over the frame: an average drowns the few cells in which the player moved. Every cell keeps
    its place in one long vector, from which a linear map can read "the paddle's row, moved to the right".
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
    ):
        super().__init__()
        self.features = FrameFeatures(width)
        self.residual = ResidualBlock(width)
        rows, columns = frame_size[0] // (2 * CELL), frame_size[1] // (2 * CELL)
        self.transformer = None
        channels = 16
        if num_blocks:
            self.to_tokens = nn.Conv2d(width, embed_dim, kernel_size=2, stride=2)  # one vector per 8x8 pixels
            self.positions = SpaceTimePositions(embed_dim, (rows, columns))
            self.transformer = SpaceTimeTransformer(embed_dim, num_heads, num_blocks, window)
            self.to_channels = nn.Linear(embed_dim, channels)
        else:
            self.to_channels = nn.Conv2d(width, channels, kernel_size=3, stride=2, padding=1)
        self.to_latent = nn.Sequential(nn.GELU(), nn.Linear(rows * columns * channels, 64), nn.GELU(), nn.Linear(64, latent_dim))

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, T - 1, latent_dim)."""
        batch_size = video.shape[0]
        after, before = flatten_frames(video[:, 1:]), flatten_frames(video[:, :-1])
        features = self.residual(self.features(after, before))  # (B*(T-1), width, H/4, W/4)
        if self.transformer is None:
            cells = rearrange(self.to_channels(features), "(b t) c h w -> b t (h w c)", b=batch_size)
        else:
            tokens = rearrange(self.to_tokens(features), "(b t) e h w -> b t (h w) e", b=batch_size)
            tokens = self.transformer(self.positions(tokens))  # (B, T-1, N, E)
            cells = rearrange(self.to_channels(tokens), "b t n c -> b t (n c)")
        return self.to_latent(cells)
