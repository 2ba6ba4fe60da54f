"""The pictures of the chapter's solutions: what a score hides, how dreams drift, where the ball goes, and where the model doubts.

All but the dream of `save_confidence` is drawn from numbers and frames that `evaluation/drift.py` has measured.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from tokenizer_lab.draw_psnr_failure import BAD, GOOD, PLAIN
from video_tokenizer.figures import ACCENT, DARK, enlarge, font, image_grid, style
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.training.command_line import InputError
from world_lab.drift import GONE
from world_lab.figure_elements import LOOKS, WARM, draw_curves, figure_picture, note_tiles, save_small, stacked
from world_model.evaluation.long_dream import LEAD
from world_model.starts import frames_from_text

SCALE = 2
"""enlargement of the frames"""
NEAR = 4.0
"""a paddle is in the right place when it is off by at most so many pixels, about half a step"""
WINDOW = 8
"""frames over which the share of frames with a ball is averaged"""
DOUBT = 0.5
"""probability at the dark end of a frame's heat map; what is less likely is as dark"""
MEAN_DOUBT = 0.9
"""the same for the mean of many frames, in which every patch is mostly sure"""


def read_numbers(path: Path | str, names: Sequence[str], command: str) -> dict[str, Any]:
    """A JSON file that holds `names`. Raises InputError where it is missing or something else; command: what writes it."""
    try:
        numbers = json.loads(Path(path).read_text())
    except OSError:
        raise InputError(f"there is no {path} to draw from; measure it with: {command}") from None
    except ValueError:
        raise InputError(f"{path} is no JSON; measure it anew with: {command}") from None
    missing = [name for name in names if not isinstance(numbers, dict) or name not in numbers]
    if missing:
        raise InputError(f"{path} holds no {missing[0]!r}; measure it anew with: {command}")
    return numbers


# ---- standing_still.png -------------------------------------------------------------------------------------------------


def save_standing_still(path: Path, numbers: Mapping[str, Any], frame_size: tuple[int, int]) -> None:
    """One stretch of the real game, dreamed, and with its last frame repeated: pictures, PSNR and the paddle's error."""
    chosen = numbers["standing_still"]
    shown = {kind: enlarge(frames_from_text(text, frame_size), SCALE) for kind, text in chosen["pictures"].items()}
    places = np.array(chosen["frames"]) - 1
    rows: list[tuple[str, np.ndarray]] = [("real game", shown["real"])]
    for kind, label in (("dream", "dream,\nsame keys"), ("still", "standing\nstill")):
        psnr, errors = (np.array(chosen[kind][name], dtype=np.float64)[places] for name in ("psnr_db", "error_px"))
        notes = [
            ((f"{decibels:.1f} dB", DARK), (f"paddle {error:.0f} px off", GOOD if error <= NEAR else BAD))
            for decibels, error in zip(psnr, errors, strict=True)
        ]
        rows += [(label, shown[kind]), ("", note_tiles(notes, SCALE * frame_size[1]))]
    figure = Figure(figsize=(7.2, 2.0), layout="constrained")
    decibels, errors = figure.subplots(1, 2)
    draw_curves(decibels, {kind: chosen[kind]["psnr_db"] for kind in ("dream", "still")}, "PSNR, dB")
    decibels.set_ylim(20, 50)
    draw_curves(errors, {kind: chosen[kind]["error_px"] for kind in ("dream", "still")}, "paddle off by, pixels")
    labels = [f"frame {frame}" for frame in chosen["frames"]]
    count, length = numbers["settings"]["num_dreams"], len(chosen["dream"]["error_px"])
    caption = f"Of {count} stretches the middle one, sorted by the dream's paddle error over {length} frames."
    save_small(path, stacked([image_grid(rows, caption, labels, scale=1), figure_picture(figure)]))


# ---- drift.png ----------------------------------------------------------------------------------------------------------


def save_drift(path: Path, numbers: Mapping[str, Any]) -> None:
    """Above, dreams beside the real game: PSNR, mean and median error of the player. Below, long dreams in the range of real
    frames."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    above, below = halves
    settings, long = numbers["settings"], numbers["long"]
    above.suptitle(f"{settings['num_dreams']} dreams beside the real game", fontsize=9, fontweight="bold")
    titles = {"psnr_db": "PSNR, dB", "error_px": "player's error, pixels: mean", "error_median_px": "the same: median"}
    for axes, (name, title) in zip(above.subplots(1, 3), titles.items(), strict=True):
        draw_curves(axes, {kind: series[name] for kind, series in numbers["player"].items()}, title, legend=name == "psnr_db")
        if name == "psnr_db":
            axes.set_ylim(20, 50)
    below.suptitle(f"{len(long['dream']['moving'])} long dreams under random keys", fontsize=9, fontweight="bold")
    titles = {"foreground": "foreground, % of the pixels", "moving": f"moving, % of the pixels (mean of {LEAD} frames)"}
    for axes, (name, title) in zip(below.subplots(1, 2), titles.items(), strict=True):
        draw_range(axes, long, name, title)
    save_small(path, figure_picture(figure))


def draw_range(axes: Axes, long: Mapping[str, Any], name: str, title: str) -> None:
    """A statistic of long dreams, one line each, in the range of real frames."""
    style(axes)
    low, high = 100 * long["low"][name], 100 * long["high"][name]
    axes.axhspan(low, high, color="#dafbe1", label="98 of 100 real frames")
    for kind, thinner in (("dream", {"linewidth": 0.9, "alpha": 0.75}), ("still", {})):
        look: dict[str, Any] = LOOKS[kind] | thinner | {"label": None}
        lines = axes.plot(long["frames"], 100 * np.array(long[kind][name]).T, **look)
        lines[0].set_label(LOOKS[kind]["label"])
    axes.set_ylim(-0.05 * high, 1.5 * high)  # what does not move at all lies on zero and is to be seen
    axes.set_xlabel("dreamed frame", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.5)


# ---- vanished_ball.png --------------------------------------------------------------------------------------------------


def save_vanished_ball(path: Path, numbers: Mapping[str, Any], frame_size: tuple[int, int]) -> None:
    """How many dreams show a ball, frame by frame, for two ways to draw tokens, and the dream that was without it longest."""
    chosen, env_id = numbers["vanished_ball"], numbers["settings"]["env"]
    labels = {"real": "real game", "dream": "temperature 1\ntop_p 0.9", "cold": "temperature 0.5\ntop_p 1"}
    rows = []
    for kind, label in labels.items():
        frames = frames_from_text(chosen["pictures"][kind], frame_size)
        rows.append((label, ringed(frames, detect_ball(frames, env_id))))
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    shares, gone = figure.subplots(1, 2, width_ratios=(2.2, 1))
    averaged = {kind: 100 * running_mean(series["share"], WINDOW) for kind, series in numbers["ball"].items()}
    draw_curves(shares, averaged, f"a ball is seen in so many, % (mean of {WINDOW} frames)", labels, WINDOW)
    shares.set_ylim(0, 105)
    draw_gone(gone, numbers["ball"], labels)
    columns = [f"frame {frame}" for frame in chosen["frames"]]
    count = numbers["settings"]["num_dreams"]
    caption = f"Of {count} stretches the one in which the dream at temperature 0.5 is without a ball longest."
    save_small(path, stacked([image_grid(rows, caption, columns, scale=1, text=12), figure_picture(figure)]))


def draw_gone(axes: Axes, ball: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    """Bars: in how many of the dreams the ball is gone for a second."""
    style(axes)
    values = [100 * series["gone"] for series in ball.values()]
    axes.bar(range(len(ball)), values, color=[LOOKS[kind]["color"] for kind in ball], width=0.6)
    for place, value in enumerate(values):
        axes.text(place, value, f"{value:.3g}", fontsize=8, ha="center", va="bottom")
    axes.set_xticks(range(len(ball)), [labels[kind].replace("temperature", "temp.").replace(" game", "\ngame") for kind in ball])
    axes.set_ylim(0, max(1.0, 1.3 * max(values)))
    axes.set_title(f"no ball for {GONE} frames, %", fontsize=9, loc="left")


def ringed(frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, enlarged, with a ring around the ball at places (T, 2), or the word that there is none."""
    pictures = []
    for frame, place in zip(enlarge(frames, SCALE), places, strict=True):
        picture = Image.fromarray(frame)
        pen = ImageDraw.Draw(picture)
        if np.isfinite(place).all():
            x, y = SCALE * (place + 0.5)
            pen.ellipse((x - 9, y - 9, x + 9, y + 9), outline="#7ee787", width=2)
        else:
            pen.text((picture.width / 2, picture.height * 0.62), "none seen", "#ff7b72", font(14), anchor="mm")
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Mean of each `width` neighbours: K - width + 1 numbers, fewer neighbours where there are fewer values."""
    width = min(width, len(values))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


# ---- confidence.png -----------------------------------------------------------------------------------------------------


def save_confidence(
    path: Path, frames: np.ndarray, probability: np.ndarray, shown: Sequence[int], key: str, measured: Mapping[str, Any]
) -> None:
    """Dreamed frames, how sure the model was of each of their tokens, and the same over thousands of frames.

    frames: (K, H, W, 3) uint8; probability: (K, N). shown: which frames, from 1 on. measured: what `confidence_by_place` returns.
    """
    mean = np.array(measured["mean"])
    patch = frames.shape[1] // len(mean)
    places = np.array(shown) - 1
    maps = [heat(probability[place].reshape(mean.shape), patch) for place in places]
    rows = [(f"dream\nunder {key}", enlarge(frames[places], SCALE)), ("probability\nof the draw", enlarge(np.stack(maps), SCALE))]
    figure = Figure(figsize=(7.2, 2.5), layout="constrained")
    average, bars = figure.subplots(1, 2, width_ratios=(1, 1.35))
    picture = average.imshow(mean, cmap="viridis", vmin=MEAN_DOUBT, vmax=1.0)
    for (row, column), value in np.ndenumerate(mean):
        ink = DARK if value > (1 + MEAN_DOUBT) / 2 else "white"
        average.text(column, row, f"{100 * value:.0f}", fontsize=7, ha="center", va="center", color=ink)
    average.set_xticks([])
    average.set_yticks([])
    average.set_title(f"mean of {measured['frames']:,} frames, %", fontsize=9, loc="left")
    figure.colorbar(picture, ax=average, ticks=(0.9, 0.95, 1.0)).ax.tick_params(labelsize=7)
    draw_doubt(bars, measured["by_place"])
    labels = [f"frame {frame}" for frame in shown]
    caption = f"Yellow: the model was sure of its draw. Dark: {100 * DOUBT:.0f}% or less."
    save_small(path, stacked([image_grid(rows, caption, labels, scale=1), figure_picture(figure)]))


def draw_doubt(axes: Axes, by_place: Mapping[str, float | None]) -> None:
    """Bars: how sure the model is of tokens that show the ball, the player, or neither."""
    style(axes)
    values = {name: 100 * value for name, value in by_place.items() if value is not None}
    axes.barh(list(values), list(values.values()), color=[PLAIN if name == "neither" else WARM for name in values], height=0.6)
    for row, value in enumerate(values.values()):
        axes.text(value, row, f" {value:.1f}", fontsize=8, va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_title("mean probability by what a patch shows, %", fontsize=9, loc="left")


def heat(probability: np.ndarray, patch: int) -> np.ndarray:
    """Probabilities (rows, columns) as a picture uint8 (H, W, 3), each a square of `patch` pixels: yellow 1, dark `DOUBT`."""
    squares = probability.repeat(patch, axis=0).repeat(patch, axis=1)
    return (colormaps["viridis"](np.clip((squares - DOUBT) / (1 - DOUBT), 0, 1))[..., :3] * 255).astype(np.uint8)


# ---- sampling_steps.png -------------------------------------------------------------------------------------------------


def save_sampling_steps(path: Path | str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Quality and time against sampling steps per frame. rows: "steps_4" -> the scores that `sampling_steps.py` measures."""
    steps = [int(name.removeprefix("steps_")) for name in rows]
    figure = Figure(figsize=(7.5, 2.1), layout="constrained")
    charts = {  # title -> where its axis ends at least, and its lines
        "torn players, % of frames": (5, {"": ("torn", 100, ACCENT)}),
        "player's error, pixels": (
            10,
            {"after 16": ("sprite_error_px_16", 1, ACCENT), "after 64": ("sprite_error_px_64", 1, WARM)},
        ),
        "obedience, %": (100, {"": ("obedience", 100, ACCENT)}),
        "a frame takes, ms": (1, {"": ("step_ms", 1, BAD)}),
    }
    for axes, (title, (top, lines)) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        style(axes)
        for label, (name, factor, color) in lines.items():
            values = [np.nan if row[name] is None else factor * row[name] for row in rows.values()]
            axes.plot(steps, values, color=color, linewidth=1.3, marker="o", markersize=3, label=label)
        axes.set_ylim(0, max(top, axes.get_ylim()[1]))
        axes.set_xticks(steps)
        axes.set_xlabel("sampling steps", fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    save_small(path, figure_picture(figure))
