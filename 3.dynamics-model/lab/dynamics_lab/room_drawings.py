"""What models recall of a room: a chart over the time that has passed, and a strip of one episode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_lab.room_recall import WINDOW, Episodes
from tokenizer_lab.drawing import Drawing
from video_tokenizer.figures import image_grid, save_picture

LOOKS = (("accent", None), ("good", "8 5"), ("warm", "3 4"))
"""color and dashes of each arm"""
LAST = 20
"""largest gap of the chart; few rooms wait longer"""
COLUMNS = 10
"""frames of the strip"""


def save_recall_chart(path: Path, results: Mapping[str, Any]) -> None:
    """Accuracy of a predicted room over the frames that have passed since it was entered, a line per arm, mean over the seeds."""
    drawing = Drawing(700, 400, "Share of a room's tokens that are predicted right, over the frames since it was entered: "
                      "flat for the model of whole episodes, down to that of a new room for models of 8 frames")  # fmt: skip
    left, top, width, height = 64, 62, 620, 240
    new = 2 * width / (LAST + 1)

    def at(gap: float, share: float) -> tuple[float, float]:
        return left + new + (width - new) * (gap - 1) / (LAST - 1), top + height * (1 - share)

    drawing.text(8, 18, "How much of a room is predicted right?", 17, anchor="start", bold=True)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = at(1, share)[1]
        drawing.line([(left, y), (left + width, y)], "faint", 1)
        drawing.text(left - 8, y, f"{share:.0%}", 15, "muted", "end")
    x = (at(WINDOW - 1, 0)[0] + at(WINDOW, 0)[0]) / 2
    drawing.line([(x, top - 12), (x, top + height)], "muted", 1.5, "6 4")
    drawing.text(x + 8, top - 12, "8 frames reach no further back", 15, "muted", "start")
    for gap in range(2, LAST + 1, 2):
        drawing.text(at(gap, 0)[0], top + height + 18, str(gap), 15, "muted")
    drawing.text(left + new / 2, top + height + 18, "never", 15, "muted")
    drawing.text(left + new + (width - new) / 2, top + height + 42, "frames since the room was entered", 15, "muted")
    for number, (name, row) in enumerate(results["arms"].items()):
        color, dash = LOOKS[number % len(LOOKS)]
        curve = {int(gap): float(np.mean(values)) for gap, values in row["by_gap"].items()}
        points = [at(gap, share) for gap, share in sorted(curve.items()) if 1 < gap <= LAST]
        if len(points) > 1:
            drawing.line(points, color, 3, dash)
        dots = [(left + new / 2, at(1, curve[0])[1])] if 0 in curve else []
        for x, y in [*dots, *points]:
            drawing.add("circle", cx=x, cy=y, r=4, fill=color, stroke="paper", stroke_width=1.5)
        x = left + 212 * number
        drawing.line([(x, top + height + 78), (x + 34, top + height + 78)], color, 3, dash)
        drawing.text(x + 42, top + height + 78, name, 15, color, "start", bold=True)
    drawing.save(path)


def save_room_strip(path: Path, data: Episodes, gap: np.ndarray, shown: Mapping[str, np.ndarray]) -> None:
    """The last frames of the first episode and what every arm predicts of each from the real frames before it, one row each.

    gap: (E, F), shown: arm -> frames uint8 (F, H, W, 3), of the same F frames.
    """
    labels = ["new room" if one == 0 else f"{one} frames\nago" for one in gap[0, -COLUMNS:]]
    rows = {"real": data.frames[0, -COLUMNS:]} | {name: frames[-COLUMNS:] for name, frames in shown.items()}
    named = [(name.replace(", ", ",\n"), np.asarray(frames)) for name, frames in rows.items()]
    caption = "The last frames of an episode nobody trained on. Above each stands when its room was last entered. Below the real "
    caption += "frames stands what each model expects before it sees the frame, given the frames before and the room's number."
    save_picture(path, image_grid(named, caption, labels, scale=1), 256)
