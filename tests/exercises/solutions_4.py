"""Solutions of the exercises of chapter 4. Try first; there are other ways."""

import gymnasium
import numpy as np


def size_of_dream(num_games: int, start_frames: int, num_actions: int, frame_size: int) -> tuple[int, ...]:
    """Exercise 1: only what was dreamed, one frame for each action."""
    return num_games, num_actions, frame_size, frame_size, 3


def keys_pressed(pattern: str, num_frames: int) -> list[str]:
    """Exercise 2: first the pattern once, then again and again."""
    once = []
    for item in pattern.split(","):
        key, _, count = item.partition("*")
        once += [key] * int(count or 1)
    return [once[frame % len(once)] for frame in range(num_frames)]


def obedience(real: np.ndarray, dreamed: np.ndarray, still: float) -> float:
    """Exercise 3: a step is a difference, its direction a sign; NaN equals nothing, not even itself."""

    def directions(positions: np.ndarray) -> np.ndarray:
        steps = np.diff(positions, axis=1)
        return np.where(np.isnan(steps), np.nan, np.sign(steps) * (np.abs(steps) >= still))

    there = directions(real)
    known = ~np.isnan(there)
    return float((directions(dreamed) == there)[known].mean())


def ball_gap(seen: np.ndarray, seen_real: np.ndarray, first: int = 16) -> float:
    """Exercise 4: before that, the ball of the start frames is still there."""
    return 100 * abs(float(seen[:, first - 1 :].mean()) - float(seen_real[:, first - 1 :].mean()))


class BrickReward(gymnasium.Wrapper):
    """Exercise 5: compare the wall with what it was a step ago."""

    def __init__(self, env: gymnasium.Env, smallest: int = 4):
        super().__init__(env)
        self.smallest = smallest
        self.stood = np.zeros(0, bool)

    @staticmethod
    def wall(frame: np.ndarray) -> np.ndarray:
        """Where the wall stands, (13, 56) bool."""
        return frame[17:30, 4:60].max(axis=-1) >= 40

    def reset(self, *, seed=None, options=None):
        """Begin, and remember the wall."""
        frame, info = self.env.reset(seed=seed, options=options)
        self.stood = self.wall(frame)
        return frame, info

    def step(self, action):
        """Play on, and pay."""
        frame, _, terminated, truncated, info = self.env.step(action)
        stands = self.wall(frame)
        fallen = int((self.stood & ~stands).sum())
        self.stood = stands
        return frame, float(fallen >= self.smallest), terminated, truncated, info
