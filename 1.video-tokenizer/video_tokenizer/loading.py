"""Rebuild a tokenizer from its checkpoint alone."""

from pathlib import Path

import torch

from video_tokenizer.command_line import InputError, config_from_dict
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint


def build_tokenizer(config: TokenizerConfig) -> VideoTokenizer:
    """A tokenizer with fresh weights. Raises InputError for sizes that do not fit together."""
    config.check()
    return VideoTokenizer(config)


def load_tokenizer(path: str | Path, device: str | torch.device = "cpu") -> VideoTokenizer:
    """The tokenizer of a checkpoint, in evaluation mode. Raises InputError where the file is not a tokenizer of this version."""
    content = load_checkpoint(path, "tokenizer")
    config = config_from_dict(TokenizerConfig, content["config"])
    tokenizer = build_with_weights(lambda: build_tokenizer(config), content, path)
    if content["model_name"] != tokenizer.config.model:
        raise InputError(
            f"checkpoint {path} names model {content['model_name']!r} but its config says {tokenizer.config.model!r}"
        )
    return tokenizer.to(device).eval()
