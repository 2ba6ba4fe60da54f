"""What a plan should bring about, judged from imagined pictures alone: lower is better."""

from collections.abc import Callable

import numpy as np
import torch

from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts

Cost = Callable[[np.ndarray, str], np.ndarray]
"""frames (N, H, h, w, 3) uint8 of N imagined futures, and the game's id -> costs (N,), NaN where nothing can be said"""


def positions(frames: np.ndarray, env_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Player, ball along the player's axis, and ball towards the player's line: (N, H) each, in shares of the frame.

    The last one is 0 at the far side of the field and 1 at the player's. NaN where the detectors of chapter 1 find nothing.
    """
    facts = game_facts(env_id)
    axis = 0 if facts is None or facts.player_axis == "x" else 1
    film = frames.reshape(-1, *frames.shape[2:])  # (N*H, h, w, 3)
    sides = np.array([frames.shape[3], frames.shape[2]])
    player, ball = detect_player(film, env_id) / sides[axis], detect_ball(film, env_id) / sides
    return tuple(one.reshape(frames.shape[:2]) for one in (player, ball[:, axis], ball[:, 1 - axis]))  # type: ignore[return-value]


def agreed(values: np.ndarray) -> np.ndarray:
    """The median over the futures (N, H) for every frame, as the value of all of them; NaN where no future has one.

    It is for what no key can change, such as where the ball flies until it meets the player. A future that says something else is
    wrong, and must not be the cheapest because of that.
    """
    return np.broadcast_to(torch.from_numpy(values).nanmedian(dim=0).values.numpy(), values.shape)


def mean_where(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of each row of values (N, H), without NaN; NaN for a row that has no weight."""
    weights = np.where(np.isfinite(values), weights, 0.0)
    total = weights.sum(axis=1)
    return np.divide((np.nan_to_num(values) * weights).sum(axis=1), total, out=np.full(len(values), np.nan), where=total > 0)


def distance(player: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """Between player and ball. A player that is lost in the dream counts as a whole frame away, so that losing it never pays."""
    return np.where(np.isnan(player) & np.isfinite(ball), 1.0, np.abs(player - ball))


def stay_under_the_ball(frames: np.ndarray, env_id: str) -> np.ndarray:
    """The distance between player and ball in every imagined frame, on average."""
    player, ball, _ = positions(frames, env_id)
    return mean_where(distance(player, agreed(ball)), np.ones_like(player))


def meet_the_ball(frames: np.ndarray, env_id: str) -> np.ndarray:
    """The distance between player and ball, which counts for more the closer the ball is to the player's line."""
    player, ball, near = positions(frames, env_id)
    return mean_where(distance(player, agreed(ball)), np.nan_to_num(agreed(near)) ** 8)


COSTS: dict[str, Cost] = {"meet_the_ball": meet_the_ball, "stay_under_the_ball": stay_under_the_ball}
"""name for the command line -> cost; write your own above, and add it here"""
