"""How many sampling steps does a frame need? Quality and time of the same rollouts with 1, 2, 3, 4, 6 and 8 steps per frame.

    python 4.inference/lab/sampling_steps.py --json steps.json

Steps are worth their time where the samples of a frame must agree: `torn` is the share of frames whose player is incomplete.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts, player_distortion
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, save_json
from world_model.evaluation.games import check_seed, record_branches, record_games
from world_model.evaluation.rollouts import horizon_scores, obedience_scores, real_windows, step_seconds
from world_model.real_game import open_game
from world_model.world import WorldModel

TORN = 0.25
"""distortion above which a player counts as torn: a quarter of it is missing or elsewhere"""
HORIZON = 64


@dataclass(frozen=True)
class StepsConfig:
    """Quality and time of rollouts against the number of sampling steps."""

    world: str = "assets/worlds/breakout"
    """folder of a world whose game has a known player"""
    steps: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    """sampling steps per frame to try"""
    num_dreams: int = 128
    """rollouts of 64 frames beside the real game"""
    num_beginnings: int = 24
    """starts from which every key is held, for obedience"""
    num_episodes: int = 8
    """games to record"""
    num_timed: int = 100
    """single frames that are timed"""
    seed: int = 7
    """of games and rollouts"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def torn_share(videos: np.ndarray, env_id: str, linear_light: bool) -> float:
    """Share of frames whose player is TORN or worse. videos: (S, K, H, W, 3) uint8."""
    return float((player_distortion(np.concatenate(list(videos)), env_id, linear_light) > TORN).mean())


def main() -> None:
    config = parse_config(StepsConfig)
    check_seed(config.seed)
    check_smallest(config, {"num_dreams": 1, "num_beginnings": 1, "num_episodes": 1, "num_timed": 1})
    if not config.steps or min(config.steps) < 1:
        raise InputError(f"--steps {' '.join(map(str, config.steps))} must be numbers of at least 1")
    world = WorldModel.load(config.world, config.device, seed=config.seed)
    env_id = world.metadata.env_id or "videos"
    known = game_facts(env_id)
    if known is None or known.player is None or not known.player.lengths:
        raise InputError(f"{config.world} was trained on {env_id}, which has no player of known shape")

    # --- the real game ---
    game, context = open_game(env_id, world.metadata, world.frame_size), world.context_frames
    games = record_games(game, config.num_episodes, 500, config.seed)
    branches = record_branches(game, config.num_beginnings, context, 8, config.seed)
    real, past, actions = real_windows(world, games, HORIZON, config.num_dreams)
    if len(real) == 0:
        raise InputError(f"no game of {env_id} lasted {context + HORIZON} frames; give more --num-episodes")

    # --- rollouts ---
    rows: dict[str, dict[str, Any]] = {}
    for steps in tqdm(config.steps, desc="steps", disable=None):
        world.sampling = replace(world.sampling, num_steps=steps)
        videos = world.rollout(real[:, :context], past, actions, config.seed)
        scores = horizon_scores(videos, real[:, context - 1 :], env_id)
        rows[f"steps_{steps}"] = {
            "sprite_error_px_16": scores["16"]["sprite_error_px"],
            "sprite_error_px_64": scores["64"]["sprite_error_px"],
            "ball_share_gap": scores.get("ball_share_gap"),
            "obedience": obedience_scores(world, branches, env_id, config.seed)[0]["obedience"],
            "torn": torn_share(videos, env_id, game.linear_light),
            "step_ms": 1000 * float(np.median(step_seconds(world, config.num_timed))),
        }

    # --- print and save ---
    print(f"{100 * torn_share(real[:, context:], env_id, game.linear_light):.1f} % of real players count as torn")
    print(f"{config.world}, {len(real)} rollouts of {HORIZON} frames, {torch.get_num_threads()} threads on {world.device}")
    print(format_table(rows))
    if config.json:
        settings = {"world": config.world, "num_dreams": len(real), "seed": config.seed, "device": str(world.device)}
        save_json(config.json, settings | {"num_threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    run_script(main)
