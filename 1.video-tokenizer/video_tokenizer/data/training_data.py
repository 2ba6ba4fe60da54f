"""Turns a script's data flags into training and validation clips."""

import atexit
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from video_tokenizer.data.augment import Augmentation
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, split_episodes
from video_tokenizer.data.seen_frames import frames_of, seen_frames, unseen_clips
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.config import SourceFlags, height_and_width, size_text

Config = TypeVar("Config", bound=Any)
DUMMY_SIZE = 64


class TrainingData(NamedTuple):
    """A store and its clips; no episode is in both training and validation."""

    store: ClipStore
    training: Any  # Clips, or what a later chapter makes of them
    validation: Any
    seen: np.ndarray  # bool (F,): frames of validation episodes that training has too; no validation clip scores one
    seen_share: float  # their share of the frames of validation episodes
    clips_left_out: int  # how many validation clips would score them

    def describe_seen(self) -> str:
        """A sentence on what was left out; "" if training has none of the frames."""
        if not self.seen.any():
            return ""
        shown = f"{self.seen_share:.0%} of the frames of validation episodes are training frames too, bit for bit"
        if not self.clips_left_out:
            return f"{shown}; they are in nearly all clips, so all clips are scored"
        return f"{shown}; the {self.clips_left_out:,} clips that would score them are left out"


def open_store(config: Any) -> ClipStore:
    """Open the clip store of `--use-dummy-data` or `--data-path`; videos and images are decoded into one first."""
    if config.use_dummy_data:
        folder = Path(tempfile.mkdtemp(prefix="moving-square-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        size = config.frame_height_width if config.frame_size else (DUMMY_SIZE, DUMMY_SIZE)
        return dummy_clip_store(folder / "clip_store", frame_size=size)
    if config.data_path is None:
        raise InputError("no data: give --data-path (a clip store, videos, images or .h5), or --use-dummy-data for a trial run")
    return open_source(config)


def open_source(flags: SourceFlags) -> ClipStore:
    """Open the clip store at data_path; videos, images and .h5 files are decoded into one first, as the flags say."""
    assert flags.data_path is not None
    size = None if flags.frame_size is None else height_and_width(flags.frame_size)
    return open_clips_source(
        flags.data_path, flags.data_type, size, flags.frame_stride, flags.filter_dull, flags.fit, flags.frames_key
    )


def with_frame_size_of(store: ClipStore, config: Config) -> Config:
    """The config with the frame size of the store. Raises InputError if the config has another one."""
    height, width = store.frame_size
    if config.frame_size is not None and config.frame_height_width != (height, width):
        wanted, there = size_text(config.frame_height_width), size_text(store.frame_size)
        raise InputError(
            f"frame_size {wanted} differs from the {there} of {store.path}; give --frame-size {there}, or record again"
        )
    return replace(config, frame_size=height if height == width else (height, width))


def open_training_data(config: Config) -> tuple[TrainingData, Config]:
    """The clips to train and validate on, and the config with the frame size of the recording. Raises InputError."""
    store = open_store(config)
    config = with_frame_size_of(store, config)
    config.check()
    return split_clips(config, store), config


def split_clips(config: Any, store: ClipStore, known: np.ndarray | None = None) -> TrainingData:
    """Clips of config.num_frames frames: training clips start at every frame, validation clips overlap by one frame only.

    Validation clips score no frame of training. known: the hashes of its frames, if it had another store.
    """
    flip, crop = getattr(config, "flip_augmentation", False), getattr(config, "crop_augmentation", 0.0)
    augmentation = Augmentation(0.5 * flip, 1 - crop, config.seed) if flip or crop > 0 else None
    training_episodes, validation_episodes = split_episodes(store, config.validation_share, config.seed)
    lengths = store.episodes[:, 1] - store.episodes[:, 0]
    if too_short := int((lengths < config.num_frames).sum()):
        print(f"{too_short} of {len(lengths)} episodes have fewer than {config.num_frames} frames, too few for a clip")
    training = Clips(store, training_episodes, config.num_frames, augment=augmentation)
    validation = Clips(store, validation_episodes, config.num_frames, stride=max(1, config.num_frames - 1))
    seen = seen_frames(store, training_episodes, validation_episodes, known)
    unseen = unseen_clips(validation, seen)
    seen_share = float(seen[frames_of(store, validation_episodes)].mean())
    return TrainingData(store, training, unseen, seen, seen_share, len(validation) - len(unseen))


def evenly_spaced(length: int, number: int) -> list[int]:
    """At most `number` evenly spaced indices below `length`: evenly_spaced(10, 3) is [0, 3, 6]."""
    number = min(number, length)
    return [index * length // number for index in range(number)]
