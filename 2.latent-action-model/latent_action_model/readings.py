"""What chapter 2's scores say, as tables with their controls and lines in words."""

import math
from typing import Any

from latent_action_model.metrics import LatentActionMetrics
from video_tokenizer.training.results import format_table


def print_actions(scores: dict[str, Any]) -> None:
    """The table of what the codes know, and a line on what it means."""
    missing = math.nan
    rows = {
        "latent actions": {
            "action_information": scores.get("action_information", missing),
            "from_single_code": scores.get("action_information_single", missing),
            "accuracy": scores.get("mapping_accuracy", missing),
        },
        "codes shuffled": {"action_information": scores.get("action_information_shuffled", missing)},
        "most frequent action": {"action_information": 0.0, "accuracy": scores.get("majority_accuracy", missing)},
        "supervised ceiling": {
            "action_information": scores.get("supervised_information", missing),
            "accuracy": scores.get("supervised_accuracy", missing),
        },
    }
    print(f"\ntrue actions, {scores['num_test']:,} transitions of episodes never trained on ({scores['players']} players)")
    print(format_table(rows))
    if "action_map" in scores:
        known, ceiling = scores["action_information"], scores.get("supervised_information", missing)
        if ceiling > 0:
            verdict = (
                "the actions are found" if known >= 0.5 * ceiling else "found in part" if known >= 0.2 * ceiling else "not found"
            )
            print(f"the codes tell {known / ceiling:.0%} of what can be seen of the action: {verdict}")
        print("to press " + ", ".join(f"{name} send {code}" for name, code in scores["action_map"].items()))


def print_drawings(metrics: LatentActionMetrics, num_actions: int) -> None:
    """The table of next frames beside its controls, and lines on what it means."""
    names = ("psnr_db", "moving_psnr_db")
    parts = {"inferred actions": metrics.inferred, "random actions": metrics.random, "copy last frame": metrics.copy_last}
    print(format_table({label: {name: part.result()[name] for name in names} for label, part in parts.items()}))
    scores = metrics.result()
    verdict = "the decoder listens to the code" if scores["delta_moving_psnr_db"] > 0.5 else "the decoder hardly needs the code"
    print(f"the right action is worth {scores['delta_moving_psnr_db']:+.2f} dB on moving pixels: {verdict}")
    print(f"swap test: exchanging two actions makes the drawings worse in {scores['swap_test']:.0%} of the pairs (chance 50 %)")
    collapsed = "; collapsed, the codes say next to nothing" if scores["perplexity"] < 1.5 else ""
    used = f"{scores['codes_used']} of {num_actions} used"
    print(f"codes: {used}, as varied as {scores['perplexity']:.1f} evenly used ones{collapsed}")
