"""What the validate scripts of all chapters share: the right episodes, batches spread evenly over them, and where results go."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.data.training_data import TrainingData, evenly_spaced, open_store, open_training_data, with_frame_size_of
from video_tokenizer.games.detectors import detect_ball, game_facts
from video_tokenizer.losses import MOVING, background_of
from video_tokenizer.training.command_line import InputError


def open_validation_data(flags: Any, training_config: Any, fingerprint: str | None = None) -> TrainingData:
    """The data that a validate script scores, split exactly as in training.

    flags: a config with data_path, data_type and use_dummy_data; where none is given, the data the checkpoint was trained on.
    training_config: the checkpoint's config, whose seed and share make the split. fingerprint: that of the data it was trained
    on; other data are announced. Raises InputError for frames of another size.
    """
    config = training_config
    if flags.data_path is not None or flags.use_dummy_data:
        config = replace(config, data_path=flags.data_path, data_type=flags.data_type, use_dummy_data=flags.use_dummy_data)
    store = open_store(config)
    if config.frame_size not in (None, store.frame_size[0]):
        raise InputError(
            f"the checkpoint was trained on frames of {config.frame_size} pixels, {store.path} holds {store.frame_size[0]}; "
            f"record with --frame-size {config.frame_size}"
        )
    data = open_training_data(with_frame_size_of(store, config), store)
    if fingerprint is not None and store.fingerprint != fingerprint:
        print(f"{store.path} is not the data this checkpoint was trained on; its validation episodes are scored")
    return data


def even_batches(num_clips: int, batch_size: int, num_batches: int | None = None) -> Iterator[list[int]]:
    """Clip numbers in batches: all of them, or num_batches * batch_size spread evenly; the same ones every time."""
    chosen = evenly_spaced(num_clips, num_clips if num_batches is None else num_batches * batch_size)
    for first in range(0, len(chosen), batch_size):
        yield chosen[first : first + batch_size]


def most_active_clips(clips: Clips, number: int, candidates: int = 64) -> list[int]:
    """Clips for pictures, the same every time: from each of `number` equal stretches the one that ends in most movement."""
    chosen = []
    for stretch in np.array_split(np.arange(len(clips)), min(number, len(clips))):
        some = stretch[np.unique(np.linspace(0, len(stretch) - 1, candidates).astype(np.int64))]
        last = clips.starts[some] + clips.num_frames - 1
        steps = np.abs(clips.store.frames[last].astype(np.int16) - clips.store.frames[last - 1])  # (candidates, H, W, 3)
        chosen.append(int(some[(steps.max(axis=-1) > 255 * MOVING).sum(axis=(1, 2)).argmax()]))
    return chosen


def clip_videos(clips: Clips, indices: list[int], device: torch.device | str) -> Tensor:
    """The chosen clips as float (B, T, 3, H, W) in [0, 1]."""
    return to_video(clips.__getitems__(indices)["frames"], device)


def ball_positions(clips: Clips, indices: list[int]) -> Tensor | None:
    """Where the ball is in the real frames of the chosen clips, float (B, T, 2) as (x, y); None for a game without a known ball.

    Read from the pixels, because a clip store keeps no emulator memory; a ball in front of the bricks is not searched for.
    """
    env_id = clips.store.env_id
    facts = game_facts(env_id) if env_id else None
    if env_id is None or facts is None or facts.ball is None:
        return None
    frames = clips.__getitems__(indices)["frames"].numpy()  # (B, T, H, W, 3)
    positions = detect_ball(frames.reshape(-1, *frames.shape[2:]), env_id)
    return torch.from_numpy(positions).float().reshape(*frames.shape[:2], 2)


def surroundings(store: ClipStore, clips: Clips, indices: list[int], margin: int = 8) -> Tensor:
    """The scene behind the ball at that moment: the median of each clip and `margin` frames on either side. (B, 1, 3, H, W) in
    [0, 1].

    Shorter than the whole episode's, so that bricks that are gone by now are gone from it too.
    """
    pictures = []
    for start in clips.starts[np.asarray(indices)]:
        episode_start, episode_stop = store.episodes[np.searchsorted(store.episodes[:, 0], start, side="right") - 1]
        first, last = max(episode_start, start - margin), min(episode_stop, start + clips.num_frames + margin)
        pictures.append(background_of(store.frames[first:last]))
    return torch.stack(pictures)[:, None]


def output_folder(given: str | None, checkpoint: Path) -> Path:
    """Where pictures and numbers go: the given folder, else `validation/` beside the checkpoint. Is created."""
    folder = Path(given) if given else checkpoint.parent / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
