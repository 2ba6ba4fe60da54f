"""The pictures of chapter 2: where the encoder looks, where its latents lie, and how codes collapse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, DrawingArea
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as MplPath
from torch import Tensor

from latent_action_model.figures import GAIN, close_up, next_frames_under_every_code
from latent_action_model.models.action_encoder import POOLED_CELL, pool_by_change
from latent_action_model.models.latent_action_model import LatentActionModel
from latent_action_model.models.quantizers import ActionQuantizer
from tokenizer_lab.draw import bare, write_cells
from tokenizer_lab.drawing import save_chart
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.figures import ACCENT, BAD, DARK, GOOD, GRID, PLAIN, difference, image_grid, save_figure, save_picture, style
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import random_policy

FRESH_SEEDS = 1_500_000_000
"""seed of the first game shown; record.py and evaluation use smaller ones"""
ACTION_COLORS = (PLAIN, "#e3b341", ACCENT, BAD, GOOD, "#8250df")

# ---- where the pooling looks ------------------------------------------------------------------------------------------


def pooling_weights(before: Tensor, after: Tensor) -> Tensor:
    """The weight of each cell in the encoder's vector, found by pooling the rows of an identity matrix.

    before, after: (M, C, H, W) in [0, 1]. Returns (M, H / 8, W / 8). A frame's weights sum to change / (change + STILL): nearly
    1 if something moved, 0 if nothing did.
    """
    rows, columns = before.shape[-2] // POOLED_CELL, before.shape[-1] // POOLED_CELL
    weights = pool_by_change(torch.eye(rows * columns)[None], (after - before).abs())  # (M, N)
    return weights.view(-1, rows, columns)


def typical_transitions(indices: Tensor, video: Tensor, count: int) -> list[tuple[int, int]]:
    """(clip, t) of one transition t -> t+1 for each of the `count` codes used most: the one with the median change.

    indices: (B, T-1), the codes; video: (B, T, C, H, W) in [0, 1].
    """
    change = (video[:, 1:] - video[:, :-1]).abs().mean(dim=(2, 3, 4))  # (B, T-1)
    found = []
    for code in torch.bincount(indices.flatten()).argsort(descending=True, stable=True)[:count].tolist():
        places = sorted(torch.nonzero(indices == code).tolist(), key=lambda place: float(change[place[0], place[1]]))
        if places:
            clip, moment = places[len(places) // 2]
            found.append((clip, moment))
    return found


@torch.no_grad()
def save_pooling(path: Path, model: LatentActionModel, video: Tensor, count: int = 4) -> None:
    """One row per transition: the frames before and after, their difference, each cell's weight, and a plain mean's weights.

    video: (B, T, C, H, W) in [0, 1].
    """
    indices = model.encode(video).indices
    chosen = typical_transitions(indices, video, count)
    figure = Figure(figsize=(7.4, 1.38 * len(chosen) + 0.2), layout="constrained")
    charts = figure.subplots(len(chosen), 5, squeeze=False)
    even = 1 / (video.shape[-2] // POOLED_CELL * (video.shape[-1] // POOLED_CELL))
    titles = ("before", "after", f"change x{GAIN:.0f}", "weights in %", f"plain mean: {even:.1%}")
    for number, (line, (clip, moment)) in enumerate(zip(charts, chosen, strict=True)):
        pair = video[clip, moment : moment + 2]  # (2, C, H, W)
        weights = pooling_weights(pair[:1], pair[1:])[0].numpy()
        before, after = to_frames(pair[None])[0]  # (H, W, 3) each
        for axes, picture in zip(line, (before, after, difference(after, before, GAIN)), strict=False):
            axes.imshow(picture, interpolation="nearest")
        for axes, shown in zip(line[3:], (weights, np.full_like(weights, even)), strict=True):
            axes.imshow(shown, cmap="viridis", vmin=0, vmax=0.6)
            write_cells(axes, shown, lambda weight: f"{100 * weight:.0f}" if weight >= 0.04 else "", shown <= 0.4, 6)
        for axes, title in zip(line, titles, strict=True):
            bare(axes, title if number == 0 else "")
        code = int(indices[clip, moment])
        line[0].set_ylabel(f"action {code}", fontsize=8, rotation=0, ha="right", va="center", labelpad=4)
    save_figure(path, figure)


# ---- latents, codes, actions ------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """Transitions of real games: latents (N, A) as the quantizer compares them, code indices (N,) and true actions (N,)."""

    latents: Tensor
    indices: Tensor
    actions: Tensor


def game_of(facts: Mapping[str, Any], frame_size: tuple[int, int]) -> Game:
    """The game of a world, played and pictured as it was recorded. facts: of its dynamics checkpoint. Raises InputError."""
    if not facts.get("env_id"):
        raise InputError("this world was trained on videos, and there is no game to play")
    timing = (facts.get("frame_skip") or 4, facts.get("picture_delay"), facts.get("merged_frames"))
    return Game(facts["env_id"], frame_size, *timing, bool(facts.get("linear_light")))


def play_at_random(game: Game, num_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(frames, actions) of games with a random action at every step, `num_frames` frames in all."""
    games: list[tuple[np.ndarray, np.ndarray]] = []
    while (missing := num_frames - sum(len(frames) for frames, _ in games)) > 1:
        episode = record_episode(game, random_policy, missing, FRESH_SEEDS + len(games))
        games.append((episode.frames, episode.actions))
    return games


@torch.no_grad()
def encode_games(model: LatentActionModel, games: Sequence[tuple[np.ndarray, np.ndarray]]) -> Played:
    """Latents, codes and actions of all transitions, in clips as long as those of training; the rest of a game is left out."""
    length = model.config.num_frames
    starts = [(game, start) for game, (frames, _) in enumerate(games) for start in range(0, len(frames) - length + 1, length - 1)]
    parts = []
    for first in range(0, len(starts), 32):
        chosen = [(games[game], slice(start, start + length)) for game, start in starts[first : first + 32]]
        latents = model.encoder(to_video(np.stack([frames[span] for (frames, _), span in chosen]))).flatten(0, 1)
        actions = np.concatenate([actions[span][1:] for (_, actions), span in chosen])
        quantizer = model.quantizer
        compared = quantizer.whiten(latents) if isinstance(quantizer, ActionQuantizer) else torch.tanh(latents)
        parts.append(Played(compared, quantizer(latents).indices, torch.from_numpy(actions).long()))
    return Played(*(torch.cat(column) for column in zip(*parts, strict=True)))


def principal_plane(latents: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (A,), the two directions (A, 2) in which latents (N, A) vary most, and their share of all variance."""
    mean = latents.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(latents - mean, full_matrices=False)
    plane = directions[:2].T  # (A, 2)
    plane = plane * plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)).sign()  # svd leaves the signs open
    return mean, plane, float(strengths[:2].square().sum() / strengths.square().sum())


@torch.no_grad()
def save_latents(
    path: Path, model: LatentActionModel, untrained: LatentActionModel, games: Sequence, action_names: Sequence[str]
) -> None:
    """Latents of real transitions in their principal plane, colored by the true action, with the codes; beside them, as a
    control, the same transitions encoded by an untrained encoder.

    games: as returned by `play_at_random`.
    """
    figure = Figure(figsize=(6.2, 3.5), layout="constrained")
    charts = figure.subplots(1, 2)
    colors = [ACTION_COLORS[action % len(ACTION_COLORS)] for action in range(len(action_names))]
    for axes, shown, title in zip(charts, (model, untrained), ("after training", "control: before training"), strict=True):
        played = encode_games(shown, games)
        mean, plane, share = principal_plane(played.latents)
        points = (played.latents - mean) @ plane  # (N, 2), drawn in the order of the games, so that no action hides the others
        _dots(axes, points, played.actions, colors)
        if shown is model:
            codes = model.quantizer.indices_to_codes(torch.arange(model.num_actions))
            _mark_codes(figure, axes, (codes - mean) @ plane, points, played, colors)
        bare(axes, title)
        axes.set_xlabel(f"{share:.0%} of the variance lies in this plane", fontsize=8)
    for name, color in zip(action_names, colors, strict=True):
        charts[0].scatter([], [], s=24, color=color, label=name)
    figure.legend(*charts[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save_chart(path, figure, "Latents of real transitions in a plane, on islands after training, and mixed before")


def _dots(axes: Axes, points: Tensor, actions: Tensor, colors: Sequence[str]) -> None:
    """Draw points (N, 2) in the color of their action (N,): a line of no length with round ends is a dot of thirty bytes.

    In twelve layers, each with all actions, so that none hides the others.
    """
    for layer in torch.arange(len(points)).tensor_split(12):
        for action, color in enumerate(colors):
            places = points[layer][actions[layer] == action].repeat_interleave(2, dim=0).numpy()
            path = MplPath(places, [MplPath.MOVETO, MplPath.LINETO] * (len(places) // 2))
            path.should_simplify = False
            axes.add_patch(PathPatch(path, edgecolor=color, linewidth=2.6, capstyle="round", fill=False))
    axes.update_datalim(points.numpy())
    axes.autoscale_view()


def _mark_codes(figure: Figure, axes: Axes, codes: Tensor, points: Tensor, played: Played, colors: Sequence[str]) -> None:
    """A cross at each code (K, 2), and joined to it by a line its number, a strip with the true actions of its latents, and their
    count."""
    axes.plot(*codes.T.numpy(), marker="+", color=DARK, markersize=8, markeredgewidth=1.4, linestyle="")
    axes.margins(0.28, 0.2)
    figure.draw_without_rendering()  # where everything lies is known only now
    words: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "color": DARK}
    circle = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": DARK, "linewidth": 0.8}
    offsets = _label_offsets(axes, codes, points, 72 / figure.dpi)
    for number, (code, (x, y)) in enumerate(zip(codes.tolist(), offsets, strict=True)):
        line = {"arrowstyle": "-", "color": PLAIN, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        axes.annotate("", code, (x, y), textcoords="offset points", arrowprops=line)
        axes.annotate(str(number), code, (x, y + 12), fontsize=9, bbox=circle, **words)
        if len(actions := played.actions[played.indices == number]):
            ends = 24 * actions.bincount(minlength=len(colors)).cumsum(dim=0) / len(actions)
            strip = DrawingArea(24, 3.2)
            for left, right, color in zip([0.0, *ends.tolist()], ends.tolist(), colors, strict=False):
                strip.add_artist(Rectangle((left, 0), right - left, 3.2, color=color, linewidth=0))
            axes.add_artist(AnnotationBbox(strip, code, (x, y), boxcoords="offset points", frameon=False, pad=0))
        axes.annotate(f"{len(actions):,}", code, (x, y - 7), fontsize=8, **words)


def _label_offsets(axes: Axes, codes: Tensor, points: Tensor, unit: float, size: float = 40) -> list[tuple[float, float]]:
    """Where each code's label goes, in typographic points from its cross (K, 2): of 16 directions and three distances the place
    inside the axes that covers no other label and the fewest crosses and points (N, 2).

    unit: typographic points per pixel. size: of a label.
    """
    crosses, dots = (axes.transData.transform(some.numpy()) * unit for some in (codes, points))
    low, high = axes.bbox.get_points() * unit
    angles = np.arange(16) * np.pi / 8
    offsets = np.concatenate([r * np.stack([np.cos(angles), np.sin(angles)], axis=1) for r in (30, 44, 58)])
    half, taken, chosen = np.array([size, size]) / 2, np.empty((0, 2)), []
    for cross in crosses:
        places = cross + offsets  # (48, 2)
        labels, others, covered = (
            (np.abs(places[:, None] - some) < reach).all(axis=2).sum(axis=1)
            for some, reach in ((taken, 2 * half), (crosses, half), (dots, half))
        )
        outside = ((places - half < low) | (places + half > high)).any(axis=1)
        best = int((1e6 * (labels + outside) + 1e3 * others + covered).argmin())
        taken = np.concatenate([taken, places[best : best + 1]])
        chosen.append((float(offsets[best, 0]), float(offsets[best, 1])))
    return chosen


# ---- codes that collapse ----------------------------------------------------------------------------------------------

CURVES = (
    ("logged", "reconstruction", "reconstruction loss"),
    ("logged", "codes", "latent actions in use in a batch"),
    ("validated", "delta_moving_psnr_db", "worth of the right latent action, dB"),
    ("validated", "action_information_single", "known of the key from one latent action"),
)
"""(group and name in the file of the curves, title of the chart)"""


def read_curves(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    """The curves of `CURVES` from the history in a run's metrics.json: {"logged": {"step": [...], "codes": ...}, ...}."""
    groups: dict[str, dict[str, list[float]]] = {}
    for group, name, _ in CURVES:
        key = f"validation_{name}" if group == "validated" else name
        entries = [entry for entry in history if key in entry]
        curves = groups.setdefault(group, {"step": [int(entry["step"]) for entry in entries]})
        curves[name] = [float(f"{entry[key]:.4g}") for entry in entries]
    return groups


def save_collapse(path: Path, trainings: Mapping[str, Mapping[str, Any]]) -> None:
    """Loss, codes in use and the two meaningful scores, of a training that finds actions and of one that collapses.

    trainings: name -> {"noisy_steps": steps without rounding, "curves": as returned by `read_curves`}.
    """
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    charts = figure.subplots(2, 2)
    for axes, (group, name, title) in zip(charts.flat, CURVES, strict=True):
        style(axes)
        for (label, training), color in zip(trainings.items(), (ACCENT, BAD), strict=True):
            curves = training["curves"][group]
            drawing = "steps-post" if name == "codes" else "default"
            axes.plot(curves["step"], curves[name], color=color, linewidth=1.2, label=label, drawstyle=drawing)
        axes.axvspan(0, max(training["noisy_steps"] for training in trainings.values()), color=GRID, alpha=0.7, linewidth=0)
        axes.set_xlim(left=0)
        axes.set_title(title, fontsize=9, loc="left")
    for axes in charts[1]:
        axes.set_xlabel("step", fontsize=8)
    charts[0, 0].set_ylim(bottom=0)
    charts[0, 1].set_ylim(0, 8.4)
    charts[0, 1].text(4, 0.2, "noise first", fontsize=8, color=DARK)
    figure.legend(*charts[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save_chart(path, figure, "Loss, latent actions in use and two scores of a healthy training and of one that collapses")


@torch.no_grad()
def save_collapsed_gallery(path: Path, models: Mapping[str, LatentActionModel], video: Tensor) -> None:
    """The next frame each model predicts under every code: two rows per model, a close-up and the change.

    models: label -> model, all with the same number of codes. video: (B, T, C, H, W) in [0, 1]; shows the clip for which the
    predictions of the first model vary most.
    """
    predicted = {
        name: torch.stack([next_frames_under_every_code(model, clip) for clip in video]) for name, model in models.items()
    }
    varying = {name: frames.var(dim=1, correction=0) for name, frames in predicted.items()}  # (B, C, H, W), over the codes
    first = next(iter(varying.values()))
    chosen = int(first.sum(dim=(1, 2, 3)).argmax())
    rows, columns = close_up(first[chosen].amax(dim=0)[None])
    entries = []
    for name, next_frames in predicted.items():  # (B, K, C, H, W)
        frames = to_frames(torch.cat([video[chosen, -2:], next_frames[chosen]])[None])[0][:, rows, columns]
        entries += [(name, frames), (f"change x{GAIN:.0f}", difference(frames, frames[:1].repeat(len(frames), axis=0), GAIN))]
    titles = ["before", "real\nnext", *(f"action {code}" for code in range(len(entries[0][1]) - 2))]
    values = ", ".join(f"{name} {float(variance[chosen].sum()):.3f}" for name, variance in varying.items())
    save_picture(path, image_grid(entries, f"How much the drawings differ, as variance over the actions: {values}.", titles))
