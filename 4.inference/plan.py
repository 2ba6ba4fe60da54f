"""Play the real game by planning in a learned world: imagine futures, and press the keys of the best one. No training.

    python 4.inference/plan.py --world assets/worlds/breakout --json scores/planning.json
    python 4.inference/plan.py --world assets/worlds/breakout --num-games 0 --output futures.gif

The lesson is uses/planning/README.md, and the cost that is planned with is a function that you can write yourself: costs.py.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from uses.planning.costs import COSTS
from uses.planning.futures import film_futures
from uses.planning.planner import Planner, Search, planner_in_emulator, planner_in_world
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of
from world_model.ball_game import BallGame, three_keys
from world_model.evaluation.games import check_seed
from world_model.film import check_suffix, save_film
from world_model.scored_games import Agent, baselines, open_scored_game, play
from world_model.world import WorldModel

FILMED_DECISIONS = 8
"""decisions of the film"""


@dataclass(frozen=True)
class PlanConfig:
    """Play the real game by planning in a learned world."""

    FILES: ClassVar = ("output",)
    world: str = "assets/worlds/breakout"
    """folder of a world of Breakout or Pong"""
    env: str | None = None
    """Gymnasium id of the real game; default: the one the world was learned from"""
    imagine_in: Literal["world", "emulator"] = "world"
    """who imagines the futures; the emulator itself shows what a perfect world would be worth"""
    cost: Literal[*COSTS] = "meet_the_ball"  # type: ignore[valid-type]
    """what a future costs, a function in uses/planning/costs.py"""
    rollouts: tuple[int, ...] = (1, 4, 16)
    """futures per decision; every number plays its own games"""
    horizon: int = 4
    """frames of each future"""
    hold: int = 1
    """frames for which a plan holds a key"""
    num_rounds: int = 1
    """1: random shooting; more: the cross-entropy method, which divides the futures among so many rounds"""
    replan_every: int = 1
    """frames that are played before the next decision"""
    num_steps: int = 1
    """decoding passes per imagined frame; for the flight of a ball one is enough"""
    temperature: float = 0.0
    """of the imagined frames; 0 takes the most likely ones, so that no future is chosen for its luck"""
    num_games: int = 30
    """real games per player; 0 plays none"""
    game_steps: int = 120
    """maximum length of a real game, in frames"""
    seed: int = 0
    """seeds the plans, the imagined frames and the games"""
    json: str | None = None
    """file for the numbers"""
    output: str | None = None
    """film of the imagined futures (.gif or .mp4) in the first real game, with the last number of rollouts"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"horizon": 1, "hold": 1, "num_rounds": 1, "replan_every": 1, "num_games": 0, "game_steps": 1})
        if not self.rollouts or min(self.rollouts) < 1:
            raise InputError(f"--rollouts {' '.join(map(str, self.rollouts)) or 'is empty'}: give numbers of at least 1")
        check_seed(self.seed)
        if self.output is not None:
            check_suffix(Path(self.output))
        elif not self.num_games:
            raise InputError("--num-games 0 plays nothing; give --output for a film, or a larger number")


def make_planner(config: PlanConfig, world: WorldModel, env: BallGame, num_rollouts: int, seed: int) -> Planner:
    """The planner that the flags describe, at the beginning of a game."""
    rounds = min(config.num_rounds, num_rollouts)
    settings = Search(num_rollouts, config.horizon, config.hold, rounds)
    rest = COSTS[config.cost], env.env_id, settings, config.replan_every, seed
    if config.imagine_in == "emulator":
        return planner_in_emulator(env.unwrapped.game, np.array(env.keys), *rest)  # type: ignore[attr-defined]
    return planner_in_world(world, np.array(three_keys(env.env_id, world.action_map)), *rest)


def play_planned(config: PlanConfig, world: WorldModel, env: BallGame, num_rollouts: int) -> dict[str, float]:
    """The scores of planning with so many rollouts per decision, and what they cost in time."""
    planners: list[Planner] = []

    def newcomer(seed: int) -> Agent:
        planners.append(make_planner(config, world, env, num_rollouts, seed))
        return planners[-1]

    begun = time.perf_counter()
    scores = play(newcomer, env, config.num_games, config.seed, f"{num_rollouts} rollouts")
    seconds = time.perf_counter() - begun
    imagined = num_rollouts * sum(planner.num_searches for planner in planners)
    return scores | {"rollouts_per_second": imagined / seconds, "minutes_per_game": seconds / 60 / config.num_games}


def main() -> None:
    config = parse_config(PlanConfig)
    config.check()
    torch.manual_seed(config.seed)
    world = WorldModel.load(config.world, config.device, num_steps=config.num_steps, temperature=config.temperature)
    env = open_scored_game(world, config.env, config.game_steps)
    if config.num_games:
        results = {name: play(player, env, config.num_games, config.seed, name) for name, player in baselines().items()}
        results |= {f"planning, {count} rollouts": play_planned(config, world, env, count) for count in config.rollouts}
        print(f"{config.num_games} games of {env.env_id}, at most {config.game_steps} frames each")
        print(format_table(results))
        if config.json:
            players = {name.replace(",", "").replace(" ", "_"): scores for name, scores in results.items()}
            settings = settings_of(config, "json", "output", "device")
            save_json(config.json, {"settings": settings, "env": env.env_id, "players": players})
    if config.output:
        planner = make_planner(config, world, env, config.rollouts[-1], config.seed)
        panels, captions = film_futures(planner, env, FILMED_DECISIONS, config.seed)
        save_film(Path(config.output), panels, captions, world.frames_per_second / 2)
        print(f"{FILMED_DECISIONS} decisions at half speed | {config.output}")


if __name__ == "__main__":
    run_script(main)
