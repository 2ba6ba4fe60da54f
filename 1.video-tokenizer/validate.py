"""Score a trained tokenizer on held-out episodes, compared with baselines that show what the scores mean.

    python 1.video-tokenizer/validate.py --data-path data/breakout --save-images

Writes validation.json, and with --save-images the pictures of the chapter, into `validation/` beside the checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from video_tokenizer.data.clips import Clips, to_frames
from video_tokenizer.data.training_data import TrainingData, evenly_spaced
from video_tokenizer.data.validation import (
    ball_positions,
    clip_videos,
    even_batches,
    local_background,
    most_active_clips,
    open_validation_data,
    output_folder,
)
from video_tokenizer.figures import (
    DIFFERENCE,
    difference,
    image_grid,
    save_code_usage,
    save_gif,
    save_picture,
    save_reconstruction_strips,
)
from video_tokenizer.losses import background_of
from video_tokenizer.lpips import lpips_distance, lpips_is_present
from video_tokenizer.metrics import TokenizerMetrics, VideoScores
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.registry import load_tokenizer
from video_tokenizer.training.checkpoint import find_checkpoint, load_checkpoint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.config import ValidationConfig
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.results import format_number, format_table, save_json

DIAGNOSTIC_CLIPS = 32
"""clips for the diagnostics of a tokenizer, spread evenly over the validation clips"""


@dataclass(frozen=True)
class ValidateConfig(ValidationConfig):
    """Score a tokenizer on its validation episodes."""


@torch.no_grad()
def score(
    tokenizer: Tokenizer, clips: Clips, background: Tensor, flags: ValidateConfig, device: torch.device
) -> tuple[TokenizerMetrics, VideoScores]:
    """The metrics of the tokenizer, and the scores of pictures decoded from random tokens."""
    metrics, noise = TokenizerMetrics(tokenizer.codebook_size), VideoScores()
    generator = torch.Generator().manual_seed(flags.seed)
    batches = list(even_batches(len(clips), flags.batch_size, flags.num_batches))
    for indices in tqdm(batches, desc="scoring", unit="batch", disable=None):
        video = clip_videos(clips, indices, device)  # (B, T, 3, H, W)
        positions = ball_positions(clips, indices)
        scene = None if positions is None else local_background(clips.store, clips, indices).to(device)
        with autocast(device, tokenizer.config.precision):
            output = tokenizer(video)
            random_video = tokenizer.decode(tokenizer.random_codes(output.codes, generator))
        metrics.update(output.reconstruction, video, output.indices, background, positions, scene)
        scored_positions = None if positions is None else positions[:, 1:]
        noise.update(random_video[:, 1:], video[:, 1:], video[:, :-1], background, scored_positions, scene)
    return metrics, noise


def summary(rows: dict[str, dict[str, float]], usage: dict[str, float], codebook_size: int) -> list[str]:
    """One line on what each kind of score means: moving pixels, foreground, ball, codes."""
    model, copied = rows["tokenizer"], rows["copy last frame"]
    gain = model["moving_psnr_db"] - copied["moving_psnr_db"]
    recall, found = model["foreground_recall"], model["object_recall"]
    lines = [
        f"moving pixels: {gain:+.1f} dB compared with repeating the last frame: "
        + (
            "moving objects are reconstructed"
            if gain > 6
            else "moving objects are reconstructed roughly"
            if gain > 2
            else "hardly better than a copy; train longer"
        ),
        f"foreground: {recall:.0%} of the pixels that differ from the background are reconstructed"
        + ("" if recall >= 0.9 else "; below 90% objects are lost, so try a smaller patch or a higher --foreground-weight"),
    ]
    if found == found:  # NaN where the game has no known ball
        lines.append(f"ball: reconstructed in {found:.1%} of the frames that show one; plain PSNR hardly drops when it is lost")
    if not codebook_size:
        return [*lines, "codes: not quantized, so there is no codebook to count"]
    share_used = usage["codes_used"] / codebook_size
    lines.append(
        f"codes: {usage['codes_used']:,} of {codebook_size:,} used, perplexity {usage['perplexity']:.0f}"
        + ("; less than a tenth is in use, so a smaller codebook would do" if share_used < 0.1 else "")
    )
    return lines


@torch.no_grad()
def save_pictures(tokenizer: Tokenizer, data: TrainingData, metrics: TokenizerMetrics, caption: str, folder: Path, flags, device):
    """Write reconstructions.png, strip_<k>.png, noise_control.png, code_usage.png, reconstruction.gif and, if any, own.png."""
    clips = data.validation
    chosen = most_active_clips(clips, flags.num_samples)
    video = clip_videos(clips, chosen, device)
    encoded = tokenizer.encode(video)
    reconstruction = tokenizer.decode(encoded.codes)
    generator = torch.Generator().manual_seed(flags.seed)
    order = torch.randperm(tokenizer.tokens_per_frame, generator=generator).to(device)
    shuffled = tokenizer.decode(encoded.codes[:, :, order])
    random = tokenizer.decode(tokenizer.random_codes(encoded.codes, generator))
    labels = [f"clip {index}" for index in chosen]
    save_reconstruction_strips(folder / "reconstructions.png", video, reconstruction, caption, column_labels=labels)
    for number, (index, original, decoded) in enumerate(
        zip(chosen, to_frames(video), to_frames(reconstruction), strict=True), start=1
    ):
        rows = [("original", original), ("reconstruction", decoded), (DIFFERENCE, difference(original, decoded))]
        times = [f"t = {t}" for t in range(len(original))]
        save_picture(folder / f"strip_{number}.png", image_grid(rows, f"Validation clip {index}. {caption}", times))
    decoded_from = {"its tokens": reconstruction, "its tokens,\nshuffled": shuffled, "random tokens": random}
    rows = [("original", to_frames(video)[:, -1]), *((label, to_frames(frames)[:, -1]) for label, frames in decoded_from.items())]
    title = f"Frames decoded from their tokens, from shuffled tokens and from random tokens. {caption}"
    save_picture(folder / "noise_control.png", image_grid(rows, title, labels))
    if tokenizer.codebook_size:
        usage = metrics.usage.result()
        title = f"{usage['codes_used']:,} of {tokenizer.codebook_size:,} codes used, perplexity {usage['perplexity']:.0f}"
        save_code_usage(folder / "code_usage.png", metrics.usage.counts.numpy(), title)
    if own := tokenizer.diagnostics(video).pictures:
        rows = [("original", to_frames(video)[:, -1]), *((label, to_frames(frames)[:, -1]) for label, frames in own.items())]
        save_picture(folder / "own.png", image_grid(rows, caption, labels), num_colors=128)
    consecutive = list(range(min(len(clips), -(-64 // max(1, clips.num_frames - 1)))))  # about the first 64 frames
    original = clip_videos(clips, consecutive, device)
    decoded = tokenizer(original).reconstruction
    panels = {
        label: to_frames(video[:, 1:]).reshape(-1, *data.store.frame_size, 3)
        for label, video in (("original", original), ("reconstruction", decoded))
    }
    save_gif(folder / "reconstruction.gif", panels, data.store.frames_per_second)


def main() -> None:
    """Load the checkpoint and the held-out data, score, print, and save numbers and pictures."""
    flags = parse_config(ValidateConfig)
    flags.check()
    device = choose_device(flags.device)
    path = find_checkpoint(flags.checkpoint, "tokenizer")
    content = load_checkpoint(path, "tokenizer")
    tokenizer = load_tokenizer(path, device)
    data = open_validation_data(flags, tokenizer.config, content)
    background = background_of(data.store.frames).to(device)
    folder = output_folder(flags.output, path)

    metrics, noise = score(tokenizer, data.validation, background, flags, device)
    rows = {
        "tokenizer": metrics.model.result(),
        "copy last frame": metrics.copy_last.result(),
        "background only": metrics.background.result(),
        "random tokens": noise.result(),
    }
    usage = metrics.usage.result()
    few_clips = clip_videos(data.validation, evenly_spaced(len(data.validation), DIAGNOSTIC_CLIPS), device)
    with torch.no_grad(), autocast(device, tokenizer.config.precision):
        own_scores = tokenizer.diagnostics(few_clips).scores
    step = content["step"]
    print(f"{path} | step {step:,} | {metrics.model.num_frames:,} held-out frames of {data.store.path.name}")
    print(format_table(rows))
    for line in summary(rows, usage, tokenizer.codebook_size):
        print(line)
    for name, value in own_scores.items():
        print(f"{name}: {format_number(value)}")

    report = {"checkpoint": str(path), "step": step, "data": str(data.store.path), "num_frames": metrics.model.num_frames}
    report["seen_in_training"] = data.seen_share
    report |= {**metrics.result(), "codebook_size": tokenizer.codebook_size, "bits_per_frame": tokenizer.bits_per_frame}
    report["rows"] = {name.replace(" ", "_"): scores for name, scores in rows.items()}
    if tokenizer.codebook_size:
        report["share_of_codes_used"] = usage["codes_used"] / tokenizer.codebook_size
    report |= {"own_scores": own_scores} if own_scores else {}
    if lpips_is_present():
        with torch.no_grad(), autocast(device, tokenizer.config.precision):
            reconstruction = tokenizer(few_clips).reconstruction
        report["lpips"] = lpips_distance(reconstruction[:, 1:], few_clips[:, 1:])
        report["copy_last_lpips"] = lpips_distance(few_clips[:, :-1], few_clips[:, 1:])
        print(f"LPIPS, lower is better: {report['lpips']:.3f}, copy last frame {report['copy_last_lpips']:.3f}")
    json_path = Path(flags.json) if flags.json else folder / "validation.json"
    save_json(json_path, report)
    print(f"numbers in {json_path}")
    if flags.save_images:
        model = rows["tokenizer"]
        caption = (
            f"Step {step:,}: {format_number(model['psnr_db'])} dB, moving pixels {format_number(model['moving_psnr_db'])} dB "
            f"(copying the last frame: {format_number(rows['copy last frame']['moving_psnr_db'])} dB)."
        )
        save_pictures(tokenizer, data, metrics, caption, folder, flags, device)
        print(f"pictures in {folder}")


if __name__ == "__main__":
    run_script(main)
