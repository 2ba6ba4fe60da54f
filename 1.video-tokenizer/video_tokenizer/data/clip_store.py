"""The clip store: a folder with all frames, actions and episodes of a data set.

    frames.npy        uint8 (F, H, W, 3)  RGB, memory-mapped: a batch reads only the pages it needs
    actions.npy       int16 (F,)          the action that led from frame f-1 to frame f; -1 where unknown and on first frames
    episodes.npy      int64 (E, 2)        start and stop of each episode; no clip crosses a stop
    clip_store.json   format version, checksums, source, env id, action names, frame skip, frames per second, seed, policy, ...

A recorded game also has further arrays with one row a frame, those of `FRAME_ARRAYS`; clip_store.json lists them. Videos and
stores of version 1 lack them.

    rewards.npy       float32 (F,)        what the game paid between the picture before and this one; 0 on first frames
    ends.npy          bool (F,)           whether the game ended with this frame; an episode that was only cut has none
    lives.npy         uint8 (F,)          balls, ships or whatever the player has left when the picture is taken; 0: not counted
    sound.npy         uint8 (F, S)        with record.py --sound: what is heard from the picture before to this one; 128: silence

Games, videos, images and HDF5 files are converted to this format once. Training reads nothing else.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import (
    check_can_be_written,
    clear_write_errors,
    one_at_a_time,
    replace_folder,
    restore_folder,
    sweep,
    temporary_neighbour,
    write_array,
)

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
FILE_NAMES = ("frames.npy", "actions.npy", "episodes.npy", "clip_store.json")
FRAME_ARRAYS = {"rewards": ("float32", 1), "ends": ("bool", 1), "lives": ("uint8", 1), "sound": ("uint8", 2)}
"""arrays that a store may have beside frames and actions, and their type and number of axes, of which the first is F"""
UNKNOWN_ACTION = -1
VALID_INFO: dict[str, Callable[[Any], bool]] = {
    "action_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "env_id": lambda value: isinstance(value, str),
    "frames_per_second": lambda value: isinstance(value, int | float) and 0 < value < 10_000,
    "frame_skip": lambda value: isinstance(value, int) and value >= 1,
    "picture_delay": lambda value: isinstance(value, int) and value >= 0,
    "merged_frames": lambda value: isinstance(value, int) and value >= 1,
    "linear_light": lambda value: isinstance(value, bool),
    "arrays": lambda value: isinstance(value, dict) and value.keys() <= FRAME_ARRAYS.keys(),
}
"""entries of clip_store.json that later code reads, and the check that a value must pass; any of them may be absent"""


@dataclass(frozen=True)
class ClipStore:
    """An open clip store. `frames` and `arrays` stay on disk until indexed; everything else is in memory."""

    path: Path
    frames: np.ndarray  # uint8 (F, H, W, 3)
    actions: np.ndarray  # int16 (F,)
    episodes: np.ndarray  # int64 (E, 2)
    info: dict  # clip_store.json
    arrays: dict[str, np.ndarray] = field(default_factory=dict)  # those of `FRAME_ARRAYS` that it has, (F, ...)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def action_names(self) -> list[str]:
        """The name of each action number; empty when the actions are unknown, as in videos."""
        return list(self.info.get("action_names") or [])

    @property
    def num_actions(self) -> int:
        return len(self.action_names)

    @property
    def frames_per_second(self) -> float:
        return float(self.info.get("frames_per_second") or 15.0)

    @property
    def env_id(self) -> str | None:
        """The Gymnasium id of the game; None for videos and images."""
        return self.info.get("env_id")

    @property
    def linear_light(self) -> bool | None:
        """Whether frames were shrunk by averaging light (see `resize_by_area`), or sRGB values as in older stores; None for
        frames that were drawn at their size, where nothing was averaged."""
        return self.info.get("linear_light", False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of 64 evenly spaced frames, all actions, all episodes and the JSON: equal for equal stores.

        Further arrays do not count: a checkpoint that was trained on a store of version 1 knows it when it is recorded again.
        """
        digest = _digest(self.frames, self.actions, self.episodes)
        info = {name: value for name, value in self.info.items() if name != "arrays"} | {"format_version": 1}
        digest.update(json.dumps(info, sort_keys=True).encode())
        return digest.hexdigest()

    def array(self, name: str) -> np.ndarray:
        """One of `FRAME_ARRAYS`, (F, ...). Raises InputError if the store lacks it."""
        if name not in self.arrays:
            flag = " --sound" if name == "sound" else ""
            raise InputError(f"{self.path} holds no {name}; record the game again with 1.video-tokenizer/record.py{flag}")
        return self.arrays[name]

    def __reduce__(self):
        """Loader workers reopen the store by its path: a pickled memory map would carry all its frames."""
        return open_clip_store, (self.path,)


# ---- reading ------------------------------------------------------------------------------------------------------------


def open_clip_store(path: str | Path) -> ClipStore:
    """Open and validate a clip store. One long video is presented as two episodes: see `cut_in_two`.

    Raises InputError, one sentence, for a folder that is missing, incomplete, truncated or inconsistent.
    """
    path = Path(path)
    restore_folder(path)
    if not path.exists():
        raise InputError(f"clip store {path} does not exist; make one with 1.video-tokenizer/record.py --output {path}")
    _check_complete(path, FILE_NAMES)
    info = _read_info(path / "clip_store.json")
    names = info.get("arrays") or {}
    _check_complete(path, [f"{name}.npy" for name in names])
    arrays = {name: _read_array(path / f"{name}.npy", *FRAME_ARRAYS[name]) for name in names}
    frames = _read_array(path / "frames.npy", "uint8", 4)
    actions = np.array(_read_array(path / "actions.npy", "int16", 1))
    episodes = np.array(_read_array(path / "episodes.npy", "int64", 2))
    _check_contents(path, frames, actions, episodes, info)
    _check_arrays(path, arrays, len(frames), info)
    absolute, here = path.resolve(), Path.cwd()  # the shorter path is the one that is printed and saved
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
    return ClipStore(shown, frames, actions, cut_in_two(episodes), info, arrays)


def check_light(what: str, linear_light: bool | None, store: ClipStore) -> None:
    """Raise InputError for a model whose training frames were shrunk otherwise than those of the store.

    linear_light: as its checkpoint says; None, as in older checkpoints, for averages of sRGB values.
    """
    if store.linear_light is not None and (linear_light is True) != store.linear_light:
        seen, here = ("light" if linear else "sRGB values" for linear in (linear_light, store.linear_light))
        flag = "--linear-light" if linear_light else "--no-linear-light"
        raise InputError(
            f"{what} was trained on frames that were shrunk by averaging {seen}, those of {store.path} by averaging {here}; "
            f"train it on this data, or record with {flag}"
        )


def cut_in_two(episodes: np.ndarray, smallest_part: int = 32) -> np.ndarray:
    """Split a single episode so that validation shares no frame with training: its last tenth becomes an episode of its own.

    The tail has at least `smallest_part` frames, but never more than half: (0, 1000) -> (0, 900), (900, 1000);
    (0, 100) -> (0, 68), (68, 100); (0, 20) -> (0, 10), (10, 20). The same happens to a film beside trailers: if the episodes
    beside the longest, of those that are long enough (`usable_frames`), have less than a tenth of the frames.
    """
    frames = usable_frames(episodes, smallest_part)
    longest = int(frames.argmax())
    start, stop = (int(edge) for edge in episodes[longest])
    tail = min(max((stop - start) // 10, smallest_part), (stop - start) // 2)
    others = int(frames.sum()) - (stop - start)
    if tail == 0 or (others > 0 and others >= frames.sum() // 10):
        return episodes
    parts = np.array([(start, stop - tail), (stop - tail, stop)], dtype=np.int64)
    return np.concatenate([episodes[:longest], parts, episodes[longest + 1 :]])


def usable_frames(episodes: np.ndarray, smallest_part: int = 32) -> np.ndarray:
    """The length of each episode, (E,); 0 for one too short to hold clips, next to the others: below a quarter of the longest
    and below `smallest_part`."""
    lengths = episodes[:, 1] - episodes[:, 0]
    return np.where(lengths >= min(smallest_part, lengths.max() // 4), lengths, 0)


def _unusable(path: Path, problem: str) -> InputError:
    return InputError(f"{path} {problem}; record or convert it again")


def _digest(*arrays: np.ndarray) -> Any:
    """SHA-256 over arrays with one number or pair a row, and over 64 evenly spaced rows of larger ones, such as frames: fast for
    a store of any size."""
    digest = hashlib.sha256()
    for array in arrays:
        is_large = array.ndim > 1 and array[:1].size > 2
        rows = np.linspace(0, len(array) - 1, num=min(64, len(array)), dtype=np.int64) if is_large else slice(None)
        digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return digest


def _read_info(path: Path) -> dict:
    try:
        info = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, f"cannot be read as JSON ({error})") from error
    version = info.get("format_version") if isinstance(info, dict) else None
    if version not in READABLE_VERSIONS:
        raise _unusable(path.parent, f"has clip store format {version}, but this code reads formats 1 to {FORMAT_VERSION}")
    for name, is_valid in VALID_INFO.items():
        if info.get(name) is not None and not is_valid(info[name]):
            raise _unusable(path, f"has an invalid {name}: {str(info[name])[:60]!r}")
    return info


def _check_complete(path: Path, names: Iterable[str]) -> None:
    """Raise InputError where a file is missing."""
    if missing := [name for name in names if not (path / name).is_file()]:
        raise _unusable(path, f"is not a complete clip store, it lacks {', '.join(missing)}")


def _read_array(path: Path, dtype: str, num_axes: int) -> np.ndarray:
    """A memory-mapped .npy file, which holds no pickled objects and as much data as its header claims."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy reads the header with Python's own parser, which fails in many ways
        raise _unusable(path, f"is damaged or truncated ({' '.join(str(error).split())[:120]})") from error
    if array.dtype != dtype or array.ndim != num_axes:
        raise _unusable(path, f"holds {array.dtype} with {array.ndim} axes instead of {dtype} with {num_axes}")
    return array


def _check_contents(path: Path, frames: np.ndarray, actions: np.ndarray, episodes: np.ndarray, info: dict) -> None:
    """Raise InputError where the files do not fit together."""
    if 0 in frames.shape or frames.shape[3] != 3:
        raise _unusable(path / "frames.npy", f"has shape {frames.shape} instead of (frames, height, width, 3)")
    if len(actions) != len(frames):
        raise _unusable(path, f"has {len(frames)} frames but {len(actions)} actions")
    if episodes.shape[1] != 2 or len(episodes) == 0:
        raise _unusable(path / "episodes.npy", f"has shape {episodes.shape} instead of (episodes, 2)")
    starts, stops = episodes[:, 0], episodes[:, 1]
    if starts.min() < 0 or stops.max() > len(frames) or (starts >= stops).any() or (starts[1:] < stops[:-1]).any():
        raise _unusable(path / "episodes.npy", f"has episodes that overlap or lie outside the {len(frames)} frames")
    num_actions = len(info.get("action_names") or [])
    if actions.min() < UNKNOWN_ACTION or (num_actions and actions.max() >= num_actions):
        found = f"holds actions from {actions.min()} to {actions.max()}"
        raise _unusable(path / "actions.npy", f"{found}, but clip_store.json names {num_actions}")
    if "checksum" in info and info["checksum"] != _digest(frames, actions, episodes).hexdigest():
        raise _unusable(path, "was changed after it was written: its checksum does not match")


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], num_frames: int, info: dict) -> None:
    """Raise InputError where further arrays do not fit the frames, or were changed."""
    for name, array in arrays.items():
        if len(array) != num_frames:
            raise _unusable(path, f"has {num_frames} frames but {len(array)} {name}")
        if info["arrays"][name] != _digest(array).hexdigest():
            raise _unusable(path / f"{name}.npy", "was changed after it was written: its checksum does not match")


# ---- writing ------------------------------------------------------------------------------------------------------------


class ClipStoreWriter:
    """Writes a store episode by episode; use it as a context manager.

    Everything goes to a temporary sibling folder, which is renamed when the `with` block ends without an exception: a reader sees
    the complete store or none. After an exception the temporary folder is removed. One left by a killed process is removed when
    the same store is written again.
    """

    def __init__(self, path: str | Path, frame_size: tuple[int, int], info: dict, overwrite: bool = False):
        """frame_size: (height, width). info: goes to clip_store.json. Raises InputError when `path` is already taken."""
        self.path = Path(os.path.realpath(path))  # a link stays, and the folder it points at is written
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        self.info = dict(info)
        self.num_frames = 0
        self._rows: list[dict[str, np.ndarray]] = []  # actions and further arrays, as they were added
        self._episodes: list[tuple[int, int]] = []
        self._overwrite = overwrite
        check_can_be_written(self.path, "the clip store")
        restore_folder(self.path)
        self._check_not_taken()
        if self.path.exists() and not self._is_empty_folder() and not (self.path / "clip_store.json").is_file():
            raise InputError(f"{self.path} is no clip store, so it is not overwritten; choose another output")
        self._temporary = temporary_neighbour(self.path)

    def _check_not_taken(self) -> None:
        if self.path.exists() and not self._overwrite and not self._is_empty_folder():
            raise InputError(f"{self.path} already exists; choose another output or pass --overwrite")

    def _is_empty_folder(self) -> bool:
        return self.path.is_dir() and not any(self.path.iterdir())

    def __enter__(self) -> "ClipStoreWriter":
        try:
            sweep(self.path)
            self._temporary.mkdir(parents=True, exist_ok=False)
            self._file = (self._temporary / "frames.npy").open("wb")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error}); choose another output") from error
        self._write_header()
        return self

    def add_episode(self, frames: np.ndarray, actions: np.ndarray | None = None, **arrays: ArrayLike) -> None:
        """frames: uint8 (F, H, W, 3). actions: (F,), actions[f] led to frame f; None when unknown. The first becomes -1.

        arrays: of `FRAME_ARRAYS` by name, (F, ...), the same ones for all frames of a store.
        """
        self.add_frames(frames, actions, **arrays)
        self.end_episode()

    def add_frames(self, frames: np.ndarray, actions: np.ndarray | None = None, **arrays: ArrayLike) -> None:
        """Continue the open episode, for videos that are too long to hold in memory. Arrays as in `add_episode`."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*self.frame_size, 3):
            raise ValueError(f"frames are {frames.dtype} {frames.shape}, not uint8 (F, *{self.frame_size}, 3)")
        rows = {"actions": np.full(len(frames), UNKNOWN_ACTION) if actions is None else actions} | arrays
        types = {"actions": "int16"} | {name: dtype for name, (dtype, _) in FRAME_ARRAYS.items()}
        rows = {name: np.asarray(array).astype(types[name]) for name, array in rows.items()}
        for name, array in rows.items():
            if len(array) != len(frames):
                raise ValueError(f"{len(frames)} frames but {len(array)} {name}")
        if self._rows and self._rows[0].keys() != rows.keys():
            raise ValueError(f"frames came with {', '.join(rows)}, but earlier ones with {', '.join(self._rows[0])}")
        if len(frames):
            with clear_write_errors(self.path):
                self._file.write(np.ascontiguousarray(frames).tobytes())
            self._rows.append(rows)
            self.num_frames += len(frames)

    def end_episode(self) -> None:
        """Close the open episode, if it has any frames."""
        start = self._episodes[-1][1] if self._episodes else 0
        if self.num_frames > start:
            self._episodes.append((start, self.num_frames))

    def drop_frames_from(self, start: int) -> None:
        """Remove every frame from number `start` on, the first of an episode: its video turned out to be damaged."""
        self._file.seek(self._header_bytes + start * self._frame_bytes)
        self._file.truncate()
        while self.num_frames > start:
            self.num_frames -= len(self._rows.pop()["actions"])
        self._episodes = [episode for episode in self._episodes if episode[1] <= start]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with clear_write_errors(self.path):
                    self._finish()
        finally:
            with suppress(OSError):  # closing flushes the buffer, which fails on a full disk
                self._file.close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _write_header(self) -> None:
        """numpy pads this header so that a larger first axis fits later: it is written again when F is known."""
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
        arrays = {name: np.concatenate([rows[name] for rows in self._rows]) for name in self._rows[0]}
        actions = arrays.pop("actions")
        actions[[start for start, _ in self._episodes]] = UNKNOWN_ACTION  # no action led to a first frame
        episodes = np.array(self._episodes, dtype=np.int64)
        frames = np.lib.format.open_memmap(self._temporary / "frames.npy", mode="r")
        info["checksum"] = _digest(frames, actions, episodes).hexdigest()
        info["arrays"] = {name: _digest(array).hexdigest() for name, array in arrays.items()}
        del frames  # Windows renames no folder in which a file is open
        self._file.close()
        for name, array in {"actions": actions, "episodes": episodes, **arrays}.items():
            with (self._temporary / f"{name}.npy").open("wb") as file:
                write_array(file, array)
                _flush_to_disk(file)
        with (self._temporary / "clip_store.json").open("w", encoding="utf-8") as file:
            json.dump(info, file, indent=2)
            _flush_to_disk(file)
        with one_at_a_time(self.path):
            self._check_not_taken()  # another process may have written it meanwhile
            replace_folder(self._temporary, self.path)


def _flush_to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())
