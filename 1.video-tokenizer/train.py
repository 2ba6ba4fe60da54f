"""Train the video tokenizer: frames in, the same frames out, through a bottleneck of a few tokens per frame.

python 1.video-tokenizer/train.py --data-path data/breakout
"""

from dataclasses import asdict
from pathlib import Path

import torch

from video_tokenizer.config import TrainingConfig
from video_tokenizer.data.augment import Augmentation
from video_tokenizer.data.clips import Clips, make_loader, to_video
from video_tokenizer.data.training_data import evenly_spaced, number_of_steps, open_store, open_training_data, with_frame_size_of
from video_tokenizer.figures import save_curves, save_reconstruction_strips
from video_tokenizer.losses import background_of, weighted_mse
from video_tokenizer.metrics import TokenizerMetrics
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.registry import build_tokenizer, chosen_tokenizer, start_tokenizer
from video_tokenizer.training.checkpoint import chapter_folder, save_checkpoint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.distributed import (
    any_rank,
    average_gradients,
    gather_full,
    load_full_state_dict,
    mean_over_processes,
    shard,
    start_processes,
    stop_processes,
)
from video_tokenizer.training.optimizer import set_learning_rate
from video_tokenizer.training.run import Run, stop_signals
from video_tokenizer.training.schedule import ExponentialMovingAverage, learning_rate_factor

SHOWN_METRICS = ("psnr_db", "moving_psnr_db", "copy_last_moving_psnr_db", "foreground_recall", "codes_used")


@torch.no_grad()
def validate(tokenizer: Tokenizer, clips: Clips, background: torch.Tensor, config: TrainingConfig, device: torch.device) -> dict:
    """Scores on the same validation clips every time, evenly spaced over all of them; weighted_error chooses the best weights."""
    tokenizer.eval()
    metrics = TokenizerMetrics(tokenizer.codebook_size)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    weights = (config.foreground_weight, config.moving_weight)
    error = 0.0
    for first in range(0, len(chosen), config.batch_size):
        video = to_video(clips.__getitems__(chosen[first : first + config.batch_size])["frames"], device)
        with autocast(device, config.precision):
            output = tokenizer(video)
        metrics.update(output.reconstruction, video, output.indices, background)
        error += float(weighted_mse(output.reconstruction, video, background, *weights)) * len(video)
    return metrics.result() | {"weighted_error": error / len(chosen)}


def main() -> None:
    # --- config ---
    model = chosen_tokenizer()
    config = parse_config(model.config_class, model.presets)
    device = choose_device(config.device)
    rank, world_size = start_processes(device)
    torch.manual_seed(config.seed)

    # --- data ---
    store = open_store(config)
    config = with_frame_size_of(store, config)
    config.check()
    augmented = config.flip_augmentation or config.crop_augmentation > 0
    augmentation = Augmentation(0.5 * config.flip_augmentation, 1 - config.crop_augmentation, config.seed) if augmented else None
    data = open_training_data(config, store, augmentation)
    background = background_of(store.frames).to(device)
    num_steps = number_of_steps(config, len(data.training))

    # --- model ---
    tokenizer = start_tokenizer(config).to(device).train()
    tokenizer.measure_data(store.frames)
    averaged = build_tokenizer(config).to(device)  # holds the averaged weights while they are validated
    averaged.load_state_dict(tokenizer.state_dict())
    num_parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
    if config.shard:
        shard(tokenizer)

    # --- optimizer ---
    optimizer = tokenizer.build_optimizer()
    tokenizer.start_training()
    ema = ExponentialMovingAverage(tokenizer, config.ema_decay)

    # --- run folder ---
    folder = Path(config.checkpoint_dir) if config.checkpoint_dir else chapter_folder("tokenizer") / "checkpoints"
    run = Run(folder, config, num_steps, store.fingerprint, is_main=rank == 0)
    best_error = float("inf")
    metrics: dict = {}
    run.print(
        f"device {device} | {num_parameters:,} parameters | codebook {tokenizer.codebook_size or 'none'} | run folder {folder}"
    )
    run.print(f"data {store.path} | {len(data.training):,} training and {len(data.validation):,} validation clips")
    if run.resume_state:
        load_full_state_dict(tokenizer, run.resume_state["model"])
        optimizer.load_state_dict(run.resume_state["optimizer"])
        ema.load_state_dict(run.resume_state["ema"])
        tokenizer.load_training_state(run.resume_state["training"])
        best_error, metrics = run.resume_state["best_error"], run.resume_state["metrics"]
        run.restore_random_numbers()
        run.print(f"going on from step {run.first_step:,} of {num_steps:,}")

    # --- loop ---
    if config.compile:
        tokenizer.compile()
    loader = make_loader(
        data.training, config.batch_size, num_steps, config.seed, run.first_step, config.num_workers, rank, world_size
    )
    with stop_signals() as stop:
        for step, batch in enumerate(run.steps(loader, "tokenizer"), start=run.first_step + 1):
            peak = config.learning_rate * config.rate_factor
            rate = peak * learning_rate_factor(step - 1, num_steps, config.warmup_steps, config.decay_share)
            set_learning_rate(optimizer, rate)
            video = to_video(batch["frames"], device)  # (B, T, 3, H, W)
            optimizer.zero_grad(set_to_none=True)
            loss_value = torch.zeros((), device=device)
            for part in video.chunk(config.accumulate):
                with autocast(device, config.precision):
                    output = tokenizer(part)
                loss = tokenizer.training_loss(part, output, background) / config.accumulate
                loss.backward()
                loss_value += loss.detach()
            average_gradients(tokenizer.parameters())
            gradient_norm = gather_full(torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), config.gradient_clip))
            run.check_finite(step, loss_value, gradient_norm, tokenizer, (part,), batch)
            optimizer.step()
            ema.update(tokenizer)
            extra = tokenizer.finish_step(step, num_steps, part, output)

            last = step == num_steps
            if step == 1 or step % config.log_every == 0 or last:
                loss_value = mean_over_processes(loss_value).item()
                values = {"loss": (loss_value, f"{loss_value:.5f}"), "lr": (rate, f"{rate:.1e}")}
                run.log(step, values | {name: (number, f"{number:.3f}") for name, number in extra.items()})
            if step % config.validate_every == 0 or last:
                averaged.load_state_dict(gather_full(ema.weights))
                metrics = validate(averaged, data.validation, background, config, device)
                run.log_validation(step, metrics, SHOWN_METRICS)
                # --- save ---
                is_best = tokenizer.best_is_newest or metrics["weighted_error"] <= best_error
                names = ["best_model.pt"] * is_best + ["final_model.pt"] * last
                best_error = min(metrics["weighted_error"], best_error)
                for name in names if rank == 0 else []:
                    parts = (asdict(config), averaged.state_dict(), step, metrics, store.fingerprint)
                    save_checkpoint(folder / name, "tokenizer", config.model, *parts)
            stopping = any_rank(stop["requested"])
            if step % config.save_every == 0 or last or stopping:
                state = gather_full(
                    {"model": tokenizer.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
                )
                state |= {"training": tokenizer.training_state(), "best_error": best_error, "metrics": metrics}
                run.save_resume(step, state)
            if stopping and not last:
                run.stop(step)

    stop_processes()

    # --- samples ---
    if rank == 0:
        batch = data.validation.__getitems__(evenly_spaced(len(data.validation), 8))
        video = to_video(batch["frames"], device)
        with torch.no_grad():
            reconstruction = averaged.eval()(video).reconstruction
        copied = metrics["copy_last_moving_psnr_db"]
        caption = f"step {num_steps:,}, moving PSNR {metrics['moving_psnr_db']:.1f} dB, copy-last {copied:.1f} dB"
        save_reconstruction_strips(folder / "samples.png", video, reconstruction, caption)
        save_curves(folder / "curves.png", run.history)
        run.write_metrics(metrics | {"parameters": num_parameters, "steps": num_steps})
        run.print(f"done: {folder / 'best_model.pt'}, pictures samples.png and curves.png beside it")


if __name__ == "__main__":
    run_script(main)
