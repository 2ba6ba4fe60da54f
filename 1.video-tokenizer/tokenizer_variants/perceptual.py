"""A distance between pictures that looks further than a pixel: LPIPS where its weights are at hand, else a stand-in.

LPIPS (arXiv:1801.03924) compares the features of a network trained on ImageNet, which this repository does not download. One
stand-in is 1 - SSIM of the brightness: it needs nothing, and weighs a neighbourhood by its contrast, so that a missing ball
counts as much on a dark ground as on a bright one. The other compares the features of a small network trained here, in the first
steps of the tokenizer's own training, to tell how many frames lie between two frames of a clip. Where a ball is and which way it
flies decides that, so its features must see the ball. It is called the frame-gap distance. None of these is LPIPS: their numbers
cannot be compared.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.errors import InputError
from video_tokenizer.lpips import lpips_is_present, lpips_needs, lpips_network
from video_tokenizer.metrics import ssim
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import average_gradients, global_batch_size, local_shard

PerceptualName = Literal["auto", "lpips", "ssim", "frame-gap"]


def chosen_distance(name: PerceptualName) -> str:
    """The name itself; auto is lpips where it is present, else frame-gap. Raises InputError for lpips where it is absent."""
    if name == "lpips" and not lpips_is_present():
        raise InputError(f"--perceptual lpips needs {lpips_needs()}; use --perceptual frame-gap or ssim")
    return ("lpips" if lpips_is_present() else "frame-gap") if name == "auto" else name


class FrameGapNetwork(nn.Module):
    """Features of single frames, and a guess of how many frames lie between two of them."""

    def __init__(self, num_gaps: int, channels: tuple[int, ...] = (16, 32, 64)):
        super().__init__()
        widths = (3, *channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2) for before, after in zip(widths, channels, strict=False)
        )
        self.to_gap = nn.Linear(sum(channels), num_gaps)

    def features(self, frames: Tensor) -> list[Tensor]:
        """frames: (M, 3, H, W) in [0, 1]. Returns one (M, C, h, w) per layer, each place a vector of length 1."""
        x, found = 2 * frames - 1, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(F.normalize(x.float(), dim=1, eps=1e-3))
        return found

    def distance(self, drawn: Tensor, real: Tensor) -> Tensor:
        """Squared difference of the features, mean over frames, places and layers. drawn, real: (M, 3, H, W)."""
        pairs = zip(self.features(drawn), self.features(real), strict=True)
        return torch.stack([(one - other).square().sum(dim=1).mean() for one, other in pairs]).mean()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two frames each (M, 3, H, W). Returns logits (M, num_gaps): one number per feature, how much of it has changed."""
        pairs = zip(self.features(first), self.features(second), strict=True)
        changes = [(one - other).square().sum(dim=(2, 3)) for one, other in pairs]
        return self.to_gap(torch.cat(changes, dim=1).log1p())


class PerceptualDistance:
    """The distance in training: LPIPS or 1 - SSIM from the start, or a frame-gap network that first learns and is then frozen.

    No module of the tokenizer, so neither in its weights nor in its checkpoint.
    """

    network: Any = None

    def __init__(self, name: PerceptualName, num_frames: int, precision: str, device: torch.device):
        """Raises InputError where what LPIPS needs is not here."""
        self.name, self.precision = chosen_distance(name), precision
        if self.name == "lpips":
            self.network = lpips_network().to(device)
        elif self.name == "frame-gap":
            self.network = FrameGapNetwork(num_gaps=num_frames).to(device)
            self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-3)
            self.network.requires_grad_(False)
        self.ready = self.name != "frame-gap"

    def __call__(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        """Mean distance of the frames of two clips (B, T, 3, H, W) in [0, 1]; 0 where they are the same. With a gradient."""
        if self.name == "ssim":
            return 1 - ssim(reconstruction.mean(dim=2, keepdim=True), video.mean(dim=2, keepdim=True))
        drawn, real = reconstruction.flatten(0, 1), video.flatten(0, 1)
        with autocast(video.device, self.precision):
            if self.name == "lpips":
                return self.network(drawn.clamp(0, 1), real, normalize=True).mean()
            return self.network.distance(drawn, real)

    def train_step(self, video: Tensor, last: bool) -> dict[str, float]:
        """One step of the frame-gap network on the frames of these clips (B, T, 3, H, W); after the last one it is frozen.

        Returns the share of gaps it guessed. By chance it is 1 / T.
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
        """What resume.pt keeps; nothing of a distance that never changes."""
        if self.name != "frame-gap":
            return {"name": self.name}
        parts = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return parts | {"name": self.name, "ready": self.ready}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises InputError where the run was begun with the other distance."""
        if state["name"] != self.name:
            raise InputError(f"the run was started with --perceptual {state['name']}; resume it with that, not {self.name}")
        if self.name == "frame-gap":
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ready = state["ready"]
