"""The clip store: a folder with every frame, every action and every episode of a data set.

    frames.npy        uint8 (F, H, W, 3)  RGB, memory-mapped when read: a batch reads only the pages it needs
    actions.npy       int16 (F,)          the action that led from frame f-1 to frame f; -1 where unknown and on first frames
    episodes.npy      int64 (E, 2)        start and stop of each episode; no clip crosses a stop
    clip_store.json   format version, checksum, source, env id, action names, frame skip, frames per second, seed, policy, ...

Games, videos, images and HDF5 files are all written into this one format once; training only ever reads it.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from video_tokenizer.data.store_checks import FORMAT_VERSION, UNKNOWN_ACTION, check_contents, digest_of, read_array, read_info
from video_tokenizer.training.atomic_files import (
    clear_error_on_full_disk,
    replace_folder,
    restore_folder,
    sweep,
    temporary_neighbour,
    write_array,
)
from video_tokenizer.training.command_line import InputError

FILE_NAMES = ("frames.npy", "actions.npy", "episodes.npy", "clip_store.json")


@dataclass(frozen=True)
class ClipStore:
    """An opened clip store. `frames` stays on disk until indexed; everything else is in memory."""

    path: Path
    frames: np.ndarray  # uint8 (F, H, W, 3)
    actions: np.ndarray  # int16 (F,)
    episodes: np.ndarray  # int64 (E, 2)
    info: dict  # clip_store.json

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def action_names(self) -> list[str]:
        """What each action number means; empty when the actions are unknown, as in videos."""
        return list(self.info.get("action_names") or [])

    @property
    def num_actions(self) -> int:
        return len(self.action_names)

    @property
    def frames_per_second(self) -> float:
        return float(self.info.get("frames_per_second") or 15.0)

    @property
    def env_id(self) -> str | None:
        """The Gymnasium id of the game, None for videos and images."""
        return self.info.get("env_id")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over 64 evenly spaced frames, all actions, all episodes and the json: two equal stores share it."""
        digest = digest_of(self.frames, self.actions, self.episodes)
        digest.update(json.dumps(self.info, sort_keys=True).encode())
        return digest.hexdigest()

    def __reduce__(self):
        """Loader workers reopen the store by its path: a pickled memory map would carry all its frames."""
        return open_clip_store, (self.path,)


def open_clip_store(path: str | Path) -> ClipStore:
    """Open and check a clip store. A store with one single episode (one video) is shown as two: see `cut_in_two`.

    Raises InputError, one sentence, for a folder that is missing, incomplete, cut short or inconsistent.
    """
    path = Path(path)
    restore_folder(path)
    if not path.exists():
        raise InputError(f"clip store {path} does not exist; make one with 1.video-tokenizer/record.py --output {path}")
    missing = [name for name in FILE_NAMES if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path} is not a complete clip store, it lacks {', '.join(missing)}; record or convert it again")
    info = read_info(path)
    frames = read_array(path, "frames.npy", "uint8", 4)
    actions = read_array(path, "actions.npy", "int16", 1)
    episodes = read_array(path, "episodes.npy", "int64", 2)
    check_contents(path, frames, actions, episodes, info)
    return ClipStore(_shortest(path), frames, actions, cut_in_two(episodes) if len(episodes) == 1 else episodes, info)


def _shortest(path: Path) -> Path:
    """The path relative to the present folder where it lies below it, else absolute: what is shown and written down."""
    absolute = path.resolve()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def cut_in_two(episodes: np.ndarray, smallest_part: int = 32) -> np.ndarray:
    """Cut a single episode so that validation shares no frame with training: the last tenth becomes an episode of its own.

    The tail has at least `smallest_part` frames, but never more than half: (0, 1000) -> (0, 900), (900, 1000);
    (0, 100) -> (0, 68), (68, 100); (0, 20) -> (0, 10), (10, 20).
    """
    start, stop = (int(edge) for edge in episodes[0])
    tail = min(max((stop - start) // 10, smallest_part), (stop - start) // 2)
    return np.array([(start, stop - tail), (stop - tail, stop)], dtype=np.int64) if tail else episodes


class ClipStoreWriter:
    """Writes a store episode by episode; use it as a context manager.

    Everything goes to a temporary sibling folder, which takes its final name only when the `with` block ends well: a
    reader sees the whole store or none. After an exception the temporary folder is gone; that of a process that was killed goes
    when the same store is written again.
    """

    def __init__(self, path: str | Path, frame_size: tuple[int, int], info: dict, overwrite: bool = False):
        """frame_size: (height, width). info: goes to clip_store.json. Raises InputError when `path` is already taken."""
        self.path = Path(path)
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        self.info = dict(info)
        self.num_frames = 0
        self._actions: list[np.ndarray] = []
        self._episodes: list[tuple[int, int]] = []
        self._overwrite = overwrite
        restore_folder(self.path)
        self._refuse_to_overwrite()
        if self.path.exists() and not ((self.path / "clip_store.json").is_file() or is_empty_folder(self.path)):
            raise InputError(f"{self.path} exists and is no clip store, so it is not overwritten; choose another output")
        self._temporary = temporary_neighbour(self.path)

    def _refuse_to_overwrite(self) -> None:
        if self.path.exists() and not self._overwrite:
            raise InputError(f"{self.path} already exists; choose another output or pass --overwrite")

    def __enter__(self) -> "ClipStoreWriter":
        try:
            sweep(self.path)
            self._temporary.mkdir(parents=True, exist_ok=False)
            self._file = (self._temporary / "frames.npy").open("wb")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error}); choose another output") from error
        self._write_header()
        return self

    def add_episode(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        """frames: uint8 (F, H, W, 3). actions: (F,), actions[f] led to frame f; None when unknown. The first becomes -1."""
        self.add_frames(frames, actions)
        self.end_episode()

    def add_frames(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Continue the open episode, for videos that are too long to hold in memory. Arrays as in `add_episode`."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*self.frame_size, 3):
            raise ValueError(
                f"frames are {frames.dtype} {frames.shape}, not uint8 (F, {self.frame_size[0]}, {self.frame_size[1]}, 3)"
            )
        if actions is not None and len(actions) != len(frames):
            raise ValueError(f"{len(frames)} frames but {len(actions)} actions")
        if len(frames):
            with clear_error_on_full_disk(self.path):
                self._file.write(np.ascontiguousarray(frames).tobytes())
            known = np.full(len(frames), UNKNOWN_ACTION) if actions is None else np.asarray(actions)
            self._actions.append(known.astype(np.int16))
            self.num_frames += len(frames)

    def end_episode(self) -> None:
        """Close the open episode; nothing happens when it has no frames."""
        start = self._episodes[-1][1] if self._episodes else 0
        if self.num_frames > start:
            self._episodes.append((start, self.num_frames))

    def drop_frames_from(self, start: int) -> None:
        """Take back every frame from number `start` on, for a video that turns out to be damaged; `start` ended an episode."""
        self._file.seek(self._header_bytes + start * self._frame_bytes)
        self._file.truncate()
        while self.num_frames > start:
            self.num_frames -= len(self._actions.pop())
        self._episodes = [episode for episode in self._episodes if episode[1] <= start]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with clear_error_on_full_disk(self.path):
                    self._finish()
        finally:
            with suppress(OSError):  # closing writes what is left in the buffer, which a full disk does not take
                self._file.close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _write_header(self) -> None:
        """numpy pads this header so that a larger first axis fits in later: we write it again when F is known."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.num_frames, *self.frame_size, 3)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        self._header_bytes, self._frame_bytes = self._file.tell(), self.frame_size[0] * self.frame_size[1] * 3

    def _finish(self) -> None:
        self.end_episode()
        if not self._episodes:
            raise InputError(f"there are no frames to write to {self.path}")
        self._write_header()
        _flush_to_disk(self._file)
        info = {"format_version": FORMAT_VERSION, **self.info, "num_frames": self.num_frames, "num_episodes": len(self._episodes)}
        actions = np.concatenate(self._actions)
        actions[[start for start, _ in self._episodes]] = UNKNOWN_ACTION  # nothing led to a first frame
        episodes = np.array(self._episodes, dtype=np.int64)
        frames = np.lib.format.open_memmap(self._temporary / "frames.npy", mode="r")
        info["checksum"] = digest_of(frames, actions, episodes).hexdigest()
        with (self._temporary / "actions.npy").open("wb") as file:
            write_array(file, actions)
            _flush_to_disk(file)
        with (self._temporary / "episodes.npy").open("wb") as file:
            write_array(file, episodes)
            _flush_to_disk(file)
        with (self._temporary / "clip_store.json").open("w", encoding="utf-8") as file:
            json.dump(info, file, indent=2)
            _flush_to_disk(file)
        self._refuse_to_overwrite()  # another process may have been quicker
        replace_folder(self._temporary, self.path)


def is_empty_folder(path: Path) -> bool:
    """Whether `path` is a folder in which nothing lies."""
    return path.is_dir() and not any(path.iterdir())


def _flush_to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())
