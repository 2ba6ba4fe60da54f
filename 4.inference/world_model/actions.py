"""From what a player types to action numbers: numbers, key names, patterns, random actions, or a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_model.models.base import Sampling
from dynamics_model.models.maskgit import MaskGITSampling
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import config_from_dict


@dataclass(frozen=True)
class ActionFile:
    """A recorded game: its actions, and everything else that a replay needs."""

    actions: tuple[int | str, ...]
    """action numbers or key names, one for each frame"""
    settings: dict[str, Any]
    """`seed`, `start_index` and sampling settings, if the file holds them"""
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """frame, counted from 0 -> sampling settings from that frame on"""
    start_frames: str | None = None
    """the frames before the first action, as `starts.frames_to_text` writes them; None: start_index says where it starts"""
    start_actions: tuple[int, ...] | None = None
    """the actions that led to start_frames, None if they are to be inferred from the frames"""
    frames_sha256: str | None = None
    """digest of all recorded frames, to check that a replay predicts the same ones"""


def parse_actions(
    text: str, num_frames: int, num_actions: int, action_map: Mapping[str, int] | None = None, seed: int = 0
) -> np.ndarray:
    """Parse typed actions into one action number per frame: (num_frames,) int64 in [0, num_actions).

    text: `random`, or a comma-separated list of action numbers (`3,3,1`) and key names (`RIGHT,LEFT`, through `action_map`),
    each with an optional count. The list is repeated until it fills num_frames: `RIGHT*2,LEFT` and 5 frames give
    RIGHT RIGHT LEFT RIGHT RIGHT. A world without actions (num_actions 0) gives -1 everywhere.
    Raises InputError for an unknown name, with the known ones.
    """
    if num_actions == 0:
        return np.full(num_frames, -1, dtype=np.int64)
    if text.strip().lower() == "random":
        return np.random.default_rng(seed).integers(num_actions, size=num_frames)
    pattern: list[int] = []
    for item in text.split(","):
        name, _, count = item.partition("*")
        if count and not (count.strip().isdecimal() and int(count) > 0):
            raise InputError(f"--actions: {item.strip()!r} has the count {count.strip()!r}; write a whole number, as in RIGHT*8")
        pattern += [action_number(name, num_actions, action_map)] * min(int(count or 1), num_frames)
    return np.resize(np.array(pattern, dtype=np.int64), num_frames)


def action_number(name: int | str, num_actions: int, action_map: Mapping[str, int] | None = None) -> int:
    """The number of an action that is given as a number or as a key name (upper or lower case)."""
    names = {known.upper(): number for known, number in (action_map or {}).items()}
    key = str(name).strip().upper()
    if key in names:
        return names[key]
    if key.isdecimal() and int(key) < num_actions:
        return int(key)
    known = f"{', '.join(names)} and the numbers" if names else "the numbers"
    raise InputError(f"this world has no action {str(name).strip()!r}; there are {known} 0 to {num_actions - 1}")


def read_action_file(path: Path | str, sampling_class: type[Sampling] = MaskGITSampling) -> ActionFile:
    """Read a JSON file: a list of actions, or an object with `actions` and optional settings. Raises InputError.

    sampling_class: that of the world's dynamics model, whose settings the file may hold.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'--actions-file {path} cannot be read ({error}); give a JSON list such as [3, 3, "LEFT"]') from None
    if isinstance(content, list):
        content = {"actions": content}
    actions = content.get("actions") if isinstance(content, dict) else None
    if not isinstance(actions, list) or not actions or not all(type(action) in (int, str) for action in actions):
        raise InputError(f'--actions-file {path} holds no list of actions; write [3, 3, "LEFT"] or {{"actions": [3, 3]}}')
    frames, known, digest = (content.get(name) for name in ("start_frames", "start_actions", "frames_sha256"))
    known_is_right = known is None or (isinstance(known, list) and all(type(action) is int for action in known))
    if not (isinstance(frames, str | None) and isinstance(digest, str | None) and known_is_right):
        raise InputError(f"--actions-file {path} has damaged start_frames, start_actions or frames_sha256; save the film again")
    settings = {name: content[name] for name in ("seed", "start_index") if content.get(name) is not None}
    for name, value in settings.items():
        if type(value) is not int:
            raise InputError(f"--actions-file {path} has {name} {value!r}, which is not a whole number; correct or remove it")
    known = None if known is None else tuple(known)
    settings |= sampling_in(content, sampling_class, path)
    return ActionFile(tuple(actions), settings, changes_in(content, sampling_class, path), frames, known, digest)


def sampling_in(content: Mapping[str, Any], sampling_class: type[Sampling], path: Path | str) -> dict[str, Any]:
    """The sampling settings that an object of the file holds. Raises InputError for a value that the model does not have."""
    names = {one.name for one in fields(sampling_class)}
    settings = {name: value for name, value in content.items() if name in names and value is not None}
    try:
        config_from_dict(sampling_class, settings)
    except InputError as error:
        raise InputError(f"--actions-file {path}: {error}") from None
    return settings


def changes_in(content: Mapping[str, Any], sampling_class: type[Sampling], path: Path | str) -> dict[int, dict[str, Any]]:
    """The file's `changes`, [{"frame": 30, "temperature": 1.0}], as {30: {"temperature": 1.0}}. Raises InputError."""
    changes = content.get("changes") or []
    if not isinstance(changes, list) or not all(isinstance(one, dict) and type(one.get("frame")) is int for one in changes):
        raise InputError(f'--actions-file {path} has changes that are not a list of {{"frame": 30, "temperature": 1.0}}')
    return {one["frame"]: sampling_in(one, sampling_class, path) for one in changes}


def action_label(action: int, action_names: list[str], action_map: Mapping[str, int] | None = None) -> str:
    """The caption of a frame: the key that is mapped to this action, else the action's own name."""
    keys = [name for name, number in (action_map or {}).items() if number == action]
    if keys:
        return keys[0]
    return action_names[action] if 0 <= action < len(action_names) else ("" if action < 0 else f"action {action}")
