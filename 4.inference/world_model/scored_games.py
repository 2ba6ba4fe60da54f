"""Games of the emulator in which agents are scored: no two of them are alike, and all agents play the same ones.

Breakout and Pong are deterministic, so an agent without chance would play one and the same game over and over. Two things make
thirty games of them. Each begins after a random number of NOOP steps, and in every emulator frame the key of the frame before it
may be held once more (sticky keys, arXiv:1709.06009).
"""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from video_tokenizer.errors import InputError
from world_model.ball_game import BallGame, RealGameEnv, three_keys
from world_model.real_game import open_game
from world_model.world import WorldModel

SCORED_SEEDS = 1_900_000_000
"""seed of the first scored game; no recording and no evaluation uses it"""
STICKY = 0.25
"""probability that an emulator frame repeats the key of the one before it"""
CLOSE = 0.03
"""share of the frame within which the rule by hand does not move"""
Agent = Callable[[np.ndarray, np.ndarray], int]
"""what `BallGame` observes, and the frame itself -> 0 stays, 1 and 2 move to smaller and larger positions"""
Newcomer = Callable[[int], Agent]
"""seed -> an agent at the beginning of a game"""


def open_scored_game(world: WorldModel, env_id: str | None, game_steps: int) -> BallGame:
    """The world's own game with sticky keys, of at most game_steps frames. Raises InputError for a world without a game."""
    env_id = env_id or world.metadata.env_id
    if not env_id:
        raise InputError("this world was learned from videos and names no game to play; give --env")
    game = open_game(env_id, world.metadata, world.frame_size, STICKY)
    numbers = {name: number for number, name in enumerate(game.action_names)}
    return BallGame(RealGameEnv(game, game_steps), env_id, three_keys(env_id, numbers))


def play(newcomer: Newcomer, env: BallGame, num_games: int, seed: int, name: str = "playing") -> dict[str, float]:
    """Play num_games games, each with a new agent. Returns means over the games, and how far scores and lost balls spread.

    balls_lost: lives or points that a game cost. frames_with_ball: how long the ball was in play. distance_px: between player and
    ball along the player's axis, in pixels, over all frames with a ball.
    """
    scores, lost, with_ball, rewards = [], [], [], []
    for number in tqdm(range(num_games), desc=name, unit="game", disable=None):
        agent = newcomer(seed * 1000 + number)
        seen, info = env.reset(seed=SCORED_SEEDS + 1000 * seed + number)
        score, balls, frames, over = 0.0, 0.0, 0, False
        while not over:
            seen, reward, terminated, truncated, info = env.step(agent(seen, info["frame"]))
            score, balls, frames = score + info["score"], balls + info["balls_lost"], frames + int(seen[-1])
            over = terminated or truncated
            if seen[-1]:
                rewards.append(reward)
        scores.append(score)
        lost.append(balls)
        with_ball.append(frames)
    pixels = env.env.observation_space.shape[1 - env.axis]  # type: ignore[index]
    return {
        "score": float(np.mean(scores)),
        "score_standard_deviation": float(np.std(scores)),
        "score_standard_error": float(np.std(scores) / np.sqrt(num_games)),
        "balls_lost": float(np.mean(lost)),
        "balls_lost_standard_error": float(np.std(lost) / np.sqrt(num_games)),
        "frames_with_ball": float(np.mean(with_ball)),
        "distance_px": -float(np.mean(rewards or [np.nan])) * pixels,
    }


def baselines() -> dict[str, Newcomer]:
    """The players that every agent is compared with: random keys, none, and a rule that follows the ball."""

    def chance(seed: int) -> Agent:
        rng = np.random.default_rng(seed)
        return lambda seen, frame: int(rng.integers(3))

    def follow(seen: np.ndarray, frame: np.ndarray) -> int:
        player, ball, _, is_seen = seen[-4:]
        return 0 if not is_seen or abs(ball - player) < CLOSE else 1 + int(ball > player)

    return {"chance": chance, "standing still": lambda seed: lambda seen, frame: 0, "a rule by hand": lambda seed: follow}
