"""How long until it is good? The same tokenizer, learning from the same clips, with our tricks and without, to the same score."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, ShuffledBatches, split_episodes, to_video
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.data.video_files import write_video
from video_tokenizer.games.emulator import Game
from video_tokenizer.losses import background_of, weighted_mse
from video_tokenizer.metrics import TokenizerMetrics
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.schedule import ExponentialMovingAverage, learning_rate_factor
from world_lab.benchmark.measure import wait_for
from world_lab.benchmark.naive_baseline import decode_clips
from world_model.evaluation.games import record_games

GOOD = 12.0
"""decibels of moving PSNR above repeating the last frame: what the `tiny` world has to reach"""
CHECK_EVERY = 100


class Training:
    """A tokenizer's training, of which a hundred steps at a time are made and timed."""

    def __init__(self, config: TokenizerConfig, clips: Clips, video: Path | None, background: torch.Tensor, precision: str):
        """video: a file that holds the store's frames; given, every clip is decoded from it when it is needed."""
        torch.manual_seed(config.seed)
        self.config, self.clips, self.video, self.background, self.precision = config, clips, video, background, precision
        self.device = background.device
        self.tokenizer = build_tokenizer(config).to(self.device).train()
        self.optimizer = build_optimizer(self.tokenizer, config.learning_rate, config.weight_decay, kind=config.optimizer)
        self.ema = ExponentialMovingAverage(self.tokenizer, config.ema_decay)
        self.batches = iter(ShuffledBatches(len(clips), config.batch_size, config.num_steps, config.seed))
        self.step, self.seconds, self.score = 0, 0.0, -float("inf")

    def clip_batch(self) -> torch.Tensor:
        """The next clips, (B, T, 3, H, W) on the device."""
        chosen = next(self.batches)
        if self.video is not None:
            return decode_clips(self.video, self.clips.starts[chosen], self.config.num_frames).to(self.device)
        return to_video(self.clips.__getitems__(chosen)["frames"], self.device)

    def train(self, num_steps: int) -> None:
        """Make steps as train.py does, and count their seconds."""
        config, weights = self.config, (self.config.foreground_weight, self.config.moving_weight)
        torch.manual_seed(config.seed + self.step)  # two that take turns draw the same numbers
        wait_for(self.device)
        begun = time.perf_counter()
        for _ in range(num_steps):
            factor = learning_rate_factor(self.step, config.num_steps, config.warmup_steps, config.decay_share)
            set_learning_rate(self.optimizer, config.learning_rate * factor)
            video = self.clip_batch()
            self.optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.precision):
                output = self.tokenizer(video)
            loss = weighted_mse(output.reconstruction, video, self.background, *weights) + sum(output.losses.values())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.tokenizer.parameters(), config.gradient_clip)
            self.optimizer.step()
            self.ema.update(self.tokenizer)
            self.step += 1
        wait_for(self.device)
        self.seconds += time.perf_counter() - begun

    @torch.no_grad()
    def validate(self, clips: Clips) -> None:
        """Score the averaged weights: moving PSNR above that of repeating the last frame, in decibels. Not timed."""
        averaged = build_tokenizer(self.config).to(self.device).eval()
        averaged.load_state_dict(self.ema.weights)
        metrics = TokenizerMetrics(averaged.codebook_size)
        for chosen in np.array_split(evenly_spaced(len(clips), 64), 8):
            video = to_video(clips.__getitems__(chosen.tolist())["frames"], self.device)
            with autocast(self.device, self.precision):
                output = averaged(video)
            metrics.update(output.reconstruction, video, output.indices, self.background)
        result = metrics.result()
        self.score = result["moving_psnr_db"] - result["copy_last_moving_psnr_db"]


def time_to_quality(
    game: Game, folder: Path, device: torch.device, precision: str, quick: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows "quality_ours" and "quality_plain": steps and minutes of training until the score is GOOD.

    Plain means float32 and clips decoded from a video inside the loop. Weights, clips and schedule are the same. The two learn in
    turns, a hundred steps each, so that both meet the same weather; one that is good waits for the other.
    """
    config = TokenizerConfig(frame_size=game.frame_size[0], num_steps=8 if quick else 2_200)
    store: ClipStore = record_games(game, 3 if quick else 24, 120 if quick else 500, 0).store
    training, validation = (Clips(store, part, config.num_frames) for part in split_episodes(store))
    background = background_of(store.frames).to(device)
    video = folder / "quality.avi"
    write_video(video, store.frames, 15.0, "FFV1")  # the very same pixels
    runs = {
        "quality_ours": Training(config, training, None, background, precision),
        "quality_plain": Training(config, training, video, background, "float32"),
    }
    learning = dict(runs)
    while learning:
        for name, run in list(learning.items()):
            run.train(min(CHECK_EVERY, config.num_steps - run.step))
            run.validate(validation)
            if run.score >= GOOD or run.step == config.num_steps:
                del learning[name]
    for name, run in runs.items():
        row = {
            "reached_db": run.score,
            "steps": run.step,
            "minutes": run.seconds / 60,
            "ms_per_step": 1000 * run.seconds / run.step,
        }
        yield name, row | {"times_plain": runs["quality_plain"].seconds / run.seconds}
