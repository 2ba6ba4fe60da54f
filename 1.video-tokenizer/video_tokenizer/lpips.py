"""LPIPS (arXiv:1801.03924), a distance between AlexNet features, where AlexNet's weights are installed; nothing is downloaded."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

BACKBONE = "alexnet-owt-*.pth"
"""file name of torchvision's AlexNet weights"""


def lpips_needs() -> str:
    """What LPIPS needs on this machine, as part of an error message."""
    return f"torchvision and AlexNet's weights in {Path(torch.hub.get_dir()) / 'checkpoints' / BACKBONE}"


def lpips_is_present() -> bool:
    """Whether LPIPS works without a download: torchvision is installed, and its AlexNet weights are in torch's cache folder."""
    weights = list((Path(torch.hub.get_dir()) / "checkpoints").glob(BACKBONE))
    return bool(weights) and find_spec("torchvision") is not None


@cache
def lpips_network() -> nn.Module:
    """The frozen LPIPS network of torchmetrics, with AlexNet. Call it with two (M, 3, H, W) in [0, 1] and normalize=True."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).net.requires_grad_(False)


@torch.no_grad()
def lpips_distance(prediction: Tensor, target: Tensor) -> float:
    """Mean LPIPS of the frames of two videos (B, T, C, H, W) in [0, 1]; 0 if they are identical."""
    network = lpips_network().to(target.device)
    frames = (video.float().clamp(0, 1).flatten(0, 1) for video in (prediction, target))
    return network(*frames, normalize=True).mean().item()
