"""Find a tokenizer by its name, and rebuild one from its checkpoint alone."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from video_tokenizer.config import TrainingConfig
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint
from video_tokenizer.training.command_line import InputError, config_from_dict, read_config_file, value_of_flag

TOKENIZERS = {
    "st-fsq": "video_tokenizer.models.video_tokenizer.VideoTokenizer",
    "st-vq": "tokenizer_variants.st_vq.model.VectorQuantizedTokenizer",
    "videogpt": "tokenizer_variants.videogpt.model.VideoGPTTokenizer",
    "magvit2": "tokenizer_variants.magvit2.model.Magvit2Tokenizer",
    "dreamer4": "tokenizer_variants.dreamer4.model.Dreamer4Tokenizer",
    "elastictok": "tokenizer_variants.elastictok.model.ElasticTokenizer",
}
"""name of a tokenizer -> its class, imported when it is asked for: the main line knows its variants by name only"""


def tokenizer_class(name: str) -> type[Tokenizer]:
    """The class of a tokenizer. Raises InputError for a name that there is not."""
    if name not in TOKENIZERS:
        raise InputError(f"there is no tokenizer called {name!r}; there are {', '.join(TOKENIZERS)}")
    module, _, attribute = TOKENIZERS[name].rpartition(".")
    return getattr(import_module(module), attribute)


def chosen_tokenizer(argv: Sequence[str] | None = None) -> type[Tokenizer]:
    """The class that a command line asks for: with --model, else in the file of --config, else the main line's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, config_file = value_of_flag(arguments, "--model"), value_of_flag(arguments, "--config")
    if name is None and config_file is not None:
        name = read_config_file(Path(config_file)).get("model")
    return tokenizer_class("st-fsq" if name is None else str(name))


def tokenizer_config(values: dict[str, Any]) -> TrainingConfig:
    """The settings of a tokenizer from a checkpoint's dictionary. Raises InputError where they are not those of their model."""
    return config_from_dict(tokenizer_class(str(values.get("model", "st-fsq"))).config_class, values)


def build_tokenizer(config: TrainingConfig) -> Tokenizer:
    """A tokenizer with fresh weights. Raises InputError for sizes that do not fit together."""
    config.check()
    return tokenizer_class(config.model)(config)


def start_tokenizer(config: TrainingConfig) -> Tokenizer:
    """The tokenizer that a training begins with: fresh weights, or those of `config.init_from`. Raises InputError where these do
    not fit the config."""
    config.check()
    if config.init_from is None:
        return build_tokenizer(config)
    content = load_checkpoint(config.init_from, "tokenizer")
    if content["model_name"] != config.model:
        raise InputError(
            f"--init-from {config.init_from} holds model {content['model_name']!r}; give a checkpoint of {config.model}"
        )
    return build_with_weights(lambda: build_tokenizer(config), content, config.init_from)


def load_tokenizer(path: str | Path, device: str | torch.device = "cpu") -> Tokenizer:
    """The tokenizer of a checkpoint, in evaluation mode. Raises InputError where the file is not a tokenizer of this version."""
    content = load_checkpoint(path, "tokenizer")
    config = tokenizer_config(content["config"])
    if content["model_name"] != config.model:
        raise InputError(f"checkpoint {path} names model {content['model_name']!r} but its config says {config.model!r}")
    tokenizer = build_with_weights(lambda: build_tokenizer(config), content, path)
    return tokenizer.to(device).eval()
