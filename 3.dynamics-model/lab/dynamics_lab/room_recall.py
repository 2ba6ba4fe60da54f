"""Train dynamics models on Rooms for a given time, and score what they recall of a room by how long ago it was entered."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynamics_lab.rooms import NUM_FRAMES, NUM_ROOMS, gaps
from dynamics_model.config import DynamicsConfig, NextFrameConfig
from dynamics_model.data.frame_cache import CHUNK
from dynamics_model.models.base import DynamicsModel
from dynamics_model.models.maskgit import MaskGIT
from dynamics_model.registry import build_dynamics, dynamics_class
from dynamics_variants.teco.config import TECOConfig
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.metrics import CodeUsage
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import read_torch_file, write_torch_file
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.results import to_json

WINDOW = 8
"""frames that the main line sees, the predicted one included; no row is scored on the frames before there are as many"""
SMALL_TECO = dict(
    channels=16, change_downsample=4, change_channels=32, embed_dim=128, num_blocks=2, num_heads=4, prior_dim=64, prior_blocks=1,
    prior_heads=2, drop_rate=0.0, both_actions=True, warmup_steps=50,
)  # fmt: skip
"""sizes for trainings of minutes; without DropLoss, and with both actions, with which recall sets in early (log 3.15)"""
ARMS: dict[str, tuple[type[NextFrameConfig], dict[str, Any]]] = {
    "TECO, whole episode": (TECOConfig, SMALL_TECO | dict(num_frames=NUM_FRAMES, context_frames=NUM_FRAMES, batch_size=16)),
    "TECO, 8 frames": (TECOConfig, SMALL_TECO | dict(num_frames=WINDOW, context_frames=WINDOW, batch_size=128)),
    "main line, 8 frames": (DynamicsConfig, dict(num_frames=WINDOW, context_frames=WINDOW)),
}
BINS = {"first": (0, 0), "2-7": (2, 7), "8-15": (8, 15), "16+": (16, NUM_FRAMES)}
"""smallest and largest gap, in frames since the room was last entered; "first": it was not"""
TICKS = 1_000
"""the learning rate rises and falls over this many parts of the time"""
CPU = torch.device("cpu")


class Episodes(NamedTuple):
    """Rooms as models read them, one row per episode."""

    tokens: Tensor
    """(E, T, N) int64"""
    actions: Tensor
    """(E, T) int64"""
    frames: np.ndarray
    """uint8 (E, T, H, W, 3), memory-mapped"""


class Trained(NamedTuple):
    """A model after its training."""

    model: DynamicsModel
    steps: int
    seconds: float
    """of the processor"""


@torch.no_grad()
def read_episodes(store: ClipStore, tokenizer: Tokenizer) -> Episodes:
    """All episodes of the store, encoded. Every room is encoded once: its tokens depend on no other frame."""
    looks: dict[bytes, int] = {}
    rooms = [looks.setdefault(frame.tobytes(), len(looks)) for frame in store.frames]
    _, firsts = np.unique(rooms, return_index=True)
    chunks = np.split(firsts, range(CHUNK, len(firsts), CHUNK))
    tokens = torch.cat([tokenizer.encode(to_video(np.array(store.frames[chunk])[:, None])).indices[:, 0] for chunk in chunks])
    shape = (len(store.episodes), -1)
    actions = torch.from_numpy(store.actions.astype(np.int64)).view(*shape)
    return Episodes(tokens[rooms].unflatten(0, shape), actions, store.frames.reshape(*actions.shape, *store.frames.shape[1:]))


def config_of(arm: str, tokenizer: Tokenizer, seed: int, num_actions: int, **changes: Any) -> NextFrameConfig:
    """The settings of an arm. changes: other sizes, for a trial of seconds."""
    config_class, sizes = ARMS[arm]
    name = str(config_class().model)
    from_tokenizer = dynamics_class(name).sizes_from(tokenizer)
    return config_class(actions="true", num_actions=num_actions, seed=seed, num_steps=TICKS, **sizes | from_tokenizer | changes)


def train(
    config: NextFrameConfig, tokenizer: Tokenizer, data: Episodes, minutes: float, num_steps: int = 0,
    watch: Callable[[int, DynamicsModel], None] | None = None,
) -> Trained:  # fmt: skip
    """Train for this many processor minutes, on clips that begin anywhere in an episode.

    num_steps: train for so many steps instead, however long they take. watch: called after each step.
    """
    torch.manual_seed(config.seed)
    random = torch.Generator().manual_seed(config.seed)
    model = build_dynamics(config)
    model.fit_tokenizer(tokenizer)
    optimizer = build_optimizer(model, config)
    begun, step, spent = time.process_time(), 0, 0.0
    while spent < 1:
        set_learning_rate(optimizer, 1 + int(spent * TICKS), TICKS, config)
        rows = torch.randint(len(data.tokens), (config.batch_size, 1), generator=random)
        first = torch.randint(data.tokens.shape[1] - config.num_frames + 1, (config.batch_size, 1), generator=random)
        places = first + torch.arange(config.num_frames)
        actions = renumbered(data.actions[rows, places], random)
        with autocast(CPU, config.precision):
            losses = loss_of(model, data.tokens[rows, places], actions, spent)
        optimizer.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        step += 1
        if watch is not None:
            watch(step, model)
        spent = step / num_steps if num_steps else (time.process_time() - begun) / (60 * minutes)
    return Trained(model.eval(), step, time.process_time() - begun)


def renumbered(actions: Tensor, random: torch.Generator) -> Tensor:
    """The same ways through rooms with other numbers, for every clip (B, T) other ones; -1 stays -1."""
    numbers = torch.rand(len(actions), NUM_ROOMS, generator=random).argsort(dim=1)
    return torch.where(actions < 0, -1, numbers.gather(1, actions.clamp(min=0)))


def loss_of(model: DynamicsModel, tokens: Tensor, actions: Tensor, spent: float) -> dict[str, Tensor]:
    """The loss as in train.py of the model: until the last tenth of the time, the main line takes a share of the patches."""
    if isinstance(model, MaskGIT):
        return model(tokens, actions, model.config.patch_share if spent <= 0.9 else 1.0)
    return model(tokens, actions)


def trained(
    path: Path, config: NextFrameConfig, tokenizer: Tokenizer, data: Episodes, minutes: float, num_steps: int = 0
) -> Trained:
    """The model that was trained with these settings before and saved, else `train`."""
    seen = hashlib.sha256(data.tokens.numpy().tobytes() + data.actions.numpy().tobytes()).hexdigest()[:16]
    length = {"steps": num_steps} if num_steps else {"minutes": minutes}
    settings = to_json({"config": asdict(config), "data": seen} | length)
    if path.exists():
        content = read_torch_file(path)
        if content["settings"] == settings:
            model = build_dynamics(config)
            model.load_state_dict(content["weights"])
            return Trained(model.eval(), content["steps"], content["seconds"])
    model, steps, seconds = train(config, tokenizer, data, minutes, num_steps)
    write_torch_file(path, {"settings": settings, "weights": model.state_dict(), "steps": steps, "seconds": seconds})
    return Trained(model, steps, seconds)


# --- scores ---


@torch.no_grad()
def predictions(model: DynamicsModel, data: Episodes) -> Tensor:
    """The most likely tokens of frames 7 .. T - 1, (E, T - 7, N), each from the real frames before it.

    A model that was trained on clips of 8 frames sees 7 frames before each. Attention with a window would not do: two layers look
    back twice as far as one.
    """
    length, found = model.config.num_frames, []
    with autocast(CPU, model.config.precision):
        if length == data.tokens.shape[1]:
            for row in range(len(data.tokens)):
                one = model.teacher_forced(data.tokens[row : row + 1], data.actions[row : row + 1])
                found.append(one.predicted[:, WINDOW - 2 :])
            return torch.cat(found)
        for last in range(WINDOW, data.tokens.shape[1] + 1):
            clip = slice(last - length, last)
            found.append(model.teacher_forced(data.tokens[:, clip], data.actions[:, clip]).predicted[:, -1])
    return torch.stack(found, dim=1)


@torch.no_grad()
def drawn(tokens: Tensor, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens (E, F, N) as frames, uint8 (E, F, H, W, 3)."""
    return np.stack([to_frames(tokenizer.decode_indices(row[None]))[0] for row in tokens])


class FrameScore(NamedTuple):
    """Of every frame 7 .. T - 1 of every episode, (E, T - 7) each."""

    accuracy: np.ndarray
    """share of its tokens that are right"""
    squared_error: np.ndarray
    """mean over its pixels, colors in [0, 1]"""


def score(predicted: Tensor, data: Episodes, tokenizer: Tokenizer) -> FrameScore:
    """predicted: (E, T - 7, N) tokens."""
    real = data.frames[:, WINDOW - 1 :]
    accuracy = (predicted == data.tokens[:, WINDOW - 1 :]).float().mean(dim=-1).numpy()
    errors = [
        (to_video(drawn(row[None], tokenizer)) - to_video(np.array(frames)[None])).square().mean(dim=(2, 3, 4))[0]
        for row, frames in zip(predicted, real, strict=True)
    ]
    return FrameScore(accuracy, torch.stack(errors).numpy())


def gaps_of(data: Episodes) -> np.ndarray:
    """(E, T - 7)"""
    return np.stack([gaps(actions.numpy()) for actions in data.actions])[:, WINDOW - 1 :]


def by_bin(found: FrameScore, gap: np.ndarray) -> dict[str, dict[str, float]]:
    """bin -> accuracy, and PSNR of the pooled squared error, in dB."""
    rows = {}
    for name, (smallest, largest) in BINS.items():
        inside = (gap >= smallest) & (gap <= largest)
        psnr = -10 * np.log10(found.squared_error[inside].mean())
        rows[name] = {"accuracy": float(found.accuracy[inside].mean()), "psnr_db": float(psnr)}
    return rows


def by_gap(found: FrameScore, gap: np.ndarray, least: int = 20) -> dict[str, float]:
    """gap -> accuracy, for gaps of which there are `least` frames."""
    return {str(one): float(found.accuracy[gap == one].mean()) for one in np.unique(gap) if (gap == one).sum() >= least}


def usage_of(model: DynamicsModel, data: Episodes) -> dict[str, float]:
    """codes_used and perplexity of the model's own codes; {} if it has none."""
    if not model.num_own_codes:
        return {}
    usage = CodeUsage(model.num_own_codes)
    usage.update(model.own_codes(data.tokens))
    return usage.result()


def margin(rows: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """How far the first arm is ahead of the best other one at gaps beyond the window, where that is least, over all seeds."""
    first, *others = rows.values()
    beyond = [bin_name for bin_name, (smallest, _) in BINS.items() if smallest >= WINDOW]
    return min(min(first["bins"][one][name]) - max(max(row["bins"][one][name]) for row in others) for one in beyond)
