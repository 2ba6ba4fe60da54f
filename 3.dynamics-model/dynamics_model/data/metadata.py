"""What a dynamics checkpoint knows about its data and actions: all that a world needs beside the weights."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from dynamics_model.models.action_prior import GUIDANCE, KEY_SMOOTHING
from video_tokenizer.training.command_line import check_types
from video_tokenizer.training.config import check_ranges


@dataclass
class WorldMetadata:
    """The facts that chapter 3 stores in its checkpoint and chapter 4 plays by."""

    action_kind: str = "none"
    """"latent", "true" or "none\""""
    action_names: list[str] = field(default_factory=list)
    """the game's true actions"""
    action_map: dict[str, int] = field(default_factory=dict)
    """true action name -> the model's action; learned from a few labels where actions are latent"""
    latent_names: list[str] = field(default_factory=list)
    """for each latent action the true action that it mostly stands for"""
    code_counts: list[list[int]] = field(default_factory=list)
    """how often each latent action came with each true action among the labels; empty without labels"""
    key_guidance: float = GUIDANCE
    """power of P(key | latent action) with which chapter 4 steers this world"""
    key_smoothing: float = KEY_SMOOTHING
    """pseudo-counts in P(key | latent action), which is estimated from `code_counts`"""
    env_id: str | None = None
    """Gymnasium id of the recorded game, None for videos"""
    frames_per_second: float = 15.0
    frame_skip: int | None = None
    """emulator frames per action"""
    picture_delay: int | None = None
    """emulator frames between an action and the picture that shows it"""
    merged_frames: int = 2
    """emulator frames whose maximum is one picture"""
    linear_light: bool = False
    """whether frames were shrunk by averaging light, see `resize_by_area`"""
    tokenizer_fingerprint: str | None = None
    latent_action_model_fingerprint: str | None = None
    start_frames: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    """(S, T, H, W, 3) uint8: real frames to start rollouts from without any data"""
    start_actions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(S, T) int64: the actions that led to `start_frames`, -1 where unknown"""

    @classmethod
    def of_checkpoint(cls, content: dict[str, Any]) -> "WorldMetadata":
        """The metadata among a checkpoint's entries; an entry that is missing or None keeps its default.

        Raises InputError for an entry of another type, or for numbers that cannot steer a world.
        """
        known = {one.name: content[one.name] for one in fields(cls) if content.get(one.name) is not None}
        check_types(cls, known)
        check_ranges(known)
        return cls(**known)
