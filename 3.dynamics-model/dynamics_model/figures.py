"""Pictures of dreams: the same start under every action, and a dream beside what really happened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dynamics_model.rollouts import decode_after, roll_out, tokens_of
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import ACCENT, DARK, DIFFERENCE, difference, image_grid, save_figure, save_gif, save_picture, style

SHOWN_STEPS = (1, 2, 4, 8, 16)


def action_labels(model, extra: Mapping[str, Any]) -> list[str]:
    """A label for each of the model's actions: the key, or the code with the keys that send it.

    extra: the checkpoint's action_kind, action_names and action_map.
    """
    if model.num_actions == 0:
        return ["no action"]
    if extra.get("action_kind") == "true":
        return list(extra["action_names"])
    keys: dict[int, list[str]] = {}
    for name, code in (extra.get("action_map") or {}).items():
        keys.setdefault(code, []).append(name)
    return [f"code {code}\n{', '.join(keys.get(code, []))}".strip() for code in range(model.num_actions)]


@torch.no_grad()
def dream_every_action(
    model, tokenizer, frames: Tensor, actions: Tensor, length: int = 16, seed: int = 0, **sampling: Any
) -> np.ndarray:
    """The same start under each action held for `length` steps: uint8 (actions, length, H, W, 3).

    frames: uint8 (T, H, W, 3), the start; actions: (T,), the model's actions that led to them.
    """
    device = next(model.parameters()).device
    rows = max(1, model.num_actions)
    tokens = tokens_of(tokenizer, to_video(frames[None], device)).expand(rows, -1, -1)  # (rows, T, N)
    held = torch.arange(rows, device=device)[:, None].expand(rows, length)
    generator = torch.Generator(device).manual_seed(seed)
    dreamed = roll_out(model, tokens, actions.to(device).expand(rows, -1), held, generator, **sampling)
    return to_frames(decode_after(tokenizer, tokens, dreamed))


def save_rollout_strips(
    path: Path | str,
    model,
    tokenizer,
    extra: Mapping[str, Any],
    seed: int = 0,
    start: int = 0,
    caption: str = "Dreams from one start, one action held per row.",
    **sampling: Any,
) -> np.ndarray:
    """One row per action, all from the same start frames; columns are steps into the dream. Returns the dreams, for a GIF.

    extra: what the dynamics checkpoint carries: start_frames (S, T, H, W, 3), start_actions (S, T), action names and map.
    start: which of the start clips.
    """
    frames, actions = extra["start_frames"][start], extra["start_actions"][start]
    dreams = dream_every_action(model, tokenizer, frames, actions, max(SHOWN_STEPS), seed, **sampling)
    columns = np.array(SHOWN_STEPS) - 1
    last = np.asarray(frames[-1])[None].repeat(len(columns), axis=0)
    rows = [
        ("start", last[:1]),
        *((label, dream[columns]) for label, dream in zip(action_labels(model, extra), dreams, strict=True)),
    ]
    save_picture(path, image_grid(rows, caption, [f"step {step}" for step in SHOWN_STEPS]))
    return dreams


def save_action_gif(
    path: Path | str, dreams: np.ndarray, labels: Sequence[str], frames_per_second: float, per_row: int = 4
) -> None:
    """A GIF of actions side by side: those that a key stands for, or all where there is no key, at most per_row of them.

    dreams: uint8 (actions, S, H, W, 3); labels: as of `action_labels`.
    """
    named = [place for place, label in enumerate(labels) if "\n" in label] or list(range(len(labels)))
    panels = {labels[place].replace("\n", " "): dreams[place] for place in named[:per_row]}
    captions = [f"step {step}" for step in range(1, dreams.shape[1] + 1)]
    save_gif(path, panels, frames_per_second, captions=captions)


def save_real_and_dreamed(
    path: Path | str, real: np.ndarray, dreams: Mapping[str, np.ndarray], caption: str = "", steps: Sequence[int] = SHOWN_STEPS
) -> None:
    """Rows: what really happened, then each dream and its difference from it; columns are steps into the dream.

    real and each dream: uint8 (S, H, W, 3).
    """
    columns = np.array([step for step in steps if step <= len(real)]) - 1
    rows = [("real", real[columns])]
    for label, dream in dreams.items():
        rows += [(label.replace(", ", ",\n"), dream[columns]), (DIFFERENCE, difference(dream[columns], real[columns]))]
    save_picture(path, image_grid(rows, caption, [f"step {column + 1}" for column in columns]))


def save_horizon_chart(
    path: Path | str, curves: Mapping[str, Mapping[int, float]], caption: str = "", unit: str = "PSNR, dB"
) -> None:
    """Score against steps into the dream, one line per predictor: label -> {steps: score}."""
    colours = [ACCENT, "#d1495b", "#66a182", "#8d96a3", DARK, "#edae49"]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    style(axes)
    for (label, curve), colour in zip(curves.items(), colours, strict=False):
        axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, linewidth=1.4, color=colour, label=label)
    steps = sorted({step for curve in curves.values() for step in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_xlabel("steps into the dream", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    axes.set_title(caption, fontsize=9, loc="left")
    save_figure(path, figure)
