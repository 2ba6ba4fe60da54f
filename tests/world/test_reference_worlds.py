"""The worlds in assets/worlds: each is as good as its metrics.json says, measured anew on games that file has not seen.

A bar is the committed mean less a margin for the smaller sample, or less twice its spread over seeds where that is more, and
never lower than a floor that neither a world without training nor a repeated last frame reaches.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_names import CONTROLS, NAMES, NAMES_OF_LATENT_ACTIONS
from script_runner import call
from structure_checks import REPOSITORY

from world_model.evaluation.games import OTHER_SEEDS, player_keys, record_branches, record_games
from world_model.evaluation.long_rollouts import long_rollout_scores, real_frames
from world_model.evaluation.model_scores import dynamics_scores, frame_clips, tokenizer_scores
from world_model.evaluation.rollouts import obedience_scores, rollout_scores
from world_model.evaluation.table import flatten
from world_model.real_game import open_game
from world_model.world import WorldModel

WORLDS = sorted(path.parent for path in (REPOSITORY / "assets" / "worlds").glob("*/dynamics.pt"))
FRESH_SEED = 4_321  # of the games here; the committed numbers come from another
LARGEST_WORLD = 16 * 2**20  # bytes


@dataclass(frozen=True)
class Bar:
    """What a score must reach."""

    score: str
    margin: float
    """how far the fresh score may lie below the committed one"""
    floor: float
    """what it must reach whatever is committed; in brackets below, what a repeated last frame and an untrained world reach"""


BARS = (
    Bar("moving_gain_db", margin=4.0, floor=4.0),  # moving_psnr_db above a repeated last frame (0; -6)
    Bar("foreground_recall", margin=0.06, floor=0.8),  # (0.03 untrained)
    Bar("object_recall", margin=0.15, floor=0.6),  # (0.23 untrained)
    Bar("shuffle_ratio", margin=0.6, floor=1.2),  # (1.0 untrained)
    Bar("obedience_moving", margin=0.2, floor=0.6),  # (0.0; 0.5 for steps this way and that)
    Bar("sprite_gain", margin=0.4, floor=0.0),  # share of a repeated last frame's error after 16 frames that is avoided (0)
    Bar("long_dream.within_real_range", margin=0.4, floor=0.4),  # (0.01; 0.0)
)


@dataclass(frozen=True)
class Measured:
    """One reference world: the numbers in its folder and those of today."""

    folder: Path
    action_kind: str
    committed: dict[str, Any]
    spread: dict[str, Any]
    fresh: dict[str, Any]


def required(bar: Bar, measured: Measured) -> float:
    """What a world must reach."""
    spread = measured.spread.get(bar.score) or 0.0
    return max(bar.floor, measured.committed[bar.score] - max(bar.margin, 2 * spread))


def compared(scores: dict[str, Any], still: dict[str, Any]) -> dict[str, Any]:
    """Scores under dotted names, with the distance to a repeated last frame (`still`) where that is what counts."""
    flat, copied = flatten(scores), flatten(still)
    flat["moving_gain_db"] = flat["moving_psnr_db"] - flat["copy_last_moving_psnr_db"]
    error = "rollout.16.sprite_error_px"
    if flat.get(error) is not None:
        flat["sprite_gain"] = 1 - flat[error] / copied[error]
    return flat


def measure(world: WorldModel, env_id: str) -> dict[str, Any]:
    """The scores that the bars are about, from few and short games."""
    game = open_game(env_id, world.metadata, world.frame_size)
    games = record_games(game, 6, 300, FRESH_SEED)
    few = replace(games, store=replace(games.store, episodes=games.store.episodes[:2]))
    real = real_frames(record_games(game, 12, 500, FRESH_SEED, first_game=OTHER_SEEDS))  # as long as the dreams below
    assert real is not None
    scores: dict[str, Any] = tokenizer_scores(world.tokenizer, games, max_clips=24)
    scores |= dynamics_scores(world, frame_clips(world, few), 32, FRESH_SEED)
    scores["rollout"], still = rollout_scores(world, games, 24, FRESH_SEED, max_frames=16)
    scores["long_dream"], _ = long_rollout_scores(world, games, real, num_frames=200, num_rollouts=6, seed=FRESH_SEED)
    if player_keys(game):
        branches = record_branches(game, 8, world.context_frames, 8, FRESH_SEED)
        scores |= obedience_scores(world, branches, env_id, FRESH_SEED)[0]
    return compared(scores, {"rollout": still})


@pytest.fixture(scope="module", params=WORLDS, ids=lambda folder: folder.name)
def measured(request) -> Measured:
    folder = request.param
    metrics = json.loads((folder / "metrics.json").read_text())
    world = WorldModel.load(folder, "cpu", seed=FRESH_SEED)
    committed = compared(metrics, metrics["controls"]["copy_last"])
    spread = flatten(metrics.get("spread", {}))
    return Measured(folder, world.action_kind, committed, spread, measure(world, metrics["settings"]["env"]))


# ---- what the folders hold ----------------------------------------------------------------------------------------------


def test_there_is_a_world_to_start_from():
    assert "breakout" in [folder.name for folder in WORLDS]


@pytest.mark.parametrize("folder", WORLDS, ids=lambda folder: folder.name)
def test_a_world_is_small_enough_to_be_cloned(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LARGEST_WORLD


@pytest.mark.parametrize("folder", WORLDS, ids=lambda folder: folder.name)
def test_a_world_comes_with_every_number_and_its_controls(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    settings, reasons = metrics["settings"], metrics["reasons"]
    latent = settings["action_kind"] == "latent"
    assert metrics.keys() >= NAMES | (NAMES_OF_LATENT_ACTIONS if latent else set())
    assert {name for name in NAMES if metrics[name] is None} <= reasons.keys()  # a number that is missing is explained
    for control, names in CONTROLS.items():
        assert metrics["controls"][control].keys() >= names - reasons.keys(), control
    assert metrics["long_dream"].keys() >= {"within_real_range_real", "all_within", "worst_stretch"}
    assert settings["action_kind"] == WorldModel.load(folder, "cpu").action_kind
    assert settings["env"] and 0 <= settings["seed"] < 10_000
    assert FRESH_SEED not in settings.get("seeds", [settings["seed"]])
    assert not settings["quick"] and settings["long_frames"] >= 1000
    assert settings["num_rollouts"] * settings.get("num_seeds", 1) >= 64


@pytest.mark.parametrize("folder", [folder for folder in WORLDS if (folder / "metrics_true.json").exists()], ids=lambda f: f.name)
def test_the_yardstick_of_true_actions_is_marked_as_such(folder):
    metrics, true = (json.loads((folder / name).read_text()) for name in ("metrics.json", "metrics_true.json"))
    assert metrics["settings"]["action_kind"] == "latent" and true["settings"]["action_kind"] == "true"
    assert true["settings"]["env"] == metrics["settings"]["env"] and true["settings"]["seed"] == metrics["settings"]["seed"]
    assert "action_information" in true["reasons"]  # nothing had to be discovered
    ratio = metrics["delta_psnr_db"]["4"] / true["delta_psnr_db"]["4"]
    assert metrics["delta_psnr_share"] == pytest.approx(ratio)


# ---- what the worlds can do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.score)
def test_a_world_is_as_good_as_its_numbers(measured, bar):
    if measured.committed.get(bar.score) is None:  # the test above has seen a reason for it
        pytest.skip(f"{measured.folder.name} has no {bar.score}")
    fresh, least = measured.fresh[bar.score], required(bar, measured)
    assert fresh >= least, f"{bar.score} {fresh:.3f}, at least {least:.3f}"


def test_the_bars_are_out_of_reach_for_the_controls(measured):
    metrics = json.loads((measured.folder / "metrics.json").read_text())
    assert metrics["controls"]["untrained"]["moving_psnr_db"] < metrics["copy_last_moving_psnr_db"]  # so its gain is negative
    for control in CONTROLS:
        reached = flatten(metrics["controls"][control])
        for bar in BARS:
            if (value := reached.get(bar.score)) is not None:
                assert value < required(bar, measured), f"{bar.score} of {control}"


def test_sampling_steps_are_measured(tmp_path):
    few = ("--steps", 1, 3, "--num-dreams", 2, "--num-beginnings", 1, "--num-episodes", 1, "--num-timed", 2)
    assert call(REPOSITORY / "4.inference" / "lab" / "sampling_steps.py", *few, "--json", tmp_path / "steps.json") == 0
    rows = json.loads((tmp_path / "steps.json").read_text())["rows"]
    assert set(rows) == {"steps_1", "steps_3"}
    assert all(0 <= row["torn"] <= 1 and 0 <= row["obedience"] <= 1 and row["step_ms"] > 0 for row in rows.values())
