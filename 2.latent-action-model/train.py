"""Train the latent action model: name the action between two frames, from video alone.

python 2.latent-action-model/train.py --data-path data/breakout
"""

import torch

from latent_action_model.config import PRESETS, LatentActionConfig
from latent_action_model.figures import save_samples
from latent_action_model.labels import KeyLabels
from latent_action_model.metrics import validate
from latent_action_model.models.latent_action_model import LatentActionModel
from latent_action_model.places import busy_places
from video_tokenizer.data.clips import make_loader, to_video
from video_tokenizer.data.training_data import open_training_data
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training

SHOWN_METRICS = ("moving_psnr_db", "copy_last_moving_psnr_db", "delta_moving_psnr_db", "codes_used", "action_information_single")


def main() -> None:
    config = parse_config(LatentActionConfig, PRESETS)
    device = start_training(config)
    data, config = open_training_data(config)
    labels = KeyLabels(data, config)  # keys that training may see: none by default

    model = LatentActionModel(config).to(device)
    averaged = LatentActionModel(config).to(device)  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "latent_action_model")
    model.encoder.place_weights.copy_(busy_places(data.store, config.place_power))  # ones, unless asked for
    parallel = prepare_model(model, config)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    run = Run("latent_action_model", config, data)
    run.track(model, optimizer, ema)
    run.draw = lambda path, run: save_samples(path, averaged.eval(), data.validation, device)

    batches = make_loader(data.training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        rate = set_learning_rate(optimizer, step, run.num_steps, config)
        video = to_video(batch["frames"], device)  # (B, T, 3, H, W)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for part in sync_on_last(parallel, video.chunk(config.accumulate)):
            with autocast(device, config.precision):
                output = parallel(part)
                losses = output.losses | labels.loss(model.encoder, step)  # of next frames and quantizer, and of keys if labeled
            loss = torch.stack([*losses.values()]).sum() / config.accumulate
            loss.backward()
            total += loss.detach()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, part)
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=total, **losses, codes=len(output.indices.unique()), lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            metrics = validate(averaged, data, config, device)
            # the best model is the one whose actions matter most: chosen without looking at a true action
            run.save(averaged, metrics, error=-metrics["delta_moving_psnr_db"], shown=SHOWN_METRICS)

    run.finish()


if __name__ == "__main__":
    run_script(main)
