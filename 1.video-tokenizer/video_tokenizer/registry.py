"""Rebuild a tokenizer from its checkpoint alone, the main line's or a variant's."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict

VARIANTS = {
    "st-vq": "tokenizer_variants.st_vq.model.VectorQuantizedTokenizer",
    "videogpt": "tokenizer_variants.videogpt.model.VideoGPTTokenizer",
    "magvit2": "tokenizer_variants.magvit2.model.Magvit2Tokenizer",
    "dreamer4": "tokenizer_variants.dreamer4.model.Dreamer4Tokenizer",
    "elastictok": "tokenizer_variants.elastictok.model.ElasticTokenizer",
}
"""name -> class, imported when a checkpoint or a command line asks for it: the lesson imports no variant"""
TOKENIZERS = ("st-fsq", *VARIANTS)


def tokenizer_class(name: str) -> type[Tokenizer]:
    """The class of a tokenizer. Raises InputError for a name that does not exist."""
    if name == "st-fsq":
        return VideoTokenizer
    if name not in VARIANTS:
        raise InputError(f"there is no tokenizer called {name!r}; there are {', '.join(TOKENIZERS)}")
    module, _, attribute = VARIANTS[name].rpartition(".")
    return getattr(import_module(module), attribute)


def tokenizer_config(values: dict[str, Any]) -> ReconstructionConfig:
    """The settings of a tokenizer from a checkpoint's dictionary. Raises InputError where they do not fit its model."""
    name = str(values.get("model", "st-fsq"))
    if name == "st-fsq":
        values = {"background": "grey"} | values  # checkpoints that do not name it subtracted grey
    return config_from_dict(tokenizer_class(name).config_class, values)


def build_tokenizer(config: ReconstructionConfig) -> Tokenizer:
    """A tokenizer with fresh weights, named by config.model. Raises InputError for sizes that do not fit together."""
    config.check()
    return tokenizer_class(config.model)(config)


def load_tokenizer(path: str | Path, device: str | torch.device = "cpu") -> Tokenizer:
    """The tokenizer of a checkpoint, in evaluation mode. Raises InputError where the file is not a tokenizer of this version."""
    content = load_checkpoint(path, "tokenizer")
    config = tokenizer_config(content["config"])
    if content["model_name"] != config.model:
        raise InputError(f"checkpoint {path} names model {content['model_name']!r} but its config says {config.model!r}")
    tokenizer = build_with_weights(lambda: build_tokenizer(config), content, path)
    return tokenizer.to(device).eval()
