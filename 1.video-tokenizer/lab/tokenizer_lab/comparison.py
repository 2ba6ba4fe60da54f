"""Tokenizers side by side: the same clips, the same budget, the same scores.

Equal minutes of processor time are not an equal number of steps. So each tokenizer is timed first, over two short trainings of
which only the difference counts (starting Python and validating cost the same in both), and gets as many steps as fit.
"""

import os
import shlex
import tempfile
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tokenizer_lab.draw import ringed
from tokenizer_lab.drawing import save_chart
from tokenizer_lab.sweep import Column, Study, markdown, run_command, runs_of
from video_tokenizer.data.clips import to_frames
from video_tokenizer.data.validation import ball_positions, clip_videos, most_active_clips, open_validation_data
from video_tokenizer.figures import ACCENT, PLAIN, enlarge, image_grid, save_picture, style
from video_tokenizer.registry import load_tokenizer, tokenizer_class
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import parse_config, value_of_flag
from video_tokenizer.training.results import read_json, save_json

CHAPTER = "1.video-tokenizer"
TEXTS = REPOSITORY / CHAPTER / "tokenizer_variants"
"""the folder of the texts that show the tables"""
SHORT, LONG = 20, 140
"""steps of the two trainings that time a model"""
STEPS_FILE = "steps.json"
"""in the folder of the runs: how long a step of each model takes, so that a comparison that resumes keeps its steps"""
TRAINED_ALIKE = (
    "--patch-share 1 --background grey --patch-weight 0 --stability-from 0 --batch-size 8 --learning-rate 2e-3 --warmup-steps 200"
)
"""flags that train the main line on whole frames, as the variants are trained: tokenizers are compared, not trainings"""
EQUAL_PARAMETERS = {
    "st-fsq": "",
    "st-vq": "",
    "videogpt": "--inner-channels 16",
    "magvit2": "--channels 16 32 64 80",
    "dreamer4": "",
    "elastictok": "--hidden-dim 336",
}
"""flags that bring each tokenizer to the main line's number of parameters, within 5 %"""
COLUMNS = (
    Column("bits_per_frame", "bits a frame", ",.0f"),
    Column("tokens_per_frame", "tokens a frame", ",.0f"),
    Column("parameters", "parameters, million", ".2f"),
    Column("steps", "steps", ",.0f"),
    Column("psnr_db", "PSNR, dB", ".1f", "higher"),
    Column("moving_psnr_db", "moving PSNR, dB", ".1f", "higher"),
    Column("foreground_recall", "foreground recall", ".2f", "higher"),
    Column("object_recall", "balls redrawn", ".2f", "higher"),
    Column("ghost_share", "second balls", ".2f", "lower"),
    Column("ssim", "SSIM", ".2f", "higher"),
    Column("lpips", "LPIPS", ".3f", "lower"),
    Column("codes_used", "codes used", ",.0f"),
    Column("perplexity", "perplexity", ".0f"),
    Column("cpu_minutes", "CPU minutes", ".1f"),
    Column("encoded_per_second", "frames encoded a second", ",.0f"),  # no mark: not all were timed on the same processor
    Column("decoded_per_second", "frames decoded a second", ",.0f"),
    Column("peak_memory_gib", "memory of training, GiB", ".1f", "lower"),
)
ON_THE_PAGE = ("bits_per_frame", "tokens_per_frame", "steps", "psnr_db", "moving_psnr_db", "object_recall", "ghost_share",
               "codes_used", "encoded_per_second", "decoded_per_second")  # fmt: skip
"""the scores of the variants' front page"""
SCORES = ("psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "ghost_share", "ssim")
CONTROLS = {
    control: {score: f"rows.{row}.{score}" for score in SCORES}
    for control, row in {"copy-last-frame": "copy_last_frame", "random-codes": "random_tokens"}.items()
}


def train_script(model: str | None) -> str:
    """The script that trains this tokenizer: the chapter's, its own, or the one of the other variants."""
    if model in (None, "st-fsq"):
        return f"{CHAPTER}/train.py"
    own = f"{CHAPTER}/tokenizer_variants/{model}/train.py"
    return own if (REPOSITORY / own).exists() else f"{CHAPTER}/tokenizer_variants/train.py"


def read_flags(flags: Sequence[str]) -> Any:
    """The config that the tokenizer's train.py makes of these flags; --model among them names the tokenizer."""
    model = tokenizer_class(value_of_flag(flags, "--model") or "st-fsq")
    return parse_config(model.config_class, model.presets, flags)


tokenizer_study = partial(Study, chapter=CHAPTER, read_flags=read_flags, models=train_script, trained_alike=TRAINED_ALIKE)
"""a study whose rows may be different tokenizers"""


def comparison(name: str, rows: Mapping[str, str]) -> Study:
    """The table of these tokenizers."""
    return tokenizer_study(name=name, rows=rows, columns=COLUMNS, controls=CONTROLS, score=facts_and_speed, transposed=True)


def written_table(name: str, results: Mapping[str, Any]) -> str:
    """The table as it stands in a text: the page has the scores that its conclusions read, the log has all."""
    study = comparison(name, {row: entry["flags"] for row, entry in results["rows"].items()})
    if name == "comparison":
        study = replace(study, columns=[column for column in COLUMNS if column.metric in ON_THE_PAGE])
    return markdown(study, results)


@torch.no_grad()
def facts_and_speed(checkpoint: Path, rounds: int = 5) -> dict[str, float]:
    """Million parameters, bits and tokens a frame, and frames encoded and decoded a second.

    The fastest of `rounds` counts, on 8 clips of as many frames as the tokenizer was trained on.
    """
    tokenizer = load_tokenizer(checkpoint)
    height, width = tokenizer.frame_size
    clip = torch.rand(8, tokenizer.config.num_frames, 3, height, width, generator=torch.Generator().manual_seed(0))
    codes, frames = tokenizer.encode(clip).codes, clip.shape[0] * clip.shape[1]
    encoding = timeit.repeat(lambda: tokenizer.encode(clip), number=1, repeat=rounds)
    decoding = timeit.repeat(lambda: tokenizer.decode(codes), number=1, repeat=rounds)
    return {
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()) / 1e6,
        "bits_per_frame": tokenizer.bits_per_frame,
        "tokens_per_frame": tokenizer.tokens_per_frame / tokenizer.frames_per_step,
        "encoded_per_second": frames / min(encoding),
        "decoded_per_second": frames / min(decoding),
    }


def steps_that_fit(
    study: Study,
    runs: Path,
    flags: Sequence[str],
    data: Sequence[str],
    minutes: float,
    num_threads: int,
    lengths: tuple[int, int] = (SHORT, LONG),
) -> int:
    """Steps of a training with these flags that fit into processor minutes; timed once per folder of runs, where it is noted.

    data: --data-path and other flags that all trainings share. lengths: steps of the two trainings that are timed.
    """
    timed, key = read_json(runs / STEPS_FILE), f"{shlex.join(flags)} | {minutes} minutes, {num_threads} threads, {data[1]}"
    if key not in timed:
        environment = os.environ | {"OMP_NUM_THREADS": str(num_threads)}
        timed[key] = dict(
            zip(("num_steps", "seconds_per_step"), steps_for(study, [*data, *flags], minutes, environment, lengths), strict=True)
        )
        save_json(runs / STEPS_FILE, timed)
    steps, seconds = timed[key]["num_steps"], timed[key]["seconds_per_step"]
    print(f"{shlex.join(flags)}: {steps:,} steps of {1000 * seconds:.0f} ms")
    return steps


def steps_for(
    study: Study, flags: Sequence[str], cpu_minutes: float, environment: Mapping[str, str], lengths: tuple[int, int]
) -> tuple[int, float]:
    """(steps that take this processor time, seconds of one step) of a training with these flags. At least 1 step."""
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in lengths:
            more = ["--num-steps", str(steps), "--validation-batches", "1", "--checkpoint-dir", f"{folder}/{steps}"]
            command = ["python", study.train_script(flags), *study.all_flags(flags), *more]
            run_command(study, shlex.join(command), environment)
            spent.append(60 * read_json(Path(folder, str(steps), "metrics.json"))["cpu_minutes"])
    seconds = max(1e-3, (spent[1] - spent[0]) / (lengths[1] - lengths[0]))
    return max(1, round(60 * cpu_minutes / seconds)), round(seconds, 4)


def save_quality_against_bits(path: Path, results: Mapping[str, Any]) -> None:
    """Moving PSNR against bits a frame: a point per tokenizer with its seeds' range, and a line for the copied last frame."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    style(axes)
    runs = runs_of(results, {row: row for row in results["rows"]})
    copied = runs[CONTROLS["copy-last-frame"]["moving_psnr_db"]].iloc[0]
    names = sorted(results["rows"], key=lambda row: runs.loc[row, "moving_psnr_db"].mean())
    bits = {name: float(runs.loc[name, "bits_per_frame"].mean()) for name in names}
    gap = 0.055 * (runs["moving_psnr_db"].max() - copied)
    lowest = {"left": -np.inf, "right": -np.inf}  # a label keeps its distance from the one below it
    for name, x in bits.items():
        values = runs.loc[name, "moving_psnr_db"]
        axes.plot([x] * len(values), values, color=ACCENT, linewidth=1.4)
        axes.plot(x, values.mean(), marker="o", markersize=5, color=ACCENT)
        side = "right" if x < 0.95 * np.median(list(bits.values())) else "left"  # there is room to the left of the smallest ones
        lowest[side] = max(values.mean(), lowest[side] + gap)
        axes.annotate(name, (x * (1.03 if side == "left" else 0.98), lowest[side]), fontsize=8, va="center", ha=side)
    axes.axhline(copied, color=PLAIN, linewidth=1.0, linestyle="--")
    axes.annotate(
        "repeating the last frame", (1, copied), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(min(bits.values()) * 0.75, max(bits.values()) * 1.35)
    axes.set_xlabel("bits a frame", fontsize=8)
    axes.set_ylabel("moving PSNR, dB", fontsize=8)
    save_chart(path, figure, "Moving PSNR against bits a frame, a point per tokenizer, far above the repeated last frame")


@torch.no_grad()
def save_gallery(path: Path, checkpoints: Mapping[str, Path], number: int = 5) -> None:
    """The same validation frames as each tokenizer reconstructs them, one row each: the most active ones.

    A ring in every row shows where the ball of the real frame is, if there is one.
    """
    rows: list[tuple[str, np.ndarray]] = []
    for name, checkpoint in checkpoints.items():
        tokenizer = load_tokenizer(checkpoint)
        clips = open_validation_data(SimpleNamespace(data_path=None, use_dummy_data=False), tokenizer.config).validation
        chosen = most_active_clips(clips, number)
        video, balls = clip_videos(clips, chosen, "cpu"), ball_positions(clips, chosen)
        drawn = {name: tokenizer(video).reconstruction}
        for label, shown in (drawn if rows else {"video": video} | drawn).items():
            frames = to_frames(shown)[:, -1]
            rows.append((label, enlarge(frames, 2) if balls is None else ringed(frames, balls[:, -1].numpy())))
    save_picture(path, image_grid(rows, scale=1), num_colors=256)
