"""Clips of a recording of Pong: what of each pixel is ball or paddle, the same clips in other colors, and their optical flow.

A clip shows 32x32 pixels of our half of the field, in which a ball that never touches the edge flies for eight frames. The flow
is not known here as it is for drawn digits. It is estimated from the frames.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from uses.moca.conditions import Films
from uses.moca.digits import BACKGROUNDS, COLORS, MAX_WORDS, NUM_FRAMES, SIZE, VOCABULARY, mean_of, middle
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import split_episodes
from video_tokenizer.data.video_files import LINEAR_LIGHT, SRGB_VALUES
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts

ENV_ID = "ALE/Pong-v5"
INKS, BACKGROUND_COLORS = np.array([*COLORS.values()]), np.array([*BACKGROUNDS.values()])
LEFT, TOP, BOTTOM = 32, 11, 59
"""first column of our half, and the first and last row of the field between its walls, in frames of 64x64"""
PADDLE_FROM = 23
"""first column of a clip in which the paddle can be; the ball is to its left"""
MARGIN = 2
"""pixels between the ball and the edge of a clip, or the paddle's columns"""
VISIBLE = 0.15
"""least share of a pixel that a ball covers"""
REACH, WINDOW = 5, 5
"""block matching looks this many pixels far, and compares squares of this side"""


class Palette(NamedTuple):
    """The colors of B clips: places of ball and paddle in COLORS and of the field in BACKGROUNDS, each (B,)."""

    ball: np.ndarray
    paddle: np.ndarray
    field: np.ndarray


class PongClips(NamedTuple):
    """B clips of a recording."""

    video: np.ndarray
    """(B, T, H, W, 3) uint8, as it was recorded"""
    flow: np.ndarray
    """(B, T, 2, H, W) as `digits.flow` has it, but estimated"""


def find_cover(frames: np.ndarray) -> np.ndarray:
    """Frames of Pong's field (..., H, W, 3) uint8 -> (..., H, W, 2): each pixel is a mixture of ball, paddle and field."""
    facts = game_facts(ENV_ID)
    assert facts is not None and facts.player is not None and facts.ball is not None
    field, ball, paddle = LINEAR_LIGHT[np.array([facts.ball.background, facts.ball.color, facts.player.color])]
    unmix = np.linalg.pinv(np.stack([ball - field, paddle - field])).astype(np.float32)  # (3, 2)
    cover = ((LINEAR_LIGHT[frames] - field) @ unmix).clip(0, 1)
    return np.where(cover > 0.04, cover, 0)


def paint(cover: np.ndarray, palette: Palette) -> np.ndarray:
    """Cover (B, ..., H, W, 2) in the colors of a palette -> (B, ..., H, W, 3) uint8."""
    shape = (-1, *[1] * (cover.ndim - 2), 3)
    ball, paddle, field = (
        LINEAR_LIGHT[colors[of]].reshape(shape) for colors, of in zip((INKS, INKS, BACKGROUND_COLORS), palette, strict=True)
    )
    mixed = field + cover[..., :1] * (ball - field) + cover[..., 1:] * (paddle - field)
    return SRGB_VALUES[np.round(mixed.clip(0, 1) * (len(SRGB_VALUES) - 1)).astype(np.int64)]


def draw_palette(count: int, rng: np.random.Generator) -> Palette:
    """Random colors, ball and paddle in different ones."""
    ball = rng.integers(len(COLORS), size=count)
    paddle = (ball + rng.integers(1, len(COLORS), size=count)) % len(COLORS)
    return Palette(ball, paddle, rng.integers(len(BACKGROUNDS), size=count))


def cut_clips(store: ClipStore, count: int, rng: np.random.Generator, is_training: bool) -> PongClips:
    """Clips at random places in the games of the training, or in the others: `count`, or as many as there are.

    Raises InputError for a store of something else, and for one without any such clip.
    """
    if (store.env_id or "").removeprefix("ale_py:") != ENV_ID or store.frame_size != (64, 64):
        raise InputError(f"{store.path} holds no Pong of 64x64 pixels; record it with record.py --env {ENV_ID}")
    games = store.episodes[split_episodes(store)[0 if is_training else 1]]
    videos: list[np.ndarray] = []
    for start in rng.permutation(np.concatenate([np.arange(first, stop - NUM_FRAMES + 1) for first, stop in games])):
        half = np.array(store.frames[start : start + NUM_FRAMES, TOP:BOTTOM, LEFT:])  # (T, 48, 32, 3)
        ball = find_cover(half)[..., :PADDLE_FROM, 0] > VISIBLE
        if not ball.any(axis=(1, 2)).all():
            continue
        rows, columns = np.flatnonzero(ball.any(axis=(0, 2))), np.flatnonzero(ball.any(axis=(0, 1)))
        least, most = max(0, rows[-1] + MARGIN + 1 - SIZE), min(len(half[0]) - SIZE, rows[0] - MARGIN)
        if least <= most and columns[0] >= MARGIN and columns[-1] < PADDLE_FROM - MARGIN:
            top = rng.integers(least, most + 1)
            videos.append(half[:, top : top + SIZE])
        if len(videos) == count:
            break
    if not videos:
        raise InputError(f"{store.path} has no {NUM_FRAMES} frames in a row with the ball in our half; record more")
    video = np.stack(videos)
    return PongClips(video, block_flow(find_cover(video).sum(axis=-1)))


def block_flow(brightness: np.ndarray) -> np.ndarray:
    """Block matching: for each pixel of frame t - 1, where in frame t the square around it fits best. The first flow is zero.

    brightness: (B, T, H, W) -> (B, T, 2, H, W) in whole pixels. A square without anything in it fits everywhere, and rests.
    """
    batch, frames, height, width = brightness.shape
    video = torch.from_numpy(brightness).float()
    flow = np.zeros((batch, frames, 2, height, width), np.float32)
    steps = [(x, y) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
    for rows in torch.arange(batch).split(64):
        before, after = video[rows, :-1].flatten(0, 1), video[rows, 1:].flatten(0, 1)  # (B * (T - 1), H, W)
        padded = F.pad(after, (REACH, REACH, REACH, REACH))
        best = torch.full_like(before, torch.inf)
        found = torch.zeros(2, *before.shape)
        for x, y in sorted(steps, key=lambda step: step[0] ** 2 + step[1] ** 2):  # of equally good ones the shortest
            moved = padded[:, REACH + y : REACH + y + height, REACH + x : REACH + x + width]
            error = F.avg_pool2d((before - moved).square(), WINDOW, 1, WINDOW // 2)
            better = error < best - 1e-6
            best = torch.where(better, error, best)
            found[0][better], found[1][better] = x, y
        something = F.max_pool2d(before, WINDOW, 1, WINDOW // 2) > VISIBLE
        flow[rows, 1:] = (found * something).unflatten(1, (len(rows), frames - 1)).movedim(0, 2).numpy()
    return flow


def captions(palette: Palette) -> np.ndarray:
    """The captions as places in VOCABULARY, such as "red on gray" for ball and field: (B, MAX_WORDS)."""
    words = np.zeros((len(palette.ball), MAX_WORDS), np.int64)
    places = np.array([VOCABULARY.index(name) for name in COLORS]), np.array([VOCABULARY.index(name) for name in BACKGROUNDS])
    words[:, 0], words[:, 1], words[:, 2] = places[0][palette.ball], VOCABULARY.index("on"), places[1][palette.field]
    return words


def films(clips: PongClips, palette: Palette) -> Films:
    """The clips in these colors."""
    return Films(paint(find_cover(clips.video), palette), clips.flow, captions(palette))


def clip_scores(videos: np.ndarray, source: PongClips, palette: Palette) -> dict[str, float]:
    """How well clips show the source in these colors, in all frames but the first.

    *_color: share of the frames with the right one. ball_error_px, paddle_error_px: mean distance from where ball and paddle are
    in the source; of the paddle, where both show one.
    """
    shown, real = look(videos), look(source.video)
    right = (shown.colors == np.stack(palette)[..., None])[:, :, 1:]  # (3, B, T - 1)
    has_paddle = np.isfinite(real.paddle[:, 1:])
    apart = np.abs(shown.paddle - real.paddle)[:, 1:][has_paddle & np.isfinite(shown.paddle[:, 1:])]
    return {
        "ball_color": float(right[0].mean()),
        "paddle_color": mean_of(right[1][has_paddle]),
        "field_color": float(right[2].mean()),
        "ball_error_px": float(np.linalg.norm(shown.ball - real.ball, axis=-1)[:, 1:].mean()),
        "paddle_error_px": mean_of(apart),
    }


# ---- reading a clip -----------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What clips show."""

    colors: np.ndarray
    """(3, B, T) places of the colors of ball, paddle and field; -1 for a ball or a paddle that is not there"""
    ball: np.ndarray
    """(B, T, 2) x and y of the spot of most contrast to the left of the paddle's columns"""
    paddle: np.ndarray
    """(B, T) the paddle's middle from top to bottom; NaN where there is none"""


def look(videos: np.ndarray) -> Seen:
    """Look at clips (B, T, H, W, 3) uint8 as a detector does, without knowing their colors."""
    seen = LINEAR_LIGHT[videos]
    paper = np.median(seen.reshape(*videos.shape[:2], -1, 3), axis=2)[:, :, None, None]  # (B, T, 1, 1, 3)
    contrast = np.linalg.norm(seen - paper, axis=-1)  # (B, T, H, W)
    places, columns = np.arange(SIZE), np.arange(SIZE)[None, None, None]
    ball, paddle = np.where(columns < PADDLE_FROM, contrast, 0), np.where(columns >= PADDLE_FROM, contrast, 0)
    y, x = np.unravel_index(ball.reshape(*videos.shape[:2], -1).argmax(axis=-1), (SIZE, SIZE))  # (B, T) each
    near = (np.abs(places[:, None] - y[..., None, None]) <= 2) & (np.abs(places - x[..., None, None]) <= 2)
    paddle = np.where(paddle > 0.05, paddle, 0)
    mass = paddle.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        height = (paddle.sum(axis=-1) * (places + 0.5)).sum(axis=-1) / np.where(mass > 0, mass, np.nan)
    field = np.linalg.norm(paper[..., 0, 0, None, :] - LINEAR_LIGHT[BACKGROUND_COLORS], axis=-1).argmin(axis=-1)
    inks = [ink(seen, paper[..., 0, 0, :], part) for part in (ball, paddle)]
    return Seen(np.stack([*inks, field]), middle(np.where(near, ball, 0)), height)


def ink(seen: np.ndarray, paper: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """The color of the pixel of most contrast, which may be covered in part: that of the nearest direction from the paper.

    -1 where nothing stands out from the paper.
    """
    strongest = contrast.reshape(*paper.shape[:2], -1).argmax(axis=-1)[..., None, None]
    pixel = np.take_along_axis(seen.reshape(*paper.shape[:2], -1, 3), strongest, axis=2)[:, :, 0]  # (B, T, 3)
    direction, others = (pixel - paper)[..., None, :], LINEAR_LIGHT[INKS] - paper[..., None, :]  # (B, T, 1 and 6, 3)
    lengths = np.linalg.norm(direction, axis=-1) * np.linalg.norm(others, axis=-1)
    nearest = ((direction * others).sum(axis=-1) / np.maximum(lengths, 1e-6)).argmax(axis=-1)
    return np.where(contrast.any(axis=(-2, -1)), nearest, -1)
