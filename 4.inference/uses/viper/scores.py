"""How well a reward tells players apart, and where in a frame it is surprised."""

import numpy as np
from scipy.stats import rankdata

from video_tokenizer.games.detectors import SCREEN_SIZE, detect_ball, detect_player, game_facts


def area_under_curve(better: np.ndarray, worse: np.ndarray) -> float:
    """The share of pairs in which the better one has the higher value; a tie counts half. 0.5 is chance."""
    ranks = rankdata(np.concatenate([better, worse]))[: len(better)]
    return float((ranks.sum() - len(better) * (len(better) + 1) / 2) / (len(better) * len(worse)))


def as_rows(frames: np.ndarray) -> np.ndarray:
    """uint8 (F, H, W, 3) as float32 (F, D) in [0, 1]."""
    return frames.reshape(len(frames), -1).astype(np.float32) / 255


def nearest_frame_similarity(frames: np.ndarray, expert: np.ndarray) -> np.ndarray:
    """Minus the mean squared error to the nearest frame of the expert, (F,): the baseline that knows no motion.

    frames: (F, D) and expert: (E, D), of `as_rows`.
    """
    distances = (frames**2).sum(axis=1, keepdims=True) - 2 * frames @ expert.T + (expert**2).sum(axis=1)  # (F, E)
    return -distances.min(axis=1) / frames.shape[1]


def object_patches(frames: np.ndarray, env_id: str, grid_size: tuple[int, int]) -> np.ndarray:
    """bool (F, rows, columns): patches that ball or player touch in this frame or in the one before."""
    facts = game_facts(env_id)
    assert facts is not None and facts.player is not None
    pixels = np.array([frames.shape[2] / SCREEN_SIZE[1], frames.shape[1] / SCREEN_SIZE[0]])  # per pixel of the screen, x and y
    top, bottom, left, right = facts.player.boxes[0]
    along = 0 if facts.player_axis == "x" else 1
    half = np.array([right - left, bottom - top]) / 2
    half[along] = facts.player.lengths[0] / 2
    players = np.tile(np.array([left + right, top + bottom]) / 2 * pixels - 0.5, (len(frames), 1))
    players[:, along] = detect_player(frames, env_id)
    touched = np.zeros((len(frames), *grid_size), bool)
    for centers, sizes in ((players, half * pixels), (detect_ball(frames, env_id), np.array([1.0, 2.0]) * pixels)):
        patch = np.array([frames.shape[2] / grid_size[1], frames.shape[1] / grid_size[0]])
        for number in np.flatnonzero(np.isfinite(centers).all(axis=1)):
            first = np.maximum((centers[number] - sizes + 0.5) // patch, 0).astype(int)
            last = ((centers[number] + sizes + 0.5) // patch).astype(int)
            touched[number, first[1] : last[1] + 1, first[0] : last[0] + 1] = True
    touched[1:] |= touched[:-1].copy()
    return touched
