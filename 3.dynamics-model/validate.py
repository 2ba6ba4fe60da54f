"""Score a trained dynamics model on held-out episodes: next frames, and rollouts compared with the real video.

    python 3.dynamics-model/validate.py --data-path data/breakout --save-images

Writes validation.json, and with --save-images the pictures of the chapter, into `validation/` beside the checkpoint.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes

from dynamics_model.config import NextFrameConfig
from dynamics_model.data.frame_cache import FrameClips, rollout_clips
from dynamics_model.data.prepare import PreparedFrames, prepare_frames
from dynamics_model.figures import (
    action_labels,
    draw_horizons,
    save_action_gif,
    save_real_and_predicted,
    save_rollout_strips,
)
from dynamics_model.metrics import DynamicsMetrics, HorizonScores, copy_bits_per_code, delta_psnr_db
from dynamics_model.models.base import DynamicsModel, Sampling
from dynamics_model.registry import load_dynamics
from dynamics_model.rollouts import rollouts_and_baselines
from dynamics_model.sampling_flags import SamplingFlags, sampling_of
from video_tokenizer.data.clips import Clips, split_episodes, to_frames
from video_tokenizer.data.seen_frames import unseen_clips
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.data.validation import clip_videos, even_batches, open_validation_data, output_folder
from video_tokenizer.errors import InputError
from video_tokenizer.figures import save_figure, save_gif
from video_tokenizer.training.checkpoint import find_checkpoint, fingerprint, load_checkpoint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.config import ValidationConfig
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.results import format_number, format_table, save_json

HORIZONS = (1, 4, 16)
"""rollout steps at which tables quote a score"""
STEPS = (1, 2, 4, 8, 16)
"""steps of the chart"""


@dataclass(frozen=True)
class ValidateConfig(ValidationConfig):
    """Score a dynamics model on its validation episodes."""

    tokenizer_checkpoint: str | None = None
    """tokenizer checkpoint of chapter 1; default: the one in the checkpoint's folder, else the one used in training"""
    latent_action_checkpoint: str | None = None
    """checkpoint of chapter 2, for latent actions; default: as for the tokenizer"""
    true_checkpoint: str | None = None
    """a dynamics model trained with --actions true on the same tokens; its delta_psnr_db is the ceiling"""
    num_frames: int | None = None
    """frames per clip of the next-frame scores; default: as in training"""
    context_frames: int | None = None
    """frames that attention covers; default: as in training. More ask whether the model's positions extrapolate"""
    batch_size: int = 16
    """clips per batch, at least 2"""
    num_rollouts: int = 32
    """rollouts that are compared with the real video"""
    sampling: OmitArgPrefixes[SamplingFlags] = field(default_factory=SamplingFlags)
    """how frames are sampled"""
    num_samples: int = 3
    """rollouts shown in the pictures, the same ones every time"""


def score_frames(model: DynamicsModel, clips: FrameClips, flags: ValidateConfig, device: torch.device) -> DynamicsMetrics:
    """The scores of next frames, each predicted from the real past."""
    metrics, generator = DynamicsMetrics(), torch.Generator().manual_seed(flags.seed)
    for indices in tqdm(list(even_batches(len(clips), flags.batch_size, flags.num_batches)), desc="next frames", disable=None):
        batch = clips.__getitems__(indices)
        with autocast(device, model.config.precision):
            metrics.update(model, batch["frames"].to(device), batch["actions"].to(device), generator)
    return metrics


def score_rollouts(
    model: DynamicsModel, prepared: PreparedFrames, clips: Clips, flags: ValidateConfig, sampling: Sampling, device: torch.device
) -> tuple[dict[str, HorizonScores], dict[str, np.ndarray]]:
    """Score rollouts and their baselines at each step of `STEPS`.

    Returns label -> scores, and the videos of the first num_samples rollouts: label -> uint8 (S, K, H, W, 3).
    """
    frame_clips = prepared.clips(clips)
    generators = torch.Generator(device).manual_seed(flags.seed), torch.Generator().manual_seed(flags.seed)
    scores: dict[str, HorizonScores] = {}
    samples: dict[str, list[np.ndarray]] = {}
    chosen = evenly_spaced(len(clips), flags.num_rollouts)
    for places in tqdm(list(even_batches(len(chosen), flags.batch_size)), desc="rollouts", disable=None):
        indices = [chosen[place] for place in places]
        batch = frame_clips.__getitems__(indices)
        frames, actions, video = batch["frames"].to(device), batch["actions"].to(device), clip_videos(clips, indices, device)
        videos = rollouts_and_baselines(model, prepared.tokenizer, frames, actions, video, generators, sampling)
        for label, predicted in videos.items():
            if label != "real":
                last = video[:, model.context_frames - 1]
                scores.setdefault(label, HorizonScores(STEPS)).update(predicted, videos["real"], last)
            samples.setdefault(label, []).extend(to_frames(predicted))
    return scores, {label: np.stack(part[: flags.num_samples]) for label, part in samples.items()}


def prepare(flags: ValidateConfig, config: NextFrameConfig, content: dict[str, Any], path: Path, data, device) -> PreparedFrames:
    """The frames and actions of the store, encoded with the tokenizer used in training. Raises InputError for another one."""

    def neighbour(given: str | None, kind: str, trained_with: str | None) -> str | None:
        beside = path.parent / f"{kind}.pt"
        return given or (str(beside) if beside.exists() else trained_with)

    config = replace(
        config,
        tokenizer_checkpoint=neighbour(flags.tokenizer_checkpoint, "tokenizer", config.tokenizer_checkpoint),
        latent_action_checkpoint=neighbour(
            flags.latent_action_checkpoint, "latent_action_model", config.latent_action_checkpoint
        ),
    )  # fmt: skip
    prepared = prepare_frames(config, data.store, device)
    found = fingerprint(prepared.tokenizer.state_dict())
    if found != content.get("tokenizer_fingerprint", found):
        raise InputError(f"{path} was trained with a different tokenizer; give that one with --tokenizer-checkpoint")
    return prepared


def print_frames(scores: dict[str, float], model: DynamicsModel) -> None:
    """Print the scores of next frames, and what they mean."""
    names = ("loss", "loss_changed", "accuracy", "accuracy_changed")
    rows = {"dynamics": {name: scores[name] for name in names if name in scores}}
    rows["copy last frame"] = {name.removeprefix("copy_"): scores[name] for name in scores if name.startswith("copy_")}
    if model.num_actions:
        rows["actions shuffled"] = {"loss_changed": scores["loss_changed_shuffled"]}
    print(format_table(rows))
    print(f"{scores['share_changed']:.1%} of the {model.reads} change from frame to frame; copying gets none of these right")
    if model.num_actions:
        ratio = scores["shuffle_ratio"]
        verdict = "uses its actions" if ratio > 1.05 else "hardly uses its actions"
        print(f"shuffle ratio {ratio:.2f} (loss with the actions of other clips / loss with the right ones): the model {verdict}")
    if model.num_own_codes:
        used, even = scores["codes_used"], scores["perplexity"]
        print(f"{used} of the model's {model.num_own_codes} own codes are used, as evenly as {even:.0f} equally frequent ones")


def print_rollouts(scores: dict[str, HorizonScores], model: DynamicsModel) -> dict[str, Any]:
    """Print the scores of rollouts against the real video. Returns those that go into the report."""
    rows: dict[str, dict[str, float]] = {}
    for label, part in scores.items():
        psnr, moving = part.result(), part.result("moving_psnr_db")
        rows[label] = {f"psnr_db t={step}": psnr[step] for step in HORIZONS}
        rows[label] |= {f"moving t={step}": moving[step] for step in HORIZONS}
    print("\nrollouts against the real video, t steps after the last prompt frame")
    print(format_table(rows))
    report: dict[str, Any] = {"rollout": {label: part.result() for label, part in scores.items()}}
    report["rollout_moving"] = {label: part.result("moving_psnr_db") for label, part in scores.items()}
    if model.num_actions:
        report["delta_psnr_db"] = print_delta(scores, f"with {model.action_kind} actions")
        report["delta_moving_psnr_db"] = delta_psnr_db(*right_and_random(scores), "moving_psnr_db")
    return report


def right_and_random(scores: dict[str, HorizonScores]) -> tuple[HorizonScores, HorizonScores]:
    return scores["dream, right actions"], scores["dream, random actions"]


def print_delta(scores: dict[str, HorizonScores], what: str) -> dict[int, float]:
    """Print and return how many dB the right actions gain over random ones at each horizon."""
    delta = delta_psnr_db(*right_and_random(scores))
    print(f"delta_psnr_db {what}: " + ", ".join(f"{delta[step]:+.2f} at t = {step}" for step in HORIZONS))
    return delta


def save_pictures(model, prepared, content, scores, videos, caption: str, folder: Path, seed: int, sampling: Sampling) -> None:
    """Write actions.png and actions.gif, rollout_<k>.png and .gif, and horizons.png."""
    title = f"The same start, with a different action held in each row. {caption}"
    rollouts = save_rollout_strips(
        folder / "actions.png", model, prepared.tokenizer, content, seed, caption=title, sampling=sampling
    )
    speed = content["frames_per_second"]
    save_action_gif(folder / "actions.gif", rollouts, action_labels(model, content), speed)
    for sample, real in enumerate(videos["real"]):
        predicted = {label: part[sample] for label, part in videos.items() if label.startswith("dream")}
        title = f"What happened and what was predicted. {caption}"
        save_real_and_predicted(folder / f"rollout_{sample + 1}.png", real, predicted, title)
        save_gif(folder / f"rollout_{sample + 1}.gif", {"real": real, **predicted}, speed)
    curves = {label: part.result("moving_psnr_db") for label, part in scores.items()}
    chart = draw_horizons(curves, f"Moving pixels of rollouts. {caption}", "moving PSNR, dB")
    save_figure(folder / "horizons.png", chart)


def main() -> None:
    flags = parse_config(ValidateConfig)
    flags.check(batch_size=2, num_rollouts=1)
    device = choose_device(flags.device)
    path = find_checkpoint(flags.checkpoint, "dynamics")
    content = load_checkpoint(path, "dynamics")
    lengths = {"num_frames": flags.num_frames, "context_frames": flags.context_frames}
    model = load_dynamics(path, device, **{name: value for name, value in lengths.items() if value is not None})
    sampling = sampling_of(model, flags.sampling.given())
    config = model.config
    data = open_validation_data(flags, config, content)
    prepared = prepare(flags, config, content, path, data, device)
    folder = output_folder(flags.output, path)

    metrics = score_frames(model, prepared.clips(data.validation), flags, device)
    next_frames = metrics.result()
    scored = f"{metrics.right.num_tokens:,} {model.reads} of {data.store.path.name}"
    print(f"{path} | step {content['step']:,} | {scored}, held out")
    print_frames(next_frames, model)
    report: dict[str, Any] = {"checkpoint": str(path), "step": content["step"], "data": str(data.store.path)}
    report |= {"seen_in_training": data.seen_share, **next_frames}
    if model.is_exact_likelihood:
        bits = {"bits_per_code": next_frames["loss"] / math.log(2)}
        bits["copy_bits_per_code"] = copy_bits_per_code(next_frames["share_changed"], model.config.codebook_size)
        report |= bits
        print(f"{bits['bits_per_code']:.3f} bits per code; {bits['copy_bits_per_code']:.3f} for a copy that may be wrong")

    _, episodes = split_episodes(data.store, config.validation_share, config.seed)
    clips = rollout_clips(data.store, episodes, model.context_frames + max(HORIZONS), prepared.tokenizer)
    clips = unseen_clips(clips, data.seen, model.context_frames)
    scores, videos = score_rollouts(model, prepared, clips, flags, sampling, device)
    report |= print_rollouts(scores, model)
    if flags.true_checkpoint is not None:
        ceiling = load_dynamics(flags.true_checkpoint, device)
        if ceiling.action_kind != "true":
            raise InputError(
                f"--true-checkpoint {flags.true_checkpoint} uses {ceiling.action_kind} actions; give a model trained with "
                "--actions true"
            )
        recorded = replace(prepared, actions=np.asarray(data.store.actions, np.int64))
        true_scores, _ = score_rollouts(ceiling, recorded, clips, flags, sampling, device)
        report["delta_psnr_db_true_actions"] = print_delta(true_scores, "with true actions, the ceiling")

    json_path = Path(flags.json) if flags.json else folder / "validation.json"
    save_json(json_path, report)
    print(f"numbers in {json_path}")
    if flags.save_images:
        caption = f"Step {content['step']:,}, shuffle ratio {format_number(next_frames['shuffle_ratio'])}."
        save_pictures(model, prepared, content, scores, videos, caption, folder, flags.seed, sampling)
        print(f"pictures in {folder}")


if __name__ == "__main__":
    run_script(main)
