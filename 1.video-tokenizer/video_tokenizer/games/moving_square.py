"""A synthetic game for tests and trial runs: a bright square on a dark background, moved by known actions."""

import tempfile
from pathlib import Path

import numpy as np

from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store

SQUARE_ACTIONS = ("NOOP", "UP", "DOWN", "LEFT", "RIGHT")
SQUARE_MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])  # rows and columns per unit of speed
SQUARE_COLOR = (240, 200, 40)
BACKGROUND_COLOR = (20, 30, 60)


def dummy_clip_store(
    path: str | Path | None = None,
    num_episodes: int = 8,
    episode_frames: int = 64,
    frame_size: tuple[int, int] = (64, 64),
    seed: int = 0,
) -> ClipStore:
    """Write and open a clip store of this game. The same arguments give the same frames, actions and fingerprint.

    path: its folder, overwritten if it is a clip store; None creates a temporary folder. frame_size: (height, width). The
    side of the square is a quarter of the frame's. Per step it moves by a sixteenth, at least 1 pixel, in the action's direction.
    """
    folder = Path(path) if path is not None else Path(tempfile.mkdtemp(prefix="moving-square-")) / "clip_store"
    info = {
        "source": "moving square",
        "env_id": None,
        "action_names": list(SQUARE_ACTIONS),
        "frame_skip": 1,
        "picture_delay": 0,
        "frames_per_second": 15.0,
        "linear_light": None,
        "seed": seed,
        "policy": "random",
    }
    rng = np.random.default_rng(seed)
    with ClipStoreWriter(folder, frame_size, info, overwrite=True) as writer:
        for _ in range(num_episodes):
            writer.add_episode(*_square_episode(episode_frames, frame_size, rng))
    return open_clip_store(folder)


def _square_episode(num_frames: int, frame_size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """frames uint8 (F, H, W, 3) and actions int16 (F,): actions[f] moved the square from frame f-1 to f."""
    side, speed = max(2, min(frame_size) // 4), max(1, min(frame_size) // 16)
    room = np.array(frame_size) - side  # largest values of the top left corner
    corner = rng.integers(0, room + 1)
    actions = rng.integers(len(SQUARE_ACTIONS), size=num_frames).astype(np.int16)
    frames = np.empty((num_frames, *frame_size, 3), dtype=np.uint8)
    frames[:] = BACKGROUND_COLOR
    for f in range(num_frames):
        if f > 0:
            corner = np.clip(corner + speed * SQUARE_MOVES[actions[f]], 0, room)
        top, left = corner
        frames[f, top : top + side, left : left + side] = SQUARE_COLOR
    return frames, actions
