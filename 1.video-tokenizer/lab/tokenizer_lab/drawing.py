"""Drawings as plain SVG text: boxes, arrows, grids and real frames, each saved for a light and for a dark page.

Colors are names of `THEMES` ("ink", "accent") or any color of SVG. Frames become paths of equal pixels instead of bitmaps, so
they stay crisp at every size, need no file beside them, and two drawings can be compared as text.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from math import atan2, cos, hypot, sin
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from video_tokenizer import figures
from video_tokenizer.training.atomic_files import write_atomically

LIGHT = {
    "ink": "#1f2328", "muted": "#59636e", "line": "#8c959f", "box": "#f6f8fa", "paper": "#ffffff", "accent": "#0969da",
    "pale": "#ddf4ff", "good": "#1a7f37", "good_pale": "#dafbe1", "bad": "#cf222e", "bad_pale": "#ffebe9", "warm": "#bc4c00",
    "warm_pale": "#fff1e5", "violet": "#8250df", "violet_pale": "#fbefff", "faint": "#d1d9e0",
}  # fmt: skip
DARK = {
    "ink": "#f0f6fc", "muted": "#9198a1", "line": "#6e7681", "box": "#161b22", "paper": "#0d1117", "accent": "#58a6ff",
    "pale": "#12263f", "good": "#3fb950", "good_pale": "#12261e", "bad": "#ff7b72", "bad_pale": "#321c1d", "warm": "#f0883e",
    "warm_pale": "#33210f", "violet": "#bc8cff", "violet_pale": "#2a1f3d", "faint": "#3d444d",
}  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}
"""color names and their values on a light and on a dark page; "paper" is the page's own color, to cover what lies below"""
CHART_COLORS = {
    "#000000": "ink", figures.DARK: "ink", figures.ACCENT: "accent", figures.GOOD: "good", figures.BAD: "bad",
    figures.WARM: "warm", figures.PLAIN: "line", figures.PALE: "faint",
    figures.GRID: "faint", "#dafbe1": "good_pale", "#ffffff": "paper",
}  # fmt: skip
"""color of a matplotlib chart -> its name in `THEMES`; others stay as they are"""
RING = "#ffd60a"
"""the color of rings and magnifiers, which lie on black frames in both looks"""
SANS = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, 'SF Mono', Menlo, Consolas, 'Liberation Mono', monospace"


def pixel_paths(frame: np.ndarray) -> str:
    """A frame, uint8 (H, W, 3), as one path for each color, in units of a pixel: equal pixels are merged into rectangles."""
    values = frame.astype(np.int64) @ np.array([65536, 256, 1])
    height, width = values.shape
    done, shapes = np.zeros((height, width), bool), defaultdict(str)
    for y, x in np.ndindex(height, width):
        if not done[y, x]:
            right, bottom = x + 1, y + 1
            while right < width and values[y, right] == values[y, x] and not done[y, right]:
                right += 1
            while bottom < height and (values[bottom, x:right] == values[y, x]).all() and not done[bottom, x:right].any():
                bottom += 1
            done[y:bottom, x:right] = True
            shapes[f"#{values[y, x]:06x}"] += f"M{x} {y}h{right - x}v{bottom - y}h{x - right}z"
    return "".join(f'<path fill="{color}" d="{shape}"/>' for color, shape in shapes.items())


def few_colors(frame: np.ndarray, count: int = 24) -> np.ndarray:
    """The same frame in at most `count` colors: a network gives every pixel its own, too many for a file."""
    return np.asarray(Image.fromarray(frame).quantize(count, Image.Quantize.MAXCOVERAGE).convert("RGB"))


def write_themes(path: Path | str, drawn: Mapping[str, str]) -> None:
    """Write PATH_light.svg and PATH_dark.svg. drawn: theme -> SVG."""
    for theme, text in drawn.items():
        write_atomically(Path(f"{path}_{theme}.svg"), lambda file, text=text: Path(file).write_text(text, encoding="utf-8"))


def save_chart(path: Path | str, figure: Figure, title: str) -> None:
    """Write a matplotlib chart as PATH_light.svg and PATH_dark.svg, with text that stays text. title: as of a `Drawing`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "chart"}):  # the same chart is the same file
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight")
    text = re.sub(r"<metadata>.*?</metadata>", f"<title>{escape(title)}</title>", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"(\.\d\d)\d+", r"\1", text[text.index("<svg") :])
    text = re.sub(r' ?\n(?=[A-Za-z"])', " ", text)  # a path is one line
    text = re.sub(r"(M ([\d.-]+ [\d.-]+)) L \2 ", r"\1h0", text)  # a dot
    text = re.sub(r"font-family: [^;\"]*", f"font-family: {SANS}", text)
    text = re.sub(r'style="([^"]*)font-size: ([\d.]+)px; ', r'font-size="\2" style="\1', text)
    text = re.sub(r'width="([\d.]+)pt" height="([\d.]+)pt"', r'width="\1" height="\2" role="img" fill="#000000"', text, count=1)
    colors = re.compile("|".join(CHART_COLORS))
    write_themes(
        path, {theme: colors.sub(lambda found, look=look: look[CHART_COLORS[found[0]]], text) for theme, look in THEMES.items()}
    )


class Drawing:
    """A canvas of width x height, shown 830 wide on a page and 360 wide on a phone: text of 16 is legible on both."""

    def __init__(self, width: float, height: float, title: str, style: str = ""):
        """title: what a screen reader says. style: CSS, for animations."""
        self.width, self.height, self.title, self.style, self.parts = width, height, title, style, list[str]()

    def add(self, name: str, content: str = "", /, **attributes: Any) -> None:
        """Any SVG element. An underscore in an attribute's name stands for a hyphen; values that are None are left out."""
        given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
        tag = name + "".join(f' {key}="{self._value(value)}"' for key, value in given.items())
        self.parts.append(f"<{tag}>{content}</{name}>" if content else f"<{tag}/>")

    @contextmanager
    def group(self, **attributes: Any) -> Iterator[None]:
        """What is drawn inside belongs together: `with drawing.group(class_="pass1"):`, or transform, opacity."""
        before, self.parts = self.parts, []
        yield
        content, self.parts = "\n".join(self.parts), before
        self.add("g", f"\n{content}\n", **attributes)

    def text(self, x: float, y: float, text: str, size: float = 16, color: str = "ink", anchor: str = "middle", bold=False,
             mono=False, **attributes: Any) -> None:  # fmt: skip
        """Lines of text around height `y`, which is their middle. anchor: start, middle or end."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            baseline = y + size * (0.35 + 1.25 * (number - (len(lines) - 1) / 2))
            look = {"font_weight": 600 if bold else None, "font_family": MONO if mono else None, **attributes}
            content = escape(line, quote=False).replace("$", "$$")
            self.add("text", content, x=x, y=baseline, font_size=size, fill=color, text_anchor=anchor, **look)

    def rect(self, x: float, y: float, width: float, height: float, fill: str = "none", line: str = "none", stroke: float = 1.5,
             radius: float = 0, **attributes: Any) -> None:  # fmt: skip
        self.add("rect", x=x, y=y, width=width, height=height, rx=radius or None, fill=fill, stroke=line,
                 stroke_width=stroke if line != "none" else None, **attributes)  # fmt: skip

    def box(self, x: float, y: float, width: float, height: float, text: str = "", note: str = "", fill: str = "box",
            line: str = "line", size: float = 17, color: str = "ink") -> None:  # fmt: skip
        """A rounded box with a bold label and, below it, a note in smaller letters."""
        self.rect(x, y, width, height, fill, line, radius=8)
        above, below = (size * 1.25 * (1 + part.count("\n")) if part else 0 for part in (text, note))
        if text:
            self.text(x + width / 2, y + (height - below * 0.88) / 2, text, size, color, bold=True)
        if note:
            self.text(x + width / 2, y + (height + above) / 2, note, size * 0.88, "muted")

    def line(self, points: Sequence[tuple[float, float]], color: str = "muted", width: float = 2, dash: str | None = None,
             arrow: bool = False, **attributes: Any) -> None:  # fmt: skip
        """Straight pieces from point to point, with a head at the last one if `arrow`."""
        *start, (x, y) = points
        if arrow:
            far, angle = hypot(x - start[-1][0], y - start[-1][1]), atan2(y - start[-1][1], x - start[-1][0])
            size = min(5 + 2.5 * width, far)
            corners = [(x - size * cos(angle + turn), y - size * sin(angle + turn)) for turn in (-0.45, 0.45)]
            self.add("polygon", points=self._points([(x, y), *corners]), fill=color, **attributes)
            x, y = x - 0.8 * size * cos(angle), y - 0.8 * size * sin(angle)
        self.add("polyline", points=self._points([*start, (x, y)]), fill="none", stroke=color, stroke_width=width,
                 stroke_dasharray=dash, stroke_linejoin="round", **attributes)  # fmt: skip

    def arrow(self, x1: float, y1: float, x2: float, y2: float, label: str = "", size: float = 15, color: str = "muted") -> None:
        """An arrow with its shape or name: above it, or to the right of one that is upright."""
        self.line([(x1, y1), (x2, y2)], color, arrow=True)
        if label:
            upright = abs(x1 - x2) < abs(y1 - y2)
            lift = 0 if upright else size * (0.75 + 0.625 * label.count("\n"))
            place = (x1 + x2) / 2 + (10 if upright else 0), (y1 + y2) / 2 - lift
            self.text(*place, label, size, color, "start" if upright else "middle")

    def curve(self, start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float], color: str = "muted",
              width: float = 2, dash: str | None = None) -> None:  # fmt: skip
        """An arrow that leaves `start` towards `bend` and comes into `end` from there (a quadratic Bezier curve)."""
        t = np.linspace(0, 1, 15)[:, None]
        points = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
        self.line([(float(x), float(y)) for x, y in points], color, width, dash, arrow=True)

    def badge(self, x: float, y: float, text: str, color: str = "accent", size: float = 14) -> None:
        """A round mark with the number of a solution."""
        self.rect(x - size * 0.8, y - size * 0.8, size * (1.6 + 0.5 * (len(text) - 1)), size * 1.6, color, "paper", 2, size * 0.8)
        self.text(x + size * 0.25 * (len(text) - 1), y, text, size, "paper", bold=True)

    def frame(self, x: float, y: float, frame: np.ndarray, scale: float, border: str = "line") -> None:
        """A frame, uint8 (H, W, 3), with pixels of size `scale`."""
        self.add("g", pixel_paths(frame), transform=f"translate({x:g} {y:g}) scale({scale:g})", shape_rendering="crispEdges")
        self.rect(x, y, scale * frame.shape[1], scale * frame.shape[0], line=border, stroke=1)

    def ring(self, x: float, y: float, radius: float, color: str = RING, width: float = 2) -> None:
        self.add("circle", cx=x, cy=y, r=radius, fill="none", stroke=color, stroke_width=width)

    def magnifier(self, frame: np.ndarray, place: tuple[float, float], at: tuple[float, float], scale: float, reach: int = 4,
                  source: tuple[float, float, float] | None = None, gain: float = 2) -> None:  # fmt: skip
        """The pixels around place = (column, row), enlarged at `at` and `gain` times as bright.

        source: (x, y, scale) of the frame if it is on the drawing too, to mark what is magnified and join the two.
        """
        column, row = (min(max(round(at), reach), side - 1 - reach) for at, side in zip(place, frame.shape[1::-1], strict=True))
        x, y, side = *at, (2 * reach + 1) * scale
        if source:
            left, top, pixel = source[0] + (column - reach) * source[2], source[1] + (row - reach) * source[2], source[2]
            small = (2 * reach + 1) * pixel
            near = (left + small, top + small / 2) if x > left else (left, top + small / 2)
            self.line([near, (x if x > left else x + side, y + side / 2)], RING, 1)
            self.rect(left, top, small, small, line=RING, stroke=1.5)
        part = frame[row - reach : row + reach + 1, column - reach : column + reach + 1]
        self.frame(x, y, (part.astype(np.float32) * gain).clip(0, 255).astype(np.uint8), scale, RING)

    def grid(self, x: float, y: float, rows: int, columns: int, cell: float, fill: Mapping[tuple[int, int], str] | str = "none",
             text: Mapping[tuple[int, int], str] | None = None, size: float = 14, line="line", color="ink") -> None:  # fmt: skip
        """A table of square cells. fill: one color, or colors by (row, column); text: entries by (row, column)."""
        for row, column in np.ndindex(rows, columns):
            inside = fill if isinstance(fill, str) else fill.get((row, column), "none")
            self.rect(x + column * cell, y + row * cell, cell, cell, inside, line, 1)
            if text and (row, column) in text:
                self.text(x + (column + 0.5) * cell, y + (row + 0.5) * cell, text[row, column], size, color, mono=True)

    def svg(self, theme: str) -> str:
        """The drawing in one of `THEMES`."""
        body = "\n".join(self.parts)
        style = f"<style>{self.style}</style>\n" if self.style else ""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}"'
        head += f' height="{self.height:g}" role="img" font-family="{SANS}">\n<title>{escape(self.title)}</title>\n'
        return Template(f"{head}{style}{body}\n</svg>\n").substitute(THEMES[theme])

    def save(self, path: Path | str) -> None:
        """Write PATH_light.svg and PATH_dark.svg."""
        write_themes(path, {theme: self.svg(theme) for theme in THEMES})

    @staticmethod
    def _points(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.5g},{y:.5g}" for x, y in points)

    @staticmethod
    def _value(value: object) -> str:
        if isinstance(value, float | int | np.number):
            return f"{value:.5g}"
        return f"${value}" if str(value) in LIGHT else escape(str(value))
