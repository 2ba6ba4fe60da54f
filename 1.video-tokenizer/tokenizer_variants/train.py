"""Train a variant of the tokenizer: the loop of chapter 1, with a model that defines its own loss.

    python 1.video-tokenizer/tokenizer_variants/train.py --model videogpt --data-path data/breakout

`--model NAME --help` shows the flags of a variant. MAGVIT-2 has its own training script, magvit2/train.py.
"""

import sys

import torch

from video_tokenizer.data.clips import make_loader, to_video
from video_tokenizer.data.training_data import open_training_data
from video_tokenizer.figures import save_samples
from video_tokenizer.losses import background_of
from video_tokenizer.metrics import validate
from video_tokenizer.registry import VARIANTS, tokenizer_class
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.command_line import chosen_variant, parse_config, run_script, value_of_flag
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training

SHOWN_METRICS = ("psnr_db", "moving_psnr_db", "copy_last_moving_psnr_db", "foreground_recall", "codes_used")
NAMES = [name for name in VARIANTS if name != "magvit2"]


def chosen_model(arguments: list[str]) -> str:
    """The value of --model, else the model in the file of --config. Raises InputError if that is not a variant."""
    elsewhere = {"st-fsq": "1.video-tokenizer/train.py", "magvit2": "tokenizer_variants/magvit2/train.py"}
    return chosen_variant(arguments, "tokenizer", NAMES, elsewhere)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv) and value_of_flag(sys.argv, "--model") is None:
        return print(f"{__doc__}\nNAME is one of {', '.join(NAMES)}. Each has flags of its own.")
    model_class = tokenizer_class(chosen_model(sys.argv))
    config = parse_config(model_class.config_class, model_class.presets)
    device = start_training(config)
    data, config = open_training_data(config)
    background = background_of(data.store.frames).to(device)  # (3, H, W)

    model = model_class(config).to(device)
    model.fit_statistics(data.store.frames)
    averaged = model_class(config).to(device)  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "tokenizer")
    parallel = prepare_model(model, config)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    run = Run("tokenizer", config, data, subfolder=config.model)
    run.track(model, optimizer, ema)
    run.draw = lambda path, run: save_samples(path, averaged.eval(), data.validation, f"step {run.step:,}", device)

    batches = make_loader(data.training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        rate = set_learning_rate(optimizer, step, run.num_steps, config)
        video = to_video(batch["frames"], device)  # (B, T, 3, H, W)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for part in sync_on_last(parallel, video.chunk(config.accumulate)):
            with autocast(device, config.precision):
                output = parallel(part)
            losses = model.loss(part, output, background)
            loss = torch.stack([*losses.values()]).sum() / config.accumulate
            loss.backward()
            total += loss.detach()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, part)
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=total, **losses, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            metrics = validate(averaged, data.validation, background, config, device)
            run.save(averaged, metrics, error=metrics["weighted_error"], shown=SHOWN_METRICS)

    run.finish()


if __name__ == "__main__":
    run_script(main)
