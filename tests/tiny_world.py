"""A world of untrained models small enough for tests: 32x32 frames, 16 tokens a frame, a few thousand weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamics_model.config import DynamicsConfig
from dynamics_model.registry import build_dynamics
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.config import TokenizerConfig, TrainingConfig
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import fingerprint, save_checkpoint

KEYS = ["NOOP", "FIRE", "RIGHT", "LEFT"]


MAIN_LINE = TokenizerConfig(frame_size=32, patch_size=8, embed_dim=32, num_blocks=1, num_heads=2, context_frames=2)


def save_tiny_world(
    folder: Path,
    actions: str = "latent",
    env_id: str | None = "ALE/Breakout-v5",
    tokenizer_config: TrainingConfig = MAIN_LINE,
    **extra: Any,
) -> Path:
    """Write tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt. extra: other facts for dynamics.pt."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tokenizer_config)
    save("tokenizer", folder, tokenizer_config.model, tokenizer_config, tokenizer)
    if actions == "latent":
        latent_config = LatentActionConfig(
            frame_size=32, conv_width=8, embed_dim=32, num_heads=2, num_actions=6, context_frames=2
        )
        save("latent_action_model", folder, "latent-action-model", latent_config, build_latent_action_model(latent_config))
    num_actions = {"latent": 6, "true": 4, "none": 0}[actions]
    dynamics_config = DynamicsConfig(
        actions=actions, embed_dim=32, num_blocks=1, num_heads=2, context_frames=3, codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size, num_actions=num_actions, frame_size=32,
    )  # fmt: skip
    numbers = {"latent": [0, 1, 2, 5], "true": [0, 1, 2, 3], "none": []}[actions]
    facts: dict[str, Any] = {
        "action_kind": actions,
        "action_names": KEYS if env_id else [],
        "env_id": env_id,
        "frames_per_second": 15.0,
        "action_map": dict(zip(KEYS, numbers, strict=False)) if env_id else {},
        "latent_names": ["NOOP", "FIRE", "RIGHT", "mixed", "unused", "LEFT"] if actions == "latent" else [],
        "start_frames": torch.from_numpy(some_frames(2, 4)),
        "start_actions": torch.tensor([[-1, 0, 0, 0], [-1, 0, 0, 0]]) if num_actions else torch.full((2, 4), -1),
        "tokenizer_fingerprint": fingerprint(tokenizer.state_dict()),
        "frame_skip": 4,
        "picture_delay": 1,
    }
    save("dynamics", folder, "maskgit", dynamics_config, build_dynamics(dynamics_config), **(facts | extra))
    return folder


def save(kind: str, folder: Path, name: str, config: Any, model: torch.nn.Module, **extra: Any) -> None:
    """One checkpoint of a tiny world, as a training would write it."""
    save_checkpoint(folder / f"{kind}.pt", kind, name, asdict(config), model.state_dict(), 0, {}, "no data", **extra)


def some_frames(*shape: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Random uint8 pictures (*shape, size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, size, size, 3), dtype=np.uint8)
