"""Train MoCA on moving digits, edit clips with it, and measure what became of picture and motion.

    python 4.inference/uses/moca/edit_clips.py --json scores/moca.json --picture scores/moca.png

Everything is in --output. What is there already, made with the same flags, is used again.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uses.moca.conditions import Films
from uses.moca.config import EditConfig, MocaConfig
from uses.moca.diffusion import NUM_LEVELS, ORDER, TEXT_ONLY
from uses.moca.digits import SIZE, Scenes, captions, changed, draw_scenes, edit_frames, film, flow, has_room, mean_of, read
from uses.moca.judge import Judge, edit_scores, own_is_nearest
from uses.moca.model import MoCA
from uses.moca.train import open_judge, open_moca, told, trained_longer
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.results import format_table, save_json, settings_of

SPATIAL = ("color", "digit", "background", "several")
"""edits of what is seen, whose motion should stay; the other edit is "motion", which turns round"""
STRENGTH = 0.6
"""share of the noise that SDEdit mixes into the source before it takes it out again"""
BATCH = 50
"""clips that are edited together"""


class Edit(NamedTuple):
    """What an edit is given, and what it should lead to."""

    source: Scenes
    target: Scenes
    first_frames: np.ndarray
    """(B, H, W, 3) uint8, edited"""
    words: np.ndarray
    """(B, L) the new caption. It names the direction only where that is what changes"""


def make_edit(kind: str, count: int, seed: int) -> Edit:
    """Clips of no training, and edits of one kind. A clip that has to turn round has room for it."""
    rng = np.random.default_rng((seed, 3))
    scenes = draw_scenes(40 * count, rng)
    source = scenes[
        np.flatnonzero(has_room(replace(scenes, velocity=-scenes.velocity)))[:count] if kind == "motion" else slice(count)
    ]
    target = changed(source, kind, rng)
    first = film(source)[:, 0]
    is_motion = np.full(count, kind == "motion")
    return Edit(source, target, first if kind == "motion" else edit_frames(first, target), captions(target, is_motion))


def edited_clips(moca: MoCA, edit: Edit, config: EditConfig, keeps_flow: bool) -> np.ndarray:
    """Edit, then animate: (B, T, H, W, 3) uint8. Of the source the animator gets nothing but, where it is kept, its flow."""
    return animated(moca, Films(edit.first_frames[:, None], flow(edit.source), edit.words), config, keeps_flow)


def animated(moca: MoCA, films: Films, config: EditConfig, keeps_flow: bool) -> np.ndarray:
    """Clips (B, T, H, W, 3) uint8 that begin with the first frame of these films, of which nothing else is seen."""
    scales = (*config.scales[:2], config.motion_scale * keeps_flow)

    def animate(rows: slice, noise: Tensor) -> Tensor:
        conditions = told(moca, Films(*(of[rows] for of in films)))[1]
        return moca.animate(conditions, scales, config.denoising_steps, noise, ORDER)

    return in_batches(animate, moca, len(films.words), config)


def sdedit_clips(moca: MoCA, edit: Edit, config: MocaConfig) -> np.ndarray:
    """The baseline SDEdit (arXiv:2108.01073), by the same network: mix noise into the source, and remove it under the caption."""
    level, video = round(STRENGTH * NUM_LEVELS), film(edit.source)

    def animate(rows: slice, noise: Tensor) -> Tensor:
        frames = to_video(video[rows], noise.device)
        words = torch.from_numpy(edit.words[rows]).to(noise.device)
        conditions = moca.conditions(frames[:, 0], words, frames, torch.ones(len(words), device=noise.device))
        start = moca.alphas[level] * moca.vae.encode(frames) + moca.sigmas[level] * noise
        return moca.animate(conditions, (config.text_scale,), config.denoising_steps, start, TEXT_ONLY, level)

    return in_batches(animate, moca, len(edit.words), config)


def in_batches(animate: Callable[[slice, Tensor], Tensor], moca: MoCA, count: int, config: EditConfig) -> np.ndarray:
    """`count` edited clips. Clip i begins with the same noise in every call, so two calls differ by their conditions alone."""
    device, clips = moca.alphas.device, []
    noise = torch.randn(count, *moca.latent_shape, generator=torch.Generator().manual_seed(config.seed))
    for start in tqdm(range(0, count, BATCH), desc="editing", leave=False, disable=None):
        rows = slice(start, start + BATCH)
        with autocast(device, "auto"):
            clips.append(to_frames(animate(rows, noise[rows].to(device))))
    return np.concatenate(clips)


# ---- scores -------------------------------------------------------------------------------------------------------------


def tracks(clips: np.ndarray) -> np.ndarray:
    """How far the digit's middle has come since the first frame, (B, T, H, W, 3) -> (B, T, 2) in pixels."""
    center = read(clips.reshape(-1, SIZE, SIZE, 3)).center.reshape(*clips.shape[:2], 2)
    return center - center[:, :1]


def clip_scores(clips: np.ndarray, target: Scenes) -> dict[str, float]:
    """How well clips show what a target asks for.

    appearance: share of the frames with the right digit, color and background. track_error_px: mean distance from where the
    digit should be, over all frames but the first, also for clips whose flow lies on the digit alone and for those in which the
    camera turns. direction: share of the clips that move within 45 degrees of the right way.
    """
    shown, moved, wanted = read(clips.reshape(-1, SIZE, SIZE, 3)), tracks(clips), target.corners - target.start[:, None]
    right = [
        getattr(shown, name) == np.repeat(getattr(target, name), clips.shape[1]) for name in ("digit", "color", "background")
    ]
    errors = np.linalg.norm(moved - wanted, axis=-1)[:, 1:].mean(axis=1)  # (B,)
    lengths = np.linalg.norm(moved[:, -1], axis=-1) * np.linalg.norm(wanted[:, -1], axis=-1)
    cosine = (moved[:, -1] * wanted[:, -1]).sum(axis=-1) / np.maximum(lengths, 1e-6)
    return {
        "appearance": float((shown.found & np.logical_and.reduce(right)).mean()),
        "track_error_px": float(errors.mean()),
        "track_error_digit_px": mean_of(errors[~target.is_camera]),
        "track_error_camera_px": mean_of(errors[target.is_camera]),
        "direction": float((cosine > np.cos(np.pi / 4)).mean()),
    }


def judged(judge: Judge, moca: MoCA, clips: np.ndarray, edit: Edit) -> dict[str, float]:
    """M_sim, M_dir and M_geo of edited clips, under captions that name the direction."""
    device, all_named = moca.alphas.device, np.ones(len(clips), bool)
    with torch.no_grad():
        source, edited = (judge.clips(moca.vae.encode(to_video(video, device))) for video in (film(edit.source), clips))
        before, after = (
            judge.captions(torch.from_numpy(captions(scenes, all_named)).to(device)) for scenes in (edit.source, edit.target)
        )
    return edit_scores(source, edited, before, after) | {"finds_caption": own_is_nearest(edited, after)}


def speed_correlation(clips: np.ndarray, source: Scenes) -> dict[str, float]:
    """Correlation of the speed in the flow with the speed in the clip, where the camera turns and where the digit moves."""
    asked, shown = np.linalg.norm(source.velocity, axis=-1), np.linalg.norm(tracks(clips)[:, -1], axis=-1)
    who = {"camera": source.is_camera, "digit": ~source.is_camera}
    return {name: correlation(asked[rows], shown[rows]) for name, rows in who.items()}


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; NaN where one of them does not vary."""
    return float(np.corrcoef(first, second)[0, 1]) if min(first.std(), second.std()) > 0 else np.nan


def measure(moca: MoCA, judge: Judge, config: MocaConfig) -> tuple[dict[str, Any], dict[str, tuple[Edit, dict[str, np.ndarray]]]]:
    """Scores of every kind of edit under every method, and the clips themselves."""
    scores, shown = {}, {}
    for kind in (*SPATIAL, "motion"):
        edit = make_edit(kind, config.num_clips, config.seed)
        clips = {
            "with_flow": edited_clips(moca, edit, config, keeps_flow=True),
            "without_flow": edited_clips(moca, edit, config, keeps_flow=False),
            "sdedit": sdedit_clips(moca, edit, config),
            "standing_still": np.repeat(edit.first_frames[:, None], edit.source.corners.shape[1], axis=1),
            "copy_source": film(edit.source),
            "target": film(edit.target),
        }
        scores[kind] = {name: clip_scores(video, edit.target) | judged(judge, moca, video, edit) for name, video in clips.items()}
        shown[kind] = edit, clips
        print(f"{kind}, {config.num_clips} clips", format_table(scores[kind]), sep="\n")
    methods = scores["motion"]
    spatial = {
        method: {name: float(np.mean([scores[kind][method][name] for kind in SPATIAL])) for name in methods[method]}
        for method in methods
    }
    print("all spatial edits", format_table(spatial), sep="\n")
    return {"spatial": spatial, **scores}, shown


def compare_magnitude(moca: MoCA, config: MocaConfig) -> dict[str, Any]:
    """The speed of clips whose color was edited, under animators told the magnitude of the flow in their last steps, and not."""
    edit = make_edit("color", config.num_clips, config.seed)
    rows = {}
    for name, has_magnitude in (("with_magnitude", True), ("without_magnitude", False)):
        clips = edited_clips(trained_longer(moca, config, has_magnitude), edit, config, keeps_flow=True)
        speeds = {f"speed_{who}": value for who, value in speed_correlation(clips, edit.source).items()}
        rows[name] = speeds | clip_scores(clips, edit.target)
    print("magnitude", format_table(rows), sep="\n")
    return rows


def save_strips(path: str, shown: dict[str, tuple[Edit, dict[str, np.ndarray]]]) -> None:
    """An edit of color, digit and background, and one of the motion, both with and without the flow of the source.

    Of each kind the fastest clip is shown whose flow lies on the digit alone.
    """
    rows: list[tuple[str, np.ndarray]] = []
    for kind in ("several", "motion"):
        edit, clips = shown[kind]
        speed = np.linalg.norm(edit.source.velocity, axis=-1)
        moving = int(np.where(edit.source.is_camera, 0, speed).argmax())
        rows += [("source", film(edit.source)[moving]), ("edited frame", edit.first_frames[moving, None])]
        rows += [(name.replace("_", " "), clips[name][moving]) for name in ("with_flow", "without_flow")]
    save_picture(path, image_grid(rows), 128)


def main() -> None:
    config = parse_config(MocaConfig)
    config.check()
    config = replace(config, device=str(choose_device(config.device)))
    moca = open_moca(config)
    judge = open_judge(moca, config)
    scores, shown = measure(moca, judge, config)
    parameters = {name: sum(weights.numel() for weights in part.parameters()) for name, part in moca.named_children()}
    results: dict[str, Any] = {"settings": settings_of(config, "output", "json", "picture"), "parameters": parameters, **scores}
    if config.without_magnitude:
        results["magnitude"] = compare_magnitude(moca, config)
    if config.json:
        save_json(config.json, results)
    if config.picture:
        save_strips(config.picture, shown)


if __name__ == "__main__":
    run_script(main)
