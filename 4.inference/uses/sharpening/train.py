"""Train the sharpening network: a frame as the world draws it in, the emulator's larger picture of the same moment out.

    python 4.inference/uses/sharpening/train.py --world assets/worlds/breakout

Plays the world's game itself. A few minutes on two CPU cores.
"""

import numpy as np
import torch
from torch import Tensor

from uses.sharpening.config import SharpeningConfig
from uses.sharpening.model import Sharpener
from uses.sharpening.pairs import open_pairs
from uses.sharpening.pictures import save_comparison
from uses.sharpening.scores import enlargements, picture_scores
from video_tokenizer.data.clips import make_loader, to_video
from video_tokenizer.data.training_data import split_clips
from video_tokenizer.errors import InputError
from video_tokenizer.losses import background_of, foreground_pixels, moving_pixels
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.checkpoint import fingerprint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import prepare_model, sync_on_last
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training
from world_model.world import WorldModel

SHOWN_METRICS = ("psnr_db", "gain_db", "moving_psnr_db", "moving_gain_db")
SOFTNESS = 0.01
"""errors far below it count by their square, far above it by their size; 2.5 of 255 levels"""


def weighted_charbonnier(picture: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """sqrt(error^2 + SOFTNESS^2), averaged with the weight of each pixel.

    picture, truth: (B, T, 3, H, W); weight: (B, T, 1, H, W).

    Where an edge may lie here or there, the least squared error is the mean of both, which is a blur. The least absolute error is
    their median, which is an edge.
    """
    error = (picture - truth).square().add(SOFTNESS**2).sqrt().mean(dim=2, keepdim=True)
    return (weight * error).sum() / weight.sum()


def main() -> None:
    config = parse_config(SharpeningConfig, {"tiny": {}})
    config.check()
    device = start_training(config)
    world = WorldModel.load(config.world, str(device))
    if config.crop_size > min(world.frame_size):
        raise InputError(f"--crop-size {config.crop_size} is larger than the world's frames of {min(world.frame_size)} pixels")
    pairs = open_pairs(world, config)
    frames = pairs.decoded if config.train_on == "decoded" else pairs.small  # (F, H, W, 3)
    data = split_clips(config, pairs.store)
    background = background_of(data.store.frames).to(device)  # (3, sH, sW)

    model = Sharpener(config).to(device)
    averaged = Sharpener(config).to(device).eval()  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "sharpener")
    parallel = prepare_model(model, config)
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    known_by = fingerprint(world.tokenizer.state_dict())
    made_from = f"{data.store.fingerprint} decoded by {known_by}"
    run = Run("sharpener", config, data, made_from, extra={"tokenizer_fingerprint": known_by})
    run.track(model, optimizer, ema)
    run.draw = lambda path, run: save_comparison(
        path, enlargements(averaged), pairs, data.validation, caption=f"step {run.step:,}"
    )

    batches = make_loader(data.training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        rate = set_learning_rate(optimizer, step, run.num_steps, config)
        places = data.training.starts[batch["index"]][:, None] + np.arange(config.num_frames)  # (B, T)
        small, truth = to_video(frames[places], device), to_video(batch["frames"], device)
        weight = 1 + config.foreground_weight * foreground_pixels(truth, background) + config.moving_weight * moving_pixels(truth)
        cut = [cut_out(*one, config.crop_size, config.scale) for one in zip(small, truth, weight, strict=True)]
        small, truth, weight = (torch.stack(part) for part in zip(*cut, strict=True))
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        parts = zip(*(tensor.chunk(config.accumulate) for tensor in (small, truth, weight)), strict=True)
        for given, wanted, weights in sync_on_last(parallel, list(parts)):
            with autocast(device, config.precision):
                picture = parallel(given.flatten(0, 1)).unflatten(0, given.shape[:2])  # (B, T, 3, s crop, s crop)
            loss = weighted_charbonnier(picture, wanted, weights) / config.accumulate
            loss.backward()
            total += loss.detach()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(total, gradient_norm, small.flatten(0, 1))
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=total, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            scores = picture_scores(enlargements(averaged), pairs, data.validation, config.validation_batches)
            metrics = scores["sharpened"] | {
                f"{kind}gain_db": scores["sharpened"][f"{kind}psnr_db"] - scores["bicubic"][f"{kind}psnr_db"]
                for kind in ("", "moving_")
            }
            run.save(averaged, metrics, error=-metrics["psnr_db"], shown=SHOWN_METRICS)

    run.finish()


def cut_out(small: Tensor, truth: Tensor, weight: Tensor, side: int, scale: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same random square of a clip's small frames (T, 3, H, W), its truth and the truth's weights (T, ., sH, sW)."""
    top, left = (int(torch.randint(length - side + 1, ())) for length in small.shape[-2:])
    large = [slice(scale * start, scale * (start + side)) for start in (top, left)]
    return small[..., top : top + side, left : left + side], truth[..., *large], weight[..., *large]


if __name__ == "__main__":
    run_script(main)
