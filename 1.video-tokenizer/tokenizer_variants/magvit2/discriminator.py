"""A network that learns to distinguish real clips from reconstructions, and the adversarial losses.

If a tokenizer is uncertain, the squared error is lowest for the mean of all possibilities, which is blurred. The discriminator
recognizes blur easily, and the tokenizer is trained to fool it. It is used in training only and is not part of a checkpoint.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer_variants.conv3d_workaround import Float32TwoFrameConv3d
from video_tokenizer.global_batch import mean_over_processes

LossName = Literal["hinge", "non-saturating"]


class BlurPool3d(nn.Module):
    """Halve frames, rows and columns: blur with (1, 2, 1) / 4 along each axis, and keep every second value (arXiv:1904.11486).

    Without the blur, the result changes completely if the picture moves by one pixel. Along an axis, (0, 0, 8, 0) becomes (0, 4),
    because value 2 is 0/4 + 8/2 + 0/4. Moved by one, (0, 8, 0, 0) becomes (2, 2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C, ceil(T/2), ceil(H/2), ceil(W/2))."""
        # averaging two neighbors twice gives the weights (1, 2, 1) / 4; values at the edges are replicated
        means = F.avg_pool3d(F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"), kernel_size=2, stride=1)
        return F.avg_pool3d(means, kernel_size=2, stride=2)


class DiscriminatorBlock(nn.Module):
    """Two convolutions with downsampling by 2 in between, and a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, blur_pool: bool):
        super().__init__()
        self.convolution_1 = Float32TwoFrameConv3d(nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1))
        self.convolution_2 = Float32TwoFrameConv3d(nn.Conv3d(out_channels, out_channels, kernel_size=3, padding=1))
        self.skip = nn.Conv3d(in_channels, out_channels, kernel_size=1, bias=False)
        strided = [
            Float32TwoFrameConv3d(nn.Conv3d(width, width, 3, stride=2, padding=1, groups=width))
            for width in (out_channels, in_channels)
        ]
        self.halve, self.halve_skip = (BlurPool3d(), BlurPool3d()) if blur_pool else strided

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C', ceil(T/2), H/2, W/2)."""
        y = self.halve(F.leaky_relu(self.convolution_1(x), 0.2))
        y = F.leaky_relu(self.convolution_2(y), 0.2)
        return (y + self.skip(self.halve_skip(x))) * 0.5**0.5  # keeps the variance


class Discriminator(nn.Module):
    """Scores how real each region of a clip looks: above 0 is real, below 0 is reconstructed.

    Residual blocks with blur pooling, as in MAGVIT-2 (arXiv:2310.05737). MAGVIT-2 has one score per clip. We have one per region,
    as in Open-MAGVIT2, because the ball of a game is only 3 of its 4,096 pixels.
    """

    def __init__(self, channels: tuple[int, ...], blur_pool: bool = True):
        super().__init__()
        widths = (3, *channels)
        self.blocks = nn.Sequential(
            *(DiscriminatorBlock(before, after, blur_pool) for before, after in zip(widths, channels, strict=False))
        )
        self.to_score = nn.Conv3d(channels[-1], 1, kernel_size=1)
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv3d):
                nn.init.kaiming_normal_(convolution.weight, a=0.2)  # keeps the variance through leaky ReLUs
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)
        nn.init.normal_(self.to_score.weight, std=1e-3)  # real and reconstructed clips start with a score of about 0

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns scores (B, T', H', W')."""
        x = 2 * video.transpose(1, 2) - 1  # (B, C, T, H, W)
        return self.to_score(self.blocks(x))[:, 0].float()


def generator_loss(scores: Tensor, kind: LossName) -> Tensor:
    """The loss of the tokenizer, small if its clips are scored as real. Only the discriminator's loss has a hinge."""
    return -scores.mean() if kind == "hinge" else F.softplus(-scores).mean()


def discriminator_loss(real: Tensor, fake: Tensor, kind: LossName) -> Tensor:
    """The loss of the discriminator. If all scores are 0, hinge is 1 + 1 = 2, and non-saturating is 2 log 2 = 1.386.

    Hinge is zero once real scores are above 1 and fake ones below -1. Non-saturating is the cross entropy of "real" and "fake".
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(discriminator: nn.Module, video: Tensor) -> Tensor:
    """R1 (arXiv:1801.04406): half the squared norm of the score's gradient at real clips, averaged over clips.

    If the gradient is large at real clips, it pushes the tokenizer past them. The score of a clip is the mean over its regions;
    the penalty of their sum would be larger by the square of their number. video: (B, T, C, H, W).
    """
    video = video.detach().requires_grad_()
    scores = discriminator(video).flatten(1).mean(dim=1)  # (B,)
    (slope,) = torch.autograd.grad(scores.sum(), video, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(dim=1).mean()


@dataclass
class ScoreAverages:
    """LeCAM (arXiv:2104.03310): running means of real and fake scores, and a penalty that pulls the two together.

    With little data, a discriminator memorizes the clips, and its scores drift apart. The penalty prevents that.
    """

    real: float = 0.0
    fake: float = 0.0
    decay: float = 0.99

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Move the running means toward those of this batch, over all processes."""
        self.real += (1 - self.decay) * (float(mean_over_processes(real.mean())) - self.real)
        self.fake += (1 - self.decay) * (float(mean_over_processes(fake.mean())) - self.fake)

    def state_dict(self) -> dict[str, float]:
        return {"real": self.real, "fake": self.fake}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.real, self.fake = state["real"], state["fake"]

    def penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean squared excess of real scores over the mean fake score, and of the mean real score over fake scores."""
        return F.relu(real - self.fake).square().mean() + F.relu(self.real - fake).square().mean()
