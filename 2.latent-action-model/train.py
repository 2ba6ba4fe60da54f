"""Train the latent action model: name the action between two frames, from video alone.

python 2.latent-action-model/train.py --data-path data/breakout
"""

from dataclasses import asdict
from pathlib import Path

import torch

from latent_action_model.config import PRESETS, LatentActionConfig
from latent_action_model.figures import save_action_gallery
from latent_action_model.loading import build_latent_action_model
from latent_action_model.metrics import LatentActionMetrics, action_information, encode_episodes, find_transitions
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, make_loader, split_episodes, to_video
from video_tokenizer.data.training_data import evenly_spaced, number_of_steps, open_store, open_training_data, with_frame_size_of
from video_tokenizer.figures import save_curves
from video_tokenizer.training.checkpoint import chapter_folder, save_checkpoint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast, choose_device
from video_tokenizer.training.distributed import any_rank, average_gradients, mean_over_processes, start_processes, stop_processes
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, stop_signals
from video_tokenizer.training.schedule import ExponentialMovingAverage, learning_rate_factor

SHOWN_METRICS = ("moving_psnr_db", "copy_last_moving_psnr_db", "delta_moving_psnr_db", "codes_used", "action_information_single")


@torch.no_grad()
def validate(
    model: LatentActionModel, store: ClipStore, clips: Clips, config: LatentActionConfig, device: torch.device
) -> dict[str, float]:
    """Scores on the same validation clips every time. True actions, where the store has them, only score; they never train."""
    model.eval()
    metrics = LatentActionMetrics(model.num_actions)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        video = to_video(clips.__getitems__(chosen[first : first + config.batch_size])["frames"], device)
        with autocast(device, config.precision):
            metrics.update(model, video, generator)
    information = float("nan")
    if store.num_actions:
        training, episodes = split_episodes(store, config.validation_share, config.seed)
        episodes = episodes if len(episodes) > 1 else [training[0], *episodes]  # some to learn the table from, others to test it
        with autocast(device, config.precision):
            codes = encode_episodes(model, store, episodes, config.num_frames)
        half = max(1, len(episodes) // 2)
        learnt, tested = (
            find_transitions(codes, store.actions, store.episodes[part]) for part in (episodes[:half], episodes[half:])
        )
        information = action_information(learnt, tested, model.num_actions, store.num_actions, single=True)
    model.train()
    return metrics.result() | {"action_information_single": information}


def main() -> None:
    # --- config ---
    config = parse_config(LatentActionConfig, PRESETS)
    device = choose_device(config.device)
    rank, world_size = start_processes(device)
    torch.manual_seed(config.seed)

    # --- data ---
    store = open_store(config)
    config = with_frame_size_of(store, config)
    config.check()
    data = open_training_data(config, store)
    num_steps = number_of_steps(config, len(data.training))

    # --- model ---
    model = build_latent_action_model(config).to(device).train()
    averaged = build_latent_action_model(config).to(device)  # holds the averaged weights while they are validated
    averaged.load_state_dict(model.state_dict())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())

    # --- optimizer ---
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay)
    ema = ExponentialMovingAverage(model, config.ema_decay)

    # --- run folder ---
    folder = Path(config.checkpoint_dir) if config.checkpoint_dir else chapter_folder("latent_action_model") / "checkpoints"
    run = Run(folder, config, num_steps, store.fingerprint, is_main=rank == 0)
    best_score = float("-inf")
    metrics: dict = {}
    run.print(
        f"device {device} | {num_parameters:,} parameters | {config.num_actions} {config.quantizer} codes | run folder {folder}"
    )
    run.print(f"data {store.path} | {len(data.training):,} training and {len(data.validation):,} validation clips")
    if run.resume_state:
        model.load_state_dict(run.resume_state["model"])
        optimizer.load_state_dict(run.resume_state["optimizer"])
        ema.load_state_dict(run.resume_state["ema"])
        best_score, metrics = run.resume_state["best_score"], run.resume_state["metrics"]
        run.restore_random_numbers()
        run.print(f"going on from step {run.first_step:,} of {num_steps:,}")

    # --- loop ---
    if config.compile:
        model.compile()
    loader = make_loader(
        data.training, config.batch_size, num_steps, config.seed, run.first_step, config.num_workers, rank, world_size
    )
    with stop_signals() as stop:
        for step, batch in enumerate(run.steps(loader, "latent actions"), start=run.first_step + 1):
            peak = config.learning_rate * config.rate_factor
            rate = peak * learning_rate_factor(step - 1, num_steps, config.warmup_steps, config.decay_share)
            set_learning_rate(optimizer, rate)
            video = to_video(batch["frames"], device)  # (B, T, 3, H, W)
            optimizer.zero_grad(set_to_none=True)
            for part in video.chunk(config.accumulate):
                with autocast(device, config.precision):
                    output = model(part)
                loss = torch.stack([*output.losses.values()]).sum() / config.accumulate
                loss.backward()
            average_gradients(model.parameters())
            gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            run.check_finite(step, loss, gradient_norm, model, (part,), batch)
            optimizer.step()
            ema.update(model)

            last = step == num_steps
            if step == 1 or step % config.log_every == 0 or last:
                means = {name: mean_over_processes(value).item() for name, value in output.losses.items()}
                shown = {name: (value, f"{value:.4f}") for name, value in means.items()}
                codes = len(output.indices.unique())
                run.log(step, shown | {"codes": (codes, f"{codes}/{config.num_actions}"), "lr": (rate, f"{rate:.1e}")})
            if step % config.validate_every == 0 or last:
                averaged.load_state_dict(ema.weights)
                metrics = validate(averaged, store, data.validation, config, device)
                run.log_validation(step, metrics, SHOWN_METRICS)
                # --- save ---
                # the best model is the one whose actions matter most: chosen without looking at a true action
                score = metrics["delta_moving_psnr_db"]
                names = ["best_model.pt"] * (not score < best_score) + ["final_model.pt"] * last
                best_score = max(best_score, score)
                for name in names if rank == 0 else []:
                    parts = (asdict(config), ema.weights, step, metrics, store.fingerprint)
                    save_checkpoint(folder / name, "latent_action_model", "latent-action-model", *parts)
            stopping = any_rank(stop["requested"])
            if step % config.save_every == 0 or last or stopping:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
                run.save_resume(step, state | {"best_score": best_score, "metrics": metrics})
            if stopping and not last:
                run.stop(step)

    stop_processes()

    # --- samples ---
    if rank == 0:
        clip = data.validation.__getitems__([len(data.validation) // 2])
        save_action_gallery(folder / "samples.png", averaged.eval(), to_video(clip["frames"], device)[0])
        save_curves(folder / "curves.png", run.history)
        run.write_metrics(metrics | {"parameters": num_parameters, "steps": num_steps})
        run.print(f"done: {folder / 'best_model.pt'}, pictures samples.png and curves.png beside it")


if __name__ == "__main__":
    run_script(main)
