"""The sharpening network: bicubic interpolation, and a correction that is computed at the small size.

All convolutions work on the world's own 64x64 pixels, where they cost a quarter of what they would on 128x128. The last one gives
every pixel 4 x 3 numbers, and the pixel shuffle of ESPCN (arXiv:1609.05158) lays them out as 2x2 pixels of three colors. The
blocks are those of EDSR (arXiv:1707.02921), residual and without normalization.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uses.sharpening.config import SharpeningConfig
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import build_with_weights, fingerprint, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict
from video_tokenizer.training.device import autocast
from world_model.world import WorldModel

TRAIN = "4.inference/uses/sharpening/train.py"


def bicubic(frames: Tensor, scale: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, scale * H, scale * W): the base of the network, and the baseline it must beat."""
    return F.interpolate(frames, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0.0, 1.0)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Sharpener(nn.Module):
    """Enlarges decoded frames. Before the first training step it is bicubic interpolation, to the last bit."""

    def __init__(self, config: SharpeningConfig):
        super().__init__()
        self.config, self.scale = config, config.scale
        self.stem = nn.Conv2d(3, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.num_blocks)))
        self.to_pixels = nn.Conv2d(config.width, 3 * config.scale**2, 3, padding=1)
        nn.init.zeros_(self.to_pixels.weight)  # no correction yet
        nn.init.zeros_(self.to_pixels.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, sH, sW), not clamped."""
        features = self.blocks(self.stem(frames - 0.5))  # (B, width, H, W)
        correction = F.pixel_shuffle(self.to_pixels(features), self.scale)  # (B, 3 s s, H, W) -> (B, 3, sH, sW)
        return bicubic(frames, self.scale) + correction.float()

    @torch.no_grad()
    def sharpen(self, frames: np.ndarray) -> np.ndarray:
        """Frames as they are shown: (T, H, W, 3) uint8 -> (T, sH, sW, 3) uint8."""
        device = next(self.parameters()).device
        video = to_video(frames[None], device)[0]  # (T, 3, H, W)
        with autocast(device, self.config.precision):
            return to_frames(self(video)[None])[0]


def load_sharpener(path: str | Path, world: WorldModel) -> Sharpener:
    """The network of a checkpoint, in evaluation mode, where the world is. Raises InputError for a file that holds none, or one
    that was trained on the frames of another world."""
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; train it with python {TRAIN} and this --world")
    content = load_checkpoint(path, "sharpener")
    config = config_from_dict(SharpeningConfig, content["config"])
    config.check()
    if content.get("tokenizer_fingerprint") not in (None, fingerprint(world.tokenizer.state_dict())):
        raise InputError(
            f"{path} was trained on another world than this one; train it with python {TRAIN} and this "
            "--world, and until then move the file away"
        )
    return build_with_weights(lambda: Sharpener(config), content, path).to(world.device).eval()
