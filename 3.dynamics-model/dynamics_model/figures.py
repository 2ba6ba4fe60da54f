"""Pictures of rollouts: the same start under every action, and rollouts compared with the real video."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dynamics_model.models.base import DynamicsModel, Sampling
from dynamics_model.rollouts import decode_after, encode_video, roll_out
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import ACCENT, BAD, DIFFERENCE, GOOD, PLAIN, difference, image_grid, save_gif, save_picture, style

SHOWN_STEPS = (1, 2, 4, 8, 16)


def action_labels(model: DynamicsModel, extra: Mapping[str, Any]) -> list[str]:
    """A label for each action of the model: its name, or the code with the keys that are mapped to it.

    extra: the checkpoint's action_kind, action_names and action_map.
    """
    if model.num_actions == 0:
        return ["no action"]
    if extra.get("action_kind") == "true":
        return list(extra["action_names"])
    keys: dict[int, list[str]] = {}
    for name, code in (extra.get("action_map") or {}).items():
        keys.setdefault(code, []).append(name)
    return [f"action {code}\n{', '.join(keys.get(code, []))}".strip() for code in range(model.num_actions)]


@torch.no_grad()
def roll_out_every_action(
    model: DynamicsModel,
    tokenizer,
    frames: Tensor,
    actions: Tensor,
    length: int = 16,
    seed: int = 0,
    sampling: Sampling | None = None,
) -> np.ndarray:
    """Rollouts from the same start, each holding one action for `length` steps: uint8 (actions, length, H, W, 3).

    frames: uint8 (T, H, W, 3), the prompt frames. actions: (T,), the actions that led to them.
    """
    device = next(model.parameters()).device
    rows = max(1, model.num_actions)
    prompt = encode_video(model, tokenizer, to_video(frames[None], device))  # (1, T, N), for latents (1, T, N, D)
    prompt = prompt.expand(rows, *prompt.shape[1:])
    held = torch.arange(rows, device=device)[:, None].expand(rows, length)
    generator = torch.Generator(device).manual_seed(seed)
    predicted = roll_out(model, prompt, actions.to(device).expand(rows, -1), held, generator, sampling)
    return to_frames(decode_after(tokenizer, prompt, predicted))


def save_rollout_strips(
    path: Path | str,
    model: DynamicsModel,
    tokenizer,
    extra: Mapping[str, Any],
    seed: int = 0,
    start: int = 0,
    caption: str = "Rollouts from one start, one action held per row.",
    sampling: Sampling | None = None,
) -> np.ndarray:
    """Write one row per action, all from the same start frames; columns are steps.

    extra: the content of the dynamics checkpoint: start_frames (S, T, H, W, 3), start_actions (S, T), action names and map.
    start: index of the start clip. Returns the rollouts, uint8 (actions, steps, H, W, 3).
    """
    frames, actions = extra["start_frames"][start], extra["start_actions"][start]
    rollouts = roll_out_every_action(model, tokenizer, frames, actions, max(SHOWN_STEPS), seed, sampling)
    columns = np.array(SHOWN_STEPS) - 1
    last = np.asarray(frames[-1])[None].repeat(len(columns), axis=0)
    rows = [
        ("start", last[:1]),
        *((label, rollout[columns]) for label, rollout in zip(action_labels(model, extra), rollouts, strict=True)),
    ]
    save_picture(path, image_grid(rows, caption, [f"step {step}" for step in SHOWN_STEPS]))
    return rollouts


def save_action_gif(
    path: Path | str, rollouts: np.ndarray, labels: Sequence[str], frames_per_second: float, per_row: int = 4
) -> None:
    """Write a GIF of at most per_row actions side by side: those with a key, or all if none has one.

    rollouts: uint8 (actions, S, H, W, 3); labels: from `action_labels`.
    """
    named = [place for place, label in enumerate(labels) if "\n" in label] or list(range(len(labels)))
    panels = {labels[place].replace("\n", " "): rollouts[place] for place in named[:per_row]}
    captions = [f"step {step}" for step in range(1, rollouts.shape[1] + 1)]
    save_gif(path, panels, frames_per_second, captions=captions)


def save_real_and_predicted(
    path: Path | str, real: np.ndarray, rollouts: Mapping[str, np.ndarray], caption: str = "", steps: Sequence[int] = SHOWN_STEPS
) -> None:
    """Write the rows real video, then each rollout and its difference from the real video; columns are steps.

    real and each rollout: uint8 (S, H, W, 3).
    """
    columns = np.array([step for step in steps if step <= len(real)]) - 1
    rows = [("real", real[columns])]
    for label, rollout in rollouts.items():
        rows += [(label.replace(", ", ",\n"), rollout[columns]), (DIFFERENCE, difference(rollout[columns], real[columns]))]
    save_picture(path, image_grid(rows, caption, [f"step {column + 1}" for column in columns]))


def draw_horizons(curves: Mapping[str, Mapping[int, float]], caption: str = "", unit: str = "PSNR, dB") -> Figure:
    """A chart of score against rollout steps, a line for each of at most four predictors. curves: label -> {steps: score}."""
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axes = figure.subplots()
    style(axes)
    for (label, curve), color in zip(curves.items(), (ACCENT, GOOD, BAD, PLAIN)[: len(curves)], strict=True):
        axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, linewidth=1.4, color=color, label=label)
    steps = sorted({step for curve in curves.values() for step in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_xlabel("rollout steps", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    axes.set_title(caption, fontsize=9, loc="left")
    return figure
