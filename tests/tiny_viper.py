"""VIPER in tests: an untrained video model, and trainings in this process instead of as commands, without pictures."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_tokenizers import stirred
from tiny_world import MAIN_LINE

from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.registry import build_dynamics
from dynamics_variants.gpt.config import GPTConfig
from uses.viper import films
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training import run as training_run
from world_model.world import WorldModel

TRAIN_VIDEO_MODEL = REPOSITORY / "3.dynamics-model" / "dynamics_variants" / "train.py"


def tiny_world(actions: str = "none", start_value: int = 0, **changes: Any) -> WorldModel:
    """An untrained gpt behind an untrained tokenizer of Breakout, 32x32 pixels and 16 codes a frame; three frames of context."""
    torch.manual_seed(0)
    tokenizer = stirred(build_tokenizer(MAIN_LINE))
    config = GPTConfig(
        actions=actions, embed_dim=32, num_blocks=1, num_heads=2, num_frames=3, context_frames=3, frame_size=32,  # type: ignore[arg-type]
        codebook_size=tokenizer.codebook_size, code_length=tokenizer.code_length, grid_size=tokenizer.grid_size,
        num_actions=4 if actions == "true" else 0, **changes,
    )  # fmt: skip
    model = stirred(build_dynamics(config))
    model.fit_tokenizer(tokenizer)
    frames = torch.full((1, 2, 32, 32, 3), 7, dtype=torch.uint8)
    frames[:, :, :3] = start_value
    return WorldModel(tokenizer, model, None, WorldMetadata(env_id="ALE/Breakout-v5", action_kind=actions, start_frames=frames))


def some_frames(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)


def train_here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Make VIPER train in this process. Returns the list to which its commands will be added.

    Nothing is drawn: the picture of a gpt's samples, token by token, takes longer than all the rest.
    """
    commands = []

    def run(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=call(Path(command[1]), *command[2:]))

    monkeypatch.setattr(films, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(training_run, "save_curves", lambda *_: None)
    monkeypatch.setattr(load_script(TRAIN_VIDEO_MODEL), "save_rollout_strips", lambda *_: None)
    return commands
