"""Pictures of videos, in one style for all chapters: labeled rows, crisp pixels, and a caption that states what was measured.

Video pixels are enlarged by an integer factor and never smoothed, so that a ball of two pixels stays a ball of two squares. A
grid is at most 830 pixels wide, the width at which a README shows a picture unscaled.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.training.atomic_files import write_atomically

PAGE_WIDTH = 830
GAP = 6
INK, PAPER = (31, 35, 40), (255, 255, 255)
ACCENT, DARK = "#0b66c3", "#1f2328"
GOOD, BAD, WARM = "#1a7f37", "#cf222e", "#d97706"
PLAIN, PALE, GRID = "#8b949e", "#c9d1d9", "#e6e9ee"
GAIN = 5
"""factor that makes small differences visible"""
DIFFERENCE = f"difference x{GAIN}"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that pictures look the same on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def text_size(text: str, size: int) -> tuple[int, int]:
    """(width, height) in pixels of a text with one or more lines."""
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font(size))
    return int(right - left) + 1, int(bottom - top) + 4


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Repeat every pixel `scale` times in both directions. frames: (..., H, W, 3)."""
    return frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def difference(first: np.ndarray, second: np.ndarray, gain: float = GAIN) -> np.ndarray:
    """Absolute difference of two uint8 videos (..., H, W, 3), times `gain`; black where they agree."""
    return np.clip(np.abs(first.astype(np.float32) - second) * gain, 0, 255).astype(np.uint8)


def image_grid(
    rows: Sequence[tuple[str, np.ndarray]],
    caption: str = "",
    column_labels: Sequence[str] = (),
    scale: int | None = None,
    text: int = 13,
) -> np.ndarray:
    """One picture with a labeled row per entry, a label above each column, and a caption below.

    rows: (label, frames uint8 (N, H, W, 3)); rows may differ in N, H and W. column_labels: as many as the longest row, or none.
    scale: integer enlargement; None takes the largest that keeps the grid within `PAGE_WIDTH`. text: font size in pixels.
    Returns uint8 (height, width, 3).
    """
    label_width = max((text_size(label, text)[0] + GAP for label, _ in rows if label), default=0) + GAP
    natural_width = max(sum(frame.shape[1] for frame in frames) for _, frames in rows)
    num_columns = max(len(frames) for _, frames in rows)
    if scale is None:
        scale = max(1, (PAGE_WIDTH - label_width - GAP * num_columns) // natural_width)
    columns = [max(scale * frames.shape[2] for _, frames in rows if len(frames) > column) for column in range(num_columns)]
    width = label_width + sum(columns) + GAP * num_columns
    header = max((text_size(label, text)[1] + GAP for label in column_labels), default=0) + GAP
    caption = "\n".join(textwrap.wrap(caption, max(20, int(width / (text * 0.56)))))
    footer = text_size(caption, text)[1] + GAP if caption else 0
    height = header + sum(scale * frames.shape[1] + GAP for _, frames in rows) + footer
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    lefts = label_width + np.cumsum([0, *(column + GAP for column in columns)])
    for label, left, column in zip(column_labels, lefts, columns, strict=False):
        pen.multiline_text((left + column / 2, header - GAP), label, INK, font(text), anchor="md", align="center")
    top = header
    for label, frames in rows:
        row_height = scale * frames.shape[1]
        pen.multiline_text((label_width - GAP, top + row_height / 2), label, INK, font(text), anchor="rm", align="right")
        for frame, left in zip(frames, lefts, strict=False):
            canvas.paste(Image.fromarray(enlarge(np.ascontiguousarray(frame), scale)), (int(left), top))
        top += row_height + GAP
    pen.multiline_text((GAP, top), caption, INK, font(text))
    return np.asarray(canvas)


def save_picture(path: Path | str, picture: np.ndarray, num_colors: int | None = None) -> None:
    """Write a uint8 (height, width, 3) picture in the format of the file extension.

    num_colors: reduce the picture to this many colors, at most 256, which saves two thirds of the bytes; None keeps all colors.
    """
    image = Image.fromarray(picture)
    if num_colors:
        image = image.quantize(num_colors)
    write_atomically(path, lambda temporary: image.save(temporary, optimize=num_colors is not None))


def save_figure(path: Path | str, figure: Figure) -> None:
    """Write a matplotlib figure, cropped to its content, at 110 dots per inch."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, bbox_inches="tight"))


def save_reconstruction_strips(
    path: Path | str,
    video: Tensor,
    reconstruction: Tensor,
    caption: str = "",
    baselines: Mapping[str, Tensor] | None = None,
    column_labels: Sequence[str] = (),
    max_columns: int = 5,
) -> None:
    """Write the rows original, reconstruction, difference, and one row per baseline, with one column per clip.

    video, reconstruction and each baseline: float (B, T, C, H, W) in [0, 1]. Shows the last frame of the first `max_columns`
    clips. More than five frames of 64 pixels do not fit on the page at twice their size.
    """

    def pictures(clips: Tensor) -> np.ndarray:
        return to_frames(clips[:max_columns, -1:])[:, 0]  # (B, H, W, 3) uint8

    original, decoded = pictures(video), pictures(reconstruction)
    rows = [("original", original), ("reconstruction", decoded), (DIFFERENCE, difference(original, decoded))]
    rows += [(label, pictures(frames)) for label, frames in (baselines or {}).items()]
    save_picture(path, image_grid(rows, caption, column_labels))


@torch.no_grad()
def save_samples(path: Path | str, tokenizer: Any, clips: Any, caption: str, device: torch.device | str) -> None:
    """Write reconstruction strips of clips that are evenly spaced over the validation set."""
    video = to_video(clips.__getitems__(evenly_spaced(len(clips), 8))["frames"], device)
    save_reconstruction_strips(path, video, tokenizer(video).reconstruction, caption)


def save_gif(
    path: Path | str,
    videos: np.ndarray | Mapping[str, np.ndarray],
    frames_per_second: float = 15.0,
    scale: int | None = None,
    captions: Sequence[str] | str = (),
) -> None:
    """Write a GIF of one video, or of several side by side with their labels above.

    videos: uint8 (T, H, W, 3), or label -> such a video, all of the same length. scale: integer enlargement; None makes panels at
    most 256 pixels wide that together fit `PAGE_WIDTH`. captions: one line below the picture, the same for all frames or one per
    frame. frames_per_second: at most 50, because browsers slow down faster GIFs.
    """
    panels = dict(videos) if isinstance(videos, Mapping) else {"": videos}
    num_frames = min(len(video) for video in panels.values())
    lines = [captions] * num_frames if isinstance(captions, str) else [*captions, *[""] * (num_frames - len(captions))]
    if scale is None:
        natural_width = sum(video.shape[2] for video in panels.values())
        scale = max(1, min(256 * len(panels), PAGE_WIDTH - GAP * len(panels)) // natural_width)
    pages = (  # a generator, because a minute of pages would take half a gigabyte
        gif_page({label: video[frame] for label, video in panels.items()}, lines[frame], scale) for frame in range(num_frames)
    )
    write_gif(path, pages, common_palette(list(panels.values())), frames_per_second)


def write_gif(path: Path | str, pages: Iterable[np.ndarray], palette: Image.Image, frames_per_second: float) -> None:
    """Write pages, each uint8 (height, width, 3), as a GIF whose frames share one palette (see `common_palette`)."""
    images = [Image.fromarray(page).quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    milliseconds = 10 * max(2, round(100 / frames_per_second))
    options = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0, "optimize": True}
    write_atomically(path, lambda temporary: images[0].save(temporary, **options))


def gif_page(frames: Mapping[str, np.ndarray], caption: str, scale: int, text: int = 13) -> np.ndarray:
    """One frame of a GIF, uint8 (height, width, 3): pictures side by side, labels above, caption below."""
    pictures = [enlarge(frame, scale) for frame in frames.values()]
    header = text + 8 if any(frames) else 0
    footer = text + 8 if caption else 0
    gap = GAP if len(pictures) > 1 else 0
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    tallest = max(picture.shape[0] for picture in pictures)
    canvas = Image.new("RGB", (width, header + tallest + footer), PAPER)
    pen = ImageDraw.Draw(canvas)
    left = 0
    for label, picture in zip(frames, pictures, strict=True):
        pen.text((left + picture.shape[1] / 2, header / 2), label, INK, font(text), anchor="mm")
        canvas.paste(Image.fromarray(picture), (left, header))
        left += picture.shape[1] + gap
    pen.text((width / 2, header + tallest + footer / 2), caption, INK, font(text), anchor="mm")
    return np.asarray(canvas)


def common_palette(videos: Sequence[np.ndarray]) -> Image.Image:
    """A palette of at most 256 colors for all frames of a GIF. videos: uint8 (T, H, W, 3).

    Each color counts once, however few pixels have it. A palette chosen by area would give the ball the color of the wall.
    """
    grays = np.linspace(0, 255, 16).astype(np.uint8)[:, None].repeat(3, axis=1)  # paper, ink and the shades between
    pixels = np.concatenate([video.reshape(-1, 3) for video in videos]).astype(np.int32)
    for step in (1, 4, 8):  # 8 leaves 32 levels per channel, which bounds the number of colors of a noisy video
        packed = np.unique((pixels // step * step) @ np.array([65536, 256, 1]))
        if len(packed) <= 240:
            break
    colors = np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=1).astype(np.uint8)
    if len(colors) > 240:
        merged = Image.fromarray(colors[None]).quantize(240)
        colors = np.array(merged.getpalette(), np.uint8).reshape(-1, 3)[:240]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([grays, colors]).ravel().tolist())
    return palette


def style(axes) -> None:
    """Apply the common style of all charts: no box, a pale grid, small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def save_code_usage(path: Path | str, counts: np.ndarray, caption: str) -> None:
    """Write a chart of how often each code is used, sorted, on a logarithmic scale. counts: (K,) over the validation set."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    figure = Figure(figsize=(7.0, 2.8))
    axes = figure.subplots()
    style(axes)
    axes.fill_between(np.arange(len(ordered)), np.maximum(ordered / max(ordered.sum(), 1), 1e-7), 1e-7, step="mid", color=ACCENT)
    axes.axhline(1 / len(ordered), color=DARK, linewidth=0.8, linestyle="--")
    axes.text(len(ordered), 1 / len(ordered), " even use", fontsize=8, va="bottom", ha="right")
    axes.set_yscale("log")
    axes.set_xlim(0, len(ordered))
    axes.set_xlabel("code, most used first", fontsize=8)
    axes.set_ylabel("share of tokens", fontsize=8)
    axes.set_title(caption, fontsize=9, loc="left")
    save_figure(path, figure)


def save_curves(path: Path | str, history: Sequence[Mapping[str, float]], caption: str = "") -> None:
    """Write one small chart per logged quantity against "step".

    history: one dictionary per log line, with "step" and any numbers. A quantity may be missing from some lines, as validation
    scores are from most.
    """
    names = list(dict.fromkeys(name for entry in history for name, value in entry.items() if isinstance(value, int | float)))
    names = [name for name in names if name != "step"]
    num_columns = 2 if len(names) == 4 else min(3, max(1, len(names)))
    num_rows = max(1, -(-len(names) // num_columns))
    figure = Figure(figsize=(2.9 * num_columns, 2.1 * num_rows), layout="constrained")
    charts = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, name in zip(charts, names, strict=False):
        points = np.array([(entry["step"], entry[name]) for entry in history if name in entry], dtype=np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        style(axes)
        axes.plot(points[:, 0], points[:, 1], color=ACCENT, linewidth=1.2, marker="o" if len(points) < 20 else "", markersize=3)
        axes.set_title(name.replace("_", " "), fontsize=9, loc="left")
    for axes in charts[len(names) :]:
        axes.set_axis_off()
    if caption:
        figure.suptitle(caption, fontsize=9)
    save_figure(path, figure)
