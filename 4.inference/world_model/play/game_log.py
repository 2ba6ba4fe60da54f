"""A played game: every action, setting and frame, to save as a film and to replay bit for bit."""

import hashlib
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_model.models.base import Sampling
from video_tokenizer.errors import InputError
from world_model.film import save_film
from world_model.starts import frames_to_text

MAX_FILM_FRAMES = 900
"""a minute at 15 frames per second; later ones are played but not kept, so that a tab left open does not fill the memory"""


class GameLog:
    """What happened since a dream started. Frames are kept compressed: a few hundred bytes each instead of 12,288."""

    def __init__(self, world: str, start: dict[str, Any], seed: int, sampling: Sampling):
        """start: {"start_index": 3}, or `start_facts` of the frames and actions from which the dream started."""
        self.facts = {"world": world, **start, "seed": seed, **vars(sampling)}
        self.sampling = sampling
        self.actions: list[int] = []
        self.labels: list[str] = []
        self.changes: list[dict[str, Any]] = []
        self.frames: dict[str, list[bytes]] = {}
        self.shape: tuple[int, ...] = ()
        self.digest = hashlib.sha256()

    @property
    def full(self) -> bool:
        """Whether the film has reached its longest."""
        return len(self.actions) >= MAX_FILM_FRAMES

    def add(self, action: int, label: str, sampling: Sampling, frames: dict[str, np.ndarray]) -> None:
        """Keep one step. frames: "dream" first, then "real game" where it is played -> (H, W, 3) uint8."""
        if self.full:
            return
        if sampling != self.sampling:
            self.changes.append({"frame": len(self.actions), **vars(sampling)})
            self.sampling = sampling
        self.actions.append(action)
        self.labels.append(label)
        self.shape = frames["dream"].shape
        self.digest.update(frames["dream"].tobytes())
        for name, frame in frames.items():
            self.frames.setdefault(name, []).append(zlib.compress(frame.tobytes(), 1))

    def to_json(self) -> bytes:
        """The recording that `generate.py --actions-file` replays. Raises InputError where nothing was played."""
        self.check()
        recording = self.facts | {
            "changes": self.changes,
            "actions": self.actions,
            "keys": self.labels,
            "frames_sha256": self.digest.hexdigest(),
        }
        return json.dumps(recording).encode()

    def to_film(self, suffix: str, frames_per_second: float) -> bytes:
        """The bytes of a .gif or .mp4 file, dream and real game side by side. Raises InputError where nothing was played."""
        self.check()
        videos = {name: self.video(name) for name in self.frames}
        if len(videos) == 1:
            videos = {"": videos["dream"]}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"film{suffix}"
            save_film(path, videos, self.labels, frames_per_second)
            return path.read_bytes()

    def video(self, name: str) -> np.ndarray:
        """All frames of "dream" or "real game": (T, H, W, 3) uint8."""
        frames = [np.frombuffer(zlib.decompress(frame), np.uint8) for frame in self.frames[name]]
        return np.stack(frames).reshape(-1, *self.shape)

    def check(self) -> None:
        """Raise InputError where there is nothing to save."""
        if not self.actions:
            raise InputError("there is nothing to save yet; play a few frames first")


def start_facts(frames: np.ndarray, actions: np.ndarray | None) -> dict[str, Any]:
    """Start frames (T, H, W, 3) and their actions (T,) or None, as a recording stores them."""
    return {"start_frames": frames_to_text(frames), "start_actions": None if actions is None else actions.tolist()}
