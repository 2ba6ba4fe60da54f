"""Where a game is worth taking over: with the ball in flight, where the ball can be detected, else where most is going on."""

import numpy as np

from video_tokenizer.games.detectors import detect_ball, game_facts
from world_model.world import WorldModel


def is_ball_game(env_id: str | None) -> bool:
    """Whether the ball of this game can be detected."""
    facts = game_facts(env_id or "")
    return facts is not None and facts.ball is not None


def ball_in_flight(frames: np.ndarray, env_id: str) -> bool:
    """Whether a player who takes over after frames (T, H, W, 3) has a ball to wait for: seen in both of the last two, and in the
    middle half between its ends, neither about to be lost nor just returned."""
    facts = game_facts(env_id)
    across = 1 if facts is None or facts.player_axis == "x" else 0  # of x and y, the axis along which the ball is lost
    place = detect_ball(frames[-2:], env_id)[:, across] / frames.shape[2 - across]  # NaN where there is no ball
    return bool(not np.isnan(place).any() and 0.25 < place[-1] < 0.75)


def lively_starts(world: WorldModel) -> list[int]:
    """Numbers of the start clips that are worth playing from: those with the ball in flight. Where there is none, or no known
    ball, it is the clip whose frames differ most from the background, the median of all."""
    clips, env_id = world.start_frames, world.metadata.env_id
    if not len(clips):
        return [0]
    flying = [number for number, clip in enumerate(clips) if is_ball_game(env_id) and ball_in_flight(clip, env_id or "")]
    distance = np.abs(clips - np.median(clips, axis=(0, 1))).mean(axis=(1, 2, 3, 4))
    return flying or [int(distance.argmax())]
