"""What does a frame cost? CPU time of a rollout's step, for every dynamics model at its tiny size.

    python 3.dynamics-model/lab/step_costs.py --json assets/3.dynamics-model/step_costs.json

The weights are untrained, which costs as much as trained ones. One thread, one rollout, the fastest of several frames: CPU time
counts this process only, but a busy neighbor still slows memory down, and the fastest frame was disturbed least.
"""

import time
from dataclasses import dataclass, fields
from typing import Any

import torch

from dynamics_model.models.base import DynamicsModel
from dynamics_model.registry import build_dynamics, dynamics_class
from dynamics_variants import DYNAMICS
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.results import format_table, save_json


@dataclass(frozen=True)
class StepCostsConfig:
    """CPU time of a step, for every dynamics model at its tiny size."""

    num_frames: int = 40
    """frames that are timed"""
    json: str | None = None
    """file for the numbers"""


@torch.no_grad()
def cost_of_a_step(model: DynamicsModel, num_frames: int) -> dict[str, Any]:
    """One row: parameters, and the fastest and the median step in milliseconds of CPU time."""
    config: Any = model.config
    shape = (1, config.context_frames, model.tokens_per_frame)
    frames = torch.zeros(shape, dtype=torch.int64) if model.reads == "tokens" else torch.zeros(*shape, config.code_length)
    names = {field.name for field in fields(model.sampling_class)}
    sampling = model.sampling_class(**({"top_p": 1.0} if "top_p" in names else {}))  # untrained logits have no nucleus
    action, taken = torch.tensor([0]), []
    with autocast(torch.device("cpu"), config.precision):
        state = model.start(frames)
        for _ in range(num_frames + 2):
            begun = time.process_time()
            model.step(state, action, sampling)
            taken.append(1000 * (time.process_time() - begun))
    taken = sorted(taken[2:])  # without those of warming up
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "fastest_ms": taken[0], "median_ms": taken[len(taken) // 2]}


def main() -> None:
    config = parse_config(StepCostsConfig)
    check_smallest(config, {"num_frames": 1})
    torch.set_num_threads(1)
    rows = {}
    for name in ("maskgit", *DYNAMICS):
        torch.manual_seed(0)
        model = build_dynamics(dynamics_class(name).config_class(model=name, actions="true", frame_size=64)).eval()
        rows[name] = cost_of_a_step(model, config.num_frames)
    print("CPU time of a step, one thread, one rollout")
    print(format_table(rows))
    if config.json:
        save_json(config.json, {"num_frames": config.num_frames, "rows": rows})


if __name__ == "__main__":
    run_script(main)
