"""Baseline of a latent-action world: a world of the same game trained on ground-truth actions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_tokenizer.errors import InputError
from video_tokenizer.training.results import look_up

HORIZON = 4
"""rollout steps after which delta_psnr_db is compared"""


def read_true_metrics(path: Path | str, env_id: str | None) -> dict[str, Any]:
    """The numbers that `evaluate.py --json` wrote for the world of true actions of the game env_id.

    Raises InputError if the file is missing or not JSON, is about another game or kind of world, or holds no positive
    delta_psnr_db.4, by which `shares_of_baseline` divides.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--true-metrics {path}: there is no such file; give the --json of evaluate.py on the true-action world")
    try:
        metrics = json.loads(path.read_bytes())
        settings = metrics["settings"]
        kind, env = settings["action_kind"], settings["env"]
    except (ValueError, LookupError, TypeError):
        raise InputError(f"--true-metrics {path} holds no metrics of evaluate.py; give a file that --json wrote") from None
    if kind != "true" or env != env_id:
        raise InputError(
            f"--true-metrics {path} is about a world of {env} with {kind} actions; give that of {env_id} with true actions"
        )
    if not (look_up(metrics, f"delta_psnr_db.{HORIZON}") or 0.0) > 0.0:
        raise InputError(
            f"--true-metrics {path} holds no positive delta_psnr_db.{HORIZON} to divide by; evaluate that world again"
        )
    return metrics


def shares_of_baseline(results: Mapping[str, Any], true_metrics: Mapping[str, Any]) -> dict[str, float]:
    """The latent-action world's scores over the baseline's: delta_psnr_share, of delta_psnr_db after 4 steps, and
    obedience_moving_share, if the game's player is described.

    results: of the latent-action world, delta_psnr_db with horizons as whole numbers. Plain obedience gets no share: a repeated
    last frame reaches three quarters of it.
    """
    shares = {}
    delta = results.get("delta_psnr_db", {}).get(HORIZON)
    true_delta = look_up(true_metrics, f"delta_psnr_db.{HORIZON}")
    if delta is not None and true_delta:
        shares["delta_psnr_share"] = delta / true_delta
    moving, true_moving = results.get("obedience_moving"), look_up(true_metrics, "obedience_moving")
    if moving is not None and true_moving:
        shares["obedience_moving_share"] = moving / true_moving
    return shares
