"""Reads video from HDF5 files: an array of frames, with or without actions. The first of the frame keys that exists is used.

frames, video, videos, observations, images   (N, H, W, 3) one long video, or (E, T, H, W, 3) one row per episode
actions                                       (N,) or (E, T), optional: actions[t] led from frame t-1 to frame t
episodes                                      (E, 2), optional: start and stop of each episode of one long video
"""

from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.video_files import MOST_PIXELS, BadVideo, fit_frame
from video_tokenizer.errors import InputError

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
FRAME_KEYS = ("frames", "video", "videos", "observations", "images")
CHUNK_BYTES = 64 * 2**20
"""how much is read at a time"""


def convert_hdf5(path: Path, writer: ClipStoreWriter, frame_step: int = 1, fit: str = "crop") -> None:
    """Write the episodes of one HDF5 file. Raises InputError for a damaged file, a missing key or arrays of the wrong kind."""
    try:
        with h5py.File(path, "r") as file:
            key = next((name for name in FRAME_KEYS if isinstance(file.get(name), h5py.Dataset)), None)
            if key is None:
                raise InputError(
                    f"{path} has no key {', '.join(FRAME_KEYS[:-1])} or {FRAME_KEYS[-1]}, only {', '.join(file) or 'none'}"
                )
            frames = file[key]
            assert isinstance(frames, h5py.Dataset)
            _check_lies_inside(path, file)
            _check_frames(path, key, frames)
            actions = _read_actions(path, file, frames, writer)
            for rows in tqdm(_episode_rows(path, file, frames), desc="decoding", unit="episode", disable=None):
                _convert_episode(frames, actions, rows, writer, frame_step, fit)
    except InputError:
        raise
    except BadVideo as error:
        raise InputError(f"{path} {error}; ask for a smaller size") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # h5py fails in many ways
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read as HDF5 ({reason}); write it again or give another file") from error


def _check_lies_inside(path: Path, file: h5py.File) -> None:
    """Refuse external links: through them a file could make us read any other file of this machine as pixels."""
    for key in [*FRAME_KEYS, "actions", "episodes"]:
        link = file.get(key, getlink=True) if key in file else None
        entry = file.get(key)
        if isinstance(link, h5py.ExternalLink) or (isinstance(entry, h5py.Dataset) and (entry.external or entry.is_virtual)):
            raise InputError(f"{path} key {key!r} points to another file; write its data into the file itself")


def _check_frames(path: Path, key: str, frames: h5py.Dataset) -> None:
    if frames.ndim not in (4, 5) or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(f"{path} key {key!r} has shape {frames.shape} instead of (N, H, W, 3) or (E, T, H, W, 3) in RGB")
    if frames.shape[-3] * frames.shape[-2] > MOST_PIXELS:
        raise InputError(
            f"{path} has frames of {frames.shape[-2]}x{frames.shape[-3]} pixels; give at most {MOST_PIXELS:,} pixels"
        )
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise InputError(f"{path} key {key!r} holds {frames.dtype}; give uint8 from 0 to 255 or floats from 0 to 1")


def _read_actions(path: Path, file: h5py.File, frames: h5py.Dataset, writer: ClipStoreWriter) -> np.ndarray | None:
    """The actions, integers with one per frame; the store names them ACTION0, ACTION1, ...; None where there are none."""
    if "actions" not in file:
        return None
    found = file["actions"]
    shape = found.shape if isinstance(found, h5py.Dataset) else "a group"
    fits = isinstance(found, h5py.Dataset) and shape == frames.shape[:-3] and found.dtype.kind in "iu"
    actions = np.asarray(found) if fits else np.zeros(0)  # read only if it is no larger than the frames
    if not fits or actions.min() < -1 or actions.max() > 32767:
        raise InputError(
            f"{path} key 'actions' is {getattr(found, 'dtype', 'a group')} of shape {shape}, but the frames need integers "
            f"from -1 to 32767 of shape {frames.shape[:-3]}"
        )
    known = len(writer.info.get("action_names", []))
    writer.info["action_names"] = [f"ACTION{action}" for action in range(max(known, int(actions.max()) + 1))]
    return actions


def _episode_rows(path: Path, file: h5py.File, frames: h5py.Dataset) -> list[tuple]:
    """The position of each episode: (row,) in a 5-axis array, or (start, stop) in a 4-axis one."""
    if frames.ndim == 5:
        return [(row,) for row in range(len(frames))]
    if "episodes" not in file:
        return [(0, len(frames))]
    found = file["episodes"]
    fits = isinstance(found, h5py.Dataset) and found.ndim == 2 and found.shape[1] == 2 and 0 < len(found) <= len(frames)
    episodes = np.asarray(found) if fits else np.zeros((0, 2))
    edges = episodes.flatten()
    fits = fits and episodes.dtype.kind in "iu" and edges.min() >= 0 and edges.max() <= len(frames)
    if not fits or (np.diff(edges.astype(np.int64)) < 0).any():
        raise InputError(f"{path} key 'episodes' is not a list of (start, stop) pairs in order within its {len(frames)} frames")
    return [(int(start), int(stop)) for start, stop in episodes]


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
