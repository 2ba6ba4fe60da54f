"""Tokenizers side by side: the same clips, the same budget, the same scores.

Equal minutes of processor time are not an equal number of steps. So each tokenizer is timed first, over two short trainings of
which only the difference counts (starting Python and validating cost the same in both), and gets as many steps as fit.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tokenizer_lab.ablation import Study, run_script_of
from tokenizer_lab.ablation_table import Column
from video_tokenizer.data.clips import to_frames
from video_tokenizer.data.validation import clip_videos, most_active_clips, open_validation_data
from video_tokenizer.figures import ACCENT, image_grid, save_figure, save_picture, style
from video_tokenizer.registry import load_tokenizer, tokenizer_class
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import parse_config, value_of_flag
from video_tokenizer.training.results import read_json

CHAPTER = "1.video-tokenizer"
PAGE = REPOSITORY / CHAPTER / "tokenizer_variants" / "README.md"
"""the text that shows the tables"""
SHORT, LONG = 20, 140
"""steps of the two trainings that time a tokenizer"""
EQUAL_PARAMETERS = {
    "st-fsq": "",
    "st-vq": "",
    "videogpt": "--inner-channels 16",
    "magvit2": "--channels 16 32 64 80",
    "dreamer4": "",
    "elastictok": "--hidden-dim 336",
}
"""flags that bring each tokenizer to the main line's number of parameters, to one part in twenty"""
COLUMNS = (
    Column("bits_per_frame", "bits a frame", ",.0f"),
    Column("tokens_per_frame", "tokens a frame", ",.0f"),
    Column("parameters", "parameters, million", ".2f"),
    Column("steps", "steps", ",.0f"),
    Column("psnr_db", "PSNR, dB", ".1f", "higher"),
    Column("moving_psnr_db", "moving PSNR, dB", ".1f", "higher"),
    Column("foreground_recall", "foreground recall", ".2f", "higher"),
    Column("object_recall", "ball recall", ".2f", "higher"),
    Column("ghost_share", "second balls", ".2f", "lower"),
    Column("ssim", "SSIM", ".2f", "higher"),
    Column("lpips", "LPIPS", ".3f", "lower"),
    Column("codes_used", "codes used", ",.0f"),
    Column("perplexity", "perplexity", ".0f"),
    Column("cpu_minutes", "CPU minutes", ".1f"),
    Column("encoded_per_second", "frames encoded a second", ",.0f", "higher"),
    Column("decoded_per_second", "frames decoded a second", ",.0f", "higher"),
    Column("peak_memory_gib", "memory of training, GiB", ".1f", "lower"),
)
SCORES = ("psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "ghost_share", "ssim")
CONTROLS = {
    control: {score: f"rows.{row}.{score}" for score in SCORES}
    for control, row in {"copy-last-frame": "copy_last_frame", "random-codes": "random_tokens"}.items()
}


@dataclass(frozen=True, kw_only=True)
class TokenizerStudy(Study):
    """A study whose rows may be different tokenizers: `--model` among their flags says which."""

    def read_flags(self, flags: Sequence[str]) -> Any:
        """The config of the tokenizer that the flags name."""
        model = tokenizer_class(value_of_flag(flags, "--model") or "st-fsq")
        return parse_config(model.config_class, model.presets, flags)


@torch.no_grad()
def facts_and_speed(checkpoint: Path, rounds: int = 5) -> dict[str, float]:
    """What neither script writes: million parameters, bits and tokens a frame, and frames encoded and decoded a second.

    The fastest of `rounds` counts, on 8 clips of as many frames as it was trained on.
    """
    tokenizer = load_tokenizer(checkpoint)
    height, width = tokenizer.frame_size
    clip = torch.rand(8, tokenizer.config.num_frames, 3, height, width, generator=torch.Generator().manual_seed(0))
    encode, decode = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        codes = tokenizer.encode(clip).codes
        encoded = time.perf_counter()
        tokenizer.decode(codes)
        encode.append(encoded - begun)
        decode.append(time.perf_counter() - encoded)
    frames = clip.shape[0] * clip.shape[1]
    return {
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()) / 1e6,
        "bits_per_frame": tokenizer.bits_per_frame,
        "tokens_per_frame": tokenizer.tokens_per_frame / tokenizer.frames_per_step,
        "encoded_per_second": frames / min(encode),
        "decoded_per_second": frames / min(decode),
    }


def steps_for(study: Study, flags: Sequence[str], cpu_minutes: float, environment: Mapping[str, str]) -> tuple[int, float]:
    """(steps that take this processor time, seconds of one step) of a training with these flags. At least 1 step."""
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in (SHORT, LONG):
            place = f"{folder}/{steps}"
            more = ["--num-steps", str(steps), "--validation-batches", "1", "--checkpoint-dir", place]
            run_script_of(study, [f"{CHAPTER}/train.py", *flags, *more], environment, "the timing")
            spent.append(60 * read_json(Path(place) / "metrics.json")["cpu_minutes"])
    seconds = max(1e-3, (spent[1] - spent[0]) / (LONG - SHORT))
    return max(1, round(60 * cpu_minutes / seconds)), round(seconds, 4)


def spread_apart(values: Sequence[float], gap: float) -> list[float]:
    """Places for labels near their values, in the same order, at least `gap` apart: [1.0, 1.1, 5.0] with 1 is [1.0, 2.0, 5.0]."""
    places = list(values)
    lowest = -float("inf")
    for index in sorted(range(len(values)), key=lambda index: values[index]):
        places[index] = lowest = max(values[index], lowest + gap)
    return places


def save_quality_against_bits(path: Path, results: Mapping[str, Any]) -> None:
    """Moving PSNR against bits per frame, one point per tokenizer with its seeds' range, and the copied last frame as a line."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    style(axes)
    bits = [row["scores"]["bits_per_frame"]["mean"] for row in results["rows"].values()]
    values = [np.array(row["scores"]["moving_psnr_db"]["values"]) for row in results["rows"].values()]
    copied = results["controls"]["copy-last-frame"]["moving_psnr_db"]
    lowest = min(copied if copied is not None else np.inf, *(found.min() for found in values))
    gap = 0.055 * (max(found.max() for found in values) - lowest)
    near = [[other for other, x in enumerate(bits) if 0.95 < x / bits[one] < 1.05] for one in range(len(bits))]
    places = [spread_apart([values[one].mean() for one in group], gap)[group.index(own)] for own, group in enumerate(near)]
    for name, x, found, place in zip(results["rows"], bits, values, places, strict=True):
        axes.plot([x, x], [found.min(), found.max()], color=ACCENT, linewidth=1.4)
        axes.plot(x, found.mean(), marker="o", markersize=5, color=ACCENT)
        left = x < 0.95 * np.median(bits)  # there is room beside the points of most
        axes.annotate(name, (x * (0.98 if left else 1.03), place), fontsize=8, va="center", ha="right" if left else "left")
    if copied is not None:
        axes.axhline(copied, color="#8d96a3", linewidth=1.0, linestyle="--")
        axes.annotate(
            "repeating the last frame", (1, copied), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlim(min(bits) * 0.75, max(bits) * 1.35)
    ticks = [
        tick for tick in (8, 16, 32, 64, 125, 250, 500, 1_000, 2_000, 4_000, 8_000) if 0.8 * min(bits) < tick < 1.4 * max(bits)
    ]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("bits a frame", fontsize=8)
    axes.set_ylabel("moving PSNR, dB", fontsize=8)
    save_figure(path, figure)


@torch.no_grad()
def save_gallery(path: Path, checkpoints: Mapping[str, Path], number: int = 5) -> None:
    """The same validation frames as each tokenizer draws them, one row each, those of the most movement in their stretches."""
    rows = []
    for name, checkpoint in checkpoints.items():
        tokenizer = load_tokenizer(checkpoint)
        clips = open_validation_data(SimpleNamespace(data_path=None, use_dummy_data=False), tokenizer.config).validation
        video = clip_videos(clips, most_active_clips(clips, number), "cpu")
        if not rows:
            rows.append(("video", to_frames(video)[:, -1]))
        rows.append((name, to_frames(tokenizer(video).reconstruction)[:, -1]))
    save_picture(path, image_grid(rows), num_colors=128)
