"""Rooms that are left and entered again: how far back does a dynamics model remember?

    python 3.dynamics-model/lab/rooms.py
    python 3.dynamics-model/lab/rooms.py --seeds 0 --minutes 1

Records the rooms, trains a tokenizer that sees one frame at a time, then trains every arm for the same processor minutes on one
thread, and scores what it predicts of a room by how long ago the room was entered. Recordings and models are kept in a folder,
and what is finished is not trained again.
"""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamics_lab.comparison import TEXTS
from dynamics_lab.room_drawings import save_recall_chart, save_room_strip
from dynamics_lab.room_recall import (
    ARMS,
    BINS,
    Episodes,
    by_bin,
    by_gap,
    config_of,
    drawn,
    gaps_of,
    margin,
    predictions,
    read_episodes,
    score,
    trained,
    usage_of,
)
from dynamics_lab.rooms import NUM_ROOMS, rooms_store
from tokenizer_lab.sweep import text_with, write_block
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json, settings_of


@dataclass(frozen=True)
class RoomsConfig:
    """Train dynamics models on rooms that are left and entered again, and score what they recall."""

    minutes: float = 2.0
    """processor minutes of each training"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    num_episodes: int = 256
    """episodes to learn from; a tenth as many others are scored"""
    tokenizer_steps: int = 400
    """optimizer steps of the tokenizer"""
    folder: str = "data/rooms"
    """folder for recordings, tokenizer and models"""
    json: str = "assets/3.dynamics-model/variants/rooms.json"
    """file for the numbers"""
    output: str = "assets/3.dynamics-model/variants"
    """folder for the pictures"""
    page: str = str(TEXTS / "teco" / "README.md")
    """text that receives the table between its marks `rooms`"""

    def check(self) -> None:
        """Raise InputError for numbers that cannot be trained or scored with."""
        check_smallest(self, {"minutes": 1e-4, "num_episodes": 8, "tokenizer_steps": 1})
        check_seeds(self, "seeds")


def recorded(path: Path, num_episodes: int, seed: int) -> ClipStore:
    """The recording in this folder if it has as many episodes of this seed, else a new one."""
    if path.exists():
        store = open_clip_store(path)
        if (store.info.get("source"), store.info.get("seed"), len(store.episodes)) == ("rooms", seed, num_episodes):
            return store
        if store.info.get("source") != "rooms":
            raise InputError(f"{path} is a recording of something else; give another --folder")
    return rooms_store(path, num_episodes, seed)


def tokenizer_of(store: ClipStore, folder: Path, num_steps: int) -> Tokenizer:
    """Chapter 1's tokenizer, trained on this recording unless it is there; its tokens of a frame depend on no other frame."""
    checkpoint = folder / f"{num_steps}-steps-{store.fingerprint[:8]}" / "final_model.pt"
    if not checkpoint.exists():
        flags = ["--data-path", store.path, "--num-frames", 2, "--context-frames", 1, "--levels", 5, 5, 5]
        flags += [
            "--num-steps",
            num_steps,
            "--validate-every",
            num_steps,
            "--checkpoint-dir",
            checkpoint.parent,
            "--device",
            "cpu",
        ]
        command = [sys.executable, REPOSITORY / "1.video-tokenizer" / "train.py", *flags]
        if subprocess.run(list(map(str, command))).returncode:
            raise InputError("the tokenizer could not be trained, for the reason given above")
    return load_tokenizer(checkpoint)


def measure(config: RoomsConfig, folder: Path, tokenizer: Tokenizer, training: Episodes, unseen: Episodes) -> dict[str, Any]:
    """Train and score every arm with every seed. Returns what goes into the file."""
    gap, arms, shown = gaps_of(unseen), {}, {}
    for name in ARMS:
        row: dict[str, Any] = {
            "steps": [],
            "bins": {one: {"accuracy": [], "psnr_db": []} for one in BINS},
            "by_gap": {},
            "usage": [],
        }
        for seed in config.seeds:
            arm_config = config_of(name, tokenizer, seed, NUM_ROOMS)
            path = folder / "models" / f"{name.replace(', ', '-').replace(' ', '-').lower()}-{seed}.pt"
            model, steps, _ = trained(path, arm_config, tokenizer, training, config.minutes)
            predicted = predictions(model, unseen)
            found = score(predicted, unseen, tokenizer)
            row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
            row["steps"].append(steps)
            row["usage"].append(usage_of(model, unseen))
            for one, scores in by_bin(found, gap).items():
                for metric, value in scores.items():
                    row["bins"][one][metric].append(value)
            for one, value in by_gap(found, gap).items():
                row["by_gap"].setdefault(one, []).append(value)
            if seed == config.seeds[0]:
                shown[name] = drawn(predicted[:1], tokenizer)[0]
            accuracies = ", ".join(f"{one} {row['bins'][one]['accuracy'][-1]:.3f}" for one in BINS)
            print(f"{name} | seed {seed} | {steps:,} steps | accuracy by gap: {accuracies}", flush=True)
        arms[name] = row
    ceiling = by_bin(score(unseen.tokens[:, -gap.shape[1] :], unseen, tokenizer), gap)
    frames = {one: int(((gap >= smallest) & (gap <= largest)).sum()) for one, (smallest, largest) in BINS.items()}
    settings = settings_of(config, "folder", "json", "output", "page")
    results = {"settings": settings, "frames": frames, "arms": arms, "tokenizer": ceiling}
    results["margin"] = {metric: margin(arms, metric) for metric in ("accuracy", "psnr_db")}
    save_room_strip(Path(config.output) / "rooms_strip.png", unseen, gap, shown)
    return results


def table(results: dict[str, Any]) -> str:
    """Markdown: an arm per line, a bin of gaps per column, mean accuracy and PSNR over the seeds."""
    heads = {"first": "never", "2-7": "2 to 7 frames ago", "8-15": "8 to 15", "16+": "16 and more"}
    lines = ["| the room was seen | " + " | ".join(heads[one] for one in BINS) + " |", "|---|" + "---|" * len(BINS)]
    for name, row in results["arms"].items():
        cells = [f"{np.mean(scores['accuracy']):.2f}, {np.mean(scores['psnr_db']):.1f} dB" for scores in row["bins"].values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cells = [f"1.00, {scores['psnr_db']:.1f} dB" for scores in results["tokenizer"].values()]
    return "\n".join([*lines, "| the real tokens | " + " | ".join(cells) + " |"])


def main() -> None:
    config = parse_config(RoomsConfig)
    config.check()
    config = replace(config, output=str(resolve_path(Path(config.output), REPOSITORY)))
    torch.set_num_threads(1)
    folder, page = (resolve_path(Path(path), REPOSITORY) for path in (config.folder, config.page))
    text_with(page, "rooms")
    training = recorded(folder / "training", config.num_episodes, 0)
    unseen = recorded(folder / "unseen", max(2, config.num_episodes // 10), 1)
    tokenizer = tokenizer_of(training, folder / "tokenizer", config.tokenizer_steps)
    results = measure(config, folder, tokenizer, read_episodes(training, tokenizer), read_episodes(unseen, tokenizer))
    save_json(resolve_path(Path(config.json), REPOSITORY), results)
    save_recall_chart(Path(config.output) / "rooms_recall", results)
    print(table(results))
    print(f"beyond the window, the worst seed of the whole episode is ahead of the best other by {results['margin']}")
    write_block(page, "rooms", table(results))


if __name__ == "__main__":
    run_script(main)
