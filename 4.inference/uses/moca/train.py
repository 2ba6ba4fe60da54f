"""The trainings: an autoencoder of frames, an animator of its latents, and a judge. Films of digits are drawn here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from uses.moca.conditions import Conditions, Films, draw_given, flow_pictures, mean_magnitude
from uses.moca.config import ANIMATOR_RATE, OPTIMIZER, EditConfig, MocaConfig
from uses.moca.digits import Scenes, captions, draw_scenes, film, flow
from uses.moca.judge import Judge
from uses.moca.model import Animator, MoCA
from uses.moca.vae import FrameVAE
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.checkpoint import build_with_weights, load_checkpoint, save_checkpoint
from video_tokenizer.training.config import TrainingConfig
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate

Model = TypeVar("Model", bound=nn.Module)
Draw = Callable[[int, np.random.Generator], Films]
"""how many -> random films"""
DIGITS = "drawn digits"
"""what stands in a checkpoint where others have the fingerprint of a recording"""
TELLS_MOTION = 0.5
"""share of the training captions that name the direction, so that a caption without it is nothing unusual"""


def draw_digits(count: int, rng: np.random.Generator) -> Films:
    """Moving digits. Some captions name the direction."""
    scenes = draw_scenes(count, rng)
    return films(scenes, rng.random(count) < TELLS_MOTION)


def draw_untold_digits(count: int, rng: np.random.Generator) -> Films:
    """The same scenes that `draw_scenes` draws with this generator. No caption names the direction, and none costs a number."""
    return films(draw_scenes(count, rng), np.zeros(count, bool))


def films(scenes: Scenes, tells_motion: np.ndarray) -> Films:
    """The clips of scenes. tells_motion: (B,) whether the caption names the direction."""
    return Films(film(scenes), flow(scenes), captions(scenes, tells_motion))


def fit(
    name: str, model: nn.Module, loss: Callable[[], Tensor], num_steps: int, optimization: TrainingConfig = OPTIMIZER
) -> None:
    """Train what requires a gradient in `model`, and leave the averaged weights in it. loss: of a fresh batch."""
    optimizer, ema = build_optimizer(model, optimization), ExponentialMovingAverage(model, optimization.ema_decay)
    device, losses = next(model.parameters()).device, []
    model.train()
    for step in tqdm(range(1, num_steps + 1), desc=name, unit="step", disable=None):
        rate = set_learning_rate(optimizer, step, num_steps, optimization)
        optimizer.zero_grad()
        with autocast(device, optimization.precision):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimization.gradient_clip)
        optimizer.step()
        ema.update(model)
        losses.append(value.item())
        if not np.isfinite(losses[-1]):
            raise InputError(f"at step {step:,} the loss of the {name} is {losses[-1]}; another --seed may help")
        if step % 100 == 0 or step in (1, num_steps):
            tqdm.write(f"{name} | step {step:6,}/{num_steps:,} | loss {np.mean(losses[-100:]):.4g} | lr {rate:.1e}")
    ema.copy_to(model)


def kept(
    path: Path,
    config: EditConfig,
    num_steps: int,
    build: Callable[[], Model],
    train: Callable[[Model], None],
    *names: str,
    data: str = DIGITS,
) -> Model:
    """The model in `path`; if there is none it is built, trained for num_steps and saved.

    names: flags on which it depends, besides the seed. data: fingerprint of the films that it learns from.

    Raises InputError if it was made with other flags, or from other films.
    """
    settings = {name: getattr(config, name) for name in (*names, "batch_size", "seed")}
    if not path.exists():
        torch.manual_seed(config.seed)
        model = build().to(config.device)
        train(model)
        save_checkpoint(path, "moca", path.stem, settings, model.state_dict(), num_steps, {}, data)
    content = load_checkpoint(path, "moca")
    if different := [name for name, value in settings.items() if content["config"].get(name) != value]:
        name, before = different[0], content["config"].get(different[0])
        raise InputError(f"{path} was made with {name} {before}, not {settings[name]}; give another --output")
    if content["data_fingerprint"] != data:
        raise InputError(f"{path} was trained on {content['data_fingerprint']}, not on {data}; give another --output")
    return build_with_weights(build, content, path).to(config.device).eval()


def train_vae(vae: FrameVAE, config: EditConfig, draw: Draw) -> None:
    """Every other frame of random clips, and every third flow picture."""
    rng = np.random.default_rng((config.seed, 1))

    def pictures(count: int) -> Tensor:
        video, flow, _ = draw(count, rng)
        both = np.concatenate([video[:, ::2], flow_pictures(flow)[:, 1::3]], axis=1)  # (B, 4 + 3, H, W, 3)
        return to_video(both, config.device).flatten(0, 1)

    fit("autoencoder", vae, lambda: vae.loss(pictures(max(1, config.batch_size // 2))), config.vae_steps)
    vae.measure(to_video(draw(64, rng).video, config.device).flatten(0, 1))


def train_animator(moca: MoCA, config: EditConfig, num_steps: int, draw: Draw) -> None:
    """Random films with random captions, and conditions that are left out at random."""
    rng, pieces = np.random.default_rng((config.seed, 2)), []
    with torch.no_grad():
        for rows in tqdm(torch.arange(config.num_films).split(64), desc="encoding", leave=False, disable=None):
            video, conditions = told(moca, draw(len(rows), rng))
            pieces.append((moca.vae.encode(video), *vars(conditions).values()))
    latents, *told_of = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    known = Conditions(*told_of)

    def loss() -> Tensor:
        rows = torch.from_numpy(rng.integers(len(latents), size=config.batch_size)).to(latents.device)
        return moca.loss(latents[rows], replace(known[rows], given=draw_given(len(rows)).to(latents.device)))

    fit("animator", moca, loss, num_steps, replace(OPTIMIZER, learning_rate=ANIMATOR_RATE))


def train_judge(judge: Judge, moca: MoCA, config: MocaConfig) -> None:
    """Clips and their whole captions, twice as many as the animator sees in a step, because each is told from all others."""
    rng = np.random.default_rng((config.seed, 4))

    def loss() -> Tensor:
        scenes = draw_scenes(2 * config.batch_size, rng)
        words = torch.from_numpy(captions(scenes, np.ones(len(scenes), bool))).to(config.device)
        return judge.loss(moca.vae.encode(to_video(film(scenes), config.device)), words)

    fit("judge", judge, loss, config.judge_steps)


def told(moca: MoCA, films: Films) -> tuple[Tensor, Conditions]:
    """The clips (B, T, 3, H, W) of films, and all that can be said about them."""
    device = moca.alphas.device
    video = to_video(films.video, device)
    words = torch.from_numpy(films.words).to(device)
    magnitude = torch.from_numpy(mean_magnitude(films.flow)).float().to(device)
    return video, moca.conditions(video[:, 0], words, to_video(flow_pictures(films.flow), device), magnitude)


def open_moca(config: EditConfig, draw: Draw | None = None, data: str = DIGITS) -> MoCA:
    """Autoencoder and animator, trained on such films if they are not there yet. draw: without it they are moving digits."""
    folder, draw_vae, draw = Path(config.output), draw or draw_untold_digits, draw or draw_digits

    def train_frames(vae: FrameVAE) -> None:
        train_vae(vae, config, draw_vae)

    vae = kept(folder / "vae.pt", config, config.vae_steps, FrameVAE, train_frames, *config.of_vae, data=data)

    def train(moca: MoCA) -> None:
        moca.vae.load_state_dict(vae.state_dict())
        train_animator(moca, config, config.num_steps, draw)

    names = *config.of_vae, "num_steps", "num_films"
    path = folder / "animator.pt"
    return kept(path, config, config.num_steps, lambda: MoCA(FrameVAE(), Animator()), train, *names, data=data)


def trained_longer(moca: MoCA, config: MocaConfig, has_magnitude: bool) -> MoCA:
    """The animator, trained a quarter longer while it is told the magnitude of the flow, or without it."""
    num_steps = max(1, config.num_steps // 4)

    def train(longer: MoCA) -> None:
        longer.load_state_dict(moca.state_dict())
        train_animator(longer, config, num_steps, draw_digits)

    path = Path(config.output) / f"animator_{'with' if has_magnitude else 'without'}_magnitude.pt"
    names = "vae_steps", "num_steps", "num_films"
    return kept(path, config, num_steps, lambda: MoCA(FrameVAE(), Animator(has_magnitude=has_magnitude)), train, *names)


def open_judge(moca: MoCA, config: MocaConfig) -> Judge:
    """The judge, trained if it is not there yet."""
    path = Path(config.output) / "judge.pt"
    names = "vae_steps", "judge_steps"
    return kept(path, config, config.judge_steps, Judge, lambda judge: train_judge(judge, moca, config), *names)
