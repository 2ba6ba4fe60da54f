"""Train a small agent in a learned world only, then test it in the real game.

    python 4.inference/train_agent.py --world assets/worlds/breakout --json assets/4.inference/agent.json

The agent observes the positions of ball and player, as detected in the frames, and its reward is to be close to the ball
(`BallGame`). It never plays in the emulator before the test. Needs the extra: pip install -e ".[agent]"
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json
from world_model.ball_game import BallGame, RealGameEnv, three_keys
from world_model.environment import WorldModelEnv
from world_model.real_game import open_game
from world_model.world import WorldModel

TEST_SEEDS = 1_900_000_000  # seeds that no recording and no evaluation uses
Agent = Callable[[np.ndarray], int]


@dataclass(frozen=True)
class AgentConfig:
    """Train a small agent in a learned world, test it in the real game."""

    world: str = "assets/worlds/breakout"
    """folder of a world of Breakout or Pong"""
    env: str | None = None
    """Gymnasium id of the real game; default: the one the world was learned from"""
    num_steps: int = 12_000
    """frames of training in the world"""
    episode_steps: int = 64
    """frames per rollout; longer rollouts drift, and the agent would learn from worse frames"""
    num_games: int = 10
    """real games per player in the test"""
    game_steps: int = 1000
    """maximum length of a real game, in frames"""
    seed: int = 0
    """seeds the agent, its rollouts and the games of the test"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """device of the world: auto (CUDA, else cpu), cpu, cuda, cuda:1, mps; the agent is so small that it stays on the CPU"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"num_steps": 1, "episode_steps": 1, "num_games": 1, "game_steps": 1})


def train_in_the_world(env: BallGame, config: AgentConfig) -> Any:
    """Train a DQN agent on num_steps predicted frames."""
    try:
        from stable_baselines3 import DQN
    except ModuleNotFoundError:
        raise InputError('stable-baselines3 is not installed; install the extra: pip install -e ".[agent]"') from None
    agent = DQN(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        learning_starts=min(500, config.num_steps // 4),
        batch_size=128,
        gamma=0.9,  # the reward is immediate, and a second later the ball has bounced again
        train_freq=2,
        target_update_interval=500,
        exploration_fraction=0.4,
        exploration_final_eps=0.05,
        policy_kwargs={"net_arch": [64, 64]},
        seed=config.seed,
        device="cpu",
    )
    with tqdm(total=config.num_steps, desc="dreaming", unit="frame", disable=None) as bar:
        agent.learn(config.num_steps, callback=lambda *_: bar.update() or True)
    return agent


def play(agent: Agent, env: BallGame, config: AgentConfig) -> dict[str, float]:
    """Play num_games games. Returns mean scores, frames with a ball, and the distance between player and ball in pixels."""
    scores, lengths, rewards = [], [], []
    for number in range(config.num_games):
        seen, _ = env.reset(seed=TEST_SEEDS + 1000 * config.seed + number)
        score, over = 0.0, False
        begun = len(rewards)
        while not over:
            seen, reward, terminated, truncated, info = env.step(agent(seen))
            score += info["score"]
            over = terminated or truncated
            if seen[-1]:
                rewards.append(reward)
        scores.append(score)
        lengths.append(len(rewards) - begun)
    pixels = env.env.observation_space.shape[1 - env.axis]  # type: ignore[index]
    return {
        "score": float(np.mean(scores)),
        "score_standard_error": float(np.std(scores) / np.sqrt(len(scores))),
        "frames_with_ball": float(np.mean(lengths)),
        "distance_px": -float(np.mean(rewards or [np.nan])) * pixels,
    }


def make_agents(trained: Any, seed: int) -> dict[str, Agent]:
    """The players of the test: the trained agent and three baselines, the last of which follows the ball by a rule."""
    rng = np.random.default_rng(seed)

    def follow(seen: np.ndarray) -> int:
        player, ball, _, is_seen = seen[-4:]
        return 0 if not is_seen or abs(ball - player) < 0.03 else 1 + int(ball > player)

    return {
        "trained in the dream": lambda seen: int(trained.predict(seen, deterministic=True)[0]),
        "chance": lambda seen: int(rng.integers(3)),
        "standing still": lambda seen: 0,
        "a rule by hand": follow,
    }


def main() -> None:
    config = parse_config(AgentConfig)
    config.check()
    torch.manual_seed(config.seed)
    world = WorldModel.load(config.world, config.device)
    env_id = config.env or world.metadata.env_id
    if not env_id:
        raise InputError(f"{config.world} was learned from videos and names no game to test the agent in; give --env")
    game: Game = open_game(env_id, world.metadata, world.frame_size)

    rollouts = BallGame(WorldModelEnv(world, max_steps=config.episode_steps), env_id, three_keys(env_id, world.action_map))
    begun = time.perf_counter()
    trained = train_in_the_world(rollouts, config)
    seconds = time.perf_counter() - begun

    numbers = {name: number for number, name in enumerate(game.action_names)}
    real = BallGame(RealGameEnv(game, config.game_steps), env_id, three_keys(env_id, numbers))
    results = {name: play(agent, real, config) for name, agent in make_agents(trained, config.seed).items()}
    print(f"trained on {config.num_steps:,} predicted frames in {seconds:.0f} s; tested in {config.num_games} games of {env_id}")
    print(format_table(results))
    if config.json:
        facts = {"world": config.world, "env": env_id, "num_steps": config.num_steps, "seed": config.seed, "seconds": seconds}
        save_json(config.json, facts | {"players": {name.replace(" ", "_"): scores for name, scores in results.items()}})


if __name__ == "__main__":
    run_script(main)
