"""A small variational autoencoder of single frames: 32x32 pixels to 4 x 8 x 8 latents. Frames and flow pictures share it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENTS, SHRINK = 4, 4
"""channels of the latents, and how many times smaller their sides are than the frame's"""
KL_WEIGHT = 1e-8
"""weight of the divergence from a standard normal, in nats per frame"""
INK_WEIGHT = 4.0
"""extra weight of pixels that differ from most of their frame, which are a tenth of it"""


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class FrameVAE(nn.Module):
    """Encodes frames one by one (arXiv:1312.6114), and measures its latents, so that the diffusion sees numbers of size 1.

    Every square of 4x4 pixels becomes 48 channels at once, so that all convolutions work on 8x8 places.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int = 64):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(SHRINK), nn.Conv2d(3 * SHRINK**2, width, 3, padding=1),
            ResidualBlock(width), ResidualBlock(width), nn.Conv2d(width, 2 * LATENTS, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENTS, width, 3, padding=1), ResidualBlock(width), ResidualBlock(width), ResidualBlock(width), nn.SiLU(),
            nn.Conv2d(width, 3 * SHRINK**2, 3, padding=1), nn.PixelShuffle(SHRINK),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(LATENTS, 1, 1))
        self.register_buffer("scale", torch.ones(LATENTS, 1, 1))

    def encode(self, video: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] -> latents (..., C, H/4, W/4), the mean of the posterior, with mean 0 and deviation 1."""
        mean = self.encoder(video.flatten(0, -4) - 0.5)[:, :LATENTS].float()
        return ((mean - self.mean) / self.scale).unflatten(0, video.shape[:-3])

    def decode(self, latents: Tensor) -> Tensor:
        """(..., C, h, w) -> (..., 3, 4h, 4w) in [0, 1]."""
        pixels = self.decoder(latents.flatten(0, -4) * self.scale + self.mean).float() + 0.5
        return pixels.clamp(0, 1).unflatten(0, latents.shape[:-3])

    def loss(self, pictures: Tensor) -> Tensor:
        """Squared error, in which ink counts for more, and a little of the divergence. pictures: (B, 3, H, W)."""
        mean, log_variance = self.encoder(pictures - 0.5).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
        most = pictures.flatten(2).median(dim=-1).values[..., None, None]  # (B, 3, 1, 1)
        weight = 1 + INK_WEIGHT * ((pictures - most).abs().amax(dim=1, keepdim=True) > 0.1)
        error = self.decoder(drawn).float() + 0.5 - pictures
        return (weight * error.square()).mean() + KL_WEIGHT * divergence

    @torch.no_grad()
    def measure(self, pictures: Tensor) -> None:
        """Set mean and scale, so that the latents of these pictures (B, 3, H, W) have mean 0 and deviation 1 in each channel."""
        self.mean.zero_()
        self.scale.fill_(1)
        latents = self.encode(pictures)
        self.mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
        self.scale.copy_(latents.std(dim=(0, 2, 3))[:, None, None])
