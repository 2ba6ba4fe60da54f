"""Perceptual distances between pictures: LPIPS if its weights are installed, else a substitute.

LPIPS (arXiv:1801.03924) compares the features of a network trained on ImageNet, which this repository does not download.

ssim        1 - SSIM of the brightness. It needs no weights, and it normalizes by local contrast, so that a missing ball counts as
            much on a dark background as on a bright one.
frame-gap   compares the features of a small network. In the first steps of the tokenizer's training it learns to predict how many
            frames lie between two frames of a clip. That depends on where the ball is and how it moves, so the features must
            represent the ball.

The values of the three distances cannot be compared with each other.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.errors import InputError
from video_tokenizer.global_batch import global_batch_size, local_shard
from video_tokenizer.lpips import lpips_is_present, lpips_needs, lpips_network
from video_tokenizer.metrics import ssim
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import average_gradients

PerceptualName = Literal["auto", "lpips", "ssim", "frame-gap"]


def chosen_distance(name: PerceptualName) -> str:
    """Resolve "auto": lpips if it is installed, else frame-gap. Raises InputError for lpips if it is not installed."""
    if name == "lpips" and not lpips_is_present():
        raise InputError(f"--perceptual lpips needs {lpips_needs()}; use --perceptual frame-gap or ssim")
    return ("lpips" if lpips_is_present() else "frame-gap") if name == "auto" else name


class FrameGapNetwork(nn.Module):
    """Features of single frames, and a classifier of how many frames lie between two of them."""

    def __init__(self, num_gaps: int, channels: tuple[int, ...] = (16, 32, 64)):
        super().__init__()
        widths = (3, *channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2) for before, after in zip(widths, channels, strict=False)
        )
        self.to_gap = nn.Linear(sum(channels), num_gaps)

    def features(self, frames: Tensor) -> list[Tensor]:
        """frames: (M, 3, H, W) in [0, 1]. Returns one (M, C, h, w) per layer, a vector of length 1 at each position."""
        x, found = 2 * frames - 1, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(F.normalize(x.float(), dim=1, eps=1e-3))
        return found

    def distance(self, reconstructed: Tensor, real: Tensor) -> Tensor:
        """Squared difference of the features, averaged over frames, positions and layers. reconstructed, real: (M, 3, H, W)."""
        pairs = zip(self.features(reconstructed), self.features(real), strict=True)
        return torch.stack([(one - other).square().sum(dim=1).mean() for one, other in pairs]).mean()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """first, second: (M, 3, H, W). Returns logits (M, num_gaps), computed from how much each feature changed."""
        pairs = zip(self.features(first), self.features(second), strict=True)
        changes = [(one - other).square().sum(dim=(2, 3)) for one, other in pairs]
        return self.to_gap(torch.cat(changes, dim=1).log1p())


class PerceptualDistance:
    """The distance used in training: LPIPS or 1 - SSIM from the start, or a frame-gap network, first trained and then frozen.

    It is not a module of the tokenizer, so its weights are not part of the checkpoint.
    """

    network: Any = None

    def __init__(self, name: PerceptualName, num_frames: int, precision: str, device: torch.device):
        """Raises InputError if LPIPS is chosen but not installed."""
        self.name, self.precision = chosen_distance(name), precision
        if self.name == "lpips":
            self.network = lpips_network().to(device)
        elif self.name == "frame-gap":
            self.network = FrameGapNetwork(num_gaps=num_frames).to(device)
            self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-3)
            self.network.requires_grad_(False)
        self.ready = self.name != "frame-gap"

    def __call__(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        """Mean distance of the frames of two clips (B, T, 3, H, W) in [0, 1]; 0 if they are identical. Differentiable."""
        if self.name == "ssim":
            return 1 - ssim(reconstruction.mean(dim=2, keepdim=True), video.mean(dim=2, keepdim=True))
        reconstructed, real = reconstruction.flatten(0, 1), video.flatten(0, 1)
        with autocast(video.device, self.precision):
            if self.name == "lpips":
                return self.network(reconstructed.clamp(0, 1), real, normalize=True).mean()
            return self.network.distance(reconstructed, real)

    def train_step(self, video: Tensor, last: bool) -> dict[str, float]:
        """Train the frame-gap network for one step on clips (B, T, 3, H, W). last: freeze it afterwards.

        Returns its accuracy; chance is 1 / T.
        """
        rows, num_frames = global_batch_size(len(video)), video.shape[1]
        gaps = local_shard(torch.randint(num_frames, (rows,))).to(video.device)  # (B,) in [0, T)
        first = (local_shard(torch.rand(rows)).to(video.device) * (num_frames - gaps)).long()
        clips = torch.arange(len(video), device=video.device)
        self.network.requires_grad_(True)
        with autocast(video.device, self.precision):
            logits = self.network(video[clips, first], video[clips, first + gaps])
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), gaps).backward()
        average_gradients(self.network.parameters())
        self.optimizer.step()
        self.network.requires_grad_(False)
        self.ready = last
        return {"gaps_guessed": (logits.argmax(dim=1) == gaps).float().mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """The state for resume.pt. A distance that is not trained has none but its name."""
        if self.name != "frame-gap":
            return {"name": self.name}
        parts = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return parts | {"name": self.name, "ready": self.ready}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises InputError if the run was started with a different distance."""
        if state["name"] != self.name:
            raise InputError(f"the run was started with --perceptual {state['name']}; resume it with that, not with {self.name}")
        if self.name == "frame-gap":
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ready = state["ready"]
