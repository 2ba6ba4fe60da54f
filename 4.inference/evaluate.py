"""Evaluate a world against the game it was learned from, on games that no training has seen.

    python 4.inference/evaluate.py --world assets/worlds/breakout --json metrics.json

The chapter's README explains each number. Controls are an untrained world and the repeated last frame.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tyro.conf import OmitArgPrefixes

from dynamics_model.sampling_flags import SamplingFlags
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import plain, save_json
from world_model.evaluation.games import RealGames, check_seed, player_keys, record_branches, record_game_sets, validation_games
from world_model.evaluation.long_rollouts import long_rollout_results
from world_model.evaluation.model_scores import (
    dynamics_scores,
    frame_clips,
    latent_action_scores,
    tokenizer_scores,
    untrained_copy,
)
from world_model.evaluation.rollouts import delta_psnr_scores, obedience_scores, rollout_scores, speed_scores
from world_model.evaluation.table import reasons_for_gaps, results_table
from world_model.evaluation.true_action_baseline import read_true_metrics, shares_of_baseline
from world_model.real_game import open_game
from world_model.world import WorldModel


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a world against its game."""

    world: str = "assets/worlds/breakout"
    """folder of a world: tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt"""
    env: str | None = None
    """Gymnasium id of the game; default: the one the world was learned from"""
    data_path: str | None = None
    """clip store with the validation episodes, for worlds learned from videos, which have no game to play"""
    seed: int = 7
    """chooses the evaluation games, 0 to 9,999: their seeds start at 1,000,000,000, far above any that recording uses"""
    num_episodes: int = 8
    """games to record"""
    num_frames: int = 500
    """longest game, in frames"""
    num_labelled_games: int = 48
    """games with random actions, for the information that latent actions, and for the ceiling the frames, hold about the keys"""
    num_clips: int = 128
    """clips on which the dynamics model's loss is measured"""
    num_rollouts: int = 96
    """rollouts that are compared with the real game, for rollout and delta_psnr_db each"""
    num_beginnings: int = 16
    """starts from which every key is held, for obedience"""
    hold_frames: int = 8
    """frames for which a key is held; after more of them most players are at a wall"""
    long_frames: int = 1000
    """frames of the long rollouts under random keys"""
    num_long_dreams: int = 4
    """long rollouts, each from another start; all are one batch"""
    probe_steps: int = 600
    """training steps of the supervised classifier that gives the ceiling of action_information; 0 leaves it out"""
    speed_frames: int = 100
    """steps that are timed"""
    sampling: OmitArgPrefixes[SamplingFlags] = field(default_factory=SamplingFlags)
    """how frames are sampled"""
    true_metrics: str | None = None
    """metrics.json of the same game's world of true actions; adds what share of its delta_psnr_db this world reaches"""
    quick: bool = False
    """seconds instead of minutes, to check that everything runs; the numbers mean little"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_seed(self.seed)
        check_smallest(self, {
            "num_episodes": 2, "num_frames": 16, "num_labelled_games": 2, "num_clips": 2, "num_rollouts": 1,
            "num_beginnings": 1, "hold_frames": 1, "long_frames": 1, "num_long_dreams": 1, "probe_steps": 0, "speed_frames": 1,
        })  # fmt: skip


QUICK = dict(num_episodes=2, num_frames=120, num_labelled_games=2, num_clips=8, num_rollouts=2, num_beginnings=1, hold_frames=2,
             long_frames=20, num_long_dreams=1, probe_steps=3, speed_frames=5)  # fmt: skip


def timed(title: str, measure: Callable[[], Any]) -> Any:
    """Run one measurement and print how long it took."""
    begun = time.perf_counter()
    result = measure()
    print(f"{title}: {time.perf_counter() - begun:.1f} s", flush=True)
    return result


def model_results(
    world: WorldModel, games: RealGames, labelled: RealGames, config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the three models by themselves: the world's, and those of models with fresh weights."""
    results = timed("tokenizer", lambda: tokenizer_scores(world.tokenizer, games))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = type(world.tokenizer)(world.tokenizer.config).to(world.device).eval()
        latent = world.latent_action_model and type(world.latent_action_model)(world.latent_action_model.config)
    control = tokenizer_scores(tokenizer, games, max_clips=16)
    if world.latent_action_model is not None and latent is not None:
        model = world.latent_action_model
        results |= timed("latent actions", lambda: latent_action_scores(model, labelled, config.probe_steps, config.seed))
        control |= latent_action_scores(latent.to(world.device).eval(), games, 0, config.seed)
    clips = frame_clips(world, games)
    results |= timed("dynamics", lambda: dynamics_scores(world, clips, config.num_clips, config.seed))
    control |= dynamics_scores(untrained_copy(world), clips, min(16, config.num_clips), config.seed)
    return results, control


def rollout_results(
    world: WorldModel, games: RealGames, others: RealGames | None, game: Game | None, config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Scores of the rollouts of the world, of an untrained one, and of the repeated last frame."""
    fresh = untrained_copy(world)
    few = min(4, config.num_rollouts)
    results: dict[str, Any] = timed("delta_psnr_db", lambda: delta_psnr_scores(world, games, config.num_rollouts, config.seed))
    control: dict[str, Any] = dict(delta_psnr_scores(fresh, games, few, config.seed))
    still: dict[str, Any] = {}
    results["rollout"], still["rollout"] = timed(
        "rollout", lambda: rollout_scores(world, games, config.num_rollouts, config.seed)
    )
    control["rollout"], _ = rollout_scores(fresh, games, few, config.seed)
    results["long_dream"], control["long_dream"], still["long_dream"] = timed(
        "long rollouts",
        lambda: long_rollout_results(world, fresh, games, others, config.long_frames, config.num_long_dreams, config.seed),
    )
    if game is not None and player_keys(game) and world.num_actions:
        branches = record_branches(game, config.num_beginnings, world.context_frames, config.hold_frames, config.seed)
        obedience, standing = timed("obedience", lambda: obedience_scores(world, branches, game.env_id, config.seed))
        results, still = results | obedience, still | standing
        branches = record_branches(game, min(4, config.num_beginnings), world.context_frames, config.hold_frames, config.seed)
        control |= obedience_scores(fresh, branches, game.env_id, config.seed)[0]
    return results, control, still


def main() -> None:
    # --- config ---
    config = parse_config(EvaluateConfig)
    if config.quick:
        config = replace(config, **QUICK)
    config.check()
    begun = time.perf_counter()
    world = WorldModel.load(config.world, config.device, seed=config.seed, **config.sampling.given())

    # --- games ---
    env_id = config.env or world.metadata.env_id
    true_metrics = read_true_metrics(config.true_metrics, env_id) if config.true_metrics is not None else None
    game = others = None
    if config.data_path is not None:
        games = validation_games(config.data_path, world.dynamics.config.validation_share, world.dynamics.config.seed)
        labelled = games
    elif env_id is None:
        raise InputError(
            f"{config.world} was learned from videos, not from a game; give --data-path with the clip store it was learned from"
        )
    else:
        game = open_game(env_id, world.metadata, world.frame_size)
        num_labelled = config.num_labelled_games if world.latent_action_model is not None else 0
        lengths = (config.num_frames, config.long_frames)
        games, others, labelled = timed(
            "recording", lambda: record_game_sets(game, config.num_episodes, num_labelled, *lengths, config.seed)
        )
    if games.store.frame_size != world.frame_size:
        raise InputError(
            f"{games.store.path} has frames of {games.store.frame_size}, this world of {world.frame_size}; give its own data"
        )

    # --- measure ---
    results, control = model_results(world, games, labelled, config)
    predicted, predicted_control, still = rollout_results(world, games, others, game, config)
    speed = timed("speed", lambda: speed_scores(world, config.speed_frames))
    reasons = reasons_for_gaps(world, games, game)
    results = results | predicted | speed
    results |= shares_of_baseline(results, true_metrics) if true_metrics is not None else {}
    results |= {name: None for name in reasons if name not in results}
    still |= {"psnr_db": results["copy_last_psnr_db"], "moving_psnr_db": results["copy_last_moving_psnr_db"]}
    results["controls"] = {"untrained": control | predicted_control, "copy_last": still}
    results["reasons"] = reasons
    settings = {name: value for name, value in vars(config).items() if name not in ("json", "device", "sampling")}
    results["settings"] = settings | vars(world.sampling) | {
                                      "env": env_id, "action_kind": world.action_kind, "num_frames": len(games.store.frames),
                                      "num_episodes": len(games.store.episodes),
                                      "seconds": round(time.perf_counter() - begun, 1)}  # fmt: skip

    # --- show and save ---
    print(f"\n{config.world} on {len(games.store.frames):,} frames of {len(games.store.episodes)} games it was not trained on\n")
    print(results_table(plain(results)))
    if config.json is not None:
        save_json(config.json, results)
        print(f"\nnumbers in {config.json}, after {results['settings']['seconds']:.0f} s")


if __name__ == "__main__":
    run_script(main)
