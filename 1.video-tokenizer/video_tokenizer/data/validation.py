"""Shared by the validate scripts of all chapters: validation data, evenly spaced batches, and the output folder."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_tokenizer.data.clip_store import ClipStore, check_light
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.data.seen_frames import frame_hashes
from video_tokenizer.data.training_data import (
    TrainingData,
    evenly_spaced,
    open_source,
    open_store,
    split_clips,
    with_frame_size_of,
)
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball, game_facts
from video_tokenizer.losses import MOVING, background_of
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.config import size_text


def open_validation_data(flags: Any, training_config: Any, checkpoint: Mapping[str, Any] | None = None) -> TrainingData:
    """The data that a validate script scores, split exactly as in training, without clips that score a frame of training.

    flags: a `ValidationConfig`; the default is the data the checkpoint was trained on.
    training_config: the checkpoint's config, whose seed and validation share decide the split. checkpoint: its other entries; a
    note is printed if the store is another one than that of the training; None for the training's own. Raises InputError for
    frames of another size, or such as were shrunk otherwise.

    best_model.pt holds the weights that scored best on a sample of these clips during training, so its scores are the best of a
    few rather than those of one model. final_model.pt was not chosen.
    """
    config = training_config
    if flags.data_path is not None or flags.use_dummy_data:
        config = replace(config, data_path=flags.data_path, data_type=flags.data_type, use_dummy_data=flags.use_dummy_data)
    store = open_store(config)
    if config.frame_size is not None and config.frame_height_width != store.frame_size:
        size = size_text(config.frame_height_width)
        raise InputError(
            f"the checkpoint was trained on frames of {size} pixels, {store.path} holds {size_text(store.frame_size)}; "
            f"record with --frame-size {size}"
        )
    known, unknown = None, ""
    if checkpoint is not None:
        check_light("the checkpoint", checkpoint.get("linear_light"), store)
    if checkpoint is not None and store.fingerprint != checkpoint["data_fingerprint"]:
        print(f"{store.path} is not the data this checkpoint was trained on; scoring the validation episodes of this data")
        known, unknown = training_hashes(training_config, checkpoint, flags.trained_on)
    data = split_clips(with_frame_size_of(store, config), store, np.empty(0, np.uint64) if unknown else known)
    if unknown:
        data = data._replace(seen_share=math.nan)
    if sentence := unknown or data.describe_seen():
        print(sentence)
    return data


def training_hashes(config: Any, checkpoint: Mapping[str, Any], given: str | None = None) -> tuple[np.ndarray | None, str]:
    """The hashes of all frames that a checkpoint was trained on, and ""; or None, and a sentence that says why they are unknown.

    config: of the checkpoint, whose other entries are in `checkpoint`. given: the clip store to take instead, or its videos,
    whatever its fingerprint is. Raises InputError if that cannot be opened or was shrunk otherwise.
    """
    if given is not None:
        store = open_like(config, given)
        check_light("the checkpoint", checkpoint.get("linear_light"), store)
        return frame_hashes(store.frames), ""
    path, (store, reason) = config.data_path, find_recording(config)
    if store is not None and store.fingerprint == checkpoint["data_fingerprint"]:
        return frame_hashes(store.frames), ""
    return None, seen_frames_are_scored(reason or f"{path} is another one")


def find_recording(config: Any) -> tuple[ClipStore | None, str]:
    """The clip store, or the videos, that a checkpoint's config names as its training's, and ""; or None, and the reason."""
    if config.data_path is None:
        return None, "its checkpoint does not name one"
    if not resolve_path(config.data_path, REPOSITORY).exists():
        return None, f"{config.data_path} does not exist"
    try:
        return open_like(config, config.data_path), ""
    except InputError as error:
        return None, str(error)


def open_like(config: Any, path: str) -> ClipStore:
    """Open a clip store, or videos, images or .h5 files, which become frames as those that config's model was trained on did."""
    return open_source(replace(config, data_path=str(resolve_path(path, REPOSITORY)), data_type="auto"))


def seen_frames_are_scored(reason: str) -> str:
    """The sentence that says why frames of the training are not left out."""
    return f"the recording of the training is not here ({reason}), so frames that training has seen are scored too"


def even_batches(num_clips: int, batch_size: int, num_batches: int | None = None) -> Iterator[list[int]]:
    """Clip indices in batches: all of them, or num_batches * batch_size evenly spaced ones. Deterministic."""
    chosen = evenly_spaced(num_clips, num_clips if num_batches is None else num_batches * batch_size)
    for first in range(0, len(chosen), batch_size):
        yield chosen[first : first + batch_size]


def most_active_clips(clips: Clips, number: int, candidates: int = 64) -> list[int]:
    """Pick one clip per equal segment of the data, the one with the most motion in its last frame. Where the game's ball is
    known, clips that show it in their last two frames come first. Deterministic."""
    chosen = []
    for segment in np.array_split(np.arange(len(clips)), min(number, len(clips))):
        some = segment[np.unique(np.linspace(0, len(segment) - 1, candidates).astype(np.int64))]
        last = clips.starts[some] + clips.num_frames - 1
        change = np.abs(clips.store.frames[last].astype(np.int16) - clips.store.frames[last - 1])  # (candidates, H, W, 3)
        motion = (change.max(axis=-1) > 255 * MOVING).sum(axis=(1, 2))  # (candidates,)
        balls = ball_positions(clips, some.tolist())
        if balls is not None:
            motion = np.where(balls[:, -2:].isfinite().all(dim=(1, 2)), motion + change[0, ..., 0].size, motion)
        chosen.append(int(some[motion.argmax()]))
    return chosen


def clip_videos(clips: Clips, indices: list[int], device: torch.device | str) -> Tensor:
    """The chosen clips as float (B, T, 3, H, W) in [0, 1]."""
    return to_video(clips.__getitems__(indices)["frames"], device)


def ball_positions(clips: Clips, indices: list[int]) -> Tensor | None:
    """The ball's (x, y) in the real frames of the chosen clips, float (B, T, 2); None for a game without a known ball.

    Detected in the pixels, because a clip store has no emulator memory. A ball in front of the bricks is not detected.
    """
    env_id = clips.store.env_id
    facts = game_facts(env_id) if env_id else None
    if env_id is None or facts is None or facts.ball is None:
        return None
    frames = clips.__getitems__(indices)["frames"].numpy()  # (B, T, H, W, 3)
    positions = detect_ball(frames.reshape(-1, *frames.shape[2:]), env_id)
    return torch.from_numpy(positions).float().reshape(*frames.shape[:2], 2)


def local_background(store: ClipStore, clips: Clips, indices: list[int], margin: int = 8) -> Tensor:
    """The scene behind the ball: the median of each clip and `margin` frames on either side. (B, 1, 3, H, W) in [0, 1].

    A median over the entire episode would show bricks that are already gone.
    """
    pictures = []
    for start in clips.starts[np.asarray(indices)]:
        episode_start, episode_stop = store.episodes[np.searchsorted(store.episodes[:, 0], start, side="right") - 1]
        first, last = max(episode_start, start - margin), min(episode_stop, start + clips.num_frames + margin)
        pictures.append(background_of(store.frames[first:last]))
    return torch.stack(pictures)[:, None]


def output_folder(given: str | None, checkpoint: Path) -> Path:
    """The folder for pictures and numbers: the given one, or `validation/` beside the checkpoint. Creates it."""
    folder = Path(given) if given else checkpoint.parent / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
