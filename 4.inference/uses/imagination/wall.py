"""Which bricks of Breakout are really gone: read off the picture, to see whether the reward head pays for nothing."""

import numpy as np

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import SCREEN_SIZE

BREAKOUT = "ALE/Breakout-v5"
BRICK_ROWS = (57, 93)
"""rows of the Atari's screen that the wall fills"""
BLACK = 40
"""a pixel of the wall whose brightest color is below this shows the background"""
HOLE = 2 / 64**2
"""share of the frame that becomes black where a brick is hit: two of 64x64 pixels at least"""
NEAR = 2
"""frames by which a payment may come too early or too late"""
EDGE = NEAR + 1
"""frames at both ends of a film whose payments cannot be checked: `hits` finds none in its first frame and none in its last"""


def check_has_a_wall(env_id: str) -> None:
    """Raise InputError for another game, whose payments cannot be checked in the picture."""
    if env_id.removeprefix("ale_py:") != BREAKOUT:
        raise InputError(f"the bricks of {env_id} cannot be counted; give a world of {BREAKOUT}")


def hits(frames: np.ndarray) -> np.ndarray:
    """bool (T, B): frames (T, B, H, W, 3) uint8 from which on the wall has a hole that was not there before, and that stays.

    One frame later it has to be there as well: a ball in front of a hole hides it, and a drawn brick may flicker.
    """
    rows = slice(*(round(row * frames.shape[2] / SCREEN_SIZE[0]) for row in BRICK_ROWS))
    black = (frames[:, :, rows].max(axis=-1) < BLACK).sum(axis=(2, 3))  # (T, B)
    stays = np.minimum(black[1:-1], black[2:])
    result = np.zeros(black.shape, bool)
    result[1:-1] = stays - black[:-2] >= HOLE * frames.shape[2] * frames.shape[3]
    return result


def near(happened: np.ndarray) -> np.ndarray:
    """bool (T, B): frames with an event at most NEAR frames earlier or later."""
    result = happened.copy()
    for shift in range(1, NEAR + 1):
        result[shift:] |= happened[:-shift]
        result[:-shift] |= happened[shift:]
    return result


def audit(paid: list[np.ndarray], happened: list[np.ndarray]) -> dict[str, float]:
    """What a head paid, and what was hit, in films (T, B): both per 100 frames, and the share paid for no hit nearby.

    The first and last EDGE frames of every film are left out, because a hit near them can lie where nobody can see it.
    """
    pay, hit, unfounded = (np.concatenate([film[EDGE:-EDGE].ravel() for film in films])
                           for films in (paid, happened, [~near(film) for film in happened]))  # fmt: skip
    return {
        "paid": 100 * float(pay.mean()),
        "hits": 100 * float(hit.mean()),
        "for_nothing": float(pay[unfounded].sum() / max(pay.sum(), 1e-9)),
    }
