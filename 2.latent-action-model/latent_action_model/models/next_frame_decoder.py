"""What happens under an action: frames up to t and one code become frame t + 1."""

import torch
from einops import rearrange
from torch import Tensor, nn

from latent_action_model.models.frame_features import FrameFeatures, ResidualBlock, flatten_frames, previous_frames
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import SpaceTimeTransformer


class NextFrameDecoder(nn.Module):
    """Predicts the change from frame t to t + 1. The code of step t enters after the look back in time, so that it acts on
    its own step only: exchange the codes of two steps with equal pasts, and the predictions are exchanged."""

    def __init__(
        self, width: int, embed_dim: int, num_blocks: int, num_heads: int, window: int, frame_size: tuple[int, int], code_dim: int
    ):
        super().__init__()
        self.features = FrameFeatures(width)
        self.num_blocks = num_blocks
        if num_blocks:
            grid_size = (frame_size[0] // 8, frame_size[1] // 8)
            self.to_tokens = nn.Conv2d(width, embed_dim, kernel_size=2, stride=2)
            self.positions = SpaceTimePositions(embed_dim, grid_size)
            self.transformer = SpaceTimeTransformer(embed_dim, num_heads, num_blocks, window)
            self.from_tokens = nn.ConvTranspose2d(embed_dim, width, kernel_size=2, stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(width, code_dim) for _ in range(3))
        self.output = nn.Conv2d(width, 3 * 16, kernel_size=3, padding=1)
        nn.init.zeros_(self.output.weight)  # the first prediction is "nothing changes", already a good one
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]
        self.shuffle = nn.PixelShuffle(4)

    def forward(self, past: Tensor, codes: Tensor) -> Tensor:
        """past: (B, T-1, C, H, W) in [0, 1], the frames before each transition. codes: (B, T-1, A).
        Returns the change to add to each frame, (B, T-1, C, H, W)."""
        batch_size = past.shape[0]
        x = self.features(flatten_frames(past), flatten_frames(previous_frames(past)))  # (M, width, H/4, W/4)
        if self.num_blocks:
            tokens = self.to_tokens(x)
            rows = tokens.shape[2]
            tokens = rearrange(tokens, "(b t) e h w -> b t (h w) e", b=batch_size)
            tokens = self.transformer(self.positions(tokens))
            x = x + self.from_tokens(rearrange(tokens, "b t (h w) e -> (b t) e h w", h=rows))
        code = rearrange(codes, "b t a -> (b t) a")
        for block in self.blocks:
            x = block(x, code)
        change = self.shuffle(self.output(x))
        return rearrange(change, "(b t) c h w -> b t c h w", b=batch_size).float()


def logits_of(frames: Tensor) -> Tensor:
    """Inverse of the sigmoid for pixels in [0, 1], bounded: 0 -> -4.6, 0.5 -> 0, 1 -> 4.6."""
    bounded = frames.clamp(0.01, 0.99)
    return torch.log(bounded / (1 - bounded))
