"""What the benchmark measures: rows from recording to a rollout, curves of cost, and the time until a tokenizer is good."""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamics_model.config import PRESETS as DYNAMICS_PRESETS
from dynamics_model.config import DynamicsConfig
from dynamics_model.models.maskgit import MaskGIT, MaskGITSampling
from dynamics_model.registry import build_dynamics
from latent_action_model.config import PRESETS as LATENT_PRESETS
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.config import PRESETS as TOKENIZER_PRESETS
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.clips import Clips, ShuffledBatches, make_loader, split_episodes, to_video
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import write_video
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import random_policy
from video_tokenizer.losses import background_of, weighted_mse
from video_tokenizer.metrics import validate
from video_tokenizer.models.base import TokenizerOutput
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.results import to_json
from world_lab.naive_baseline import NaiveRollout, decode_clips
from world_lab.timing import floating_point_operations, measure, synchronize
from world_model.evaluation.games import record_games
from world_model.world import WorldModel

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where and how long to measure."""

    device: torch.device
    seconds: float
    """time for each measurement"""
    folder: Path
    """for files that are thrown away"""
    peaks: dict[str, float]
    """GFLOP/s of this machine in float32 and bfloat16"""

    @property
    def precision(self) -> str:
        """The format that training uses here."""
        return "float32" if type(autocast(self.device, "auto")) is nullcontext else "bfloat16"

    def row(self, call: Callable, items: int, unit: str, plain: Callable | None = None, flops: bool = False) -> Row:
        """One row of the table. call: processes `items` of `unit`. flops: adds the share of the peak that is reached.

        plain: the same work without optimizations. The two are measured in turns, so that both see the same machine load;
        `times_plain` is how many times faster the first is.
        """
        taken, memory = measure(call, self.device, self.seconds / 4)
        plain_taken: list[float] = []
        for _ in range(3 if plain else 0):
            taken += measure(call, self.device, self.seconds / 4, fewest=3)[0]
            plain_taken += measure(plain, self.device, self.seconds / 4, fewest=2)[0] if plain else []
        median = statistics.median(taken)
        row: Row = {"per_second": items / median, "unit": unit, "p50_ms": 1000 * median}
        row |= {"p95_ms": 1000 * float(np.quantile(taken, 0.95)), "memory_mib": memory}
        if flops:
            gflops = floating_point_operations(call) / median / 1e9
            row |= {"gflops": gflops, "share_of_peak": gflops / self.peaks[self.precision]}
        if plain_taken:
            plain_median = statistics.median(plain_taken)
            row |= {"plain_per_second": items / plain_median, "times_plain": plain_median / median}
        return row


# ---- rows -------------------------------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "tokenizer_tiny": TokenizerConfig(frame_size=64),
    "latent_actions_tiny": LatentActionConfig(frame_size=64),
    "dynamics_tiny": DynamicsConfig(actions="true"),
    # the size of the tutorial that this course began with: 128 x 128, 4 + 4 blocks
    "tokenizer_128_pixels": TokenizerConfig(frame_size=128, num_blocks=4),
    "tokenizer_16_clips": TokenizerConfig(frame_size=64, num_blocks=4, batch_size=16),
    # on a CPU with a batch of one
    "tokenizer_small": TokenizerConfig(frame_size=64, **TOKENIZER_PRESETS["small"]),
    "latent_actions_small": LatentActionConfig(frame_size=64, **LATENT_PRESETS["small"]),
    "dynamics_small": DynamicsConfig(actions="true", grid_size=(16, 16), **DYNAMICS_PRESETS["small"]),
}


def data_rows(bench: Bench, game: Game, num_frames: int) -> Iterator[tuple[str, Row]]:
    """Recording, converting a video into a clip store, and loading 8 clips of 4 frames, compared with decoding them in place."""
    played = record_episode(game, random_policy, 500, seed=0).frames
    yield "recording", bench.row(lambda: record_episode(game, random_policy, 500, seed=0), len(played), "frames")

    video = bench.folder / "videos" / "game.mp4"
    video.parent.mkdir()
    write_video(video, np.concatenate([played] * -(-num_frames // len(played)))[:num_frames], 15.0)

    def convert():
        for old in video.parent.glob(".clip_store*"):
            shutil.rmtree(old)
        with redirect_stdout(StringIO()):  # it reports every conversion
            return open_clips_source(video.parent, "folder", game.frame_size)

    yield "video_into_store", bench.row(convert, num_frames, "frames")
    store = convert()
    batches = iter(make_loader(Clips(store, list(range(len(store.episodes))), 4), 8, 10**9, 0))
    starts = np.random.default_rng(0).integers(num_frames - 4, size=8)
    yield "loader", bench.row(lambda: to_video(next(batches)["frames"]), 32, "frames", lambda: decode_clips(video, starts, 4))


def training_rows(bench: Bench, sizes: dict[str, Any]) -> Iterator[tuple[str, Row]]:
    """Training steps, each beside the same step in float32 if training uses bfloat16."""
    for name, config in sizes.items():
        if name.endswith("_small") and bench.device.type == "cpu":
            config = replace(config, batch_size=1)
        step = training_step(config, bench.device, bench.precision)
        plain = training_step(config, bench.device, "float32") if bench.precision != "float32" else None
        yield f"training_{name}", bench.row(step, config.batch_size, "clips", plain, flops=True)


def training_step(config: Any, device: torch.device, precision: str) -> Callable[[], None]:
    """One optimizer step of a chapter's model on a fixed batch of noise, as a call without arguments."""
    torch.manual_seed(0)
    shape = (config.batch_size, config.num_frames)
    video = torch.rand(*shape, 3, *(config.frame_height_width if config.frame_size else (64, 64)), device=device)
    model: Any
    if isinstance(config, DynamicsConfig):
        model = build_dynamics(config).to(device)
        tokens = torch.randint(config.codebook_size, (*shape, model.tokens_per_frame), device=device)
        actions = torch.randint(config.num_actions, shape, device=device)
    elif isinstance(config, LatentActionConfig):
        model = build_latent_action_model(config).to(device)
    else:
        model = VideoTokenizer(config).to(device)
    background = torch.zeros_like(video[0, 0])

    def loss() -> Tensor:
        if isinstance(config, DynamicsConfig):
            return model.loss(tokens, actions)["cross_entropy"]
        if isinstance(config, LatentActionConfig):
            return sum(model(video).losses.values())  # type: ignore[return-value]
        return tokenizer_loss(model(video), video, background, config)

    model.train()
    optimizer = build_optimizer(model, replace(config, learning_rate=1e-4))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def tokenizer_loss(output: TokenizerOutput, video: Tensor, background: Tensor, config: TokenizerConfig) -> Tensor:
    """The loss of chapter 1's train.py."""
    error = weighted_mse(output.reconstruction, video, background, config.foreground_weight, config.moving_weight)
    return error + sum(output.losses.values())


def inference_rows(bench: Bench, world: WorldModel) -> Iterator[tuple[str, Row]]:
    """Encoding and decoding 8 clips of 4 frames, and a frame of a rollout, the last beside a rollout without a cache."""
    video = to_video(np.repeat(world.start_frames[:1, -4:], 8, axis=0), world.device)

    @torch.no_grad()
    def run(method: Callable, given: Tensor) -> Any:
        with autocast(world.device, world.precision):
            return method(given)

    tokens = run(world.tokenizer.encode, video).indices
    yield "encode", bench.row(lambda: run(world.tokenizer.encode, video), 32, "frames")
    yield "decode", bench.row(lambda: run(world.tokenizer.decode_indices, tokens), 32, "frames")
    world.reset(world.start_frames[0], world.start_actions[0])
    assert isinstance(world.dynamics, MaskGIT) and isinstance(world.sampling, MaskGITSampling), "the naive loop is MaskGIT's"
    plain = NaiveRollout(world.tokenizer, world.dynamics, world.start_frames[0], world.sampling.num_steps)
    action = 0 if world.num_actions else -1
    yield "world_step", bench.row(lambda: world.step(action), 1, "frames", lambda: plain.step(action))


# ---- curves -----------------------------------------------------------------------------------------------------------


def cost_curves(bench: Bench, world: WorldModel, quick: bool) -> dict[str, list[Row]]:
    """What grows -> points {"step": how large it is, "ms", "memory_mib"}.

    A training step of the dynamics against frames per clip and tokens per frame; a frame of a rollout against the frames before
    it; opening a store and reading a batch against the frames in it.
    """

    def point(size: int, call: Callable, seconds: float, fewest: int = 5) -> Row:
        taken, memory = measure(call, bench.device, seconds, fewest)
        return {"step": size, "ms": 1000 * statistics.median(taken), "memory_mib": memory}

    base, few = DynamicsConfig(actions="true", batch_size=1 if quick else DynamicsConfig.batch_size), 2 if quick else None
    clips = {frames: replace(base, num_frames=frames, context_frames=frames) for frames in (2, 4, 8, 16, 32)[:few]}
    grids = {side * side: replace(base, grid_size=(side, side)) for side in (4, 8, 12, 16)[:few]}
    curves: dict[str, list[Row]] = {}
    for name, configs in (("frames_per_clip", clips), ("tokens_per_frame", grids)):
        steps = {size: training_step(config, bench.device, bench.precision) for size, config in configs.items()}
        curves[name] = [point(size, step, bench.seconds / 2) for size, step in steps.items()]

    world.reset(world.start_frames[0], world.start_actions[0])
    action, done = 0 if world.num_actions else -1, 0
    curves["frames_dreamed"] = []
    for length in (10, 20) if quick else (100, 1_000, 10_000):
        for _ in range(max(0, length - 50 - done)):
            world.step(action)
        curves["frames_dreamed"].append(point(length, lambda: world.step(action), 0.0, fewest=50))
        done = max(done, length - 50) + 52  # two calls of warming up

    def open_and_read(path: Path) -> Tensor:
        store = open_clip_store(path)
        return next(iter(make_loader(Clips(store, split_episodes(store)[0], 4), 8, 1, 0)))["frames"]

    sizes = (10_000, 50_000) if quick else (10_000, 100_000, 1_000_000, 5_000_000)
    stores = {size: sparse_store(bench.folder / f"frames-{size}", size) for size in sizes}
    curves["frames_in_store"] = [
        point(size, lambda path=path: open_and_read(path), bench.seconds / 4, fewest=3) for size, path in stores.items()
    ]
    return curves


def sparse_store(path: Path, num_frames: int, episode: int = 1_000) -> Path:
    """A clip store of black 64x64 frames whose frames.npy has its full length but takes no space on the disk."""
    path.mkdir()
    np.lib.format.open_memmap(path / "frames.npy", "w+", np.uint8, (num_frames, 64, 64, 3)).flush()
    starts = np.arange(0, num_frames, episode)
    np.save(path / "actions.npy", np.where(np.arange(num_frames) % episode == 0, -1, 0).astype(np.int16))
    np.save(path / "episodes.npy", np.stack([starts, starts + episode], axis=1).astype(np.int64))
    info = {"format_version": 1, "source": "invented", "action_names": ["NOOP"], "frames_per_second": 15.0}
    (path / "clip_store.json").write_text(to_json(info))
    return path


# ---- time to quality --------------------------------------------------------------------------------------------------

GOOD = 12.0
"""decibels of moving PSNR above repeating the last frame: what the `tiny` world has to reach"""
CHECK_EVERY = 100


def train_tokenizer(
    config: TokenizerConfig, clips: Clips, validation: Clips, device: torch.device, video: Path | None = None
) -> Iterator[tuple[int, float, float]]:
    """Train as train.py does and yield (step, seconds of training, score) every `CHECK_EVERY` steps.

    video: a file with the store's frames; if given, every clip is decoded from it in the loop. score: moving PSNR of the averaged
    weights above that of repeating the last frame, in dB; its time does not count.
    """
    torch.manual_seed(config.seed)
    background = background_of(clips.store.frames).to(device)
    model, averaged = VideoTokenizer(config).to(device), VideoTokenizer(config).to(device)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    seconds = 0.0
    for step, chosen in enumerate(ShuffledBatches(len(clips), config.batch_size, config.num_steps, config.seed), start=1):
        torch.manual_seed(config.seed + step)  # two trainings that take turns draw the same random numbers
        begun = time.perf_counter()
        set_learning_rate(optimizer, step, config.num_steps, config)
        if video is None:
            batch = to_video(clips.__getitems__(chosen)["frames"], device)  # (B, T, 3, H, W)
        else:
            batch = decode_clips(video, clips.starts[chosen], config.num_frames).to(device)
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, config.precision):
            output = model(batch)
        tokenizer_loss(output, batch, background, config).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        ema.update(model)
        synchronize(device)
        seconds += time.perf_counter() - begun
        if step % CHECK_EVERY == 0 or step == config.num_steps:
            ema.copy_to(averaged)
            scores = validate(averaged, validation, background, config, device)
            yield step, seconds, scores["moving_psnr_db"] - scores["copy_last_moving_psnr_db"]


def time_to_quality(bench: Bench, game: Game, quick: bool) -> dict[str, Row]:
    """Rows "quality_ours" and "quality_plain": steps and minutes of training until the score is GOOD.

    Plain is float32 with clips decoded from a video in the loop; weights, clips and schedule are the same. The two take turns, so
    that both see the same machine load.
    """
    config = TokenizerConfig(frame_size=game.frame_size[0], num_steps=2 if quick else 2_200, validation_batches=8)
    store = record_games(game, 3 if quick else 24, 120 if quick else 500, 0).store
    clips, validation = (Clips(store, part, config.num_frames) for part in split_episodes(store))
    video = bench.folder / "quality.avi"
    write_video(video, store.frames, 15.0, "FFV1")  # lossless
    runs = {
        "quality_ours": train_tokenizer(replace(config, precision=bench.precision), clips, validation, bench.device),
        "quality_plain": train_tokenizer(replace(config, precision="float32"), clips, validation, bench.device, video),
    }
    rows: dict[str, Row] = {}
    unfinished = list(runs)
    while unfinished:
        for name in list(unfinished):
            step, seconds, score = next(runs[name])
            rows[name] = {"reached_db": score, "steps": step, "minutes": seconds / 60, "ms_per_step": 1000 * seconds / step}
            if score >= GOOD or step == config.num_steps:
                unfinished.remove(name)
    return {name: row | {"times_plain": rows["quality_plain"]["minutes"] / row["minutes"]} for name, row in rows.items()}
