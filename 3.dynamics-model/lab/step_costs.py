"""What does a frame cost? CPU time of a rollout's step, for the dynamics model of every world that is given.

    python 3.dynamics-model/lab/step_costs.py --worlds assets/worlds/breakout worlds/gpt

One thread, one rollout from a real start under one action. CPU time counts this process only, but a busy neighbor still slows
memory down, so the fastest frame is given beside the median one: it was disturbed least. A model that drafts is also timed
without its draft.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dynamics_model.models.base import Sampling
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.results import format_table, save_json
from world_model.world import WorldModel


@dataclass(frozen=True)
class StepCostsConfig:
    """CPU time of a step of the dynamics model, for every world that is given."""

    worlds: tuple[str, ...] = ("assets/worlds/breakout",)
    """world folders"""
    num_frames: int = 40
    """frames that are timed"""
    json: str | None = None
    """file for the numbers"""


@torch.no_grad()
def cost_of_a_step(world: WorldModel, sampling: Sampling, num_frames: int) -> dict[str, Any]:
    """One row: parameters, decoding passes of a frame, and the fastest and the median step in milliseconds of CPU time."""
    state = world.start_rollouts(world.start_frames[:1], world.start_actions[:1])
    action, taken, passes = torch.tensor([0 if world.num_actions else -1]), [], 0
    with autocast(world.device, world.precision):
        for _ in range(num_frames + 2):
            trace: list = []
            begun = time.process_time()
            world.dynamics.step(state.dynamics_state, action, sampling, state.generator, trace)
            taken.append(1000 * (time.process_time() - begun))
            passes += len(trace)
    taken = sorted(taken[2:])  # without those of warming up
    row: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in world.dynamics.parameters())}
    row |= {"fastest_ms": taken[0], "median_ms": taken[len(taken) // 2]}
    return row | ({"passes": passes / (num_frames + 2)} if passes else {})


def main() -> None:
    config = parse_config(StepCostsConfig)
    check_smallest(config, {"num_frames": 1})
    torch.set_num_threads(1)
    rows = {}
    for folder in config.worlds:
        world = WorldModel.load(Path(folder), "cpu")
        name = world.dynamics.config.model
        rows[name] = cost_of_a_step(world, world.sampling, config.num_frames)
        if hasattr(world.sampling, "num_drafted"):
            undrafted: Any = replace(world.sampling, num_drafted=1)  # type: ignore[call-arg]
            rows[f"{name}_undrafted"] = cost_of_a_step(world, undrafted, config.num_frames)
    print("CPU time of a step, one thread, one rollout")
    print(format_table(rows))
    if config.json:
        save_json(config.json, {"num_frames": config.num_frames, "rows": rows})


if __name__ == "__main__":
    run_script(main)
