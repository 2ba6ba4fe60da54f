"""Does anything grow? A rollout of 100,000 frames, and a clip store of 5 million frames that is opened, split and sampled.

python tests/faults/soak.py
"""

import gc
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tiny_world import save_tiny_world
from tqdm import trange

from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.clips import Clips, make_loader, split_episodes
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json
from world_lab.benchmark import sparse_store
from world_model.world import WorldModel

ALLOWED_MIB = 16
"""growth that counts as none"""
ALLOWED_SECONDS = 1.0
"""for opening, splitting and the first batch of a store"""


@dataclass(frozen=True)
class SoakConfig:
    """Predict frames for hours, and open a store larger than memory."""

    frames: int = 100_000
    """frames to predict with the smallest model"""
    stored_frames: int = 5_000_000
    """frames of the larger store; the smaller one has a hundredth"""
    json: str | None = None
    """file for the numbers"""


def resident_mib() -> float:
    """Private memory of this process in MiB, without the pages of mapped files, which the system can reclaim."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def dream(folder: Path, num_frames: int) -> dict[str, float]:
    """Memory and milliseconds per frame after a tenth of the rollout, and at its end."""
    world = WorldModel.load(save_tiny_world(folder / "world", "true"), "cpu")
    world.reset(world.start_frames[0], world.start_actions[0])
    actions = np.random.default_rng(0)
    part = max(1, num_frames // 10)
    seconds, memory = [], []
    for _ in trange(10, desc="dreaming", disable=None):
        begun = time.perf_counter()
        for _ in range(part):
            world.step(int(actions.integers(world.num_actions)))
        seconds.append((time.perf_counter() - begun) / part)
        memory.append(resident_mib())
    return {"frames": 10 * part, "growth_mib": memory[-1] - memory[0], "memory_mib": memory[-1],
            "first_ms": 1000 * seconds[0], "last_ms": 1000 * seconds[-1]}  # fmt: skip


def read_store(folder: Path, num_frames: int) -> dict[str, float]:
    """Seconds and memory that opening, splitting and reading one batch of a store takes."""
    path = sparse_store(folder / f"store-{num_frames}", num_frames)
    before, begun = resident_mib(), time.perf_counter()
    store = open_clip_store(path)
    opened = time.perf_counter() - begun
    training, validation = split_episodes(store)
    clips = Clips(store, training, 4)
    batch = next(iter(make_loader(clips, 8, 1, 0)))["frames"]
    return {"frames": num_frames, "episodes": len(training) + len(validation), "clips": len(clips), "open_seconds": opened,
            "seconds": time.perf_counter() - begun, "memory_mib": resident_mib() - before, "batch": len(batch)}  # fmt: skip


def main() -> None:
    config = parse_config(SoakConfig)
    check_smallest(config, {"frames": 10, "stored_frames": 100_000})
    with tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {"small_store": read_store(Path(folder), config.stored_frames // 100)}
        results["large_store"] = read_store(Path(folder), config.stored_frames)
        print(results, flush=True)
        results["dream"] = dream(Path(folder), config.frames)
    print(results["dream"])
    if config.json:
        save_json(config.json, results)
    flat = results["dream"]["growth_mib"] < ALLOWED_MIB
    quick = results["large_store"]["seconds"] < ALLOWED_SECONDS
    sys.exit(not (flat and quick))


if __name__ == "__main__":
    run_script(main)
