"""What chapter 3's scores say, as tables with their controls and lines in words."""

from typing import Any

from dynamics_model.metrics import HorizonScores, delta_psnr_db
from video_tokenizer.training.results import format_table

HORIZONS = (1, 4, 16)
"""steps into the dream at which tables quote a score"""


def print_tokens(tokens: dict[str, float], model) -> None:
    """The table of next tokens, and lines on what it means."""
    names = ("loss", "loss_changed", "accuracy", "accuracy_changed")
    rows = {"dynamics": {name: tokens[name] for name in names}}
    rows["copy last frame"] = {"accuracy": tokens["copy_accuracy"], "accuracy_changed": tokens["copy_accuracy_changed"]}
    if model.num_actions:
        rows["actions shuffled"] = {"loss_changed": tokens["loss_changed_shuffled"]}
    print(format_table(rows))
    print(f"{1 - tokens['copy_accuracy']:.1%} of the tokens change from frame to frame; copying gets none of these")
    if model.num_actions:
        ratio = tokens["shuffle_ratio"]
        verdict = "listens to its actions" if ratio > 1.05 else "hardly listens to its actions"
        print(f"shuffle ratio {ratio:.2f}: under other clips' actions the loss is that many times higher; the model {verdict}")


def print_dreams(scores: dict[str, HorizonScores], model) -> dict[str, Any]:
    """The table of dreams against the real video. Returns what the report keeps of it."""
    rows: dict[str, dict[str, float]] = {}
    for label, part in scores.items():
        psnr, moving = part.result(), part.result("moving_psnr_db")
        rows[label] = {f"psnr_db t={step}": psnr[step] for step in HORIZONS}
        rows[label] |= {f"moving t={step}": moving[step] for step in HORIZONS}
    print("\ndreams against the real video, t steps after the last given frame")
    print(format_table(rows))
    report: dict[str, Any] = {"rollout": {label: part.result() for label, part in scores.items()}}
    report["rollout_moving"] = {label: part.result("moving_psnr_db") for label, part in scores.items()}
    if model.num_actions:
        report["delta_psnr_db"] = print_delta(scores, f"with {model.action_kind} actions")
        report["delta_moving_psnr_db"] = delta_psnr_db(*dream_pair(scores), "moving_psnr_db")
    return report


def dream_pair(scores: dict[str, HorizonScores]) -> tuple[HorizonScores, HorizonScores]:
    """The dreams under the right and under random actions."""
    return scores["dream, right actions"], scores["dream, random actions"]


def print_delta(scores: dict[str, HorizonScores], what: str) -> dict[int, float]:
    """One line: what the right actions are worth against random ones, per horizon in dB."""
    delta = delta_psnr_db(*dream_pair(scores))
    print(f"delta_psnr_db {what}: " + ", ".join(f"{delta[step]:+.2f} at t = {step}" for step in HORIZONS))
    return delta
