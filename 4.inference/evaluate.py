"""Evaluate a world against the game it was learned from, on frames that it was not trained on.

    python 4.inference/evaluate.py --world assets/worlds/breakout --json metrics.json

Every score is the mean over several seeds, each with games of its own, +- half of its 95% confidence interval. The chapter's
README explains each number. Controls are an untrained world and the repeated last frame.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from tyro.conf import OmitArgPrefixes

from dynamics_model.sampling_flags import SamplingFlags
from video_tokenizer.data.clip_store import check_light
from video_tokenizer.data.seen_frames import frame_hashes
from video_tokenizer.data.validation import find_recording, open_like, seen_frames_are_scored
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import plain, save_json
from world_model.evaluation.games import (
    LABELLED_SEEDS,
    OTHER_SEEDS,
    Branches,
    RealGames,
    check_seed,
    halves,
    player_keys,
    record_branches,
    record_games,
    validation_games,
)
from world_model.evaluation.long_rollouts import STRETCH, RealFrames, ceiling_scores, long_rollout_scores, real_frames
from world_model.evaluation.model_scores import (
    dynamics_scores,
    frame_clips,
    latent_action_scores,
    tokenizer_scores,
    untrained_copy,
)
from world_model.evaluation.rollouts import delta_psnr_scores, obedience_scores, rollout_scores, speed_scores
from world_model.evaluation.table import margin_over_seeds, mean_over_seeds, reasons_for_gaps, results_table, spread_over_seeds
from world_model.evaluation.true_action_baseline import read_true_metrics, shares_of_baseline
from world_model.real_game import open_its_game
from world_model.world import WorldModel


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a world against its game."""

    world: str = "assets/worlds/breakout"
    """folder of a world: tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt"""
    env: str | None = None
    """Gymnasium id of the game; default: the one the world was learned from"""
    data_path: str | None = None
    """videos, images, .h5 files or clip store with the validation episodes, for worlds that have no game to play"""
    trained_on: str | None = None
    """clip store or videos that the world was trained on, whose frames are not scored; default: those named in dynamics.pt, if
    they exist"""
    seed: int = 7
    """first of the seeds that choose the evaluation games, 0 to 9,999: no recording uses their games"""
    num_seeds: int = 3
    """seeds to evaluate: seed, seed + 1, ...; the counts below are for each of them"""
    num_episodes: int = 6
    """games to record"""
    num_other_games: int = 64
    """real games, for all seeds together, that show what is usual in a game, for the long rollouts"""
    num_frames: int = 500
    """longest game, in frames"""
    num_labelled_games: int = 48
    """games with random actions, for the information that latent actions, and for the ceiling the frames, hold about the keys"""
    num_clips: int = 48
    """clips on which the dynamics model's loss is measured"""
    num_rollouts: int = 24
    """rollouts that are compared with the real game, for rollout and delta_psnr_db each"""
    num_beginnings: int = 6
    """starts from which every key is held, for obedience"""
    hold_frames: int = 8
    """frames for which a key is held; after more of them most players are at a wall"""
    long_frames: int = 1000
    """frames of the long rollouts under random keys"""
    num_long_dreams: int = 1
    """long rollouts, each from another start; those of a seed are one batch"""
    probe_steps: int = 600
    """training steps of the supervised classifier that gives the ceiling of action_information, once; 0 leaves it out"""
    speed_frames: int = 100
    """steps that are timed"""
    sampling: OmitArgPrefixes[SamplingFlags] = field(default_factory=SamplingFlags)
    """how frames are sampled"""
    true_metrics: str | None = None
    """metrics.json of the same game's world of true actions; adds what share of its delta_psnr_db this world reaches"""
    brief: bool = False
    """at most a minute instead of five: fewer and shorter games, no long rollouts, no untrained models, no supervised ceiling"""
    quick: bool = False
    """seconds instead of minutes, to check that everything runs; the numbers mean little"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {
            "num_seeds": 1, "num_episodes": 2, "num_other_games": 2, "num_frames": 16, "num_labelled_games": 2, "num_clips": 2,
            "num_rollouts": 1, "num_beginnings": 1, "hold_frames": 1, "long_frames": 1, "num_long_dreams": 1, "probe_steps": 0,
            "speed_frames": 1,
        })  # fmt: skip
        for seed in self.seeds:
            check_seed(seed)

    @property
    def seeds(self) -> range:
        """The evaluation seeds. The episodes of a world of videos are always the same, so one is enough."""
        return range(self.seed, self.seed + (self.num_seeds if self.data_path is None else 1))


BRIEF = dict(num_seeds=4, num_episodes=2, num_frames=300, num_labelled_games=8, num_clips=16, num_rollouts=8, num_beginnings=4,
             probe_steps=0, speed_frames=50)  # fmt: skip
QUICK = dict(num_seeds=2, num_episodes=2, num_other_games=4, num_frames=120, num_labelled_games=2, num_clips=8, num_rollouts=2,
             num_beginnings=1, hold_frames=2, long_frames=20, num_long_dreams=1, probe_steps=3, speed_frames=5)  # fmt: skip


def timed(title: str, measure: Callable[[], Any]) -> Any:
    """Run one measurement and print how long it took."""
    begun = time.perf_counter()
    result = measure()
    print(f"{title}: {time.perf_counter() - begun:.1f} s", flush=True)
    return result


def training_frames(config: EvaluateConfig, world: WorldModel) -> tuple[np.ndarray | None, str]:
    """The hashes of the frames that the world was trained on, and ""; or None, and a sentence that says why they are unknown.

    A recording is that of the training if it holds the world's start frames. Raises InputError if that of --trained-on does not.
    """
    given, trained = config.trained_on, world.dynamics.config
    named = given or trained.data_path
    store, reason = find_recording(trained) if given is None else (open_like(trained, given), "")
    if store is not None:
        hashes = frame_hashes(store.frames)
        if np.isin(frame_hashes(world.start_frames.reshape(-1, *world.start_frames.shape[2:])), hashes).all():
            return hashes, ""
        reason = f"{named} lacks the frames that this world starts from, so it was trained on another one"
        if given is not None:
            raise InputError(f"--trained-on {reason}")
    return None, seen_frames_are_scored(reason)


class Played(NamedTuple):
    """The games of one evaluation seed."""

    games: RealGames
    labelled: RealGames
    branches: Branches | None


def play(world: WorldModel, game: Game | None, known: np.ndarray | None, config: EvaluateConfig, seed: int) -> Played:
    """Play the games of a seed. game: None for a world of videos. known: the hashes of the frames of the training."""
    if game is None:
        assert config.data_path is not None
        games = validation_games(open_like(world.dynamics.config, config.data_path), world.dynamics.config)
        check_light("this world", world.metadata.linear_light, games.store)
        return Played(games, games, None)
    games = labelled = record_games(game, config.num_episodes, config.num_frames, seed, known=known)
    if world.latent_action_model is not None:
        labelled = record_games(game, config.num_labelled_games, config.num_frames, seed, "random", LABELLED_SEEDS, known)
    branches = None
    if player_keys(game) and world.num_actions:
        branches = record_branches(game, config.num_beginnings, world.context_frames, config.hold_frames, seed, known)
    return Played(games, labelled, branches)


def measure(
    world: WorldModel, played: Played, real: RealFrames | None, config: EvaluateConfig, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of the world in the games of a seed, and those of the repeated last frame. real: what long rollouts are held
    against."""
    games, latent = played.games, world.latent_action_model
    results: dict[str, Any] = {"seen_in_training": games.seen_share}
    results |= timed("tokenizer", lambda: tokenizer_scores(world.tokenizer, games))
    if latent is not None:
        probe_steps = config.probe_steps if seed == config.seed else 0  # the ceiling is measured once, because it takes long
        results |= timed("latent actions", lambda: latent_action_scores(latent, played.labelled, probe_steps, seed))
    results |= timed("dynamics", lambda: dynamics_scores(world, frame_clips(world, games), config.num_clips, seed))
    still: dict[str, Any] = {"psnr_db": results["copy_last_psnr_db"], "moving_psnr_db": results["copy_last_moving_psnr_db"]}
    results |= timed("delta_psnr_db", lambda: delta_psnr_scores(world, games, config.num_rollouts, seed))
    results["rollout"], still["rollout"] = timed("rollout", lambda: rollout_scores(world, games, config.num_rollouts, seed))
    results["long_dream"], still["long_dream"] = {}, {}
    if real is not None:
        results["long_dream"], still["long_dream"] = timed(
            "long rollouts",
            lambda: long_rollout_scores(world, games, real, config.long_frames, config.num_long_dreams, seed),
        )
    if (branches := played.branches) is not None and (env_id := games.store.env_id) is not None:
        obedience, standing = timed("obedience", lambda: obedience_scores(world, branches, env_id, seed))
        results, still = results | obedience, still | standing
    return results, still


def measure_untrained(
    world: WorldModel, played: Played, real: RealFrames | None, config: EvaluateConfig, seed: int
) -> dict[str, Any]:
    """The scores of models with fresh weights, from fewer clips and rollouts. The rollouts keep the trained tokenizer."""
    fresh, games = untrained_copy(world), played.games
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = type(world.tokenizer)(world.tokenizer.config).to(world.device).eval()
        latent = world.latent_action_model and type(world.latent_action_model)(world.latent_action_model.config)
    control: dict[str, Any] = tokenizer_scores(tokenizer, games, max_clips=16)
    if latent is not None:
        control |= latent_action_scores(latent.to(world.device).eval(), games, 0, seed)
    control |= dynamics_scores(fresh, frame_clips(world, games), min(16, config.num_clips), seed)
    few = min(4, config.num_rollouts)
    control |= delta_psnr_scores(fresh, games, few, seed)
    control["rollout"], _ = rollout_scores(fresh, games, few, seed)
    if real is not None:
        control["long_dream"], _ = long_rollout_scores(fresh, games, real, min(config.long_frames, STRETCH), 1, seed)
    if played.branches is not None and (env_id := games.store.env_id) is not None:
        control |= obedience_scores(fresh, played.branches, env_id, seed)[0]
    return control


def main() -> None:
    # --- config ---
    config = parse_config(EvaluateConfig)
    config = replace(config, **((BRIEF if config.brief else {}) | (QUICK if config.quick else {})))
    config.check()
    begun = time.perf_counter()
    world = WorldModel.load(config.world, config.device, seed=config.seed, **config.sampling.given())
    env_id = config.env or world.metadata.env_id
    true_metrics = read_true_metrics(config.true_metrics, env_id) if config.true_metrics is not None else None
    game, known, unknown = None, None, ""
    if config.data_path is None:
        if env_id is None:
            raise InputError(
                f"{config.world} was learned from videos, not from a game; "
                "give --data-path with the videos or clip store it was learned from, or --env with the game that they show"
            )
        game = open_its_game(env_id, world)
        known, unknown = training_frames(config, world)
        print(unknown, end="\n" if unknown else "")
        others = unused = None
        if not config.brief:
            long = config.num_frames + config.long_frames  # as long as rollouts that start late in a game
            record = partial(record_games, game, config.num_other_games, long, config.seed, first_game=OTHER_SEEDS)
            others, unused = halves(timed("other games", record))
            unused = halves(unused)[0]  # encoding and decoding them takes long
    else:
        others, unused = play(world, None, None, config, config.seed).games, None
    real = real_frames(others) if others is not None else None

    # --- play and measure ---
    per_seed: dict[int, dict[str, Any]] = {}
    stills, control, games, num_frames = [], {}, None, 0
    for seed in config.seeds:
        print(f"seed {seed}")
        played = timed("recording", partial(play, world, game, known, config, seed))
        games = played.games
        if games.store.frame_size != world.frame_size:
            raise InputError(
                f"{games.store.path} has frames of {games.store.frame_size}, this world of {world.frame_size}; give its own data"
            )
        num_frames += len(games.seen)
        per_seed[seed], still = measure(world, played, real, config, seed)
        stills.append(still)
        if not control and not config.brief:
            control = timed("untrained", partial(measure_untrained, world, played, real, config, seed))
    assert games is not None
    reasons = reasons_for_gaps(world, games, game) | ({"seen_in_training": unknown} if unknown else {})
    results = mean_over_seeds([*per_seed.values()])
    if real is not None and unused is not None:
        results["long_dream"] |= timed("real games", partial(ceiling_scores, world.tokenizer, unused, real))
    results |= timed("speed", lambda: speed_scores(world, config.speed_frames))
    results |= shares_of_baseline(results, true_metrics) if true_metrics is not None else {}
    results |= {name: None for name in reasons if name not in results or name == "seen_in_training"}
    results["spread"] = spread_over_seeds([*per_seed.values()])
    results["margin_of_error"] = margin_over_seeds([*per_seed.values()])
    results["per_seed"] = per_seed
    results["controls"] = ({"untrained": control} if control else {}) | {"copy_last": mean_over_seeds(stills)}
    results["reasons"] = reasons
    settings = {name: value for name, value in vars(config).items() if name not in ("json", "device", "sampling")}
    results["settings"] = settings | vars(world.sampling) | {
                                      "env": env_id, "action_kind": world.action_kind, "num_frames": num_frames,
                                      "seeds": [*config.seeds], "seconds": round(time.perf_counter() - begun, 1)}  # fmt: skip

    # --- show and save ---
    share = f", {results['seen_in_training']:.1%} of which it was trained on; those are not scored" if not unknown else ""
    print(f"\n{config.world} on {num_frames:,} frames of games with {len(per_seed)} seeds{share}\n")
    print(results_table(plain(results)))
    print("\n+- is half of the 95% confidence interval of the mean over games; another training may differ by more")
    if config.json is not None:
        save_json(config.json, results)
        print(f"\nnumbers in {config.json}, after {results['settings']['seconds']:.0f} s")


if __name__ == "__main__":
    run_script(main)
