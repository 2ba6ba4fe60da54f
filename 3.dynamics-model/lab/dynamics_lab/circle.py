"""A world that is all choice: a frame is a point on a circle, any point, whatever came before."""

import math
from typing import Any

import torch
from torch import Tensor

from dynamics_variants.dreamer4.config import Dreamer4Config
from dynamics_variants.dreamer4.forcing import velocity
from dynamics_variants.dreamer4.model import Dreamer4Dynamics, Dreamer4Sampling
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate

ARMS: dict[str, dict[str, Any]] = {
    "dreamer4": {},
    "flow": {"bootstrap_every": 0},
    "predicts v": {"prediction": "v"},
    "predicts noise": {"prediction": "noise"},
    "no ramp": {"ramp": False},
}
"""arm -> what it changes in the settings"""
LENGTHS = (2, 128)
"""numbers of a frame; the network is 64 wide"""
STEPS = (1, 2, 4, 8, 16, 64)
"""steps from noise to a frame"""
FINER_END = "4, the last in three"
"""three steps of a quarter, one of an eighth and two of a sixteenth: 6 calls"""
RADIUS = math.sqrt(2)
"""of the circle; its frames then have a mean square of 1 along each direction of its plane, as the noise has"""
CLIPS, SAMPLES = 128, 1_000
"""clips of a training step, and frames of a score"""


def plane(code_length: int) -> Tensor:
    """Two directions at right angles, each a row of length 1: (2, D). The circle lies in their plane, whatever D is."""
    return torch.linalg.qr(torch.randn(code_length, 2, generator=torch.Generator().manual_seed(0))).Q.T


def circle(count: int, random: torch.Generator, code_length: int) -> Tensor:
    """Points of the circle, all equally likely: (count, 1, D), frames of one latent."""
    angle = 2 * math.pi * torch.rand(count, generator=random)
    return (RADIUS * torch.stack([angle.cos(), angle.sin()], dim=-1) @ plane(code_length))[:, None]


def decibels_from_circle(frames: Tensor) -> float:
    """The mean squared distance from the circle over that of its center, in dB, higher is closer. frames: (F, 1, D)."""
    directions = plane(frames.shape[-1])
    inside = frames[:, 0] @ directions.T  # (F, 2), where a frame lies in the plane
    outside = frames[:, 0] - inside @ directions  # (F, D), how it leaves the plane
    distance = (inside.norm(dim=-1) - RADIUS).square() + outside.square().sum(dim=-1)
    return -10 * math.log10(distance.mean().item() / RADIUS**2)


def trained(seed: int, num_steps: int, code_length: int, flags: dict[str, Any]) -> Dreamer4Dynamics:
    """A small Dreamer 4 with these settings after this training, on frames of `code_length` numbers."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    flags = {"bootstrap_every": 2} | flags  # every second clip learns larger steps as well, unless an arm decides otherwise
    config = Dreamer4Config(
        grid_size=(1, 1), code_length=code_length, actions="none", num_frames=2, context_frames=2, num_registers=0, num_layers=3,
        embed_dim=64, num_heads=2, num_steps=num_steps, warmup_steps=20, **flags,
    )  # fmt: skip
    model = Dreamer4Dynamics(config).train()
    optimizer = build_optimizer(model, config)
    for step in range(1, num_steps + 1):
        set_learning_rate(optimizer, step, num_steps, config)
        frames = circle(2 * CLIPS, random, code_length).view(CLIPS, 2, 1, code_length)
        optimizer.zero_grad()
        torch.stack([*model(frames, torch.full((CLIPS, 2), -1)).values()]).sum().backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def formed(model: Dreamer4Dynamics, past: Tensor, doublings: tuple[int, ...], noise: Tensor) -> Tensor:
    """Frames after the past, both (F, 1, D), in steps of unequal size: 2 means 2^2 = 4 of the 16 smallest. noise: (F, 1, D)."""
    unknown = torch.full((len(past), 1), -1)
    cache, frame, signal = model.start(past[:, None]).cache, noise[:, None], torch.zeros(len(past), 1)
    for doubled in doublings:
        size = torch.full_like(unknown, min(doubled, model.num_sizes - 1))  # plain flow knows the smallest size alone
        clean, _ = model.predict(frame, signal, size, unknown, cache)
        frame = frame + 2**doubled / model.num_levels * velocity(clean, frame, signal)
        signal = signal + 2**doubled / model.num_levels
    return frame[:, 0]


def scores(model: Dreamer4Dynamics) -> dict[str, float]:
    """Number of steps, or FINER_END -> dB of 1,000 frames, all from the same noise."""
    past = circle(SAMPLES, torch.Generator().manual_seed(1), model.config.code_length)
    unknown = torch.full((SAMPLES,), -1)
    found = {}
    for num_steps in STEPS:
        state = model.start(past[:, None])
        frames = model.step(state, unknown, Dreamer4Sampling(num_steps=num_steps), torch.Generator().manual_seed(0))
        found[str(num_steps)] = decibels_from_circle(frames)
    noise = torch.randn(past.shape, generator=torch.Generator().manual_seed(0))
    found[FINER_END] = decibels_from_circle(formed(model, past, (2, 2, 2, 1, 0, 0), noise))
    return found
