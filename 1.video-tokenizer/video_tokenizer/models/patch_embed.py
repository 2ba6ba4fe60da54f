"""Pixels to patch vectors and back (solutions 3 and 9 of the chapter)."""

from einops import rearrange
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cut every frame into patches and turn each patch into one vector.

    stem "linear": one convolution with kernel = stride = patch_size, which is a matrix product per patch (ViT, arXiv:2010.11929).
    stem "conv": two 3x3 convolutions come first, so a vector also depends on the pixels just outside its patch ("early
    convolutions", arXiv:2106.14881).
    """

    def __init__(self, in_channels: int, embed_dim: int, patch_size: int, stem: str = "linear"):
        super().__init__()
        self.stem = nn.Identity()
        if stem == "conv":
            width = 4 * in_channels * 4
            self.stem = nn.Sequential(
                # (C, H, W) -> (4C, H/2, W/2) loses nothing, and makes the convolutions 4 times cheaper
                nn.PixelUnshuffle(2),
                nn.Conv2d(4 * in_channels, width, kernel_size=3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, kernel_size=3, padding=1),
                nn.GELU(),
            )
            in_channels, patch_size = width, patch_size // 2
        self.projection = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W). Returns (B, T, N, E), patches in reading order, N = (H / P) * (W / P)."""
        batch_size = video.shape[0]
        frames = rearrange(video, "b t c h w -> (b t) c h w")
        patches = self.projection(self.stem(frames))  # (B*T, E, H/P, W/P)
        return rearrange(patches, "(b t) e h w -> b t (h w) e", b=batch_size)


class PatchUnembedding(nn.Module):
    """Turn each patch vector back into a patch of pixels: one linear layer, then pixel shuffle (arXiv:1609.05158).

    The linear layer predicts the C * P * P values of a patch, and the shuffle moves them to their places. Together they equal a
    transposed convolution with kernel = stride.
    """

    def __init__(self, embed_dim: int, out_channels: int, patch_size: int, grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size = grid_size
        self.projection = nn.Linear(embed_dim, out_channels * patch_size**2)
        self.pixel_shuffle = nn.PixelShuffle(patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, N, E). Returns video (B, T, C, H, W), unbounded."""
        rows, columns = self.grid_size
        values = self.projection(x)  # (B, T, N, C*P*P)
        grid = rearrange(values, "b t (h w) c -> (b t) c h w", h=rows, w=columns)
        frames = self.pixel_shuffle(grid)  # (B*T, C, H, W)
        return rearrange(frames, "(b t) c h w -> b t c h w", b=x.shape[0])
