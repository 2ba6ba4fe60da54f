"""Reads video from HDF5 files: arrays of RGB frames wherever they lie, with or without actions.

    frames, video, videos, observations, images     (N, H, W, 3) one long video, or (E, T, H, W, 3) one row per episode
    actions                                         (N,) or (E, T): actions[t] led from frame t-1 to frame t
    episodes                                        (E, 2): start and stop of each episode of one long video

That is the plain layout. Those of robotics and reinforcement learning are read too:

    data/demo_0/obs/agentview_image                 robomimic: an array of frames for each episode
    observations/images/cam_high                    ALOHA: a file for each episode
    episode_0/observations                          Minari
    terminals, dones, timeouts, terminations, ...   D4RL: (N,), not zero at the last frame of each episode

Frames are the arrays of uint8, or of floats from 0 to 1, with 4 or 5 axes of which the last has length 3. Where there are
several, such as two cameras, the first is taken and the others are named; `--frames-key` takes another, by its name or its end.

Actions lie under `actions` or `action`, beside the frames or further up. They are kept if they are discrete: whole numbers in
any type, (N,) or (N, 1), or one-hot (N, A). N-1 actions lie between N frames. In a file with rewards or ends of episodes, or with
an array for each episode, actions[t] was chosen at frame t, as reinforcement learning has it, and led to frame t+1; it is stored
with that one. Other actions are left out, with a sentence: only models that are told the true actions need them.

Rewards are not read: a file does not say whether the one of row t was paid for frame t or for the frame after it.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.video_files import MOST_PIXELS, BadVideo, fit_frame
from video_tokenizer.errors import InputError, first_line

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
FRAME_KEYS = ("frames", "video", "videos", "observations", "images")
ACTION_KEYS = ("actions", "action")
END_KEYS = ("terminals", "dones", "done", "timeouts", "terminations", "truncations", "terminated", "truncated", "is_last")
EPISODE = re.compile(r"(?!.*(cam|view|image|img|rgb|eye|sensor|arm|robot))\w*?\d+", re.IGNORECASE)
"""name of a group or an array that is one of many episodes: demo_0, episode_12, 3; two cameras are none"""
CHUNK_BYTES = 64 * 2**20
"""how much is read at a time"""


class Source(NamedTuple):
    """The arrays of frames in a file that are read."""

    arrays: list[h5py.Dataset]
    others: list[str]
    """further names that --frames-key could take"""


def convert_hdf5(
    path: Path, writer: ClipStoreWriter, frame_step: int = 1, fit: str = "crop", frames_key: str | None = None
) -> None:
    """Write the episodes of one HDF5 file. Raises InputError for a damaged file, a missing key or arrays of the wrong kind."""
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # type: ignore[import-not-found]  # importing it adds compressions, such as Blosc
    try:
        with h5py.File(path, "r") as file:
            source = find_frames(path, file, frames_key)
            if source.others:
                print(f"{path.name}: frames are {source.arrays[0].name}; there are also {_some(source.others)} for --frames-key")
            for frames in tqdm(source.arrays, desc="decoding", unit="episode", disable=None):
                actions = _read_actions(path, file, frames, len(source.arrays) > 1, writer)
                for rows in _episode_rows(path, file, frames, len(source.arrays) > 1):
                    _convert_episode(frames, actions, rows, writer, frame_step, fit)
    except InputError:
        raise
    except BadVideo as error:
        raise InputError(f"{path} {error}; ask for a smaller size") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # h5py fails in many ways
        reason = first_line(error, 160)
        if "plugin" in reason or "filter" in reason:
            raise InputError(f"{path} is compressed in a way that needs a package: pip install hdf5plugin ({reason})") from error
        raise InputError(f"{path} cannot be read as HDF5 ({reason}); write it again or give another file") from error


def hdf5_frame_size(path: Path, frames_key: str | None = None) -> tuple[int, int] | None:
    """(height, width) of a file's frames; None where there are none."""
    try:
        with h5py.File(path, "r") as file:
            height, width = find_frames(path, file, frames_key).arrays[0].shape[-3:-1]
    except (InputError, OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None
    return height, width


# ---- frames -------------------------------------------------------------------------------------------------------------


def find_frames(path: Path, file: h5py.File, frames_key: str | None = None) -> Source:
    """The frames that are meant: those of the key, else of the first `FRAME_KEYS` that can be, else of the first array that can.

    Raises InputError with what there is instead.
    """
    for name in FRAME_KEYS:
        if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            raise _points_elsewhere(path, name)
    arrays: list[h5py.Dataset] = []
    file.visititems(lambda _, entry: arrays.append(entry) if isinstance(entry, h5py.Dataset) else None)  # follows no link out
    arrays.sort(
        key=lambda array: ("next" in str(array.name), natural_order(str(array.name)))
    )  # robomimic repeats obs as next_obs
    if frames_key is not None:
        wanted = "/" + frames_key.strip("/")
        meant = [array for array in arrays if f"{array.name}".endswith(wanted)]
        if not meant:
            raise InputError(f"{path} has no array {frames_key!r} for --frames-key, only {_some([str(a.name) for a in arrays])}")
        meant = [array for array in meant if _pattern(array) == _pattern(meant[0])]
        for array in meant:
            _check_frames(path, array)
        return Source(meant, [])
    patterns: dict[str, list[h5py.Dataset]] = {}
    for array in arrays:
        if _can_be_frames(array):
            patterns.setdefault(_pattern(array), []).append(array)
    named = [array for name in FRAME_KEYS for array in arrays if array.name == f"/{name}"]
    order = [f"/{name}" for name in FRAME_KEYS]
    if patterns:
        found = min(patterns, key=lambda pattern: order.index(pattern) if pattern in order else len(order))
        for array in patterns[found]:
            _check_frames(path, array)
        return Source(patterns[found], [pattern.strip("/") for pattern in patterns if pattern != found])
    for array in named or filter(_is_compressed, arrays):
        _check_frames(path, array)  # says what is wrong with it
    raise InputError(
        f"{path} has no array of RGB frames under {', '.join(FRAME_KEYS[:-1])} or {FRAME_KEYS[-1]}, nor elsewhere, "
        f"only {_some([str(array.name) for array in arrays]) if arrays else 'none'}"
    )


def _can_be_frames(array: h5py.Dataset) -> bool:
    is_number = array.dtype == np.uint8 or array.dtype.kind == "f"
    return array.ndim in (4, 5) and array.shape[-1] == 3 and min(array.shape[-3:-1]) >= 8 and is_number and 0 not in array.shape


def _is_compressed(array: h5py.Dataset) -> bool:
    """Whether each row is the file of a picture, JPEG or PNG, as in many of ALOHA's."""
    if array.ndim != 2 or array.dtype != np.uint8 or 0 in array.shape or array.external or array.is_virtual:
        return False
    return array[0].tobytes().startswith((b"\xff\xd8\xff", b"\x89PNG"))


def _pattern(array: h5py.Dataset) -> str:
    """/data/demo_3/obs/image -> /data/*/obs/image: the same for all episodes."""
    return "/".join("*" if EPISODE.fullmatch(part) else part for part in str(array.name).split("/"))


def _check_frames(path: Path, frames: h5py.Dataset) -> None:
    key = str(frames.name).strip("/")
    if frames.external or frames.is_virtual:  # a file could make us read any other file of this machine as pixels
        raise _points_elsewhere(path, key)
    if _is_compressed(frames):
        raise InputError(f"{path} key {key!r} holds compressed pictures; decode them into an array of uint8 (N, H, W, 3) first")
    if frames.ndim not in (4, 5) or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(f"{path} key {key!r} has shape {frames.shape} instead of (N, H, W, 3) or (E, T, H, W, 3) in RGB")
    if frames.shape[-3] * frames.shape[-2] > MOST_PIXELS:
        raise InputError(
            f"{path} has frames of {frames.shape[-2]}x{frames.shape[-3]} pixels; give at most {MOST_PIXELS:,} pixels"
        )
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise InputError(f"{path} key {key!r} holds {frames.dtype}; give uint8 from 0 to 255 or floats from 0 to 1")


def _points_elsewhere(path: Path, key: str) -> InputError:
    return InputError(f"{path} key {key!r} points to another file; write its data into the file itself")


def _some(names: list[str], most: int = 6) -> str:
    shown = ", ".join(name.strip("/")[:60] for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def natural_order(name: str) -> list:
    """A key to sort names by: demo_2 before demo_10."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


# ---- episodes and actions -----------------------------------------------------------------------------------------------


def _near(file: h5py.File, frames: h5py.Dataset, names: tuple[str, ...]) -> Iterator[h5py.Dataset]:
    """The arrays with these names that lie beside the frames or further up, the nearest first."""
    parts = str(frames.name).split("/")[:-1]
    for length in range(len(parts), 0, -1):
        for name in names:
            key = "/".join([*parts[:length], name])
            if key not in file or not isinstance(file.get(key, getlink=True), h5py.HardLink):
                continue
            entry = file[key]
            if isinstance(entry, h5py.Dataset):
                if entry.external or entry.is_virtual:
                    raise _points_elsewhere(Path(frames.file.filename), key)
                yield entry


def _episode_rows(path: Path, file: h5py.File, frames: h5py.Dataset, one_of_many: bool) -> list[tuple]:
    """The position of each episode: (row,) in a 5-axis array, or (start, stop) in a 4-axis one."""
    if frames.ndim == 5:
        return [(row,) for row in range(len(frames))]
    if one_of_many:
        return [(0, len(frames))]
    found = next(_near(file, frames, ("episodes",)), None)
    if found is None:
        return _rows_between_ends(file, frames)
    fits = found.ndim == 2 and found.shape[1] == 2 and 0 < len(found) <= len(frames)
    episodes = np.asarray(found) if fits else np.zeros((0, 2))
    edges = episodes.flatten()
    fits = fits and episodes.dtype.kind in "iu" and edges.min() >= 0 and edges.max() <= len(frames)
    if not fits or (np.diff(edges.astype(np.int64)) < 0).any():
        raise InputError(f"{path} key 'episodes' is not a list of (start, stop) pairs in order within its {len(frames)} frames")
    return [(int(start), int(stop)) for start, stop in episodes if stop > start]


def _rows_between_ends(file: h5py.File, frames: h5py.Dataset) -> list[tuple]:
    """[0, 0, 1, 0, 1] in `terminals` -> (0, 3), (3, 5); several such arrays count together."""
    length = len(frames)
    flags = [np.asarray(found).reshape(-1) for found in _near(file, frames, END_KEYS) if found.shape in ((length,), (length, 1))]
    ends = np.flatnonzero(np.any(flags, axis=0)) + 1 if flags else np.empty(0, np.int64)
    edges = [0, *ends.tolist(), length]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


def _read_actions(
    path: Path, file: h5py.File, frames: h5py.Dataset, one_of_many: bool, writer: ClipStoreWriter
) -> np.ndarray | None:
    """The action that led to each frame, int64 (N,) or (E, T); -1 where unknown. None where there are none that can be kept."""
    found = next(_near(file, frames, ACTION_KEYS), None)
    if found is None:
        return None
    shape = frames.shape[:-3]
    between = (*shape[:-1], shape[-1] - 1)  # one for each transition
    try:
        actions = _discrete(found, (shape, between))
    except ValueError as error:
        left_out = writer.info.setdefault("actions_left_out", {})
        if path.name not in left_out:  # once a file, not once an episode
            left_out[path.name] = f"{str(found.name).strip('/')} {error}"
            tqdm.write(f"the actions of {path.name} are left out: {left_out[path.name]}")
        return None
    chosen_at_frame = one_of_many or next(_near(file, frames, (*END_KEYS, "rewards", "reward")), None) is not None
    if actions.shape == between or chosen_at_frame:
        unknown = np.full((*shape[:-1], 1), -1, np.int64)
        actions = np.concatenate([unknown, actions[..., : shape[-1] - 1]], axis=-1)
    known = len(writer.info.get("action_names", []))
    writer.info["action_names"] = [f"ACTION{action}" for action in range(max(known, int(actions.max()) + 1))]
    return actions


def _discrete(found: h5py.Dataset, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Whole numbers or one-hot vectors of one of the shapes as int64. Raises ValueError, the end of a sentence, for others."""
    is_vector = found.shape not in shapes
    if found.shape[: -1 if is_vector else None] not in shapes or found.dtype.kind not in "iufb":  # looked at before it is read
        raise ValueError(f"is {found.dtype} of shape {found.shape}, but the frames need one number each, {shapes[0]}")
    values = np.asarray(found)
    if is_vector and values.shape[-1] == 1:
        values, is_vector = values[..., 0], False
    if is_vector:
        if not (np.isin(values, (0, 1)).all() and (values.sum(axis=-1) == 1).all()):
            raise ValueError(f"has {values.shape[-1]} numbers for each frame, which are no one-hot choice: continuous actions")
        return values.argmax(axis=-1).astype(np.int64)
    if values.size and not (np.isfinite(values).all() and (values == np.round(values)).all()):
        raise ValueError("holds fractions: continuous actions")
    if values.size and (values.min() < -1 or values.max() > 32767):
        raise ValueError(f"holds {values.min():g} to {values.max():g}, but an action is a number from 0 to 32767")
    return values.astype(np.int64)


def _convert_episode(
    frames: h5py.Dataset, actions: np.ndarray | None, rows: tuple, writer: ClipStoreWriter, frame_step: int, fit: str
) -> None:
    start, stop = (0, frames.shape[1]) if len(rows) == 1 else rows
    frame_bytes = frames.shape[-3] * frames.shape[-2] * 3 * frames.dtype.itemsize
    chunk_frames = max(1, CHUNK_BYTES // frame_bytes) * frame_step
    for first in range(start, stop, chunk_frames):
        last = min(first + chunk_frames, stop)
        part = (rows[0], slice(first, last, frame_step)) if len(rows) == 1 else slice(first, last, frame_step)
        chunk = frames[part]
        if chunk.dtype != np.uint8 and not (chunk.min() >= -0.01 and chunk.max() <= 1.01):  # refuses NaN too
            found = f"floats from {chunk.min():g} to {chunk.max():g}"
            raise InputError(f"{frames.file.filename} holds {found}; give floats from 0 to 1, or uint8")
        pixels = chunk if chunk.dtype == np.uint8 else (np.clip(chunk, 0.0, 1.0) * 255.0).round().astype(np.uint8)
        resized = np.stack([fit_frame(frame, writer.frame_size, fit) for frame in pixels])
        # with frame_step > 1 a step joins several actions, which no single number can represent
        writer.add_frames(resized, actions[part] if actions is not None and frame_step == 1 else None)
    writer.end_episode()
