"""The pictures of chapter 4: what PSNR hides, how rollouts drift, where the ball goes, and where the model is unsure.

All but the rollout in `save_confidence` is drawn from numbers and frames that `drift.py` has measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw

from tokenizer_lab.draw import bare, figure_picture, ringed, stacked, write_cells
from tokenizer_lab.drawing import save_chart
from video_tokenizer.figures import ACCENT, BAD, DARK, GOOD, PAPER, PLAIN, WARM, common_palette, enlarge, font, image_grid, style
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.training.atomic_files import write_atomically
from world_lab.drift import GONE
from world_model.evaluation.long_rollouts import LEAD
from world_model.starts import frames_from_text

SCALE = 2
"""enlargement of the frames"""
NEAR = 4.0
"""largest error of a paddle that still counts as in the right place, in pixels, about half a step"""
WINDOW = 8
"""frames over which the share of frames with a ball is averaged"""
UNSURE = 0.5
"""probability at the dark end of a frame's heat map; smaller ones are as dark"""
MEAN_UNSURE = 0.9
"""the same for the mean of many frames, in which the model is mostly sure of every patch"""
LOOKS: dict[str, dict[str, Any]] = {
    "real": {"color": DARK, "linewidth": 1.4, "label": "real game"},
    "dream": {"color": ACCENT, "linewidth": 1.6, "label": "dream"},
    "still": {"color": PLAIN, "linewidth": 1.4, "linestyle": "--", "label": "copy-last"},
    "random_keys": {"color": WARM, "linewidth": 1.2, "label": "dream under other keys"},
    "cold": {"color": BAD, "linewidth": 1.6, "label": "temperature 0.5"},
}
"""color and line of each kind of video, the same in every picture"""


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Any],
    title: str,
    labels: Mapping[str, str] | None = None,
    first: int = 1,
    legend: bool = True,
) -> None:
    """Curves of a quantity against the frame of a rollout, from zero on. labels: instead of those in `LOOKS`. first: frame of the
    first value."""
    style(axes)
    for kind, values in curves.items():
        numbers = np.array(values, dtype=np.float64)  # what could not be measured is null in the file and NaN here
        look: dict[str, Any] = LOOKS[kind] | ({} if labels is None else {"label": labels[kind].replace("\n", ", ")})
        axes.plot(first + np.arange(len(numbers)), numbers, **look)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dreamed frame", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    if legend:
        axes.legend(fontsize=7, frameon=False)


def save_small(path: Path | str, *parts: np.ndarray | Figure) -> None:
    """Write pictures and charts below each other as a PNG with a palette, which takes a third of the bytes of full color."""
    picture = stacked([figure_picture(part) if isinstance(part, Figure) else part for part in parts])
    image = Image.fromarray(picture).quantize(palette=common_palette([picture[None]]), dither=Image.Dither.NONE)
    write_atomically(path, lambda temporary: image.save(temporary, optimize=True))


# ---- standing_still.png -----------------------------------------------------------------------------------------------


def save_standing_still(path: Path, numbers: Mapping[str, Any], frame_size: tuple[int, int]) -> None:
    """A stretch of the real game, its rollout, and its last frame repeated: pictures, PSNR and the paddle's error."""
    chosen = numbers["standing_still"]
    shown = {kind: enlarge(frames_from_text(text, frame_size), SCALE) for kind, text in chosen["pictures"].items()}
    places = np.array(chosen["frames"]) - 1
    rows: list[tuple[str, np.ndarray]] = [("real game", shown["real"])]
    for kind, label in (("dream", "dream,\nsame keys"), ("still", "copy-last")):
        psnr, errors = (np.array(chosen[kind][name], dtype=np.float64)[places] for name in ("psnr_db", "error_px"))
        notes = [score_note(*scores, SCALE * frame_size[1]) for scores in zip(psnr, errors, strict=True)]
        rows += [(label, shown[kind]), ("", np.stack(notes))]
    figure = Figure(figsize=(7.2, 2.0), layout="constrained")
    decibels, errors = figure.subplots(1, 2)
    draw_curves(decibels, {kind: chosen[kind]["psnr_db"] for kind in ("dream", "still")}, "PSNR, dB")
    decibels.set_ylim(20, 50)
    draw_curves(errors, {kind: chosen[kind]["error_px"] for kind in ("dream", "still")}, "paddle off by, pixels")
    count, length = numbers["settings"]["num_dreams"], len(chosen["dream"]["error_px"])
    caption = f"Of {count} stretches the middle one, sorted by the dream's paddle error over {length} frames."
    save_small(path, image_grid(rows, caption, [f"frame {frame}" for frame in chosen["frames"]], scale=1), figure)


def score_note(psnr: float, error: float, width: int) -> np.ndarray:
    """Two lines of text to stand below a frame, the paddle's error in green or red: uint8 (height, width, 3)."""
    tile = Image.new("RGB", (width, 38), PAPER)
    pen = ImageDraw.Draw(tile)
    pen.text((width / 2, 0), f"{psnr:.1f} dB", DARK, font(12), anchor="ma")
    pen.text((width / 2, 17), f"paddle {error:.0f} px off", GOOD if error <= NEAR else BAD, font(12), anchor="ma")
    return np.asarray(tile)


# ---- drift ------------------------------------------------------------------------------------------------------------


def save_drift(path: Path, numbers: Mapping[str, Any]) -> None:
    """Above, rollouts beside the real game: PSNR, mean and median error of the player. Below, long rollouts within the range of
    real frames."""
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    above, below = halves
    long = numbers["long"]
    above.suptitle(f"{numbers['settings']['num_dreams']} dreams beside the real game", fontsize=9, fontweight="bold")
    titles = {"psnr_db": "PSNR, dB", "error_px": "player's error, pixels: mean", "error_median_px": "the same: median"}
    for axes, (name, title) in zip(above.subplots(1, 3), titles.items(), strict=True):
        draw_curves(axes, {kind: series[name] for kind, series in numbers["player"].items()}, title, legend=name == "psnr_db")
        if name == "psnr_db":
            axes.set_ylim(20, 50)
    below.suptitle(f"{len(long['dream']['moving'])} long dreams under random keys", fontsize=9, fontweight="bold")
    titles = {"foreground": "foreground, % of the pixels", "moving": f"moving, % of the pixels (mean of {LEAD} frames)"}
    for axes, (name, title) in zip(below.subplots(1, 2), titles.items(), strict=True):
        draw_range(axes, long, name, title)
    save_chart(path, figure, "Rollouts drift away from the real game, and long ones stay mostly within the range of real frames")


def draw_range(axes: Axes, long: Mapping[str, Any], name: str, title: str) -> None:
    """A statistic of long rollouts, one line each, within the range of real frames."""
    style(axes)
    low, high = 100 * long["low"][name], 100 * long["high"][name]
    axes.axhspan(low, high, color="#dafbe1", label="98 of 100 real frames")
    for kind, thinner in (("dream", {"linewidth": 0.9, "alpha": 0.75}), ("still", {})):
        look: dict[str, Any] = LOOKS[kind] | thinner | {"label": None}
        lines = axes.plot(long["frames"], 100 * np.array(long[kind][name]).T, **look)
        lines[0].set_label(LOOKS[kind]["label"])
    axes.set_ylim(-0.05 * high, 1.5 * high)  # below zero, so that a line at zero is visible
    axes.set_xlabel("dreamed frame", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.5)


# ---- vanished_ball.png ------------------------------------------------------------------------------------------------


def save_vanished_ball(path: Path, numbers: Mapping[str, Any], frame_size: tuple[int, int]) -> None:
    """The share of rollouts with a ball, frame by frame, for two sampling settings, and the rollout without one for longest."""
    chosen, env_id = numbers["vanished_ball"], numbers["settings"]["env"]
    labels = {"real": "real game", "dream": "temperature 1\ntop_p 0.9", "cold": "temperature 0.5\ntop_p 1"}
    videos = {kind: frames_from_text(chosen["pictures"][kind], frame_size) for kind in labels}
    rows = [(label, ringed(videos[kind], detect_ball(videos[kind], env_id))) for kind, label in labels.items()]
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    shares, gone = figure.subplots(1, 2, width_ratios=(2.2, 1))
    averaged = {kind: 100 * running_mean(series["share"], WINDOW) for kind, series in numbers["ball"].items()}
    draw_curves(shares, averaged, f"a ball is seen in so many, % (mean of {WINDOW} frames)", labels, WINDOW)
    shares.set_ylim(0, 105)
    style(gone)
    values = [100 * series["gone"] for series in numbers["ball"].values()]
    gone.bar(range(len(values)), values, color=[LOOKS[kind]["color"] for kind in numbers["ball"]], width=0.6)
    for place, value in enumerate(values):
        gone.text(place, value, f"{value:.3g}", fontsize=8, ha="center", va="bottom")
    short = [labels[kind].replace("temperature", "temp.").replace(" game", "\ngame") for kind in numbers["ball"]]
    gone.set_xticks(range(len(values)), short)
    gone.set_ylim(0, max(1.0, 1.3 * max(values)))
    gone.set_title(f"no ball for {GONE} frames, %", fontsize=9, loc="left")
    columns = [f"frame {frame}" for frame in chosen["frames"]]
    count = numbers["settings"]["num_dreams"]
    caption = f"Of {count} stretches the one in which the dream at temperature 0.5 is without a ball longest."
    save_small(path, image_grid(rows, caption, columns, scale=1, text=12), figure)


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Mean of each `width` neighbors, K - width + 1 numbers; of all values if there are fewer."""
    width = min(width, len(values))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


# ---- confidence.png ---------------------------------------------------------------------------------------------------


def save_confidence(
    path: Path, frames: np.ndarray, probability: np.ndarray, shown: Sequence[int], key: str, measured: Mapping[str, Any]
) -> None:
    """Frames of a rollout, the probability of each of their tokens, and its mean over thousands of frames.

    frames: (K, H, W, 3) uint8; probability: (K, N). shown: frame numbers, from 1. measured: from `drift.confidence_by_place`.
    """
    mean = np.array(measured["mean"])
    patch, places = frames.shape[1] // len(mean), np.array(shown) - 1
    maps = np.stack([heat(probability[place].reshape(mean.shape), patch) for place in places])
    rows = [(f"dream\nunder {key}", enlarge(frames[places], SCALE)), ("probability\nof the draw", enlarge(maps, SCALE))]
    figure = Figure(figsize=(7.2, 2.5), layout="constrained")
    average, bars = figure.subplots(1, 2, width_ratios=(1, 1.35))
    picture = average.imshow(mean, cmap="viridis", vmin=MEAN_UNSURE, vmax=1.0)
    write_cells(average, mean, lambda value: f"{100 * value:.0f}", mean <= (1 + MEAN_UNSURE) / 2, 7)
    bare(average)
    average.set_title(f"mean of {measured['frames']:,} frames, %", fontsize=9, loc="left")
    figure.colorbar(picture, ax=average, ticks=(0.9, 0.95, 1.0), format=PercentFormatter(1.0, 0)).ax.tick_params(labelsize=7)
    style(bars)
    values = {name: 100 * value for name, value in measured["by_place"].items() if value is not None}
    bars.barh(list(values), list(values.values()), color=[PLAIN if name == "neither" else WARM for name in values], height=0.6)
    for row, value in enumerate(values.values()):
        bars.text(value, row, f" {value:.1f}", fontsize=8, va="center")
    bars.invert_yaxis()
    bars.set_xlim(0, 115)
    bars.set_title("mean probability by what a patch shows, %", fontsize=9, loc="left")
    below = f"in the mean below: {MEAN_UNSURE:.0%} or less"
    caption = f"Yellow: the model was sure of its draw. Dark: {UNSURE:.0%} or less ({below})."
    save_small(path, image_grid(rows, caption, [f"frame {frame}" for frame in shown], scale=1), figure)


def heat(probability: np.ndarray, patch: int) -> np.ndarray:
    """Probabilities (rows, columns) as a picture uint8 (H, W, 3) with squares of `patch` pixels, yellow 1, dark `UNSURE`."""
    squares = probability.repeat(patch, axis=0).repeat(patch, axis=1)
    return (colormaps["viridis"](np.clip((squares - UNSURE) / (1 - UNSURE), 0, 1))[..., :3] * 255).astype(np.uint8)


# ---- sampling_steps ---------------------------------------------------------------------------------------------------

SAMPLING_CHARTS: dict[str, tuple[float, list[tuple[str, str, str]]]] = {
    "torn players, % of frames": (5, [("torn", "", ACCENT)]),
    "player's error, pixels": (10, [("sprite_error_px_16", "after 16", ACCENT), ("sprite_error_px_64", "after 64", WARM)]),
    "obedience, %": (100, [("obedience", "", ACCENT)]),
    "a frame takes, ms": (1, [("step_ms", "", BAD)]),
}
"""title -> the least end of its axis, and (score, label, color) of its lines"""


def save_sampling_steps(path: Path | str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Quality and time against sampling steps per frame. rows: "steps_4" -> the scores that `sampling_steps.py` measures."""
    steps = [int(name.removeprefix("steps_")) for name in rows]
    figure = Figure(figsize=(7.0, 2.1), layout="constrained")
    for axes, (title, (top, lines)) in zip(figure.subplots(1, 4), SAMPLING_CHARTS.items(), strict=True):
        style(axes)
        for name, label, color in lines:
            factor = 100 if name in ("torn", "obedience") else 1
            values = [np.nan if row[name] is None else factor * row[name] for row in rows.values()]
            axes.plot(steps, values, color=color, linewidth=1.3, marker="o", markersize=3, label=label)
        axes.set_ylim(0, max(top, axes.get_ylim()[1]))
        axes.set_xticks(steps)
        axes.set_xlabel("sampling steps", fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    save_chart(path, figure, "Torn players, errors, obedience and time against sampling steps per frame")
