"""The picture that shows what sharpening does: the same places, enlarged in three ways, above the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from uses.sharpening.pairs import Pairs
from uses.sharpening.scores import Enlarge
from video_tokenizer.data.clips import Clips
from video_tokenizer.data.validation import most_active_clips
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.games.detectors import ball_lights, detect_ball
from world_model.lively_starts import is_ball_game

SHOWN = 4
"""places shown, of which the truth is known"""
WINDOW = 20
"""side of the window that is shown, in pixels of the world's frames"""


def save_comparison(
    path: Path, methods: Mapping[str, Enlarge], pairs: Pairs, clips: Clips, dream: np.ndarray | None = None, caption: str = ""
) -> None:
    """One row for each method and one for the truth, with a column for each of `SHOWN` clips.

    dream: imagined frames (K, H, W, 3) uint8. The brightest second ball in them makes one more column, which has no truth.
    """
    frames = np.array([clips.starts[index] + clips.num_frames - 1 for index in most_active_clips(clips, SHOWN)])
    decoded, before, env_id = pairs.decoded[frames], pairs.decoded[frames - 1], pairs.store.env_id or ""
    centers = [center_of(*both, env_id) for both in zip(decoded, before, strict=True)]
    labels = ["a game"] * len(frames)
    if dream is not None and is_ball_game(env_id):
        number, place = second_ball(dream, env_id)
        decoded, labels, centers = np.append(decoded, dream[[number]], axis=0), [*labels, "a dream"], [*centers, place]
    scale = pairs.store.frame_size[0] // decoded.shape[1]
    rows = [(name, windows(method(decoded), centers, scale)) for name, method in methods.items()]
    rows.append(("truth", windows(pairs.store.frames[frames], centers, scale)))
    save_picture(path, image_grid(rows, caption, labels), num_colors=128)


def second_ball(frames: np.ndarray, env_id: str) -> tuple[int, np.ndarray]:
    """The frame with the brightest second ball, and its (row, column) there."""
    number = int(ball_lights(frames, env_id)[:, 1].argmax())
    frame, behind = frames[number].copy(), np.median(frames, axis=0)
    column, row = detect_ball(frame[None], env_id)[0]
    if np.isfinite(row):
        first = tuple(slice(max(0, round(place) - 2), round(place) + 3) for place in (row, column))
        frame[first] = behind[first]
    return number, center_of(frame, frames[number - 1], env_id)


def center_of(frame: np.ndarray, before: np.ndarray, env_id: str) -> np.ndarray:
    """(row, column) of the ball in a frame (H, W, 3); where it is not found, or not known, of what changed most."""
    if is_ball_game(env_id):
        column, row = detect_ball(frame[None], env_id)[0]
        if np.isfinite(row):
            return np.array([row, column])
    change = np.abs(frame.astype(np.int16) - before).max(axis=-1)
    return np.array(np.unravel_index(int(change.argmax()), change.shape), float)


def windows(frames: np.ndarray, centers: list[np.ndarray], scale: int) -> np.ndarray:
    """The part of each enlarged frame (N, sH, sW, 3) around its center, which is in pixels of the world's frames."""
    cut = []
    for frame, center in zip(frames, centers, strict=False):  # of a dream there is a center and no truth
        side = scale * WINDOW
        top, left = (
            int(np.clip(scale * place - side / 2, 0, length - side))
            for place, length in zip(center, frame.shape[:2], strict=True)
        )
        cut.append(frame[top : top + side, left : left + side])
    return np.stack(cut)
