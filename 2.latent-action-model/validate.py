"""Score a trained latent action model against the true actions, which it never saw, and against a supervised classifier.

    python 2.latent-action-model/validate.py --data-path data/breakout --save-images

Writes validation.json, and with --save-images the pictures of the chapter, into `validation/` beside the checkpoint.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from latent_action_model.action_map import action_map, count_pairs, latent_names
from latent_action_model.action_probe import supervised_information
from latent_action_model.config import LatentActionConfig
from latent_action_model.figures import draw_confusion, save_action_gallery, save_swap_test
from latent_action_model.loading import load_latent_action_model
from latent_action_model.metrics import (
    LatentActionMetrics,
    Transitions,
    action_information,
    encode_episodes,
    find_transitions,
    independent_episodes,
    mapping_accuracy,
    mutual_information,
)
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, split_episodes
from video_tokenizer.data.validation import (
    ball_positions,
    clip_videos,
    even_batches,
    most_active_clips,
    open_validation_data,
    output_folder,
)
from video_tokenizer.figures import save_figure
from video_tokenizer.metrics import share
from video_tokenizer.training.checkpoint import find_checkpoint, load_checkpoint
from video_tokenizer.training.command_line import config_from_dict, parse_config, run_script
from video_tokenizer.training.config import ValidationConfig
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.results import format_number, format_table, save_json


@dataclass(frozen=True)
class ValidateConfig(ValidationConfig):
    """Score a latent action model on its validation episodes."""

    batch_size: int = 32
    """clips per batch, at least 2"""
    num_samples: int = 3
    """start frames shown in action galleries, the same ones every time"""
    fit_frames: int = 12_000
    """frames of training episodes used to fit the table and the dictionary from codes to actions"""
    probe_steps: int = 1000
    """training steps of the supervised classifier (the ceiling), fewer on small recordings; 0 leaves it out"""


def score_predictions(model: LatentActionModel, clips: Clips, flags: ValidateConfig, device: torch.device) -> LatentActionMetrics:
    """How much the actions improve the model's next-frame predictions."""
    metrics = LatentActionMetrics(model.num_actions)
    generator = torch.Generator().manual_seed(flags.seed)
    for indices in tqdm(list(even_batches(len(clips), flags.batch_size, flags.num_batches)), desc="next frames", disable=None):
        with autocast(device, model.config.precision):
            metrics.update(model, clip_videos(clips, indices, device), generator)
    return metrics


def score_actions(model: LatentActionModel, store: ClipStore, flags: ValidateConfig, device: torch.device) -> dict[str, Any]:
    """How well the codes predict the true actions: fitted on training episodes, scored on validation episodes.

    store: its transitions to frames that training has seen have no known action, -1, and are not scored.
    """
    training, validation = split_episodes(store, model.config.validation_share, model.config.seed)
    (training, _), (validation, players) = independent_episodes(store, training), independent_episodes(store, validation)
    lengths = np.cumsum(np.diff(store.episodes[training], axis=1))
    fitting = training[: 1 + int(np.searchsorted(lengths, flags.fit_frames))]
    with autocast(device, model.config.precision):
        codes = encode_episodes(model, store, [*fitting, *validation], model.config.num_frames)
    fit, test = (find_transitions(codes, store.actions, store.episodes[part]) for part in (fitting, validation))
    order = np.random.default_rng(flags.seed).permutation(len(fit.actions))
    shuffled = Transitions(fit.codes[order], fit.actions, fit.episodes)  # the baseline: codes of other transitions
    sizes = (model.num_actions, store.num_actions)
    scores: dict[str, Any] = {"players": players, "num_fit": len(fit.actions), "num_test": len(test.actions)}
    if len(fit.actions) and len(test.actions):
        scores |= {
            "action_information": action_information(fit, test, *sizes),
            "action_information_single": action_information(fit, test, *sizes, single=True),
            "action_information_shuffled": action_information(shuffled, test, *sizes),
            "mutual_information": mutual_information(test.codes[:, 1], test.actions),
            **mapping_accuracy(fit, test, model.num_actions, seed=flags.seed),
            "counts": count_pairs(test.codes[:, 1], test.actions, *sizes),
            "action_map": dict(zip(store.action_names, action_map(fit.codes[:, 1], fit.actions, *sizes), strict=True)),
            "latent_names": latent_names(fit.codes[:, 1], fit.actions, model.num_actions, store.action_names),
        }
    if flags.probe_steps > 0:
        probe = supervised_information(store, training, validation, flags.probe_steps, seed=flags.seed, device=device)
        scores |= {"supervised_information": probe.supervised_information, "supervised_accuracy": probe.supervised_accuracy}
        scores["supervised_steps"] = probe.num_steps
        known, ceiling = scores.get("action_information", math.nan), max(0.0, probe.supervised_information)
        scores["action_information_ratio"] = share(known, ceiling)  # NaN where the classifier sees nothing
    return scores


def print_actions(scores: dict[str, Any]) -> None:
    """Print how well the codes predict the true actions, and what it means."""
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
    print(f"\ntrue actions, {scores['num_test']:,} transitions of held-out episodes ({scores['players']} players)")
    print(format_table(rows))
    if "action_map" in scores:
        if scores.get("supervised_information", missing) > 0:
            ratio = scores["action_information_ratio"]
            verdict = "found" if ratio >= 0.5 else "partly found" if ratio >= 0.2 else "not found"
            print(f"the latent actions carry {ratio:.0%} of what the frames tell about the action: the actions are {verdict}")
        print("action map: " + ", ".join(f"{name} -> latent action {code}" for name, code in scores["action_map"].items()))


def print_predictions(metrics: LatentActionMetrics, num_actions: int) -> None:
    """Print the scores of next frames compared with their baselines, and what they mean."""
    names = ("psnr_db", "moving_psnr_db")
    parts = {"inferred actions": metrics.inferred, "random actions": metrics.random, "copy last frame": metrics.copy_last}
    print(format_table({label: {name: part.result()[name] for name in names} for label, part in parts.items()}))
    scores = metrics.result()
    gain, verdict = scores["delta_moving_psnr_db"], "depends on" if scores["delta_moving_psnr_db"] > 0.5 else "hardly needs"
    print(f"the right action is worth {gain:+.2f} dB on moving pixels: the decoder {verdict} the latent action")
    print(f"swap test: swapping two actions makes the predictions worse in {scores['swap_test']:.0%} of the pairs (chance 50%)")
    collapsed = "; collapsed: the latent actions carry almost no information" if scores["perplexity"] < 1.5 else ""
    used = f"{scores['codes_used']} of {num_actions} used"
    print(f"codes: {used}, perplexity {scores['perplexity']:.1f}{collapsed}")


def save_pictures(
    model: LatentActionModel, clips: Clips, scores: dict, caption: str, folder: Path, flags: ValidateConfig, device
):
    """Write confusion.png, gallery_<k>.png and swap_test.png."""
    names = scores.get("latent_names", ())
    if "counts" in scores:
        title = f"True keys of each latent action on held-out episodes. {caption}"
        save_figure(folder / "confusion.png", draw_confusion(scores["counts"], clips.store.action_names, names, title))
    chosen = most_active_clips(clips, max(flags.num_samples, 8))
    video = clip_videos(clips, chosen, device)
    positions = ball_positions(clips, chosen)
    balls = [None] * len(chosen) if positions is None else positions[:, -2:].mean(dim=1).tolist()  # between its last two places
    title = f"The next frame under every latent action. {caption}"
    for number, (clip, ball) in enumerate(zip(video[: flags.num_samples], balls, strict=False), start=1):
        shown = ball if ball is not None and np.isfinite(ball).all() else None
        save_action_gallery(folder / f"gallery_{number}.png", model, clip, title, names, shown)
    save_swap_test(folder / "swap_test.png", model, video, f"Exchanging two actions exchanges the predictions. {caption}")


def main() -> None:
    """Load the checkpoint and the held-out data, score, print, and save numbers and pictures."""
    flags = parse_config(ValidateConfig)
    flags.check(batch_size=2, fit_frames=1, probe_steps=0)
    device = choose_device(flags.device)
    path = find_checkpoint(flags.checkpoint, "latent_action_model")
    content = load_checkpoint(path, "latent_action_model")
    model = load_latent_action_model(path, device)
    data = open_validation_data(flags, config_from_dict(LatentActionConfig, content["config"]), content)
    folder = output_folder(flags.output, path)

    metrics = score_predictions(model, data.validation, flags, device)
    print(f"{path} | step {content['step']:,} | {metrics.inferred.num_frames:,} held-out frames of {data.store.path.name}")
    print_predictions(metrics, model.num_actions)
    scores: dict[str, Any] = {}
    if data.store.num_actions:
        unseen = replace(data.store, actions=np.where(data.seen, -1, data.store.actions))
        scores = score_actions(model, unseen, flags, device)
        print_actions(scores)
    else:
        print(f"{data.store.path} has no true actions, so the meaning of the codes cannot be scored")

    json_path = Path(flags.json) if flags.json else folder / "validation.json"
    report = {"checkpoint": str(path), "step": content["step"], "data": str(data.store.path)}
    report |= {"num_actions": model.num_actions, "seen_in_training": data.seen_share}
    save_json(json_path, report | metrics.result() | scores)
    print(f"numbers in {json_path}")
    if flags.save_images:
        caption = f"Step {content['step']:,}"
        if "action_information" in scores:
            known, ceiling = scores["action_information"], scores.get("supervised_information")
            caption += f", action information {format_number(known)} (supervised {format_number(ceiling)})"
        save_pictures(model, data.validation, scores, caption + ".", folder, flags, device)
        print(f"pictures in {folder}")


if __name__ == "__main__":
    run_script(main)
