"""From a clip store to what the dynamics model trains on: encoded frames, an action for each, and the world's metadata."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from dynamics_model.config import NextFrameConfig
from dynamics_model.data.frame_cache import FrameClips, cached, encode_store
from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.models.base import DynamicsModel
from dynamics_model.registry import dynamics_class
from latent_action_model import load_latent_action_model
from latent_action_model.action_map import action_map, count_pairs, keys_by_motion, latent_names
from latent_action_model.metrics import encode_episodes
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import ClipStore, check_light
from video_tokenizer.data.clips import Clips, split_episodes
from video_tokenizer.data.training_data import with_frame_size_of
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import find_checkpoint, fingerprint, load_checkpoint
from video_tokenizer.training.config import size_text
from video_tokenizer.training.device import autocast

ConfigT = TypeVar("ConfigT", bound=NextFrameConfig)

NUM_LABELS = 200
"""transitions whose true action may be used to map keys to latent actions (Genie uses as many)"""
NUM_STARTS = 8
"""start clips kept in the checkpoint, so that a world can be played without any data"""
NUM_TRANSITIONS = 2_000
"""transitions of videos whose motion is looked at to name keys"""


@dataclass(frozen=True)
class PreparedFrames(Generic[ConfigT]):
    """What a training or a validation of the dynamics model starts from."""

    config: ConfigT
    """with the sizes of tokenizer and actions filled in"""
    tokenizer: Tokenizer
    frames: np.ndarray
    """tokens, int32 (F, N), or latents, float16 (F, N, D)"""
    actions: np.ndarray
    """int64 (F,), as the model is conditioned on them; -1 where unknown"""
    extra: dict[str, Any]
    """`WorldMetadata` as a dictionary, for the checkpoint"""
    fingerprints: str
    """of everything that frames and actions were made from"""

    def clips(self, clips: Clips) -> FrameClips:
        """The same clips, as frames and actions of the dynamics model."""
        return FrameClips(clips, self.frames, self.actions)


class LabeledActions(NamedTuple):
    """actions: int64 (F,), -1 where unknown. num_actions: how many there are. metadata: fields of `WorldMetadata`."""

    actions: np.ndarray
    num_actions: int
    metadata: dict[str, Any]


def prepare_frames(
    config: ConfigT, store: ClipStore, device: torch.device, announce: Callable[[str], None] = print
) -> PreparedFrames[ConfigT]:
    """Encode the store with chapter 1's tokenizer and find the action of every frame."""
    model_class = dynamics_class(config.model)
    tokenizer, sizes = open_tokenizer(config, store, device, model_class, announce)
    name = "tokens" if model_class.reads == "tokens" else "latents"
    frames = cached(
        store, name, tokenizer.state_dict(), lambda: encode_store(store, tokenizer, device, config.precision, model_class)
    )
    labeled = label_actions(config, store, device, announce)
    config = replace(with_frame_size_of(store, config), num_actions=labeled.num_actions, **sizes)
    start_frames, start_actions = start_clips(config, store, labeled.actions)
    metadata = WorldMetadata(
        action_kind=config.actions,
        action_names=store.action_names,
        env_id=store.env_id,
        frames_per_second=float(store.frames_per_second),
        frame_skip=store.info.get("frame_skip"),
        picture_delay=store.info.get("picture_delay"),
        merged_frames=store.info.get("merged_frames", 2),
        linear_light=bool(store.linear_light),
        key_guidance=config.key_guidance,
        key_smoothing=config.key_smoothing,
        tokenizer_fingerprint=fingerprint(tokenizer.state_dict()),
        start_frames=start_frames,
        start_actions=start_actions,
        **labeled.metadata,
    )
    made_from = (store.fingerprint, metadata.tokenizer_fingerprint, metadata.latent_action_model_fingerprint)
    return PreparedFrames(config, tokenizer, frames, labeled.actions, vars(metadata), " ".join(filter(None, made_from)))


def open_tokenizer(
    config: NextFrameConfig,
    store: ClipStore,
    device: torch.device,
    model_class: type[DynamicsModel],
    announce: Callable[[str], None] = print,
) -> tuple[Tokenizer, dict[str, Any]]:
    """Chapter 1's tokenizer, and the config fields that follow from it. Raises InputError if store or model cannot use it."""
    path = find_checkpoint(config.tokenizer_checkpoint, "tokenizer", game_of(store), announce)
    tokenizer = load_tokenizer(path, device)
    announce(f"tokenizer {path}")
    check_frame_size("the tokenizer", tokenizer.frame_size, store, chapter=1)
    check_light(f"the tokenizer {path}", load_checkpoint(path, "tokenizer").get("linear_light"), store)
    if not tokenizer.is_causal:
        announce(f"{tokenizer.config.model} looks ahead: the model can be trained and scored, but chapter 4 cannot play with it")
    return tokenizer, model_class.sizes_from(tokenizer)


def label_actions(
    config: NextFrameConfig, store: ClipStore, device: torch.device, announce: Callable[[str], None] = print
) -> LabeledActions:
    """The action of every frame: the recorded one, chapter 2's latent one, or none, as `config.actions` says."""
    if config.actions == "latent":
        return latent_actions(config, store, device, announce)
    if config.actions == "none":
        return LabeledActions(np.full(len(store.frames), -1, np.int64), 1, {})
    actions = np.asarray(store.actions, np.int64)
    if not store.num_actions or (actions < 0).all():
        raise InputError(f"--actions true: {store.path} has no recorded actions; use --actions latent or none")
    return LabeledActions(
        actions, store.num_actions, {"action_map": {name: index for index, name in enumerate(store.action_names)}}
    )


def latent_actions(
    config: NextFrameConfig, store: ClipStore, device: torch.device, announce: Callable[[str], None] = print
) -> LabeledActions:
    """The latent action of every frame, and what the true actions are in terms of them."""
    path = find_checkpoint(config.latent_action_checkpoint, "latent_action_model", game_of(store), announce)
    model = load_latent_action_model(path, device)
    announce(f"latent actions {path}")
    check_frame_size("the latent action model", model.frame_size, store, chapter=2)
    check_light(f"the latent action model {path}", load_checkpoint(path, "latent_action_model").get("linear_light"), store)

    def encode() -> np.ndarray:
        with autocast(device, config.precision):
            return encode_episodes(model, store, range(len(store.episodes)), model.config.num_frames)

    actions = np.asarray(cached(store, "latent-actions", model.state_dict(), encode), np.int64)
    metadata = {
        "latent_names": [f"code {code}" for code in range(model.num_actions)],
        "latent_action_model_fingerprint": fingerprint(model.state_dict()),
    }
    return LabeledActions(actions, model.num_actions, metadata | learn_action_map(config, store, actions, model.num_actions))


def learn_action_map(config: NextFrameConfig, store: ClipStore, actions: np.ndarray, num_actions: int) -> dict[str, Any]:
    """action_map, latent_names and code_counts from NUM_LABELS transitions of the training episodes whose true action is known.

    A store without recorded actions has an action_map of arrow keys only, after what moves under each code.
    """
    true_actions = np.asarray(store.actions, np.int64)
    training, _ = split_episodes(store, config.validation_share, config.seed)
    in_training = np.zeros(len(actions), bool)
    for start, stop in store.episodes[np.asarray(training)]:
        in_training[start:stop] = True
    rng, known = np.random.default_rng(config.seed), np.flatnonzero((actions >= 0) & in_training)
    labeled = known[true_actions[known] >= 0]
    if not store.num_actions or not len(labeled):
        chosen = np.sort(rng.permutation(known)[:NUM_TRANSITIONS])
        pairs = store.frames[np.stack([chosen - 1, chosen], axis=1)]
        return {"action_map": keys_by_motion(pairs, actions[chosen], num_actions)} if len(chosen) else {}
    chosen = rng.permutation(labeled)[:NUM_LABELS]
    codes, labels = actions[chosen], true_actions[chosen]
    best = action_map(codes, labels, num_actions, store.num_actions)
    return {
        "action_map": {name: int(code) for name, code in zip(store.action_names, best, strict=True)},
        "latent_names": latent_names(codes, labels, num_actions, store.action_names),
        "code_counts": count_pairs(codes, labels, num_actions, store.num_actions).tolist(),
    }


def start_clips(config: NextFrameConfig, store: ClipStore, actions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """A few validation clips to start rollouts from: uint8 (S, T, H, W, 3), and the actions (S, T) that led to them."""
    _, episodes = split_episodes(store, config.validation_share, config.seed)
    length = config.context_frames
    ranges = [(int(start), int(stop)) for start, stop in store.episodes[np.asarray(episodes)] if stop - start >= length]
    if not ranges:
        ranges = [(int(start), int(stop)) for start, stop in store.episodes]
        length = min(stop - start for start, stop in ranges)
    starts = []
    for number in range(NUM_STARTS):
        start, stop = ranges[number * len(ranges) // NUM_STARTS]
        starts.append(start + (stop - length - start) * (number % 3 + 1) // 4)
    positions = np.asarray(starts)[:, None] + np.arange(length)
    return torch.from_numpy(np.asarray(store.frames[positions])), torch.from_numpy(actions[positions])


def game_of(store: ClipStore) -> str:
    """The reference world to fall back to: "ALE/Breakout-v5" -> "breakout"."""
    return (store.env_id or "breakout").split("/")[-1].split("-")[0].lower()


def check_frame_size(name: str, frame_size: tuple[int, int], store: ClipStore, chapter: int) -> None:
    """Raise InputError for a model that was trained on frames of another size."""
    if tuple(frame_size) != tuple(store.frame_size):
        raise InputError(
            f"{name} was trained on frames of {size_text(frame_size)} pixels, {store.path} holds {size_text(store.frame_size)}; "
            f"train chapter {chapter} on this data first"
        )
