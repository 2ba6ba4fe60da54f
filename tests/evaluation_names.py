"""The scores that an evaluation of a world reports, and the controls beside them."""

import json
from pathlib import Path

NAMES = {  # what every evaluation of a game's world reports
    "psnr_db", "copy_last_psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "codes_used", "perplexity",
    "shuffle_ratio", "delta_psnr_db", "obedience", "rollout", "long_dream", "frames_per_second", "p95_ms",
}  # fmt: skip
NAMES_OF_LATENT_ACTIONS = {
    "action_information", "action_information_single", "supervised_information", "action_information_ratio",
    "mapping_accuracy", "supervised_accuracy", "mapping_accuracy_ratio",
}  # fmt: skip
CONTROLS = {  # what stands beside them
    "untrained": {"psnr_db", "moving_psnr_db", "shuffle_ratio", "delta_psnr_db", "obedience", "rollout", "long_dream"},
    "copy_last": {"psnr_db", "moving_psnr_db", "obedience", "rollout", "long_dream"},
}


def has_every_score(file: Path, actions: str) -> None:
    """Check a quick evaluation of a world of Breakout."""
    results = json.loads(file.read_text())
    assert results.keys() >= NAMES | (NAMES_OF_LATENT_ACTIONS if actions == "latent" else {"action_information"})
    assert set(results["rollout"]) == {"1", "4", "16", "64", "ball_share_gap", "one_ball_share"}
    assert set(results["delta_psnr_db"]) == {"1", "4", "16"}
    assert set(results["obedience_by_key"]) == {"LEFT", "RIGHT", "NOOP"}
    assert results["long_dream"].keys() >= {"within_real_range", "worst_stretch", "ball_share", "within_real_range_real"}
    for control, names in CONTROLS.items():
        assert results["controls"][control].keys() >= names
    assert results["settings"]["env"] == "ALE/Breakout-v5" and results["num_threads"] == 1
    assert ("action_information" in results["reasons"]) == (actions == "true")
