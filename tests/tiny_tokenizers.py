"""Every tokenizer there is, small enough for a test of a second."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tokenizer_variants.dreamer4.model import Dreamer4Tokenizer
from video_tokenizer.registry import TOKENIZERS, tokenizer_class
from video_tokenizer.training.checkpoint import REPOSITORY

ModuleT = TypeVar("ModuleT", bound=nn.Module)
BLOCKS = {"patch_size": 8, "embed_dim": 32, "num_blocks": 2, "num_heads": 2, "context_frames": 3}
SIZES: dict[str, dict[str, Any]] = {
    "st-fsq": BLOCKS,
    "st-vq": BLOCKS | {"num_codes": 64, "code_dim": 8, "decoder_embed_dim": 48, "decoder_blocks": 1},
    "videogpt": {"num_frames": 5, "space_stride": 4, "channels": 16, "inner_channels": 8, "num_codes": 32, "code_dim": 8},
    "magvit2": {
        "channels": (8, 16), "blocks": (1, 1), "time_kernel": 3, "discriminator_channels": (8, 8), "perceptual": "frame-gap",
        "perceptual_weight": 0.1, "perceptual_share": 0.3, "adversarial_weight": 0.1, "adversarial_start": 0.3, "r1_every": 2,
    },
    "dreamer4": {"patch_size": 8, "embed_dim": 32, "num_layers": 3, "num_heads": 2, "num_latents": 4, "latent_channels": 3},
    "elastictok": {
        "patch_size": 4, "embed_dim": 32, "hidden_dim": 64, "num_layers": 2, "num_heads": 2, "context_blocks": 3, "min_tokens": 2,
    },
}  # fmt: skip
CAUSAL = ["st-fsq", "st-vq", "magvit2", "dreamer4", "elastictok"]
"""those whose tokens and frames never depend on later ones, and that work frame by frame"""
WITHOUT_CODEBOOK = ["dreamer4"]
"""those whose codes are plain numbers, with which chapter 3 cannot begin anything"""


def tiny_config(name: str, **changes: Any) -> Any:
    """A config of this tokenizer for frames of 16x16."""
    return tokenizer_class(name).config_class(**{"model": name, "frame_size": 16, "batch_size": 2} | SIZES[name] | changes)


@torch.no_grad()
def stirred(module: ModuleT) -> ModuleT:
    """The module with noise on all of its weights, so that what starts at zero, such as kernels' taps in the past, has a say."""
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return module


def flags(name: str) -> list[str]:
    """The same sizes as command line flags."""
    return ["--model", name, *(word for field, value in SIZES[name].items() for word in _words(field, value))]


def _words(field: str, value: Any) -> list[str]:
    return ["--" + field.replace("_", "-"), *(map(str, value) if isinstance(value, tuple) else [str(value)])]


def train_script(name: str) -> Path:
    """The script that trains this tokenizer."""
    chapter = REPOSITORY / "1.video-tokenizer"
    own = {"st-fsq": chapter / "train.py", "magvit2": chapter / "tokenizer_variants" / "magvit2" / "train.py"}
    return own.get(name, chapter / "tokenizer_variants" / "train.py")


assert SIZES.keys() == set(TOKENIZERS)


# ---- for the tests of dreamer4 ----

BLACK = torch.zeros(3, 16, 16)


def built(**changes) -> Dreamer4Tokenizer:
    """Four latents of three numbers for frames of 16x16 in four patches; fresh weights."""
    torch.manual_seed(0)
    return Dreamer4Tokenizer(tiny_config("dreamer4", **changes)).eval()


def scrolling_walls(num_clips: int, num_frames: int, seed: int) -> torch.Tensor:
    """(B, T, 3, 16, 16): grey columns four pixels wide that move to the left, one column a frame.

    Frame t shows columns t to t + 3, three of which the frame before has shown: one number a frame says all that is new.
    """
    greys = torch.rand(num_clips, num_frames + 3, generator=torch.Generator().manual_seed(seed)).unfold(1, 4, 1)  # (B, T, 4)
    return greys.repeat_interleave(4, dim=-1)[:, :, None, None].expand(-1, -1, 3, 16, -1)
