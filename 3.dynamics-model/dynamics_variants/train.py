"""Train a variant of the dynamics model: the loop of chapter 3, with a model that defines its own loss.

    python 3.dynamics-model/dynamics_variants/train.py --model gpt --data-path data/breakout

`--model NAME --help` shows the flags of a variant.
"""

import sys

import torch

from dynamics_model.data.prepare import prepare_frames
from dynamics_model.figures import save_rollout_strips
from dynamics_model.metrics import validate
from dynamics_model.prior_training import train_action_prior
from dynamics_model.registry import dynamics_class
from dynamics_variants import DYNAMICS
from video_tokenizer.data.clips import make_loader, to_device
from video_tokenizer.data.training_data import open_training_data
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.command_line import chosen_variant, parse_config, run_script, value_of_flag
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training

SHOWN_METRICS = ("loss", "loss_changed", "accuracy_changed", "shuffle_ratio", "codes_used", "perplexity")


def chosen_model(arguments: list[str]) -> str:
    """The value of --model, else the model in the file of --config. Raises InputError if that is not a variant."""
    return chosen_variant(arguments, "dynamics model", DYNAMICS, {"maskgit": "3.dynamics-model/train.py"})


def main() -> None:
    if {"-h", "--help"} & set(sys.argv) and value_of_flag(sys.argv, "--model") is None:
        return print(f"{__doc__}\nNAME is one of {', '.join(DYNAMICS)}. Each has flags of its own.")
    model_class = dynamics_class(chosen_model(sys.argv))
    config = parse_config(model_class.config_class, model_class.presets)
    device = start_training(config)
    data, config = open_training_data(config)
    prepared = prepare_frames(config, data.store, device)
    config = prepared.config
    training, validation = (prepared.clips(clips) for clips in (data.training, data.validation))

    model = model_class(config).to(device)
    model.fit_statistics(prepared.frames)
    averaged = model_class(config).to(device)  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "dynamics")
    model.fit_tokenizer(prepared.tokenizer)
    data = data._replace(training=training, validation=validation)
    run = Run("dynamics", config, data, prepared.fingerprints, prepared.extra, subfolder=config.model)
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
        frames, actions = to_device(batch["frames"], device), to_device(batch["actions"], device)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        parts = [*zip(frames.chunk(config.accumulate), actions.chunk(config.accumulate), strict=True)]
        for part, part_actions in sync_on_last(parallel, parts):
            with autocast(device, config.precision):
                losses = parallel(part, part_actions)
            loss = torch.stack([*losses.values()]).sum() / config.accumulate
            loss.backward()
            total += loss.detach()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, part, part_actions)
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=total, **losses, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            metrics = validate(averaged, validation, config, device)
            shown = [name for name in SHOWN_METRICS if name in metrics]
            run.save(averaged, metrics, error=metrics["weighted_loss"], shown=shown)

    run.finish()


if __name__ == "__main__":
    run_script(main)
