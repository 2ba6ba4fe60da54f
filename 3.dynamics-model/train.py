"""Train the dynamics model: the tokens of the past and an action in, the tokens of the next frame out.

python 3.dynamics-model/train.py --data-path data/breakout --actions latent
"""

import torch

from dynamics_model.config import PRESETS, DynamicsConfig
from dynamics_model.data.prepare import prepare_frames
from dynamics_model.figures import save_rollout_strips
from dynamics_model.metrics import validate
from dynamics_model.models.maskgit import MaskGIT
from dynamics_model.prior_training import train_action_prior
from video_tokenizer.data.clips import make_loader, to_device
from video_tokenizer.data.training_data import open_training_data
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training

SHOWN_METRICS = ("loss", "loss_changed", "accuracy_changed", "shuffle_ratio")


def main() -> None:
    config = parse_config(DynamicsConfig, PRESETS)
    device = start_training(config)
    data, config = open_training_data(config)
    prepared = prepare_frames(config, data.store, device)
    config = prepared.config
    training, validation = (prepared.clips(clips) for clips in (data.training, data.validation))

    model = MaskGIT(config).to(device)
    averaged = MaskGIT(config).to(device)  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "dynamics")
    run = Run("dynamics", config, data._replace(training=training, validation=validation), prepared.fingerprints, prepared.extra)
    if model.action_prior is not None and not run.resumes:
        prior_loss = train_action_prior(model.action_prior, training, config, device)
        run.print(f"action prior | {config.prior_steps:,} steps | loss {prior_loss:.3f} nats")
    if model.action_prior is not None:
        model.action_prior.requires_grad_(False)
    parallel = prepare_model(model, config)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    run.track(model, optimizer, ema)
    run.draw = lambda path, run: save_rollout_strips(path, averaged.eval(), prepared.tokenizer, prepared.extra, config.seed)

    batches = make_loader(training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        rate = set_learning_rate(optimizer, step, run.num_steps, config)
        tokens, actions = to_device(batch["frames"], device), to_device(batch["actions"], device)  # (B, T, N), (B, T)
        patch_share = config.patch_share if step <= 0.9 * run.num_steps else 1.0
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        parts = [*zip(tokens.chunk(config.accumulate), actions.chunk(config.accumulate), strict=True)]
        for part, part_actions in sync_on_last(parallel, parts):
            with autocast(device, config.precision):
                losses = parallel(part, part_actions, patch_share)  # cross-entropy of the masked tokens
            loss = torch.stack([*losses.values()]).sum() / config.accumulate
            loss.backward()
            total += loss.detach()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, part, part_actions)
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=total, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            metrics = validate(averaged, validation, config, device)
            run.save(averaged, metrics, error=metrics["weighted_loss"], shown=SHOWN_METRICS)

    run.finish()


if __name__ == "__main__":
    run_script(main)
