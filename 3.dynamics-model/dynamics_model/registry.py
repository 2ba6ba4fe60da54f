"""Rebuild a dynamics model from its checkpoint alone."""

from pathlib import Path

import torch

from dynamics_model.config import DynamicsConfig
from dynamics_model.models.maskgit import DynamicsModel
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict


def build_dynamics(config: DynamicsConfig) -> DynamicsModel:
    """A dynamics model with fresh weights. Raises InputError for sizes that do not fit together."""
    config.check()
    return DynamicsModel(config)


def load_dynamics(path: str | Path, device: str | torch.device = "cpu") -> DynamicsModel:
    """The model of a checkpoint, in evaluation mode. Raises InputError where the file is not one of this chapter and version."""
    content = load_checkpoint(path, "dynamics")
    config = config_from_dict(DynamicsConfig, content["config"])
    model = build_with_weights(lambda: build_dynamics(config), content, path)
    return model.to(device).eval()
