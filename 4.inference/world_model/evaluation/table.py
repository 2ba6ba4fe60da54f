"""The numbers of an evaluation: mean, spread and margin of error over its seeds, and a table with one row per metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from video_tokenizer.games.emulator import Game
from video_tokenizer.training.results import format_number
from world_model.evaluation.games import RealGames, player_keys
from world_model.world import WorldModel

NOT_METRICS = ("spread", "margin_of_error", "per_seed", "controls", "reasons", "settings")
COLUMNS = ("world", "+-", "untrained", "copy last frame")


def mean_over_seeds(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """One table with the mean of each number of several tables; of those that have it, if it is missing or NaN in some."""
    return combine(tables, lambda numbers: float(np.mean(numbers)) if numbers else np.nan)


def spread_over_seeds(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The same with standard deviations: those of single seeds, estimated with n - 1. NaN if fewer than two have the number."""
    return combine(tables, lambda numbers: float(np.std(numbers, ddof=1)) if len(numbers) > 1 else np.nan)


def margin_over_seeds(tables: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The same with margins of error, half of the 95% confidence interval of each mean: t s / sqrt(n), where s is the standard
    deviation and t belongs to Student's distribution with n - 1 degrees of freedom (4.3 for three seeds, 3.2 for four).

    The interval covers the choice of the games and the luck of the sampling, not that of another training.
    """

    def margin(numbers: list[float]) -> float:
        degrees = len(numbers) - 1
        return float(stdtrit(degrees, 0.975) * np.std(numbers, ddof=1) / np.sqrt(len(numbers))) if degrees > 0 else np.nan

    return combine(tables, margin)


def combine(tables: Sequence[Mapping[Any, Any]], merge: Callable[[list[float]], float]) -> dict[Any, Any]:
    """Nested tables merged entry by entry: `merge` turns the finite numbers in one place into one."""
    merged: dict[Any, Any] = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table[name] for table in tables if name in table]
        if isinstance(values[0], Mapping):
            merged[name] = combine(values, merge)
        else:
            merged[name] = merge([float(value) for value in values if value is not None and np.isfinite(value)])
    return merged


def flatten(scores: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested scores under dotted names: {"rollout": {"4": {"psnr_db": 30}}} -> {"rollout.4.psnr_db": 30}."""
    flat: dict[str, Any] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def table_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(metric, world, margin of error, untrained, copy last frame), numbers as text, "" for those not there."""
    world = flatten({name: value for name, value in results.items() if name not in NOT_METRICS})
    margin = flatten(results.get("margin_of_error", {}))
    controls = results.get("controls", {})
    untrained, copied = (flatten(controls.get(name, {})) for name in ("untrained", "copy_last"))

    def shown(scores: Mapping[str, Any], name: str) -> str:
        return format_number(scores[name]) if name in scores else ""

    return [
        (name, format_number(value), shown(margin, name), shown(untrained, name), shown(copied, name))
        for name, value in world.items()
    ]


def results_table(results: Mapping[str, Any]) -> str:
    """The table for the terminal, followed by the reasons for missing numbers."""
    rows = [("", *COLUMNS), *table_rows(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [f"{row[0]:<{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
             for row in rows]  # fmt: skip
    lines += [f"- {name}: {reason}" for name, reason in results.get("reasons", {}).items()]
    return "\n".join(line.rstrip() for line in lines)


def reasons_for_gaps(world: WorldModel, games: RealGames, game: Game | None) -> dict[str, str]:
    """Metric -> why it cannot be measured for this world."""
    env_id = game.env_id if game else None
    reasons = {}
    if games.ball is None:
        reasons["object_recall"] = f"the ball of {env_id} is not described" if env_id else "the ball in videos is not described"
    if world.latent_action_model is None:
        reasons["action_information"] = "this world has true actions; none had to be discovered"
    elif games.store.num_actions == 0:
        reasons["action_information"] = "videos do not record which keys were pressed"
    if world.num_actions == 0:
        reasons |= dict.fromkeys(("shuffle_ratio", "delta_psnr_db", "obedience"), "this world has no actions")
    elif game is None or not player_keys(game):
        reasons["obedience"] = f"the player of {env_id} is not described" if env_id else "there is no game to compare with"
    return reasons
