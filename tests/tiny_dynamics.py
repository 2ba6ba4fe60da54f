"""Every dynamics model there is, small enough for a test of a second."""

from typing import Any

import torch
from tiny_tokenizers import stirred

from dynamics_model.models.base import DynamicsModel
from dynamics_model.registry import build_dynamics, dynamics_class
from dynamics_variants import DYNAMICS

MODELS = ["maskgit", *DYNAMICS]
SIZES: dict[str, dict[str, Any]] = {
    "maskgit": {"embed_dim": 32, "num_blocks": 2, "num_heads": 2},
    "gpt": {"embed_dim": 32, "num_blocks": 2, "num_heads": 2, "time_rows": 9, "resnet_blocks": 1},
    "dreamer4": {"embed_dim": 32, "num_heads": 2, "num_layers": 4, "time_every": 2, "finest_steps": 8},
    "teco": {
        "channels": 16,
        "change_downsample": 1,
        "change_channels": 8,
        "change_codes": 10,
        "change_code_length": 4,
        "action_dim": 4,
        "embed_dim": 32,
        "num_blocks": 2,
        "num_heads": 2,
        "prior_dim": 16,
        "prior_blocks": 1,
        "prior_heads": 2,
    },
}
CERTAIN: dict[str, dict[str, Any]] = {
    "maskgit": {"num_steps": 1, "temperature": 0.0},
    "gpt": {"temperature": 0.0},
    "teco": {"draft_chunks": 1, "revise_rounds": 0, "temperature": 0.0, "feedback": "frame"},
}
"""sampling settings under which the next frame is the most likely one; models that begin with noise have none"""
SEEN: dict[str, dict[str, Any]] = {"teco": {"feedback": "frame"}}
"""sampling settings under which a model remembers a frame that it sampled as it remembers a real one, if not by default"""
LATENTS = {name: {"code_length": 3} for name in MODELS if dynamics_class(name).reads == "latents"}
NUM_TOKENS, NUM_CODES, NUM_ACTIONS = 6, 20, 4


def tiny_config(name: str, **changes: Any) -> Any:
    """A config of this model for frames of 2 x 3 tokens, which sees three frames at a time."""
    shape = {"grid_size": (2, 3), "num_actions": NUM_ACTIONS, "frame_size": 16, "num_frames": 6, "context_frames": 3}
    if dynamics_class(name).reads == "tokens":
        shape["codebook_size"] = NUM_CODES
    return dynamics_class(name).config_class(**{"model": name} | shape | SIZES[name] | LATENTS.get(name, {}) | changes)


def built(name: str, **changes: Any) -> DynamicsModel:
    """The model with random weights, none of them zero, in evaluation mode."""
    torch.manual_seed(0)
    return stirred(build_dynamics(tiny_config(name, **changes))).eval()


def clip(model: DynamicsModel, batch_size: int = 2, num_frames: int = 9, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random frames, tokens (B, T, N) or latents (B, T, N, D), and random actions (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randint(NUM_ACTIONS, (batch_size, num_frames), generator=generator)
    shape = (batch_size, num_frames, model.tokens_per_frame)
    if model.reads == "tokens":
        return torch.randint(NUM_CODES, shape, generator=generator), actions
    return 2 * torch.rand(*shape, LATENTS[model.config.model]["code_length"], generator=generator) - 1, actions


def changed(frames: torch.Tensor) -> torch.Tensor:
    """Frames of the same shape, different in every place."""
    return -frames if frames.is_floating_point() else (frames + 7) % NUM_CODES


def flags(name: str, **changes: Any) -> list[str]:
    """The model and its sizes as command line flags."""
    sizes = {"model": name} | SIZES[name] | changes
    words = [word for field, value in sizes.items() for word in ("--" + field.replace("_", "-"), *_words(value))]
    return words if name != "maskgit" else words[2:]


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, tuple) else [str(value)]


assert SIZES.keys() == set(MODELS)
