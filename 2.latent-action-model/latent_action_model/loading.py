"""Rebuild a latent action model from its checkpoint alone."""

from pathlib import Path

import torch

from latent_action_model.config import LatentActionConfig
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict


def build_latent_action_model(config: LatentActionConfig) -> LatentActionModel:
    """A latent action model with fresh weights. Raises InputError for sizes that do not fit together."""
    config.check()
    return LatentActionModel(config)


def load_latent_action_model(path: str | Path, device: str | torch.device = "cpu") -> LatentActionModel:
    """The model of a checkpoint, in evaluation mode. Raises InputError where the file is not one of this chapter and version."""
    content = load_checkpoint(path, "latent_action_model")
    config = config_from_dict(LatentActionConfig, content["config"])
    model = build_with_weights(lambda: build_latent_action_model(config), content, path)
    return model.to(device).eval()
