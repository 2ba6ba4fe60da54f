"""Any combination of sizes either trains two steps or is refused with a sentence that names the numbers."""

import os
import re
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dynamics_model.config import DynamicsConfig
from dynamics_model.registry import build_dynamics
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import weighted_mse
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.optimizer import build_optimizer

COUNTS = st.integers(-1, 5)
WIDTHS = st.sampled_from([-8, 0, 1, 2, 6, 7, 8, 12, 16, 24, 30, 32, 10**6])
SHARED = {
    "num_frames": COUNTS, "context_frames": COUNTS, "embed_dim": WIDTHS, "num_heads": COUNTS,
    "batch_size": st.integers(-1, 3), "accumulate": st.integers(0, 3), "learning_rate": st.sampled_from([-1.0, 0.0, 1e-3]),
}  # fmt: skip
TOKENIZER = SHARED | {
    "frame_size": st.sampled_from([-8, 0, 1, 7, 8, 12, 16, 17, 24, (16, 8), (24, 32), (8, -8)]),
    "patch_size": st.sampled_from([-4, 0, 1, 2, 3, 4, 8, 16, 64]),
    "num_blocks": st.integers(-1, 2), "levels": st.lists(st.integers(0, 9), max_size=4).map(tuple),
    "stem": st.sampled_from(["linear", "conv"]), "optimizer": st.sampled_from(["adamw", "muon"]),
    "stability_weight": st.sampled_from([0.0, 0.1]), "activation_checkpointing": st.booleans(),
}  # fmt: skip
LATENT = SHARED | {
    "frame_size": st.sampled_from([-8, 0, 7, 8, 12, 16, 17, (16, 8), (24, 32), (8, 12)]), "num_actions": st.integers(-1, 9),
    "conv_width": st.sampled_from([-8, 0, 1, 6, 8, 16]), "quantizer": st.sampled_from(["vq", "fsq"]),
}  # fmt: skip
DYNAMICS = SHARED | {
    "grid_size": st.tuples(st.integers(-1, 4), st.integers(-1, 4)), "codebook_size": st.sampled_from([-1, 0, 1, 2, 30]),
    "num_actions": st.integers(-1, 5), "actions": st.sampled_from(["latent", "true", "none"]), "num_blocks": st.integers(-1, 2),
    "smallest_mask_rate": st.sampled_from([-0.5, 0.0, 0.5, 1.0, 2.0]), "action_dropout": st.sampled_from([-0.1, 0.0, 0.5, 1.0]),
    "context_corruption": st.sampled_from([0.0, 0.3, 1.5]),
}  # fmt: skip
NUMBER = int(os.environ.get("CONFIGS_TO_TRY", "60"))
MANY = settings(max_examples=NUMBER, deadline=None, suppress_health_check=list(HealthCheck), derandomize=NUMBER == 60)


def random_video(config: Any) -> Tensor:
    """A batch of noise of the config's sizes."""
    return torch.rand(config.batch_size, config.num_frames, 3, *config.frame_height_width)


def trains_or_is_refused(build: Callable[[Any], nn.Module], loss: Callable[[nn.Module], Tensor], config: Any) -> None:
    """Two steps with finite losses, or one sentence with numbers in it."""
    try:
        model = build(config)
    except InputError as error:
        sentence = str(error)
        assert re.search(r"-?\d", sentence) and "\n" not in sentence, sentence
        return
    optimizer = build_optimizer(model, config)
    for _ in range(2):
        optimizer.zero_grad()
        value = loss(model.train())
        value.backward()
        assert torch.isfinite(value)
        optimizer.step()


@MANY
@given(st.fixed_dictionaries({}, optional=TOKENIZER))
def test_a_tokenizer_of_any_sizes_trains_or_is_refused(sizes):
    config = TokenizerConfig(**{"frame_size": 16, "embed_dim": 24, "num_heads": 2, "num_blocks": 1, "batch_size": 2} | sizes)

    def loss(tokenizer: nn.Module) -> Tensor:
        video = random_video(config)
        output = tokenizer(video)
        return weighted_mse(output.reconstruction, video, video[0, 0], 10.0, 40.0) + sum(output.losses.values())

    trains_or_is_refused(build_tokenizer, loss, config)


@MANY
@given(st.fixed_dictionaries({}, optional=LATENT))
def test_latent_actions_of_any_sizes_train_or_are_refused(sizes):
    config = LatentActionConfig(**{"frame_size": 16, "embed_dim": 24, "num_heads": 2, "conv_width": 8, "batch_size": 2} | sizes)

    def loss(model: nn.Module) -> Tensor:
        return torch.stack([*model(random_video(config)).losses.values()]).sum()

    trains_or_is_refused(build_latent_action_model, loss, config)


@MANY
@given(st.fixed_dictionaries({}, optional=DYNAMICS))
def test_dynamics_of_any_sizes_train_or_are_refused(sizes):
    config = DynamicsConfig(**{"grid_size": (2, 2), "codebook_size": 30, "num_actions": 3, "embed_dim": 24, "num_heads": 2,
                               "num_blocks": 1, "batch_size": 2} | sizes)  # fmt: skip

    def loss(model: nn.Module) -> Tensor:
        height, width = config.grid_size
        tokens = torch.randint(config.codebook_size, (config.batch_size, config.num_frames, height * width))
        actions = torch.randint(max(1, config.num_actions), (config.batch_size, config.num_frames))
        return model.loss(tokens, actions)["cross_entropy"]

    trains_or_is_refused(build_dynamics, loss, config)
