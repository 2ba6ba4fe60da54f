"""The rows of the benchmark's table, from recording to the dreamed frame."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynamics_model.config import PRESETS as DYNAMICS_PRESETS
from dynamics_model.config import DynamicsConfig
from dynamics_model.registry import build_dynamics
from latent_action_model.config import PRESETS as LATENT_PRESETS
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.config import PRESETS as TOKENIZER_PRESETS
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, make_loader, to_video
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import write_video
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import random_policy
from video_tokenizer.losses import weighted_mse
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer
from world_lab.benchmark.measure import row
from world_lab.benchmark.naive_baseline import PlainDream, decode_clips
from world_model.world import WorldModel

Rows = Iterator[tuple[str, dict[str, Any]]]


class Bench:
    """What all rows need: where, how long, and the machine's peaks."""

    def __init__(self, device: torch.device, seconds: float, peaks: dict[str, float], folder: Path):
        self.device, self.seconds, self.peaks, self.folder = device, seconds, peaks, folder
        reduced = type(autocast(device, "auto")) is not nullcontext
        self.precision = "bfloat16" if reduced else "float32"

    def row(self, call: Callable[[], Any], items: int, unit: str, plain: Callable[[], Any] | None = None, flops: bool = False):
        """`measure.row` with this benchmark's device, time and, for flops, peak; a plain call is held against float32's."""
        peak = self.peaks[self.precision] if flops else None
        result = row(call, items, unit, self.device, self.seconds, peak, plain)
        if flops and plain is not None:  # the plain call is in float32
            result["plain_share_of_peak"] = result["gflops"] / result["times_plain"] / self.peaks["float32"]
        return result


def data_rows(bench: Bench, game: Game, num_frames: int) -> Rows:
    """Recording, decoding a video into a clip store, and loading 8 clips of 4 frames, the last beside decoding them in place."""
    played = record_episode(game, random_policy, 500, seed=0).frames
    yield "recording", bench.row(lambda: record_episode(game, random_policy, 500, seed=0), len(played), "frames")

    video = bench.folder / "videos" / "game.mp4"
    video.parent.mkdir()
    frames = np.concatenate([played] * -(-num_frames // len(played)))[:num_frames]
    write_video(video, frames, 15.0)

    def decode() -> ClipStore:
        """Into a new store each time; what a reader pays once."""
        for old in video.parent.glob(".clip_store*"):
            shutil.rmtree(old)
        with redirect_stdout(StringIO()):  # it says what it has decoded, each time
            return open_clips_source(video.parent, "folder", game.frame_size)

    yield "video_into_store", bench.row(decode, num_frames, "frames")
    store = decode()
    clips = Clips(store, list(range(len(store.episodes))), 4)
    batches = iter(make_loader(clips, 8, 10**9, 0))
    starts = np.random.default_rng(0).integers(num_frames - 4, size=8)
    loader = bench.row(lambda: to_video(next(batches)["frames"]), 32, "frames", lambda: decode_clips(video, starts, 4))
    yield "loader", loader


def training_step(model: nn.Module, loss_of: Callable[[], Tensor], config: Any, device: torch.device, precision: str):
    """One optimizer step as in train.py, as a call without arguments."""
    optimizer = build_optimizer(model, 1e-4, 0.01, kind=getattr(config, "optimizer", "adamw"))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def model_and_loss(kind: str, config: Any, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor], int]:
    """A model of the given settings, its loss on one fixed batch of noise, and the clips in that batch."""
    torch.manual_seed(0)
    num_clips, num_frames = config.batch_size, config.num_frames
    if kind == "dynamics":
        model = build_dynamics(config).to(device).train()
        tokens = torch.randint(config.codebook_size, (num_clips, num_frames, model.tokens_per_frame), device=device)
        actions = torch.randint(config.num_actions, (num_clips, num_frames), device=device)
        return model, lambda: model(tokens, actions).losses["cross_entropy"], num_clips
    video = torch.rand(num_clips, num_frames, 3, config.frame_size, config.frame_size, device=device)
    if kind == "latent_actions":
        latent = build_latent_action_model(config).to(device).train()
        return latent, lambda: torch.stack([*latent(video).losses.values()]).sum(), num_clips
    tokenizer = build_tokenizer(config).to(device).train()
    background = torch.zeros(3, config.frame_size, config.frame_size, device=device)

    def loss() -> Tensor:
        output = tokenizer(video)
        return weighted_mse(output.reconstruction, video, background, 10.0, 40.0) + sum(output.losses.values())

    return tokenizer, loss, num_clips


SIZES: dict[str, tuple[str, Any]] = {
    "tokenizer_tiny": ("tokenizer", TokenizerConfig(frame_size=64)),
    "latent_actions_tiny": ("latent_actions", LatentActionConfig(frame_size=64)),
    "dynamics_tiny": ("dynamics", DynamicsConfig(actions="true")),
    # the size of the tutorial that this course began with: 128 x 128, 4 + 4 blocks
    "tokenizer_128_pixels": ("tokenizer", TokenizerConfig(frame_size=128, num_blocks=4)),
    "tokenizer_16_clips": ("tokenizer", TokenizerConfig(frame_size=64, num_blocks=4, batch_size=16)),
    "tokenizer_small": ("tokenizer", TokenizerConfig(frame_size=64, **TOKENIZER_PRESETS["small"])),
    "latent_actions_small": ("latent_actions", LatentActionConfig(frame_size=64, **LATENT_PRESETS["small"])),
    "dynamics_small": ("dynamics", DynamicsConfig(actions="true", grid_size=(16, 16), **DYNAMICS_PRESETS["small"])),
}
LARGE = ("tokenizer_small", "latent_actions_small", "dynamics_small")
"""rows that take a GPU their usual batch and a CPU a batch of one"""


def training_rows(bench: Bench, names: list[str]) -> Rows:
    """Training steps, each beside the same step in float32 where bfloat16 is used."""
    for name in names:
        kind, config = SIZES[name]
        if name in LARGE and bench.device.type == "cpu":
            config = type(config)(**{**vars(config), "batch_size": 1})
        model, loss, num_clips = model_and_loss(kind, config, bench.device)
        fast = training_step(model, loss, config, bench.device, bench.precision)
        plain = training_step(model, loss, config, bench.device, "float32") if bench.precision != "float32" else None
        yield f"training_{name}", bench.row(fast, num_clips, "clips", plain, flops=True)


def inference_rows(bench: Bench, world: WorldModel) -> Rows:
    """Encoding and decoding 8 clips of 4 frames, and the dreamed frame, the last beside a dream without a memory."""
    frames = np.repeat(world.start_frames[:1, -4:], 8, axis=0)
    video = to_video(np.ascontiguousarray(frames), world.device)

    @torch.no_grad()
    def encode() -> Tensor:
        with autocast(world.device, world.precision):
            return world.tokenizer.encode(video).indices

    tokens = encode()

    @torch.no_grad()
    def decode() -> Tensor:
        with autocast(world.device, world.precision):
            return world.tokenizer.decode_indices(tokens)

    yield "encode", bench.row(encode, 32, "frames")
    yield "decode", bench.row(decode, 32, "frames")
    world.reset(world.start_frames[0], world.start_actions[0])
    plain = PlainDream(world.tokenizer, world.dynamics, world.start_frames[0], world.sampling.num_steps)
    action = 0 if world.num_actions else -1
    dreamed = bench.row(lambda: world.step(action), 1, "frames", lambda: plain.step(action))
    yield "world_step", dreamed
