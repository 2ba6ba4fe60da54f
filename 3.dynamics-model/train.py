"""Train the dynamics model: the tokens of the past and an action in, the tokens of the next frame out.

python 3.dynamics-model/train.py --data-path data/breakout --actions latent
"""

from dataclasses import asdict
from pathlib import Path

import torch

from dynamics_model.config import PRESETS, DynamicsConfig
from dynamics_model.figures import save_rollout_strips
from dynamics_model.metrics import DynamicsMetrics
from dynamics_model.models.maskgit import DynamicsModel
from dynamics_model.prior_training import train_action_prior
from dynamics_model.registry import build_dynamics
from dynamics_model.token_cache import TokenClips
from dynamics_model.training_tokens import prepare_tokens
from video_tokenizer.data.clips import make_loader
from video_tokenizer.data.training_data import evenly_spaced, number_of_steps, open_store, open_training_data, with_frame_size_of
from video_tokenizer.figures import save_curves
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
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, stop_signals
from video_tokenizer.training.schedule import ExponentialMovingAverage, learning_rate_factor

SHOWN_METRICS = ("loss", "loss_changed", "accuracy_changed", "shuffle_ratio")


@torch.no_grad()
def validate(model: DynamicsModel, clips: TokenClips, config: DynamicsConfig, device: torch.device) -> dict[str, float]:
    """Scores on the same validation clips every time: every token of the next frame hidden, the real past given."""
    model.eval()
    metrics = DynamicsMetrics()
    generator = torch.Generator().manual_seed(config.seed)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        batch = clips.__getitems__(chosen[first : first + config.batch_size])
        with autocast(device, config.precision):
            metrics.update(model, batch["tokens"].to(device), batch["actions"].to(device), generator)
    model.train()
    return metrics.result()


def main() -> None:
    # --- config ---
    config = parse_config(DynamicsConfig, PRESETS)
    device = choose_device(config.device)
    rank, world_size = start_processes(device)
    torch.manual_seed(config.seed)

    # --- data ---
    store = open_store(config)
    config = with_frame_size_of(store, config)
    config.check()
    data = open_training_data(config, store)
    prepared = prepare_tokens(config, store, device)
    config = prepared.config
    training = TokenClips(data.training, prepared.tokens, prepared.actions)
    validation = TokenClips(data.validation, prepared.tokens, prepared.actions)
    num_steps = number_of_steps(config, len(training))

    # --- model ---
    model = build_dynamics(config).to(device).train()
    averaged = build_dynamics(config).to(device)  # holds the averaged weights while they are validated
    averaged.load_state_dict(model.state_dict())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())

    # --- run folder ---
    folder = Path(config.checkpoint_dir) if config.checkpoint_dir else chapter_folder("dynamics") / "checkpoints"
    run = Run(folder, config, num_steps, prepared.fingerprints, is_main=rank == 0)
    best_loss = float("inf")
    metrics: dict = {}
    run.print(
        f"device {device} | {num_parameters:,} parameters | {model.num_actions} {config.actions} actions | run folder {folder}"
    )
    run.print(f"data {store.path} | {len(training):,} training and {len(validation):,} validation clips")
    if run.resume_state:
        load_full_state_dict(model, run.resume_state["model"])
        run.print(f"going on from step {run.first_step:,} of {num_steps:,}")
    elif model.action_prior is not None:
        prior_loss = train_action_prior(model.action_prior, training, config, device)
        run.print(f"action prior | {config.prior_steps:,} steps | loss {prior_loss:.3f} nats")
    if model.action_prior is not None:
        model.action_prior.requires_grad_(False)  # it has learnt all it will
    if config.shard:
        shard(model)

    # --- optimizer ---
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay, kind=config.optimizer)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    if run.resume_state:
        optimizer.load_state_dict(run.resume_state["optimizer"])
        ema.load_state_dict(run.resume_state["ema"])
        best_loss, metrics = run.resume_state["best_loss"], run.resume_state["metrics"]
        run.restore_random_numbers()

    # --- loop ---
    if config.compile:
        model.compile()
    loader = make_loader(
        training, config.batch_size, num_steps, config.seed, run.first_step, config.num_workers, rank, world_size
    )
    with stop_signals() as stop:
        for step, batch in enumerate(run.steps(loader, "dynamics"), start=run.first_step + 1):
            peak = config.learning_rate * config.rate_factor
            rate = peak * learning_rate_factor(step - 1, num_steps, config.warmup_steps, config.decay_share)
            set_learning_rate(optimizer, rate)
            tokens, actions = batch["tokens"].to(device), batch["actions"].to(device)  # (B, T, N), (B, T)
            optimizer.zero_grad(set_to_none=True)
            for part, part_actions in zip(tokens.chunk(config.accumulate), actions.chunk(config.accumulate), strict=True):
                with autocast(device, config.precision):
                    output = model(part, part_actions)
                loss = output.losses["cross_entropy"] / config.accumulate
                loss.backward()
            average_gradients(model.parameters())
            gradient_norm = gather_full(torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip))
            run.check_finite(
                step,
                loss,
                gradient_norm,
                model,
                (
                    part,
                    part_actions,
                ),
                batch,
            )
            optimizer.step()
            ema.update(model)

            last = step == num_steps
            if step == 1 or step % config.log_every == 0 or last:
                loss_value = mean_over_processes(loss).item() * config.accumulate
                run.log(step, {"loss": (loss_value, f"{loss_value:.4f}"), "lr": (rate, f"{rate:.1e}")})
            if step % config.validate_every == 0 or last:
                averaged.load_state_dict(gather_full(ema.weights))
                metrics = validate(averaged, validation, config, device)
                run.log_validation(step, metrics, SHOWN_METRICS)
                # --- save ---
                score = metrics["loss"] + (config.changed_weight - 1) * metrics["loss_changed"] * (1 - metrics["copy_accuracy"])
                names = ["best_model.pt"] * (not score > best_loss) + ["final_model.pt"] * last
                best_loss = min(best_loss, score)
                for name in names if rank == 0 else []:
                    parts = (asdict(config), averaged.state_dict(), step, metrics, store.fingerprint)
                    save_checkpoint(folder / name, "dynamics", config.model, *parts, **prepared.extra)
            stopping = any_rank(stop["requested"])
            if step % config.save_every == 0 or last or stopping:
                state = gather_full({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()})
                run.save_resume(step, state | {"best_loss": best_loss, "metrics": metrics})
            if stopping and not last:
                run.stop(step)

    stop_processes()

    # --- samples ---
    if rank == 0:
        save_rollout_strips(folder / "samples.png", averaged.eval(), prepared.tokenizer, prepared.extra, config.seed)
        save_curves(folder / "curves.png", run.history)
        run.write_metrics(metrics | {"parameters": num_parameters, "steps": num_steps})
        run.print(f"done: {folder / 'best_model.pt'}, pictures samples.png and curves.png beside it")


if __name__ == "__main__":
    run_script(main)
