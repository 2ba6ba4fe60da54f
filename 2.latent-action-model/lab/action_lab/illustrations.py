"""The pictures of the chapter's solutions: where the encoder looks, where its latents lie, and how codes collapse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from latent_action_model.figures import GAIN, close_up, next_frames_under_every_code
from latent_action_model.models.action_encoder import POOLED_CELL, pool_by_change
from latent_action_model.models.latent_action_model import LatentActionModel
from latent_action_model.models.quantizers import VectorQuantizer
from tokenizer_lab.illustrations import PALE, bare
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import ACCENT, DARK, difference, image_grid, save_figure, save_picture, style
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import random_policy

FRESH_SEEDS = 1_500_000_000
"""the games shown begin here: record.py and evaluation stay below"""
KEY_COLOURS = ("#8b949e", "#e3b341", "#0b66c3", "#cf222e", "#1a7f37", "#8250df")


class Played(NamedTuple):
    """Transitions of real games: latents (N, A) as the quantizer compares them, indices (N,) and the true keys (N,)."""

    latents: Tensor
    indices: Tensor
    keys: Tensor


# ---- solution 2: where the pooling looks --------------------------------------------------------------------------------


def weights_of_cells(before: Tensor, after: Tensor) -> Tensor:
    """What each cell is worth in the encoder's vector: rows of an identity matrix are pooled, and come out as their weights.

    before, after: (M, C, H, W) in [0, 1]. Returns (M, H / 8, W / 8). A frame's weights add up to change / (change + STILL): to
    nearly 1, to 0 where nothing moved.
    """
    rows, columns = before.shape[-2] // POOLED_CELL, before.shape[-1] // POOLED_CELL
    weights = pool_by_change(torch.eye(rows * columns)[None], before, after)  # (M, N)
    return weights.view(-1, rows, columns)


def telling_transitions(model: LatentActionModel, video: Tensor, count: int) -> list[tuple[int, int]]:
    """(clip, t) of one transition t -> t+1 for each of the `count` codes used most: the one that changes as much as most do.

    video: (B, T, C, H, W) in [0, 1].
    """
    indices = model.encode(video).indices  # (B, T-1)
    change = (video[:, 1:] - video[:, :-1]).abs().mean(dim=(2, 3, 4))  # (B, T-1)
    found = []
    for code in torch.bincount(indices.flatten()).argsort(descending=True, stable=True)[:count].tolist():
        places = torch.nonzero(indices == code).tolist()
        if places:
            places.sort(key=lambda place: float(change[place[0], place[1]]))
            clip, moment = places[len(places) // 2]
            found.append((clip, moment))
    return found


@torch.no_grad()
def save_pooling(path: Path, model: LatentActionModel, video: Tensor, code_names: Sequence[str], count: int = 4) -> None:
    """A row per transition: the frames before and after, their difference, each cell's weight, and the even ones of a mean.

    video: (B, T, C, H, W) in [0, 1]. code_names: what each code mostly is, as of `action_map.latent_names`.
    """
    chosen = telling_transitions(model, video, count)
    indices = model.encode(video).indices
    figure = Figure(figsize=(7.4, 1.38 * len(chosen) + 0.2), layout="constrained")
    charts = figure.subplots(len(chosen), 5, squeeze=False)
    even = 1 / (video.shape[-2] // POOLED_CELL * (video.shape[-1] // POOLED_CELL))
    titles = ("before", "after", f"change x{GAIN:.0f}", "weights in %", f"plain mean: {even:.1%}")
    for number, (line, (clip, moment)) in enumerate(zip(charts, chosen, strict=True)):
        before, after = video[clip, moment][None], video[clip, moment + 1][None]
        weights = weights_of_cells(before, after)[0].numpy()
        pictures = to_frames(torch.stack([before, after], dim=1))[0]  # (2, H, W, 3)
        for axes, picture in zip(line, [*pictures, difference(pictures[1], pictures[0], GAIN)], strict=False):
            axes.imshow(picture, interpolation="nearest")
        _heat(line[3], weights)
        _heat(line[4], np.full_like(weights, even))
        for axes, title in zip(line, titles, strict=True):
            bare(axes, title if number == 0 else "")
        code = int(indices[clip, moment])
        line[0].set_ylabel(f"code {code}\n{code_names[code]}", fontsize=8, rotation=0, ha="right", va="center", labelpad=4)
    save_figure(path, figure)


def _heat(axes: Axes, weights: np.ndarray) -> None:
    """A map of weights with the percentage in every cell that has at least 4 %. weights: (rows, columns)."""
    axes.imshow(weights, cmap="viridis", vmin=0, vmax=0.6)
    for (row, column), weight in np.ndenumerate(weights):
        if weight >= 0.04:
            ink = DARK if weight > 0.4 else "white"
            axes.text(column, row, f"{100 * weight:.0f}", fontsize=6, ha="center", va="center", color=ink)


# ---- solution 3: latents, codes, keys -----------------------------------------------------------------------------------


def play_at_random(game: Game, num_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Whole games with a random key at every step, until they have `num_frames` frames: (frames, actions) of each."""
    games: list[tuple[np.ndarray, np.ndarray]] = []
    while (missing := num_frames - sum(len(frames) for frames, _ in games)) > 1:
        episode = record_episode(game, random_policy, missing, FRESH_SEEDS + len(games))
        games.append((episode.frames, episode.actions))
    return games


@torch.no_grad()
def encode_games(model: LatentActionModel, games: Sequence[tuple[np.ndarray, np.ndarray]]) -> Played:
    """Latents, codes and keys of all transitions, in clips as long as those of training; what is left of a game is left out."""
    length = model.config.num_frames
    starts = [(game, start) for game, (frames, _) in enumerate(games) for start in range(0, len(frames) - length + 1, length - 1)]
    parts = []
    for first in range(0, len(starts), 32):
        chosen = [(games[game], slice(start, start + length)) for game, start in starts[first : first + 32]]
        latents = model.encoder(to_video(np.stack([frames[span] for (frames, _), span in chosen]))).flatten(0, 1)
        keys = np.concatenate([actions[span][1:] for (_, actions), span in chosen])
        parts.append(Played(as_compared(model, latents), model.quantizer(latents).indices, torch.from_numpy(keys).long()))
    return Played(*(torch.cat(column) for column in zip(*parts, strict=True)))


def as_compared(model: LatentActionModel, latents: Tensor) -> Tensor:
    """Latents (M, A) of the encoder as they meet the codes: whitened, or for sign bits squeezed to -1 to 1."""
    return model.quantizer.whiten(latents) if isinstance(model.quantizer, VectorQuantizer) else torch.tanh(latents)


def principal_plane(latents: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (A,), the two directions (A, 2) in which latents (N, A) vary most, and their share of all variance."""
    mean = latents.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(latents - mean, full_matrices=False)
    plane = directions[:2].T  # (A, 2)
    plane = plane * plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)).sign()  # svd may turn any direction round
    return mean, plane, float(strengths[:2].square().sum() / strengths.square().sum())


@torch.no_grad()
def save_latents(
    path: Path, model: LatentActionModel, untrained: LatentActionModel, games: Sequence, key_names: Sequence[str]
) -> None:
    """Latents of real transitions in their principal plane, coloured by the true key, with the codes; beside them, the same
    transitions as an untrained encoder sees them.

    games: as of `play_at_random`.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    charts = figure.subplots(1, 2)
    colours = torch.tensor([to_rgb(KEY_COLOURS[key % len(KEY_COLOURS)]) for key in range(len(key_names))])
    for axes, shown, title in zip(charts, (model, untrained), ("after training", "control: before training"), strict=True):
        played = encode_games(shown, games)
        mean, plane, share = principal_plane(played.latents)
        _scatter_keys(axes, (played.latents - mean) @ plane, played.keys, colours)
        if shown is model:
            codes = model.quantizer.indices_to_codes(torch.arange(model.num_actions))
            _mark_codes(axes, (codes - mean) @ plane, played, colours)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"{share:.0%} of the variance lies in this plane", fontsize=8)
    for name, colour in zip(key_names, colours.tolist(), strict=True):
        charts[0].scatter([], [], s=24, color=colour, label=name)
    figure.legend(*charts[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save_figure(path, figure)


def _scatter_keys(axes: Axes, points: Tensor, keys: Tensor, colours: Tensor) -> None:
    """Points (N, 2) in the colour of their key, in the order of the games, so that no key hides the others."""
    axes.scatter(*points.T.numpy(), s=7, c=colours[keys].numpy(), linewidths=0, antialiased=False)
    axes.set_xticks([])
    axes.set_yticks([])


def _mark_codes(axes: Axes, codes: Tensor, played: Played, colours: Tensor) -> None:
    """A cross at each code (K, 2). Beside it, away from the next code, its number, the keys of the latents that it is the nearest
    of as a strip, and how many these are."""
    next_codes = codes[torch.cdist(codes, codes).fill_diagonal_(torch.inf).argmin(dim=1)]
    axes.plot(*codes.T.numpy(), marker="+", color=DARK, markersize=8, markeredgewidth=1.4, linestyle="")
    words: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "color": DARK}
    circle = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": DARK, "linewidth": 0.8}
    for number, (code, next_code) in enumerate(zip(codes.tolist(), next_codes.tolist(), strict=True)):
        x = 26 if code[0] > next_code[0] else -26
        axes.annotate(str(number), code, (x, 9), fontsize=9, bbox=circle, **words)
        if len(keys := played.keys[played.indices == number].sort().values):
            places = torch.linspace(0, len(keys) - 1, 30).round().long()
            strip = OffsetImage(colours[keys[places]].expand(4, -1, -1).numpy(), zoom=0.8, interpolation="nearest")
            axes.add_artist(AnnotationBbox(strip, code, (x, -3), boxcoords="offset points", frameon=False, pad=0))
        axes.annotate(f"{len(keys):,}", code, (x, -10), fontsize=7, **words)
    axes.margins(0.28, 0.2)


# ---- solution 4: codes that collapse ------------------------------------------------------------------------------------

CURVES = (
    ("logged", "reconstruction", "reconstruction loss"),
    ("logged", "codes", "codes in use in a batch"),
    ("validated", "delta_moving_psnr_db", "worth of the right code, dB"),
    ("validated", "action_information_single", "known of the key from one code"),
)
"""group in the file of the curves, name there, title of the chart"""


def read_curves(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    """The curves of `CURVES` from the history of a training's metrics.json: {"logged": {"step": [...], "codes": ...}, ...}."""
    groups: dict[str, dict[str, list[float]]] = {}
    for group, name, _ in CURVES:
        key = f"validation_{name}" if group == "validated" else name
        entries = [entry for entry in history if key in entry]
        curves = groups.setdefault(group, {"step": [int(entry["step"]) for entry in entries]})
        curves[name] = [float(f"{entry[key]:.4g}") for entry in entries]
    return groups


def save_collapse(path: Path, trainings: Mapping[str, Mapping[str, Any]]) -> None:
    """The loss, the codes in use, and the two scores that tell, of a training that finds words and of one that does not.

    trainings: name -> {"noisy_steps": steps without rounding, "curves": as of `read_curves`}.
    """
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    charts = figure.subplots(2, 2)
    for axes, (group, name, title) in zip(charts.flat, CURVES, strict=True):
        style(axes)
        for (label, training), colour in zip(trainings.items(), (ACCENT, "#cf222e"), strict=True):
            curves = training["curves"][group]
            drawing = "steps-post" if name == "codes" else "default"
            axes.plot(curves["step"], curves[name], color=colour, linewidth=1.2, label=label, drawstyle=drawing)
        axes.axvspan(0, max(training["noisy_steps"] for training in trainings.values()), color=PALE, alpha=0.4, linewidth=0)
        axes.set_xlim(left=0)
        axes.set_title(title, fontsize=9, loc="left")
    for axes in charts[1]:
        axes.set_xlabel("step", fontsize=8)
    charts[0, 0].set_ylim(bottom=0)
    charts[0, 1].set_ylim(0, 8.4)
    charts[0, 1].text(4, 0.2, "noise first", fontsize=8, color=DARK)
    figure.legend(*charts[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save_figure(path, figure)


@torch.no_grad()
def save_collapsed_gallery(path: Path, models: Mapping[str, LatentActionModel], video: Tensor) -> None:
    """What each model draws next under every code after the same frame: two rows per model, close up, and the change.

    models: label -> model, all with as many codes. video: (B, T, C, H, W) in [0, 1]; the clip shown is the one in which the
    drawings of the first model vary most.
    """
    drawings = {
        name: torch.stack([next_frames_under_every_code(model, clip) for clip in video]) for name, model in models.items()
    }
    varying = {name: drawn.var(dim=1, correction=0) for name, drawn in drawings.items()}  # (B, C, H, W), over the codes
    chosen = int(next(iter(varying.values())).sum(dim=(1, 2, 3)).argmax())
    rows, columns = close_up(next(iter(varying.values()))[chosen].amax(dim=0)[None])
    entries = []
    for name, drawn in drawings.items():  # (B, K, C, H, W)
        frames = to_frames(torch.cat([video[chosen, -2:], drawn[chosen]])[None])[0][:, rows, columns]
        entries += [(name, frames), (f"change x{GAIN:.0f}", difference(frames, frames[:1].repeat(len(frames), axis=0), GAIN))]
    titles = ["before", "real\nnext", *(f"code {code}" for code in range(len(entries[0][1]) - 2))]
    values = ", ".join(f"{name} {float(variance[chosen].sum()):.3f}" for name, variance in varying.items())
    save_picture(path, image_grid(entries, f"How much the drawings differ, as variance over the codes: {values}.", titles))
