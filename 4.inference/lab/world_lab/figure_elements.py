"""What the chapter's pictures are made of: curves that always look alike, notes below frames, charts below strips of frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from tokenizer_lab.draw_psnr_failure import BAD, PLAIN
from video_tokenizer.figures import ACCENT, DARK, PAPER, common_palette, font, style
from video_tokenizer.training.atomic_files import write_atomically

WARM = "#d97706"
LOOKS: dict[str, dict[str, Any]] = {  # of the curves, in every picture the same
    "real": {"color": DARK, "linewidth": 1.4, "label": "real game"},
    "dream": {"color": ACCENT, "linewidth": 1.6, "label": "dream"},
    "still": {"color": PLAIN, "linewidth": 1.4, "linestyle": "--", "label": "standing still"},
    "random_keys": {"color": WARM, "linewidth": 1.2, "label": "dream under other keys"},
    "cold": {"color": BAD, "linewidth": 1.6, "label": "temperature 0.5"},
}


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[float] | np.ndarray],
    title: str,
    labels: Mapping[str, str] | None = None,
    first: int = 1,
    legend: bool = True,
) -> None:
    """Curves of a quantity against the dreamed frame, each in the look of its kind, from zero on.

    labels: other names than those of `LOOKS`. first: the frame of the first value.
    """
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


def note_tiles(notes: Sequence[Sequence[tuple[str, str]]], width: int, text: int = 12) -> np.ndarray:
    """Lines of text as pictures (T, height, width, 3), to stand below frames. notes: for each picture (line, colour) pairs."""
    tiles = []
    for lines in notes:
        tile = Image.new("RGB", (width, (text + 5) * len(lines) + 4), PAPER)
        for row, (line, color) in enumerate(lines):
            ImageDraw.Draw(tile).text((width / 2, (text + 5) * row), line, color, font(text), anchor="ma")
        tiles.append(np.asarray(tile))
    return np.stack(tiles)


def figure_picture(figure: Figure) -> np.ndarray:
    """A matplotlib figure at 110 dots per inch as a picture, uint8 (height, width, 3)."""
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (height, width, 3) below each other on white, as wide as the widest, each in the middle."""
    width = max(picture.shape[1] for picture in pictures)
    sides = [width - picture.shape[1] for picture in pictures]
    return np.concatenate([
        np.pad(picture, ((0, 0), (side // 2, side - side // 2), (0, 0)), constant_values=255)
        for picture, side in zip(pictures, sides, strict=True)
    ])  # fmt: skip


def save_small(path: Path | str, picture: np.ndarray) -> None:
    """Write a picture (height, width, 3) as PNG with a palette, which takes a third of the room of all colours."""
    image = Image.fromarray(picture).quantize(palette=common_palette([picture[None]]), dither=Image.Dither.NONE)
    write_atomically(path, lambda temporary: image.save(temporary, optimize=True))
