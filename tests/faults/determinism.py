"""Which trainings end with the same bits: the same command again, other threads, loader processes, two processes, a GPU.

    python tests/faults/determinism.py

Only the first is promised: same seed, same machine, same number of threads. The others are measured.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from faults.kill import REPOSITORY, commands
from video_tokenizer.training.checkpoint import read_torch_file
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.results import format_table, save_json


@dataclass(frozen=True)
class DeterminismConfig:
    """Train the same model in several ways and compare the bits."""

    chapters: tuple[Literal["tokenizer", "latent_actions", "dynamics"], ...] = ("tokenizer", "latent_actions", "dynamics")
    """what to train, in this order: dynamics uses the models of the other two"""
    json: str | None = None
    """file for the numbers"""


def ways() -> dict[str, tuple[list[str], dict[str, str], list[str]]]:
    """Name -> (launcher, environment, flags). The first of each device is what the others are compared with."""
    python, one = [sys.executable], {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    found = {
        "undisturbed": (python, one, []),
        "again": (python, one, []),
        "loader_processes": (python, one, ["--num-workers", "2"]),
        "two_threads": (python, one | {"OMP_NUM_THREADS": "2"}, []),
        "two_processes": (torchrun, one, []),
    }
    if torch.cuda.is_available():
        gpu = (python, {"OMP_NUM_THREADS": "1"}, ["--device", "cuda"])
        found |= {"gpu": gpu, "gpu_again": gpu}
    return found


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest difference between the weights of two checkpoints, as a share of the largest weight; 0 is the same bits."""
    pairs = [(weight, second["weights"][name]) for name, weight in first["weights"].items() if weight.is_floating_point()]
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    return difference / max(float(weight.abs().max()) for weight, _ in pairs)


def main() -> None:
    config = parse_config(DeterminismConfig)
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        available = commands(Path(name))
        for chapter in config.chapters:
            for way, (launcher, environment, flags) in ways().items():
                place = Path(name) / chapter / way
                words = [*launcher, *map(str, available[chapter][0](place)), *flags]
                subprocess.run(words, cwd=REPOSITORY, env=os.environ | environment, check=True, capture_output=True)
                if way not in ("undisturbed", "gpu"):
                    files = [place.with_name("gpu" if way.startswith("gpu") else "undisturbed"), place]
                    found = largest_difference(*(read_torch_file(file / "final_model.pt") for file in files))
                    table.setdefault(way, {})[chapter] = found
    print(format_table(table))
    if config.json:
        save_json(config.json, table)
    sys.exit(any(table["again"].values()))


if __name__ == "__main__":
    run_script(main)
