"""Starting points for the exercises of chapter 4. Fill in the functions, then check them:

make exercises CHAPTER=4
"""

import gymnasium
import numpy as np


def size_of_dream(num_games: int, start_frames: int, num_actions: int, frame_size: int) -> tuple[int, ...]:
    """Exercise 1. The shape of what `world.rollout` returns for num_games games of start_frames frames, num_actions actions."""
    raise NotImplementedError


def keys_pressed(pattern: str, num_frames: int) -> list[str]:
    """Exercise 2. The keys that --actions presses, one for each frame: "LEFT*2,NOOP" is repeated until num_frames are full."""
    raise NotImplementedError


def obedience(real: np.ndarray, dreamed: np.ndarray, still: float) -> float:
    """Exercise 3. The share of steps in which the dreamed player moves as the real one does: back, not at all, or forth.

    real, dreamed: (B, K + 1) positions in pixels, NaN where the player was not found. A step shorter than `still` is none. Steps
    whose real player is unknown are left out; steps whose dreamed player is unknown are disobeyed.
    """
    raise NotImplementedError


def ball_gap(seen: np.ndarray, seen_real: np.ndarray, first: int = 16) -> float:
    """Exercise 4. How far the share of dreamed frames with a ball is from that of real ones: percentage points, never negative.

    seen, seen_real: (S, K) bool. Counted from dreamed frame `first` on, where frame 1 is the first dreamed one.
    """
    raise NotImplementedError


class BrickReward(gymnasium.Wrapper):
    """Exercise 5. Pays 1 in every step in which at least `smallest` pixels of the wall turn black, else 0.

    The wall: rows 17 to 29 of a 64 x 64 frame, both included, columns 4 to 59. Black: all channels below 40. What the ball does
    in front of the wall, a pixel or two, must not pay.
    """

    def __init__(self, env: gymnasium.Env, smallest: int = 4):
        super().__init__(env)
        self.smallest = smallest

    def reset(self, *, seed=None, options=None):
        """Begin, and remember the wall."""
        raise NotImplementedError

    def step(self, action):
        """Play on, and pay."""
        raise NotImplementedError
