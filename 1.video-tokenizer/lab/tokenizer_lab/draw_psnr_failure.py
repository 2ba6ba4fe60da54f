"""The trap of this chapter in one picture: a frame without its ball has one of the best PSNRs, and what is wrong with that.

A clip is drawn in five ways. PSNR looks at all pixels alike, moving PSNR at those that changed, the detector at the ball.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from tokenizer_lab.illustrations import bare
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import ACCENT, DARK, save_figure
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.metrics import VideoScores
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.command_line import InputError

BRIGHTER = 4
"""of 255; nobody sees it, and it costs every pixel the same: 20 * log10(255 / 4) = 36.1 dB"""
ORIGINAL, NO_BALL, TOKENS, REPEATED, LIGHTER = (
    "original",
    "ball painted over",
    "drawn from tokens",
    "last frame again",
    f"{BRIGHTER}/255 brighter",
)
GOOD, BAD, PLAIN = "#1a7f37", "#cf222e", "#8b949e"
ERRORS = LogNorm(3e-5, 1e-1)
"""squared errors from invisible to a missing ball"""


def without_ball(frames: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """The clip with its median painted over the 5x5 pixels around each ball.

    frames: uint8 (T, H, W, 3); ball: (T, 2), x and y in pixels, NaN where absent.
    """
    empty = np.median(frames, axis=0).astype(np.uint8)
    painted = frames.copy()
    for frame, place in zip(painted, ball, strict=True):
        if np.isfinite(place).all():
            columns, rows = (slice(max(0, round(centre) - 2), round(centre) + 3) for centre in place.tolist())
            frame[rows, columns] = empty[rows, columns]
    return painted


def frames_with_ball(ball: np.ndarray) -> np.ndarray:
    """Numbers of the frames that have a ball and a frame before them. ball: (T, 2), NaN where absent."""
    return np.flatnonzero(np.isfinite(ball[:, 0]) & (np.arange(len(ball)) > 0))


@torch.no_grad()
def five_ways(tokenizer: VideoTokenizer, frames: np.ndarray, ball: np.ndarray) -> dict[str, Tensor]:
    """A clip as it is and drawn in four other ways, label -> float (1, T, C, H, W) in [0, 1].

    frames: uint8 (T, H, W, 3); ball: (T, 2), where it is in each frame.
    """
    video = to_video(frames[None])
    return {
        ORIGINAL: video,
        NO_BALL: to_video(without_ball(frames, ball)[None]),
        TOKENS: tokenizer(video).reconstruction,
        REPEATED: torch.cat([video[:, :1], video[:, :-1]], dim=1),
        LIGHTER: (video + BRIGHTER / 255).clamp(0, 1),
    }


def score(drawn: Tensor, video: Tensor, chosen: np.ndarray, scores: VideoScores | None = None) -> VideoScores:
    """Scores of some frames of a clip, added to `scores`. drawn, video: (1, T, C, H, W); chosen: frame numbers above 0."""
    scores = scores or VideoScores()
    scores.update(drawn[:, chosen], video[:, chosen], video[:, chosen - 1])
    return scores


def pooled_scores(tokenizer: VideoTokenizer, starts: np.ndarray, env_id: str) -> tuple[dict[str, dict[str, float]], int]:
    """The scores of every way over all frames with a ball that have a frame before them, and how many these are.

    starts: uint8 (S, T, H, W, 3). Returns label -> the numbers of `VideoScores.result`, and the number of frames.
    """
    totals: dict[str, VideoScores] = {}
    for frames in starts:
        ball = detect_ball(frames, env_id)
        chosen = frames_with_ball(ball)
        if len(chosen):
            ways = five_ways(tokenizer, frames, ball)
            totals = {label: score(drawn, ways[ORIGINAL], chosen, totals.get(label)) for label, drawn in ways.items()}
    return {label: total.result() for label, total in totals.items()}, next(iter(totals.values())).num_frames


def ball_note(seen: np.ndarray, real: np.ndarray) -> tuple[str, str]:
    """What the detector says, in words and in a colour. seen, real: (2,) pixels; seen is NaN where it found none."""
    if not np.isfinite(seen).all():
        return "no ball", BAD
    distance = float(np.linalg.norm(seen - real))
    return ("ball there", GOOD) if distance < 1 else (f"ball {distance:.1f} pixels off", BAD)


def save_psnr_trap(path: Path, tokenizer: VideoTokenizer, starts: np.ndarray, clip: int, env_id: str) -> None:
    """A frame with a ball in five ways: how it looks, where its squared error is, and its two PSNRs.

    starts: uint8 (S, T, H, W, 3). Of the frames of starts[clip] that have a ball the middle one is shown; InputError without any.
    """
    frames = starts[clip]
    ball = detect_ball(frames, env_id)
    chosen = frames_with_ball(ball)
    if not len(chosen):
        raise InputError(f"--clip {clip}: no frame of this beginning has a ball; choose another one")
    shown = int(chosen[len(chosen) // 2])
    ways = five_ways(tokenizer, frames, ball)
    pooled, count = pooled_scores(tokenizer, starts, env_id)
    figure = Figure(figsize=(7.4, 5.0), layout="constrained")
    charts = figure.subplots(3, len(ways), height_ratios=(1, 1, 0.85))
    for column, (label, drawn) in zip(charts.T, ways.items(), strict=True):
        picture = to_frames(drawn)[0, shown]
        note, color = ball_note(detect_ball(picture[None], env_id)[0], ball[shown])
        _draw_frame(column[0], picture, ball[shown])
        bare(column[0], label)
        column[0].set_xlabel(note, fontsize=9, color=color, weight="bold")
        errors = (drawn - ways[ORIGINAL])[0, shown].square().mean(dim=0)  # (H, W)
        column[1].imshow(errors.clamp(min=ERRORS.vmin).numpy(), cmap="Reds", norm=ERRORS, interpolation="nearest")
        bare(column[1], "")
        scores = score(drawn, ways[ORIGINAL], np.array([shown])).result()
        draw_pair(column[2], (scores["psnr_db"], scores["moving_psnr_db"]), ("all", "moving"), top=60, decimals=1)
    charts[1, 0].set_ylabel("squared error", fontsize=9)
    charts[2, 0].set_ylabel("PSNR of pixels, dB", fontsize=9)
    figure.supxlabel(_caption(pooled, count), fontsize=9, color=DARK)
    save_figure(path, figure)


def _caption(pooled: dict[str, dict[str, float]], count: int) -> str:
    ways = [label for label in pooled if label != ORIGINAL]
    psnr, moving = (" / ".join(f"{pooled[label][name]:.1f}" for label in ways) for name in ("psnr_db", "moving_psnr_db"))
    return f"The four over {count} frames with a ball: all {psnr} dB, moving {moving} dB."


def _draw_frame(axes: Axes, picture: np.ndarray, ball: np.ndarray, reach: int = 5) -> None:
    """A frame, and its ball's surroundings enlarged on the side where the ball is not."""
    axes.imshow(picture, interpolation="nearest")
    left = 0.6 if ball[0] < picture.shape[1] / 2 else 0.07
    inset = axes.inset_axes((left, 0.14, 0.33, 0.33))
    inset.imshow(picture, interpolation="nearest")
    inset.set_xlim(round(ball[0]) - reach - 0.5, round(ball[0]) + reach + 0.5)
    inset.set_ylim(round(ball[1]) + reach + 0.5, round(ball[1]) - reach - 0.5)
    bare(inset, "")
    inset.spines[:].set_color("white")
    corner = round(ball[0]) - reach - 0.5, round(ball[1]) - reach - 0.5
    axes.add_patch(Rectangle(corner, 2 * reach + 1, 2 * reach + 1, fill=False, edgecolor="white", linewidth=0.8))


def draw_pair(axes: Axes, values: Sequence[float], names: Sequence[str], top: float, decimals: int) -> None:
    """Two numbers as bars up to `top`, the misleading one grey, the telling one blue; "no error" where they are not finite."""
    axes.set_xticks((0, 1), names, fontsize=9)
    axes.set_xlim(-0.7, 1.7)
    axes.set_ylim(0, top)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not np.isfinite(values).all():
        axes.text(0.5, top / 3, "no error", fontsize=9, ha="center")
        return
    axes.bar((0, 1), values, width=0.8, color=(PLAIN, ACCENT))
    for place, value in enumerate(values):
        axes.text(place, value + top / 60, f"{value:.{decimals}f}", fontsize=9, ha="center", va="bottom")
