"""LPIPS (arXiv:1801.03924) where it can be had: it compares features of AlexNet, whose weights are not fetched from here."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

BACKBONE = "alexnet-owt-*.pth"
"""torchvision's name for the weights of the network that LPIPS looks through"""


def lpips_needs() -> str:
    """What must be on this machine, with the place, for a sentence."""
    return f"torchvision and AlexNet's weights in {Path(torch.hub.get_dir()) / 'checkpoints' / BACKBONE}"


def lpips_is_present() -> bool:
    """Whether LPIPS works without a download: torchvision is installed and its AlexNet lies in torch's folder of weights."""
    weights = list((Path(torch.hub.get_dir()) / "checkpoints").glob(BACKBONE))
    return bool(weights) and find_spec("torchvision") is not None


def lpips_network() -> nn.Module:
    """torchmetrics' LPIPS with AlexNet, frozen. Called with two (M, 3, H, W) in [0, 1] and normalize=True."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).net.requires_grad_(False)


@torch.no_grad()
def lpips_distance(prediction: Tensor, target: Tensor) -> float:
    """Mean LPIPS of the frames of two videos (B, T, C, H, W) in [0, 1]; 0 where they are the same."""
    network = lpips_network().to(target.device)
    frames = (video.float().clamp(0, 1).flatten(0, 1) for video in (prediction, target))
    return network(*frames, normalize=True).mean().item()
