"""Score a trained dynamics model on episodes it never saw: the next tokens, and dreams beside what really happened.

    python 3.dynamics-model/validate.py --data-path data/breakout --save-images

Writes validation.json, and with --save-images the pictures of the chapter, into `validation/` beside the checkpoint.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from dynamics_model.config import DynamicsConfig
from dynamics_model.figures import action_labels, save_action_gif, save_horizon_chart, save_real_and_dreamed, save_rollout_strips
from dynamics_model.metrics import DynamicsMetrics, HorizonScores
from dynamics_model.models.maskgit import DynamicsModel
from dynamics_model.readings import HORIZONS, print_delta, print_dreams, print_tokens
from dynamics_model.registry import load_dynamics
from dynamics_model.rollouts import dreams_beside_real
from dynamics_model.token_cache import TokenClips
from dynamics_model.training_tokens import TrainingTokens, prepare_tokens
from video_tokenizer.data.clips import Clips, split_episodes, to_frames
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.data.validation import clip_videos, even_batches, open_validation_data, output_folder
from video_tokenizer.figures import save_gif
from video_tokenizer.training.checkpoint import find_checkpoint, fingerprint, load_checkpoint
from video_tokenizer.training.command_line import InputError, config_from_dict, parse_config, run_script
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.results import format_number, save_json

STEPS = (1, 2, 4, 8, 16)
"""steps of the chart"""


@dataclass(frozen=True)
class ValidateConfig:
    """Score a dynamics model on its validation episodes."""

    checkpoint: str | None = None
    """checkpoint of chapter 3; default: checkpoints/best_model.pt of the chapter, else the reference world's"""
    tokenizer_checkpoint: str | None = None
    """chapter 1's; default: the one beside the checkpoint, as in a world folder, else the one it was trained with"""
    latent_action_checkpoint: str | None = None
    """chapter 2's, for latent actions; default as above"""
    true_checkpoint: str | None = None
    """a dynamics model trained with --actions true on the same tokens: its delta_psnr_db is the ceiling"""
    data_path: str | None = None
    """clip store, folder of videos, folder of images or .h5 file; default: what the checkpoint was trained on"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    use_dummy_data: bool = False
    """score on the synthetic moving square"""
    num_batches: int | None = None
    """batches of next tokens to score, spread evenly over the validation clips; default: all clips"""
    batch_size: int = 16
    """clips per batch, at least 2"""
    num_rollouts: int = 32
    """dreams that are compared with the real video"""
    sampling_steps: int = 4
    """passes in which the tokens of one dreamed frame are filled in"""
    temperature: float = 1.0
    """divides the logits; 0 always takes the most likely token"""
    top_p: float = 0.9
    """draw among the likeliest tokens that together have this share only; 1: all"""
    save_images: bool = False
    """also write the pictures"""
    num_samples: int = 3
    """dreams shown in the pictures, the same ones every time"""
    output: str | None = None
    """folder for pictures and numbers; default: validation/ beside the checkpoint"""
    json: str | None = None
    """file for the numbers; default: validation.json in the output folder"""
    seed: int = 0
    """seeds the dreams, the random actions and the shuffle"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers that leave nothing to score."""
        smallest = {"num_batches": 1, "batch_size": 2, "num_rollouts": 1, "sampling_steps": 1, "temperature": 0, "num_samples": 1}
        for name, least in smallest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')} {value} must be at least {least}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top-p {self.top_p} must be a share above 0, at most 1")


def score_tokens(model: DynamicsModel, clips: TokenClips, flags: ValidateConfig, device: torch.device) -> DynamicsMetrics:
    """Next tokens given the real past."""
    metrics, generator = DynamicsMetrics(), torch.Generator().manual_seed(flags.seed)
    for indices in tqdm(list(even_batches(len(clips), flags.batch_size, flags.num_batches)), desc="next tokens", disable=None):
        batch = clips.__getitems__(indices)
        with autocast(device, model.config.precision):
            metrics.update(model, batch["tokens"].to(device), batch["actions"].to(device), generator)
    return metrics


def score_dreams(
    model: DynamicsModel, prepared: TrainingTokens, clips: Clips, flags: ValidateConfig, device: torch.device
) -> tuple[dict[str, HorizonScores], dict[str, np.ndarray]]:
    """PSNR against steps of dreams and their controls, and the videos of the first num_samples: label -> uint8 (S, K, H, W,
    3)."""
    token_clips = TokenClips(clips, prepared.tokens, prepared.actions)
    generators = torch.Generator(device).manual_seed(flags.seed), torch.Generator().manual_seed(flags.seed)
    sampling = {"num_steps": flags.sampling_steps, "temperature": flags.temperature, "top_p": flags.top_p}
    scores: dict[str, HorizonScores] = {}
    samples: dict[str, list[np.ndarray]] = {}
    chosen = evenly_spaced(len(clips), flags.num_rollouts)
    for places in tqdm(list(even_batches(len(chosen), flags.batch_size)), desc="dreams", disable=None):
        indices = [chosen[place] for place in places]
        batch = token_clips.__getitems__(indices)
        told = batch["tokens"].to(device), batch["actions"].to(device)
        video = clip_videos(clips, indices, device)
        videos = dreams_beside_real(model, prepared.tokenizer, *told, video=video, generators=generators, **sampling)
        for label, frames in videos.items():
            if label != "real":
                scores.setdefault(label, HorizonScores(STEPS)).update(frames, videos["real"], video[:, model.context_frames - 1])
            samples.setdefault(label, []).extend(to_frames(frames))
    return scores, {label: np.stack(part[: flags.num_samples]) for label, part in samples.items()}


def prepare(flags: ValidateConfig, config: DynamicsConfig, content: dict[str, Any], path: Path, data, device) -> TrainingTokens:
    """Tokens and actions of the store, with the very tokenizer the model was trained on. Raises InputError for another."""

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
    prepared = prepare_tokens(config, data.store, device)
    found = fingerprint(prepared.tokenizer.state_dict())
    if found != content.get("tokenizer_fingerprint", found):
        raise InputError(f"{path} was trained on the tokens of another tokenizer; give that one with --tokenizer-checkpoint")
    return prepared


def save_pictures(model, prepared, content, scores, videos, caption: str, folder: Path, flags: ValidateConfig) -> None:
    """actions.png and actions.gif, rollout_<k>.png and .gif, horizons.png."""
    sampling = {"num_steps": flags.sampling_steps, "temperature": flags.temperature, "top_p": flags.top_p}
    title = f"One start, one action held per row. {caption}"
    dreams = save_rollout_strips(
        folder / "actions.png", model, prepared.tokenizer, content, flags.seed, caption=title, **sampling
    )
    speed = content["frames_per_second"]
    save_action_gif(folder / "actions.gif", dreams, action_labels(model, content), speed)
    for sample, real in enumerate(videos["real"]):
        followed = {label: part[sample] for label, part in videos.items() if label.startswith("dream")}
        save_real_and_dreamed(
            folder / f"rollout_{sample + 1}.png", real, followed, f"What happened and what was dreamed. {caption}"
        )
        save_gif(folder / f"rollout_{sample + 1}.gif", {"real": real, **followed}, speed)
    curves = {label: part.result("moving_psnr_db") for label, part in scores.items()}
    save_horizon_chart(folder / "horizons.png", curves, f"Moving pixels of dreams. {caption}", "moving PSNR, dB")


def main() -> None:
    """Load the checkpoint and the data it was not trained on, score, print, and save numbers and pictures."""
    flags = parse_config(ValidateConfig)
    flags.check()
    device = choose_device(flags.device)
    path = find_checkpoint(flags.checkpoint, "dynamics")
    content = load_checkpoint(path, "dynamics")
    model = load_dynamics(path, device)
    config = config_from_dict(DynamicsConfig, content["config"])
    data = open_validation_data(flags, config, content["data_fingerprint"])
    prepared = prepare(flags, config, content, path, data, device)
    folder = output_folder(flags.output, path)

    metrics = score_tokens(model, TokenClips(data.validation, prepared.tokens, prepared.actions), flags, device)
    tokens = metrics.result()
    print(f"{path} | step {content['step']:,} | {metrics.right.num_tokens:,} tokens of {data.store.path.name} never trained on")
    print_tokens(tokens, model)

    _, episodes = split_episodes(data.store, config.validation_share, config.seed)
    clips = Clips(data.store, episodes, model.context_frames + max(HORIZONS))
    scores, videos = score_dreams(model, prepared, clips, flags, device)
    report: dict[str, Any] = {"checkpoint": str(path), "step": content["step"], "data": str(data.store.path), **tokens}
    report |= print_dreams(scores, model)
    if flags.true_checkpoint is not None:
        ceiling = load_dynamics(flags.true_checkpoint, device)
        if ceiling.action_kind != "true":
            raise InputError(f"--true-checkpoint {flags.true_checkpoint} follows {ceiling.action_kind} actions, not true ones")
        followed = prepared._replace(actions=np.asarray(data.store.actions, np.int64))
        true_scores, _ = score_dreams(ceiling, followed, clips, flags, device)
        report["delta_psnr_db_true_actions"] = print_delta(true_scores, "with true actions, the ceiling")

    json_path = Path(flags.json) if flags.json else folder / "validation.json"
    save_json(json_path, report)
    print(f"numbers in {json_path}")
    if flags.save_images:
        caption = f"Step {content['step']:,}, shuffle ratio {format_number(tokens['shuffle_ratio'])}."
        save_pictures(model, prepared, content, scores, videos, caption, folder, flags)
        print(f"pictures in {folder}")


if __name__ == "__main__":
    run_script(main)
