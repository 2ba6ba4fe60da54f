"""What are shortcuts for, and what should a network predict? A frame anywhere on a circle, formed in few steps and in many.

    python 3.dynamics-model/lab/few_steps.py
    python 3.dynamics-model/lab/few_steps.py --readme

A frame of this world is one latent, a point on a circle, and nothing in the past says which. Its mean is the center, where no
frame ever is. The latent has two numbers, or 128 of which the circle fills a plane. Dreamer 4 learns both worlds with one of
its choices changed at a time, for the same steps, and we measure how far from the circle its samples are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamics_lab.circle import ARMS, FINER_END, LENGTHS, SAMPLES, STEPS, scores, trained
from dynamics_lab.comparison import TEXTS
from tokenizer_lab.sweep import read_numbers, text_with, write_block
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json


@dataclass(frozen=True)
class FewStepsConfig:
    """Train Dreamer 4 and its ablations on frames of which any may come next, and form frames in few steps."""

    num_steps: int = 600
    """optimizer steps of each training"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    json: str = "assets/3.dynamics-model/variants/few_steps.json"
    """file for the numbers"""
    page: str = str(TEXTS / "dreamer4" / "README.md")
    """text that receives the tables between its marks `circle`"""
    readme: bool = False
    """write the tables from the numbers in the file, without any training"""

    def check(self) -> None:
        """Raise InputError for numbers that cannot be trained with."""
        check_smallest(self, {"num_steps": 1})
        check_seeds(self, "seeds")


def table(arms: Mapping[str, Any]) -> str:
    """Markdown: steps per frame, an arm a column; mean over the seeds and half their range."""
    lines = ["| steps a frame | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    for num_steps in (*map(str, STEPS), FINER_END):
        values = [arm[num_steps] for arm in arms.values()]
        lines.append(f"| {num_steps} | " + " | ".join(f"{np.mean(one):.1f} ±{np.ptp(one) / 2:.1f}" for one in values) + " |")
    return "\n".join(lines)


def block(results: Mapping[str, Any]) -> str:
    """A table for each length under lines that say what it shows."""
    parts = [
        f"Distance of {SAMPLES:,} frames from the circle, in dB, higher is closer, 0 is its center; mean of seeds "
        f"{', '.join(map(str, results['seeds']))} ± half their range, {results['num_steps']} steps of training each."
    ]
    for length, arms in results["lengths"].items():
        parts += [f"A frame of {length} numbers:", table(arms)]
    return "\n\n".join(parts)


def main() -> None:
    config = parse_config(FewStepsConfig)
    config.check()
    torch.set_num_threads(1)
    file, page = (resolve_path(Path(path), REPOSITORY) for path in (config.json, config.page))
    text_with(page, "circle")
    if not config.readme:
        lengths: dict[str, Any] = {str(length): {arm: {} for arm in ARMS} for length in LENGTHS}
        for length, seed, (arm, flags) in product(LENGTHS, config.seeds, ARMS.items()):
            found = scores(trained(seed, config.num_steps, length, flags))
            for num_steps, value in found.items():
                lengths[str(length)][arm].setdefault(num_steps, []).append(value)
            shown = ", ".join(f"{steps}: {value:.1f} dB" for steps, value in found.items())
            print(f"{length} numbers | {arm} | seed {seed} | {shown}", flush=True)
        save_json(file, {"num_steps": config.num_steps, "seeds": config.seeds, "lengths": lengths})
    write_block(page, "circle", block(read_numbers(file, "seeds", "lengths")))


if __name__ == "__main__":
    run_script(main)
