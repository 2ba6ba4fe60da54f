"""Reading the files of a clip store without trusting them: whatever is wrong, the answer is one sentence."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from video_tokenizer.training.command_line import InputError

FORMAT_VERSION = 1
UNKNOWN_ACTION = -1
INFO_TYPES: dict[str, Callable[[Any], bool]] = {
    "action_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "env_id": lambda value: isinstance(value, str),
    "frames_per_second": lambda value: isinstance(value, int | float) and 0 < value < 10_000,
    "frame_skip": lambda value: isinstance(value, int) and value >= 1,
    "picture_delay": lambda value: isinstance(value, int) and value >= 0,
    "merged_frames": lambda value: isinstance(value, int) and value >= 1,
}
"""entries of clip_store.json that are used later on, and what they must be where they are present"""


def digest_of(frames: np.ndarray, actions: np.ndarray, episodes: np.ndarray) -> Any:
    """sha256 over 64 evenly spaced frames, all actions and all episodes: quick for a store of any size."""
    digest = hashlib.sha256()
    for frame in np.linspace(0, len(frames) - 1, num=min(64, len(frames)), dtype=np.int64):
        digest.update(np.ascontiguousarray(frames[frame]).tobytes())
    for part in (actions, episodes):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest


def read_info(path: Path) -> dict:
    """clip_store.json. Raises InputError where it is no JSON, of another version, or has entries of the wrong kind."""
    try:
        info = json.loads((path / "clip_store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path / 'clip_store.json'} cannot be read as JSON ({error}); record or convert it again") from error
    version = info.get("format_version") if isinstance(info, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has clip store format {version}, this code reads format {FORMAT_VERSION}; record it again")
    for name, is_right in INFO_TYPES.items():
        if info.get(name) is not None and not is_right(info[name]):
            value = str(info[name])[:60]
            raise InputError(f"{path / 'clip_store.json'} has {name} {value!r}, which is of the wrong kind; record it again")
    return info


def read_array(path: Path, name: str, dtype: str, num_axes: int) -> np.ndarray:
    """One array of the store, frames memory-mapped. Raises InputError where the file is damaged or of another type."""
    try:
        array = np.lib.format.open_memmap(path / name, mode="r")  # refuses objects, and a header that claims more than there is
    except Exception as error:  # numpy reads the header with Python's own parser, which complains in many ways
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path / name} is damaged or cut short ({reason}); record or convert it again") from error
    if array.dtype != dtype or array.ndim != num_axes:
        raise InputError(
            f"{path / name} holds {array.dtype} with {array.ndim} axes instead of {dtype} with {num_axes}; record it again"
        )
    return array if name == "frames.npy" else np.array(array)


def check_contents(path: Path, frames: np.ndarray, actions: np.ndarray, episodes: np.ndarray, info: dict) -> None:
    """Raise InputError where the parts do not fit together."""
    if 0 in frames.shape:
        raise InputError(f"{path / 'frames.npy'} has shape {frames.shape}, so it holds nothing; record it again")
    if frames.shape[3] != 3:
        raise InputError(f"{path / 'frames.npy'} has {frames.shape[3]} colour channels instead of 3 (RGB); record it again")
    if len(actions) != len(frames):
        raise InputError(f"{path} has {len(frames)} frames but {len(actions)} actions; record it again")
    if episodes.shape[1] != 2 or len(episodes) == 0:
        raise InputError(f"{path / 'episodes.npy'} has shape {episodes.shape} instead of (episodes, 2); record it again")
    starts, stops = episodes[:, 0], episodes[:, 1]
    if starts.min() < 0 or stops.max() > len(frames) or (starts >= stops).any() or (starts[1:] < stops[:-1]).any():
        raise InputError(f"{path / 'episodes.npy'} has episodes that overlap or leave the {len(frames)} frames; record it again")
    num_actions = len(info.get("action_names") or [])
    if actions.min() < UNKNOWN_ACTION or (num_actions and actions.max() >= num_actions):
        raise InputError(
            f"{path / 'actions.npy'} holds actions from {actions.min()} to {actions.max()}, "
            f"but clip_store.json names {num_actions}; record it again"
        )
    if "checksum" in info and info["checksum"] != digest_of(frames, actions, episodes).hexdigest():
        raise InputError(f"{path} is not as it was written, its checksum is another; record or convert it again")
