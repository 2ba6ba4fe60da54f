"""A second network that learns to tell real clips from reconstructions, and the training of the two against each other.

A squared error is lowest where a tokenizer in doubt draws the mean, which is blur. The discriminator sees blur at once, and the
tokenizer is asked to draw what it takes for real. It is used in training only and is no part of a checkpoint.
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
    """Half the frames, rows and columns: blur with (1, 2, 1) / 4 along each axis, keep every second value (arXiv:1904.11486).

    Keeping every second value of a sharp picture answers quite differently when the picture moves by a pixel; of a blurred one
    it does not. Along an axis (0, 0, 8, 0) becomes (0, 4): value 2 is 0/4 + 8/2 + 0/4. Its neighbor (0, 8, 0, 0) becomes (2, 2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T, H, W). Returns (B, C, ceil(T/2), ceil(H/2), ceil(W/2))."""
        # (1, 2, 1) / 4 is the mean of two neighbors, twice; values at the ends are repeated outwards
        means = F.avg_pool3d(F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"), kernel_size=2, stride=1)
        return F.avg_pool3d(means, kernel_size=2, stride=2)


class DiscriminatorBlock(nn.Module):
    """Two convolutions with half the frames, rows and columns in between, and the same without convolutions added to it."""

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
        return (y + self.skip(self.halve_skip(x))) * 0.5**0.5  # the variance of one of the two


class Discriminator(nn.Module):
    """How real each region of a clip looks: above 0 real, below 0 drawn.

    Residual blocks with blur pooling, as in MAGVIT-2 (arXiv:2310.05737). There one number judges the whole clip; here, as in
    Open-MAGVIT2, one number per region does, because a game's ball is 3 of its 4,096 pixels.
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
                nn.init.kaiming_normal_(convolution.weight, a=0.2)  # keeps the size of what passes through, leaky ReLUs included
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)
        nn.init.normal_(self.to_score.weight, std=1e-3)  # no opinion yet: both kinds of clips start at a score of 0

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns scores (B, T', H', W')."""
        x = 2 * video.transpose(1, 2) - 1  # (B, C, T, H, W)
        return self.to_score(self.blocks(x))[:, 0].float()


def generator_loss(scores: Tensor, kind: LossName) -> Tensor:
    """What the tokenizer lowers: small where its clips are taken for real. The hinge is the discriminator's business only."""
    return -scores.mean() if kind == "hinge" else F.softplus(-scores).mean()


def discriminator_loss(real: Tensor, drawn: Tensor, kind: LossName) -> Tensor:
    """What the discriminator lowers. With scores of 0 everywhere hinge is 1 + 1 = 2, non-saturating 2 log 2 = 1.386.

    Hinge asks for scores above 1 and below -1 and for no more; non-saturating is the cross-entropy of "real" and "drawn".
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
    return F.softplus(-real).mean() + F.softplus(drawn).mean()


def gradient_penalty(discriminator: nn.Module, video: Tensor) -> Tensor:
    """R1 (arXiv:1801.04406): half the squared norm of the score's slope at real clips, mean over clips.

    A score that is steep at real clips pushes the tokenizer past them. video: (B, T, C, H, W).
    """
    video = video.detach().requires_grad_()
    scores = discriminator(video).flatten(1).mean(dim=1)  # (B,)
    (slope,) = torch.autograd.grad(scores.sum(), video, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(dim=1).mean()


@dataclass
class ScoreAverages:
    """LeCAM (arXiv:2104.03310): running means of the two kinds of scores, and the pull of each kind towards the other's.

    With little data a discriminator learns the clips by heart and its scores drift apart; the pull keeps them together.
    """

    real: float = 0.0
    drawn: float = 0.0
    decay: float = 0.99

    def update(self, real: Tensor, drawn: Tensor) -> None:
        """Move the means towards those of this batch, over all processes."""
        self.real += (1 - self.decay) * (float(mean_over_processes(real.mean())) - self.real)
        self.drawn += (1 - self.decay) * (float(mean_over_processes(drawn.mean())) - self.drawn)

    def state_dict(self) -> dict[str, float]:
        return {"real": self.real, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.real, self.drawn = state["real"], state["drawn"]

    def penalty(self, real: Tensor, drawn: Tensor) -> Tensor:
        """Squared distance of real scores above the mean of drawn ones, and of drawn scores below the mean of real ones."""
        return F.relu(real - self.drawn).square().mean() + F.relu(self.real - drawn).square().mean()
