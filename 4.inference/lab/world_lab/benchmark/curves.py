"""How cost grows: with frames per clip, tokens per frame, context, length of the dream, and size of the data."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynamics_model.config import DynamicsConfig
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.clips import Clips, make_loader, split_episodes
from video_tokenizer.training.results import to_json
from world_lab.benchmark.measure import PeakMemory, seconds_per_call
from world_lab.benchmark.rows import Bench, model_and_loss, training_step
from world_model.world import WorldModel

Points = list[dict[str, Any]]
EPISODE = 1_000
"""frames of an episode of an invented store"""


def cost_curves(bench: Bench, world: WorldModel, quick: bool) -> dict[str, Points]:
    """What grows -> points {"step": how large it is, "ms": milliseconds, "memory_mib"}.

    A training step of the dynamics against frames per clip and tokens per frame; a world step against the frames dreamed before;
    opening a store and reading a batch against the frames in it.
    """
    base = DynamicsConfig(actions="true")
    training = {
        "frames_per_clip": {T: replace(base, num_frames=T, context_frames=T) for T in (2, 4, 8, 16, 32)},
        "tokens_per_frame": {N * N: replace(base, grid_size=(N, N)) for N in (4, 8, 12, 16)},
    }
    if quick:
        training = {name: dict(list(settings.items())[:2]) for name, settings in training.items()}
    curves = {}
    for name, settings in training.items():
        curves[name] = [training_point(bench, number, config) for number, config in settings.items()]
    lengths = (10, 20) if quick else (100, 1_000, 10_000)
    curves["frames_dreamed"] = dream_points(bench, world, lengths)
    sizes = (10_000, 50_000) if quick else (10_000, 100_000, 1_000_000, 5_000_000)
    curves["frames_in_store"] = [store_point(bench, size) for size in sizes]
    return curves


def training_point(bench: Bench, number: int, config: DynamicsConfig) -> dict[str, Any]:
    """A training step of the dynamics model."""
    model, loss, _ = model_and_loss("dynamics", config, bench.device)
    step = training_step(model, loss, config, bench.device, bench.precision)
    with PeakMemory(bench.device) as memory:
        taken = seconds_per_call(step, bench.device, bench.seconds / 2)
    return {"step": number, "ms": 1000 * statistics.median(taken), "memory_mib": memory.mebibytes}


def dream_points(bench: Bench, world: WorldModel, lengths: tuple[int, ...]) -> Points:
    """Median time of the 50 frames before each of `lengths`, in one dream, and the memory then."""
    world.reset(world.start_frames[0], world.start_actions[0])
    points: Points = []
    done = 0
    for length in lengths:
        for _ in range(max(0, length - 50 - done)):
            world.step(0 if world.num_actions else -1)
        with PeakMemory(bench.device) as memory:
            taken = seconds_per_call(lambda: world.step(0 if world.num_actions else -1), bench.device, 0.0, fewest=50)
        done = max(done, length - 50) + 52  # two calls of warming up
        points.append({"step": length, "ms": 1000 * statistics.median(taken), "memory_mib": memory.mebibytes})
    return points


def store_point(bench: Bench, num_frames: int) -> dict[str, Any]:
    """Open a store of that many frames, split its episodes and read a batch. The file is sparse: it takes no room on the disk."""
    path = sparse_store(bench.folder / f"frames-{num_frames}", num_frames)

    def open_and_read() -> torch.Tensor:
        store = open_clip_store(path)
        clips = Clips(store, split_episodes(store)[0], 4)
        return next(iter(make_loader(clips, 8, 1, 0)))["frames"]

    with PeakMemory(bench.device) as memory:
        taken = seconds_per_call(open_and_read, bench.device, bench.seconds / 4, fewest=3)
    return {"step": num_frames, "ms": 1000 * statistics.median(taken), "memory_mib": memory.mebibytes}


def sparse_store(path: Path, num_frames: int) -> Path:
    """A clip store of black frames of 64 x 64 pixels, whose frames.npy has its full length but no blocks on the disk."""
    path.mkdir()
    shape = (num_frames, 64, 64, 3)
    np.lib.format.open_memmap(path / "frames.npy", "w+", np.uint8, shape).flush()
    starts = np.arange(0, num_frames, EPISODE)
    np.save(path / "actions.npy", np.where(np.arange(num_frames) % EPISODE == 0, -1, 0).astype(np.int16))
    np.save(path / "episodes.npy", np.stack([starts, starts + EPISODE], axis=1).astype(np.int64))
    info = {"format_version": 1, "source": "invented", "action_names": ["NOOP"], "frames_per_second": 15.0}
    (path / "clip_store.json").write_text(to_json(info))
    return path
