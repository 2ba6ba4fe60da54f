"""A rollout as a file: GIF, MP4 or a strip of pictures, with the pressed key beside every frame."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from video_tokenizer.data.video_files import write_video
from video_tokenizer.errors import InputError
from video_tokenizer.figures import gif_page, image_grid, save_gif, save_picture

SUFFIXES = (".gif", ".mp4", ".png")
STRIP_COLUMNS = 8


def check_suffix(path: Path) -> None:
    """Raise InputError for a file name with another ending, and for a folder."""
    if os.path.isdir(path):
        raise InputError(f"--output {path} is a folder; give a file")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--output {path} must end in {', '.join(SUFFIXES)}")


def save_film(
    path: Path,
    videos: Mapping[str, np.ndarray],
    captions: Sequence[str],
    frames_per_second: float = 15.0,
    scale: int | None = None,
) -> None:
    """Write one video, or several side by side, depending on the suffix of `path`: .gif and .mp4 move, .png is a strip.

    videos: label -> uint8 (T, H, W, 3), all of the same length; a single one labeled "" has no heading. captions: one
    line per frame. scale: enlargement; None chooses.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        save_gif(path, videos, frames_per_second, scale, captions)
    elif suffix == ".png":
        save_picture(path, film_strip(videos, captions, scale))
    else:
        first = next(iter(videos.values()))
        enlarged = scale or max(1, 256 // first.shape[1])
        pages = (gif_page({label: video[t] for label, video in videos.items()}, captions[t], enlarged) for t in range(len(first)))
        even = (page[: len(page) // 2 * 2, : page.shape[1] // 2 * 2] for page in pages)  # video encoders want even sides
        write_video(path, (np.ascontiguousarray(page) for page in even), frames_per_second)


def film_strip(videos: Mapping[str, np.ndarray], captions: Sequence[str], scale: int | None = None) -> np.ndarray:
    """All frames on one picture, eight to a row, each row with its captions above. Returns uint8 (height, width, 3)."""
    num_frames = min(len(video) for video in videos.values())
    pieces = []
    for first in range(0, num_frames, STRIP_COLUMNS):
        last = min(first + STRIP_COLUMNS, num_frames)
        rows = [(label or f"{first + 1} to {last}", padded(video[first:last])) for label, video in videos.items()]
        pieces.append(
            image_grid(rows, column_labels=[*captions[first:last], *[""] * (STRIP_COLUMNS - last + first)], scale=scale)
        )
    width = max(piece.shape[1] for piece in pieces)
    return np.concatenate([np.pad(piece, ((0, 0), (0, width - piece.shape[1]), (0, 0)), constant_values=255) for piece in pieces])


def padded(frames: np.ndarray) -> np.ndarray:
    """Append white frames, so that every row of a strip has the same columns. (T, H, W, 3) -> (8, H, W, 3)."""
    missing = STRIP_COLUMNS - len(frames)
    return np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)]) if missing else frames
