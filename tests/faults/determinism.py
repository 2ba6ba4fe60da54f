"""Which trainings end with the same bits: the same command again, other threads, loader processes, two processes, a GPU.

    python tests/faults/determinism.py

Promised is the first: same seed, same machine, same number of threads. The others are measured, so that nobody has to guess.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from faults.kill import REPOSITORY, commands
from video_tokenizer.training.checkpoint import read_torch_file
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.results import format_table, save_json


@dataclass(frozen=True)
class DeterminismConfig:
    """Train the same model in several ways and compare the bits."""

    chapters: tuple[str, ...] = ("tokenizer", "latent_actions", "dynamics")
    """what to train"""
    json: str | None = None
    """file for the numbers"""


def ways() -> dict[str, tuple[list[str], dict[str, str], list[str]]]:
    """Name -> (launcher, environment, flags)."""
    python, one = [sys.executable], {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    found = {
        "whole": (python, one, []),
        "again": (python, one, []),
        "loader processes": (python, one, ["--num-workers", "2"]),
        "two threads": (python, one | {"OMP_NUM_THREADS": "2"}, []),
        "two processes": (torchrun, one, []),
    }
    if torch.cuda.is_available():
        gpu = {"OMP_NUM_THREADS": "1"}
        found |= {"GPU": (python, gpu, ["--device", "cuda"]), "GPU again": (python, gpu, ["--device", "cuda"])}
    return found


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two checkpoints: whether all weights have the same bits, and the largest difference as a share of the largest weight."""
    pairs = [(first["weights"][name], second["weights"][name]) for name in first["weights"]]
    pairs = [pair for pair in pairs if pair[0].is_floating_point()]
    largest = max(float(tensor.abs().max()) for tensor, _ in pairs)
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    return {"same_bits": difference == 0, "largest_difference": difference / largest}


def main() -> None:
    config = parse_config(DeterminismConfig)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for chapter, (command, _, _) in commands(folder).items():
            if chapter == "world":
                continue
            for way, (launcher, environment, flags) in ways().items():
                place = folder / chapter / way.replace(" ", "_")
                words = [*launcher, *map(str, command(place)), *flags]
                subprocess.run(words, cwd=REPOSITORY, env=os.environ | environment, check=True, capture_output=True)
                base = "GPU" if way.startswith("GPU") and way != "GPU" else "whole"
                if way != "whole":
                    files = (folder / chapter / base / "final_model.pt", place / "final_model.pt")
                    results[f"{chapter}: {way}"] = compare(*map(read_torch_file, files))
    print(format_table({way: row | {"same_bits": "yes" if row["same_bits"] else "no"} for way, row in results.items()}))
    if config.json:
        table: dict[str, dict[str, float]] = {}
        for name, row in results.items():
            chapter, way = name.split(": ")
            table.setdefault(way.replace(" ", "_"), {})[chapter] = row["largest_difference"]
        save_json(config.json, table)
    sys.exit(not all(row["same_bits"] for way, row in results.items() if way.endswith("again")))


if __name__ == "__main__":
    run_script(main)
