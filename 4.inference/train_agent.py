"""Train a small agent in a learned world only, then test it in the real game.

    python 4.inference/train_agent.py --world assets/worlds/breakout --json assets/4.inference/agent.json

The agent observes the positions of ball and player, as detected in the frames, and its reward is to be close to the ball
(`BallGame`). It never plays in the emulator before the test. Needs the extra: pip install -e ".[agent]"
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json
from world_model.ball_game import BallGame, three_keys
from world_model.environment import WorldModelEnv
from world_model.scored_games import Agent, Newcomer, baselines, open_scored_game, play
from world_model.world import WorldModel


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
    num_games: int = 30
    """real games per player in the test, from random starts and with sticky keys"""
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


def main() -> None:
    config = parse_config(AgentConfig)
    config.check()
    torch.manual_seed(config.seed)
    world = WorldModel.load(config.world, config.device)
    real = open_scored_game(world, config.env, config.game_steps)
    env_id = real.env_id

    rollouts = BallGame(WorldModelEnv(world, max_steps=config.episode_steps), env_id, three_keys(env_id, world.action_map))
    begun = time.perf_counter()
    trained = train_in_the_world(rollouts, config)
    seconds = time.perf_counter() - begun

    def dreamer(seed: int) -> Agent:
        return lambda seen, frame: int(trained.predict(seen, deterministic=True)[0])

    players: dict[str, Newcomer] = {"trained in the dream": dreamer, **baselines()}
    results = {name: play(player, real, config.num_games, config.seed, name) for name, player in players.items()}
    print(f"trained on {config.num_steps:,} predicted frames in {seconds:.0f} s; tested in {config.num_games} games of {env_id}")
    print(format_table(results))
    if config.json:
        facts = {"world": config.world, "env": env_id, "num_steps": config.num_steps, "seed": config.seed, "seconds": seconds}
        facts |= {"num_games": config.num_games, "game_steps": config.game_steps}
        save_json(config.json, facts | {"players": {name.replace(" ", "_"): scores for name, scores in results.items()}})


if __name__ == "__main__":
    run_script(main)
