"""Train the sound of a world: first its tokenizer, then the network that predicts the tokens from the world's frames.

    python 4.inference/uses/sound/train.py --world assets/worlds/breakout

Plays the world's game itself. A few minutes on two CPU cores.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uses.sound.config import SoundConfig
from uses.sound.games import training_games
from uses.sound.model import SoundModel, to_wave
from uses.sound.scores import onset_scores, played_sound, tokenizer_scores
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import make_loader, split_episodes
from video_tokenizer.data.training_data import split_clips
from video_tokenizer.games.emulator import CHUNK
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.checkpoint import fingerprint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run, load_initial_weights, start_training
from world_model.world import WorldModel

SHOWN_METRICS = ("snr_db", "pitch", "found", "false")
VALIDATED_FRAMES = 1_000
"""frames that are enough for a validation during training"""


def main() -> None:
    config = parse_config(SoundConfig, {"tiny": {}})
    config.check()
    device = start_training(config)
    world = WorldModel.load(config.world, str(device))
    heard = training_games(world, config)
    sizes = {"grid_size": world.dynamics.grid_size, "code_length": heard.codes.shape[-1]}
    config = replace(config, **sizes, chunks=heard.sound.shape[1] // CHUNK)
    data = split_clips(config, heard.store)
    kept = validation_games(heard.store, config)

    model = SoundModel(config).to(device)
    averaged = SoundModel(config).to(device).eval()  # holds the averaged weights, which are validated and saved
    load_initial_weights(model, config, "sound")
    optimizer = build_optimizer(model, config)
    ema = ExponentialMovingAverage(model, config.ema_decay)
    known_by = fingerprint(world.tokenizer.state_dict())
    made_from = f"{heard.store.fingerprint} encoded by {known_by}"
    run = Run("sound", config, data, made_from, extra={"tokenizer_fingerprint": known_by})
    run.track(model, optimizer, ema)

    batches = make_loader(data.training, config.batch_size, run.num_steps, config.seed, run.first_step, config.num_workers)
    for step, batch in run.steps(batches):
        learns_tokens = step <= config.tokenizer_steps  # each half has its own schedule of learning rates
        halves = (step, config.tokenizer_steps), (step - config.tokenizer_steps, run.num_steps - config.tokenizer_steps)
        rate = set_learning_rate(optimizer, *halves[0 if learns_tokens else 1], config)
        places = data.training.starts[batch["index"]][:, None] + np.arange(config.num_frames)  # (B, T)
        wave = to_wave(heard.sound[places], device).flatten(1)  # (B, T * chunks * 512)
        optimizer.zero_grad()
        with autocast(device, config.precision):
            if learns_tokens:
                loss = tokenizer_loss(model, wave)
            else:
                loss = predictor_loss(model, heard.codes[torch.from_numpy(places)].to(device).float(), wave)
        loss.backward()
        gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        run.check_finite(loss, gradient_norm, wave)
        optimizer.step()
        ema.update(model)

        if run.should_log:
            run.log(loss=loss, lr=rate)
        if run.is_due(config.validate_every):
            ema.copy_to(averaged)
            real = [heard.sound[part] for part in kept]
            metrics = tokenizer_scores(averaged, real) | {"found": np.nan, "false": np.nan}
            if not learns_tokens:
                metrics |= onset_scores(real, [played_sound(averaged, heard.codes[part]) for part in kept])
            run.save(averaged, metrics, error=onset_error(metrics), shown=SHOWN_METRICS)

    run.finish()


def tokenizer_loss(model: SoundModel, wave: Tensor) -> Tensor:
    """The mean squared error of the decoded wave. wave: (B, S)."""
    return F.mse_loss(model.tokenizer.decode(model.tokenizer.encode(wave).codes).float(), wave)


def predictor_loss(model: SoundModel, codes: Tensor, wave: Tensor) -> Tensor:
    """The cross-entropy of the real tokens, in nats. codes: (B, T, N, D), wave: (B, T * chunks * 512).

    A part of the predictions gets a wrong past, as it happens in play. Where a sound was missed, the network then learns to start
    it late, and where one was imagined, to end it.
    """
    config = model.config
    with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):  # the same tokens as in play
        model.find_silence()
        tokens, silence = model.tokenizer.encode(wave).indices, int(model.silence)  # (B, T * chunks)
    before = F.pad(tokens, (config.heard_tokens, 0), value=silence)[:, :-1]
    before = before.unfold(1, config.heard_tokens, 1)  # (B, T * chunks, P), the tokens before each token
    chance = torch.rand(tokens.shape, device=tokens.device)[..., None]
    elsewhere = before.roll(1, dims=0)  # the past of another clip
    before = torch.where(chance < config.wrong_past, elsewhere, before)
    before = torch.where(chance < config.wrong_past / 2, silence, before)
    first = (config.seen_frames - 1) * config.chunks  # the clip's first frames have no window of their own
    seen = model.look(codes).repeat_interleave(config.chunks, dim=1)  # (B, T' * chunks, E)
    chunk = torch.arange(config.chunks, device=tokens.device).repeat(seen.shape[1] // config.chunks)
    logits = model(seen, before[:, first:], chunk.expand(len(tokens), -1))  # (B, T' * chunks, K)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, first:].flatten())


def onset_error(metrics: Mapping[str, float]) -> float:
    """The share of false onsets minus that of found ones; NaN before the predictor learns. A network that falls silent has no
    onset that could be false. It counts as one that has only those, or it would replace every better one."""
    return (1.0 if metrics.get("predicted_onsets") == 0 else metrics["false"]) - metrics["found"]


def validation_games(store: ClipStore, config: SoundConfig) -> list[slice]:
    """The frames of the games that `split_clips` keeps for validation, until they are enough."""
    episodes = [slice(*store.episodes[episode]) for episode in split_episodes(store, config.validation_share, config.seed)[1]]
    lengths = np.cumsum([part.stop - part.start for part in episodes])
    return episodes[: 1 + int(np.searchsorted(lengths, VALIDATED_FRAMES))]


if __name__ == "__main__":
    run_script(main)
