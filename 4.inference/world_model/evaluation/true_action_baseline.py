"""The yardstick of a world that had to discover its actions: the same game's world that was told them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.results import look_up

HORIZON = 4
"""dreamed frames after which delta_psnr_db is compared"""


def read_true_metrics(path: Path | str, env_id: str | None) -> dict[str, Any]:
    """The numbers that `evaluate.py --json` wrote about the world of true actions of the game env_id.

    Raises InputError where the file is missing or no JSON, is about another game or another kind of world, or holds no positive
    delta_psnr_db.4, by which `shares_of_true_world` divides.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--true-metrics {path}: there is no such file; give what evaluate.py --json wrote about the true world")
    try:
        metrics = json.loads(path.read_text())
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
            f"--true-metrics {path} holds no positive delta_psnr_db.{HORIZON} to divide by; evaluate that world anew"
        )
    return metrics


def shares_of_true_world(results: Mapping[str, Any], true_metrics: Mapping[str, Any]) -> dict[str, float]:
    """How much of what the true actions give do the discovered ones give: delta_psnr_share, of delta_psnr_db after 4 frames, and
    obedience_moving_share, where the game has a known player. 1.0: as much.

    results: of the world to be judged, delta_psnr_db with horizons as whole numbers. The plain obedience gets no share: standing
    still reaches three quarters of it.
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
