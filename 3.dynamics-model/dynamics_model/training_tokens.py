"""What the dynamics model trains on: tokens and actions of every frame, and what a player must know of them later."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from dynamics_model.config import DynamicsConfig
from dynamics_model.token_cache import cached, encode_tokens
from latent_action_model import load_latent_action_model
from latent_action_model.action_map import action_map, count_pairs, latent_names
from latent_action_model.metrics import encode_episodes
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import split_episodes
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import find_checkpoint, fingerprint
from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.device import autocast

NUM_LABELS = 200
"""transitions whose true action the map from keys to latent actions may look at (Genie uses as many)"""
NUM_STARTS = 8
"""start clips kept in the checkpoint, so that a world can be played without any data"""


class TrainingTokens(NamedTuple):
    """tokens: int32 (F, N). actions: int64 (F,), as the model is told them; -1 where unknown. extra: goes into the checkpoint.
    fingerprints: of all that the tokens and actions were made from."""

    config: DynamicsConfig
    tokenizer: Tokenizer
    tokens: np.ndarray
    actions: np.ndarray
    extra: dict[str, Any]
    fingerprints: str


def prepare_tokens(config: DynamicsConfig, store: ClipStore, device: torch.device, announce=print) -> TrainingTokens:
    """Load the earlier chapters' checkpoints, encode the store once, and fill the config's sizes in from them."""
    game = game_of(store)
    path = find_checkpoint(config.tokenizer_checkpoint, "tokenizer", game, announce)
    tokenizer = load_tokenizer(path, device)
    announce(f"tokenizer {path}")
    if tokenizer.frame_size != tuple(store.frame_size):
        raise InputError(
            f"the tokenizer was trained on frames of {tokenizer.frame_size[0]} pixels, {store.path} holds {store.frame_size[0]}; "
            "train chapter 1 on this data first"
        )
    if not tokenizer.codebook_size or tokenizer.frames_per_step > 1:
        steps = f"has a step of tokens for {tokenizer.frames_per_step} frames"
        raise InputError(
            f"this {tokenizer.config.model} tokenizer {steps if tokenizer.codebook_size else 'has no codebook'}; "
            "the dynamics model needs tokens, and those of every frame"
        )
    if not tokenizer.is_causal:
        announce(f"{tokenizer.config.model} looks ahead: the model can be trained and scored, but chapter 4 cannot play with it")
    tokens = cached(store, "tokens", tokenizer.state_dict(), lambda: encode_tokens(store, tokenizer, device, config.precision))
    true_actions = np.asarray(store.actions, np.int64)
    names = store.action_names
    extra: dict[str, Any] = {
        "action_kind": config.actions,
        "action_names": names,
        "action_map": {},
        "latent_names": [],
        "env_id": store.env_id,
        "frames_per_second": float(store.frames_per_second),
        "frame_skip": store.info.get("frame_skip"),
        "picture_delay": store.info.get("picture_delay"),
        "merged_frames": store.info.get("merged_frames", 2),
        "tokenizer_fingerprint": fingerprint(tokenizer.state_dict()),
    }
    num_actions = 1
    actions = np.full(len(tokens), -1, np.int64)
    if config.actions == "true":
        if not store.num_actions or (true_actions < 0).all():
            raise InputError(f"--actions true: {store.path} has no recorded actions; use --actions latent or none")
        actions, num_actions = true_actions, store.num_actions
        extra["action_map"] = {name: index for index, name in enumerate(names)}
    elif config.actions == "latent":
        actions, num_actions, found = _latent_actions(config, store, game, device, announce)
        extra |= found
    config = replace(
        config,
        frame_size=store.frame_size[0],
        codebook_size=tokenizer.codebook_size,
        grid_size=tuple(tokenizer.grid_size),
        num_actions=num_actions,
    )
    extra |= _start_clips(config, store, actions)
    made_from = [store.fingerprint, *(value for name, value in extra.items() if name.endswith("_fingerprint"))]
    return TrainingTokens(config, tokenizer, tokens, actions, extra, " ".join(made_from))


def game_of(store: ClipStore) -> str:
    """The reference world to fall back to: "ALE/Breakout-v5" -> "breakout"."""
    return (store.env_id or "breakout").split("/")[-1].split("-")[0].lower()


def _latent_actions(config: DynamicsConfig, store: ClipStore, game: str, device: torch.device, announce):
    """The latent action of every transition, and the map from key names to codes learnt from a few labels."""
    path = find_checkpoint(config.latent_action_checkpoint, "latent_action_model", game, announce)
    model = load_latent_action_model(path, device)
    announce(f"latent actions {path}")
    if model.frame_size != tuple(store.frame_size):
        raise InputError(
            f"the latent action model was trained on frames of {model.frame_size[0]} pixels, {store.path} holds "
            f"{store.frame_size[0]}; train chapter 2 on this data first"
        )
    everything = range(len(store.episodes))

    def encode() -> np.ndarray:
        with autocast(device, config.precision):
            return encode_episodes(model, store, everything, model.config.num_frames)

    actions = np.asarray(cached(store, "latent-actions", model.state_dict(), encode), np.int64)
    found: dict[str, Any] = {"latent_names": [f"code {code}" for code in range(model.num_actions)]}
    found["latent_action_model_fingerprint"] = fingerprint(model.state_dict())
    labelled = np.flatnonzero((actions >= 0) & (np.asarray(store.actions) >= 0))
    if store.num_actions and len(labelled):
        training, _ = split_episodes(store, config.validation_share, config.seed)
        in_training = np.zeros(len(actions), bool)
        for start, stop in store.episodes[np.asarray(training)]:
            in_training[start:stop] = True
        labelled = labelled[in_training[labelled]]
        chosen = np.random.default_rng(config.seed).permutation(labelled)[:NUM_LABELS]
        codes, labels = actions[chosen], np.asarray(store.actions, np.int64)[chosen]
        best = action_map(codes, labels, model.num_actions, store.num_actions)
        found["code_counts"] = count_pairs(codes, labels, model.num_actions, store.num_actions).tolist()
        found["action_map"] = {name: int(code) for name, code in zip(store.action_names, best, strict=True)}
        found["latent_names"] = latent_names(codes, labels, model.num_actions, store.action_names)
    return actions, model.num_actions, found


def _start_clips(config: DynamicsConfig, store: ClipStore, actions: np.ndarray) -> dict[str, torch.Tensor]:
    """A few validation clips to start dreams from: uint8 (S, T, H, W, 3), and the actions (S, T) that led to them."""
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
    return {
        "start_frames": torch.from_numpy(np.asarray(store.frames[positions])),
        "start_actions": torch.from_numpy(actions[positions]),
    }
