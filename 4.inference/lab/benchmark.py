"""How fast is every part, and how close to what this machine can do? One table from one run, and curves of cost.

    python 4.inference/lab/benchmark.py --json benchmark.json

Nothing else should run meanwhile. What is compared runs in turns, so that ratios hold on a noisy machine as well.
"""

import tempfile
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.device import choose_device
from video_tokenizer.training.results import format_table, save_json
from world_lab.benchmark import SIZES, Bench, cost_curves, data_rows, inference_rows, time_to_quality, training_rows
from world_lab.timing import gigabytes_per_second, peak_gflops
from world_model.real_game import open_game
from world_model.world import WorldModel


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure the speed of every part, and how its cost grows."""

    world: str = "assets/worlds/breakout"
    """folder of the world that is measured, and whose game is recorded"""
    seconds: float = 4.0
    """time for each measurement"""
    num_threads: int | None = None
    """threads on the CPU; default: one for each core"""
    parts: tuple[Literal["rows", "quality", "curves"], ...] = ("rows", "quality", "curves")
    """what to measure: the rows of the table; minutes until a tokenizer is good, with and without optimizations; how cost grows
    with frames, tokens, context, length of a rollout and size of the data"""
    quick: bool = False
    """a few calls of the small sizes only, to see that everything runs"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def main() -> None:
    # --- config ---
    config = parse_config(BenchmarkConfig)
    check_smallest(config, {"seconds": 0.1, "num_threads": 1})
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device, seconds = choose_device(config.device), 0.1 if config.quick else config.seconds
    world = WorldModel.load(config.world, config.device)
    if world.metadata.env_id is None:
        raise InputError(f"--world {config.world} was learned from videos; the benchmark needs one with a game")
    game = open_game(world.metadata.env_id, world.metadata, world.frame_size)

    # --- the machine ---
    formats = (torch.float32, torch.bfloat16)
    peaks = {str(dtype).removeprefix("torch."): peak_gflops(device, dtype, seconds) for dtype in formats}
    machine: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{f"peak_gflops_{name}": peak for name, peak in peaks.items()},
        "gigabytes_per_second": gigabytes_per_second(device, seconds),
    }
    print(format_table({"machine": machine}), flush=True)

    # --- measure ---
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, seconds, Path(folder), peaks)
        sizes = {"dynamics_tiny": replace(SIZES["dynamics_tiny"], batch_size=1)} if config.quick else SIZES
        num_frames = 200 if config.quick else 2_000
        parts = (data_rows(bench, game, num_frames), inference_rows(bench, world), training_rows(bench, sizes))
        for name, row in chain(*parts) if "rows" in config.parts else ():
            rows[name] = row
            print(format_table({name: row}), flush=True)
        quality = time_to_quality(bench, game, config.quick) if "quality" in config.parts else {}
        curves = cost_curves(bench, world, config.quick) if "curves" in config.parts else {}

    # --- print and save ---
    tables = {"rows": rows, "quality": quality}
    tables |= {name: {f"{point['step']:,}": point for point in points} for name, points in curves.items()}
    for name, table in tables.items():
        print(f"\n{name}\n{format_table(table)}" if table else "")
    if config.json:
        save_json(config.json, {"machine": machine, "precision": bench.precision, "rows": rows | quality, "curves": curves})


if __name__ == "__main__":
    run_script(main)
