"""What are shortcuts for? A frame that may lie anywhere on a circle, formed in few steps and in many.

    python 3.dynamics-model/lab/few_steps.py
    python 3.dynamics-model/lab/few_steps.py --readme

A frame of this world is one latent of two numbers, a point on a circle, and nothing in the past says which. Its mean is the
center, where no frame ever is. Dreamer 4 learns it with shortcuts and without, for the same steps, and we measure how far its
samples are from the circle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamics_lab.circle import SAMPLES, STEPS, scores, trained
from dynamics_lab.comparison import TEXTS
from tokenizer_lab.sweep import write_block
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

ARMS = {"dreamer4": 2, "flow": 0}
"""arm -> bootstrap_every: every second clip learns larger steps as well, or none does"""


@dataclass(frozen=True)
class FewStepsConfig:
    """Train Dreamer 4 with shortcuts and without on frames of which any may come next, and form frames in few steps."""

    num_steps: int = 600
    """optimizer steps of each training"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    json: str = "assets/3.dynamics-model/variants/few_steps.json"
    """file for the numbers"""
    page: str = str(TEXTS / "dreamer4" / "README.md")
    """text that receives the table between its marks `circle`"""
    readme: bool = False
    """write the table from the numbers in the file, without any training"""

    def check(self) -> None:
        """Raise InputError if there is nothing to train."""
        check_smallest(self, {"num_steps": 1})
        if not self.seeds:
            raise InputError("--seeds is empty; give at least one number, such as --seeds 0")


def table(results: Mapping[str, Any]) -> str:
    """Markdown: steps per frame, an arm a column; mean over the seeds and half their range."""
    lines = ["| steps a frame | " + " | ".join(ARMS) + " |", "|---|" + "---|" * len(ARMS)]
    for num_steps in map(str, STEPS):
        values = [results["arms"][arm][num_steps] for arm in ARMS]
        lines.append(f"| {num_steps} | " + " | ".join(f"{np.mean(one):.1f} ±{np.ptp(one) / 2:.1f}" for one in values) + " |")
    return "\n".join(lines)


def block(results: Mapping[str, Any]) -> str:
    """The table under a line that says what it shows."""
    note = f"Distance of {SAMPLES:,} frames from the circle, in dB, higher is closer; mean of seeds "
    note += f"{', '.join(map(str, results['seeds']))} ± half their range, {results['num_steps']} steps of training each."
    return f"{note}\n\n{table(results)}"


def main() -> None:
    config = parse_config(FewStepsConfig)
    config.check()
    torch.set_num_threads(1)
    file = resolve_path(Path(config.json), REPOSITORY)
    if not config.readme:
        arms: dict[str, dict[str, list[float]]] = {arm: {str(num_steps): [] for num_steps in STEPS} for arm in ARMS}
        for seed in config.seeds:
            for arm, bootstrap_every in ARMS.items():
                found = scores(trained(bootstrap_every, seed, config.num_steps))
                for num_steps, value in found.items():
                    arms[arm][num_steps].append(value)
                shown = ", ".join(f"{steps}: {value:.1f} dB" for steps, value in found.items())
                print(f"{arm} | seed {seed} | {shown}", flush=True)
        save_json(file, {"num_steps": config.num_steps, "seeds": config.seeds, "arms": arms})
    write_block(resolve_path(Path(config.page), REPOSITORY), "circle", block(read_json(file)))


if __name__ == "__main__":
    run_script(main)
