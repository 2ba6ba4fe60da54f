"""A world that is all choice: a frame is a point on a circle, any point, whatever came before."""

import math

import torch
from torch import Tensor

from dynamics_variants.dreamer4.config import Dreamer4Config
from dynamics_variants.dreamer4.model import Dreamer4Dynamics, Dreamer4Sampling
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate

STEPS = (1, 2, 4, 8, 16, 64)
"""steps from noise to a frame"""
RADIUS = math.sqrt(2)
"""of the circle; each of the two numbers then has a root mean square of 1, as the noise has"""
CLIPS, SAMPLES = 128, 1_000
"""clips of a training step, and frames of a score"""


def circle(count: int, random: torch.Generator) -> Tensor:
    """Points of the circle, all equally likely: (count, 1, 2), frames of one latent."""
    angle = 2 * math.pi * torch.rand(count, generator=random)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=-1)[:, None]


def decibels_from_circle(frames: Tensor) -> float:
    """The mean squared distance from the circle, per number, in dB below a number's mean square of 1. frames: (F, 1, 2)."""
    distance = frames[:, 0].norm(dim=-1) - RADIUS
    return -10 * math.log10(distance.square().mean().item() / 2)


def trained(bootstrap_every: int, seed: int, num_steps: int) -> Dreamer4Dynamics:
    """A small Dreamer 4 after this training."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    config = Dreamer4Config(
        grid_size=(1, 1), code_length=2, actions="none", num_frames=2, context_frames=2, num_registers=0, num_layers=3,
        embed_dim=64, num_heads=2, bootstrap_every=bootstrap_every, num_steps=num_steps, warmup_steps=20,
    )  # fmt: skip
    model = Dreamer4Dynamics(config).train()
    optimizer = build_optimizer(model, config)
    for step in range(1, num_steps + 1):
        set_learning_rate(optimizer, step, num_steps, config)
        frames = circle(2 * CLIPS, random).view(CLIPS, 2, 1, 2)
        optimizer.zero_grad()
        torch.stack([*model(frames, torch.full((CLIPS, 2), -1)).values()]).sum().backward()
        optimizer.step()
    return model.eval()


def scores(model: Dreamer4Dynamics) -> dict[str, float]:
    """Number of steps -> dB of 1,000 frames, all from the same noise."""
    past, unknown = circle(SAMPLES, torch.Generator().manual_seed(1)), torch.full((SAMPLES,), -1)
    found = {}
    for num_steps in STEPS:
        state = model.start(past[:, None])
        frames = model.step(state, unknown, Dreamer4Sampling(num_steps=num_steps), torch.Generator().manual_seed(0))
        found[str(num_steps)] = decibels_from_circle(frames)
    return found
