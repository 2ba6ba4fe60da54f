"""A film of what a planner imagines: all futures of a decision on top of each other, beside the one that it chose."""

import numpy as np

from uses.planning.planner import Planner
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from world_model.ball_game import BallGame
from world_model.scored_games import SCORED_SEEDS

PAUSE = 2
"""times that the last imagined frame is shown once more, so that an eye can rest on it"""


def film_futures(planner: Planner, env: BallGame, num_decisions: int, seed: int = 0) -> tuple[dict[str, np.ndarray], list[str]]:
    """Play the first scored game up to this many decisions in a row with the ball nearing the player, and film these.

    Returns the panels, label -> uint8 (T, h, w, 3), and a caption for each frame. While a panel imagines, the real game waits.
    Raises InputError if the ball never came near.
    """
    facts = game_facts(env.env_id)
    assert facts is not None, "BallGame supports this game"
    names = ("no key", *facts.player_keys)
    seen, info = env.reset(seed=SCORED_SEEDS + 1000 * seed)
    pages: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    captions: list[str] = []
    decisions, over = 0, False
    while not over and decisions < num_decisions:
        frame, before = info["frame"], planner.found
        key = planner(seen, frame)
        chosen = None if planner.found is before else planner.found
        nearing = seen[-1] and seen[-2] > max(seen[2], 0.5)  # the ball's distance from the far side, now and one frame earlier
        if chosen is not None and (nearing or decisions):
            decisions += 1
            best = chosen.futures[chosen.costs.argmin()]
            fan = overlaid(chosen.futures)  # (H, h, w, 3)
            pages += [(frame, many, one) for many, one in zip(fan, best, strict=True)] + PAUSE * [(frame, fan[-1], best[-1])]
            captions += [f"decision {decisions}: {len(chosen.costs)} futures"] * (len(fan) + PAUSE)
        seen, _, terminated, truncated, info = env.step(key)
        over = terminated or truncated
        if decisions:
            pages.append((info["frame"],) * 3)
            captions.append(f"pressed: {names[key]}")
    if not pages:
        raise InputError(f"in {env.env_id} the ball never came near the player within the game; raise --game-steps")
    labels = ("the real game", "all futures", "the one it chose")
    return {label: np.stack([page[number] for page in pages]) for number, label in enumerate(labels)}, captions


def overlaid(futures: np.ndarray) -> np.ndarray:
    """Futures (N, H, h, w, 3) as one film (H, h, w, 3): every pixel shows the future in which it is brightest, since balls and
    paddles are brighter than what lies behind them."""
    brightest = futures.sum(axis=-1, dtype=np.int64, keepdims=True).argmax(axis=0)  # (H, h, w, 1)
    return np.take_along_axis(futures, brightest[None], axis=0)[0]
