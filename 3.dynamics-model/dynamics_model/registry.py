"""Find a dynamics model by its name, and rebuild one from its checkpoint alone."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dynamics_model.config import NextFrameConfig
from dynamics_model.models.base import DynamicsModel
from dynamics_model.models.maskgit import MaskGIT
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict


def dynamics_class(name: str) -> type[DynamicsModel]:
    """The class of a dynamics model: MaskGIT, or one that `dynamics_variants.DYNAMICS` names, {"name": "module.Class"}."""
    variants = import_module("dynamics_variants").DYNAMICS
    if name == "maskgit":
        return MaskGIT
    if name not in variants:
        raise InputError(f"there is no dynamics model called {name!r}; there are {', '.join(['maskgit', *variants])}")
    module, _, attribute = variants[name].rpartition(".")
    return getattr(import_module(module), attribute)


def dynamics_config(values: dict[str, Any]) -> NextFrameConfig:
    """The settings in a checkpoint. Raises InputError if they are not those of their model."""
    return config_from_dict(dynamics_class(str(values.get("model", "maskgit"))).config_class, values)


def build_dynamics(config: NextFrameConfig) -> DynamicsModel:
    """A dynamics model with fresh weights. Raises InputError for sizes that do not fit together."""
    config.check()
    return dynamics_class(config.model)(config)


def load_dynamics(path: str | Path, device: str | torch.device = "cpu", **changes: Any) -> DynamicsModel:
    """The model of a checkpoint, in evaluation mode. Raises InputError for a file of another chapter or version.

    changes: settings to replace that no weight depends on, such as context_frames.
    """
    content = load_checkpoint(path, "dynamics")
    config = replace(dynamics_config(content["config"]), **changes)
    return build_with_weights(lambda: build_dynamics(config), content, path).to(device).eval()
