"""Train MAGVIT-2: first the tokenizer alone, then the tokenizer and a discriminator against each other.

    python 1.video-tokenizer/tokenizer_variants/magvit2/train.py --data-path data/breakout --adversarial-weight 0.1

The first 40% of the steps train the tokenizer alone. Then the discriminator trains too. After another 20%, the tokenizer is also
trained to fool it (--adversarial-start, --adversarial-lead). The discriminator and the perceptual network are saved in resume.pt,
but not in checkpoints, because inference does not need them.
"""

import torch

from tokenizer_variants.magvit2.config import PAPER, SMALL, Magvit2Config
from tokenizer_variants.magvit2.discriminator import (
    Discriminator,
    ScoreAverages,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from tokenizer_variants.magvit2.model import Magvit2Tokenizer
from tokenizer_variants.perceptual import PerceptualDistance
from video_tokenizer.data.clips import make_loader, to_video
from video_tokenizer.data.training_data import open_training_data
from video_tokenizer.figures import save_samples
from video_tokenizer.losses import background_of
from video_tokenizer.metrics import validate
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import average_gradients, prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training

SHOWN_METRICS = ("psnr_db", "moving_psnr_db", "copy_last_moving_psnr_db", "foreground_recall", "codes_used")


def main() -> None:
    config = parse_config(Magvit2Config, {"tiny": {}, "small": SMALL, "paper": PAPER})
    device = start_training(config)
    data, config = open_training_data(config)
    background = background_of(data.store.frames).to(device)  # (3, H, W)

    model = Magvit2Tokenizer(config).to(device)
    averaged = Magvit2Tokenizer(config).to(device)  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "tokenizer")
    parallel = prepare_model(model, config)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    rivals = {}  # networks that only training needs
    if config.adversarial_weight:
        discriminator = Discriminator(config.discriminator_channels, config.blur_pool).to(device).requires_grad_(False)
        discriminator_optimizer = torch.optim.Adam(
            discriminator.parameters(), lr=config.discriminator_rate, betas=config.discriminator_betas
        )
        averages = ScoreAverages()
        rivals |= {"discriminator": discriminator, "discriminator_optimizer": discriminator_optimizer, "averages": averages}
    if config.perceptual_weight:
        perceptual = PerceptualDistance(config.perceptual, config.num_frames, config.precision, device)
        rivals |= {"perceptual": perceptual}
    run = Run("tokenizer", config, data, subfolder=config.model)
    run.track(model, optimizer, ema, **rivals)
    run.draw = lambda path, run: save_samples(path, averaged.eval(), data.validation, f"step {run.step:,}", device)
    perceptual_start = max(1, round(config.perceptual_share * run.num_steps))
    discriminator_start = config.adversarial_start * run.num_steps
    adversarial_start = discriminator_start + config.adversarial_lead * run.num_steps

    batches = make_loader(data.training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        rate = set_learning_rate(optimizer, step, run.num_steps, config)
        video = to_video(batch["frames"], device)  # (B, T, 3, H, W)
        logged = {}

        # --- the tokenizer: reconstruct, match the features of the real clip, and fool the discriminator ---
        optimizer.zero_grad()
        total, reconstructions = torch.zeros((), device=device), []
        for part in sync_on_last(parallel, video.chunk(config.accumulate)):
            with autocast(device, config.precision):
                output = parallel(part)
            losses = model.loss(part, output, background)
            if config.perceptual_weight and perceptual.ready:
                losses["perceptual"] = config.perceptual_weight * perceptual(output.reconstruction, part)
            if config.adversarial_weight and step - 1 > adversarial_start:
                with autocast(device, config.precision):
                    scores = discriminator(output.reconstruction)  # its weights are frozen here; gradients pass through
                losses["adversarial"] = config.adversarial_weight * generator_loss(scores, config.adversarial_loss)
            loss = torch.stack([*losses.values()]).sum() / config.accumulate
            loss.backward()
            total += loss.detach()
            reconstructions.append(output.reconstruction.detach())
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, part)
        optimizer.step()
        ema.update(model)

        # --- the frame-gap network: it trains first, then it is frozen and used ---
        if config.perceptual_weight and not perceptual.ready:
            logged |= perceptual.train_step(video, last=step >= perceptual_start)

        # --- the discriminator: distinguish real clips from reconstructions ---
        if config.adversarial_weight and step > discriminator_start:
            discriminator.requires_grad_(True)
            discriminator_optimizer.zero_grad()
            scored = []
            for part, reconstruction in zip(video.chunk(config.accumulate), reconstructions, strict=True):
                with autocast(device, config.precision):
                    real, fake = discriminator(torch.cat([part, reconstruction])).chunk(2)
                discriminator_error = discriminator_loss(real, fake, config.adversarial_loss)
                logged |= {"discriminator": discriminator_error.detach(), "real_minus_fake": (real.mean() - fake.mean()).detach()}
                if config.lecam_weight:
                    discriminator_error = discriminator_error + config.lecam_weight * averages.penalty(real, fake)
                if config.r1_weight and step % config.r1_every == 0:  # not every step, because it costs a second backward pass
                    penalty = gradient_penalty(discriminator, part)
                    discriminator_error = discriminator_error + config.r1_weight * config.r1_every * penalty
                (discriminator_error / config.accumulate).backward()
                scored.append((real.detach(), fake.detach()))
            if config.lecam_weight:
                averages.update(*(torch.cat(scores) for scores in zip(*scored, strict=True)))
            average_gradients(discriminator.parameters())
            discriminator_optimizer.step()
            discriminator.requires_grad_(False)

        if run.should_log:
            run.log(loss=total, **losses, **logged, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            metrics = validate(averaged, data.validation, background, config, device)
            # with a discriminator, the newest weights are the best, although the squared error was lower before it joined
            error = float("nan") if config.adversarial_weight else metrics["weighted_error"]
            run.save(averaged, metrics, error=error, shown=SHOWN_METRICS)

    run.finish()


if __name__ == "__main__":
    run_script(main)
