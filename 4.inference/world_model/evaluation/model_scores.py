"""Each of the three models by itself: what the tokenizer keeps, what latent actions mean, what the dynamics model predicts."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dynamics_model.data.frame_cache import FrameClips, encode_store
from dynamics_model.metrics import DynamicsMetrics
from latent_action_model.action_probe import supervised_information
from latent_action_model.metrics import action_information, encode_episodes, find_transitions, mapping_accuracy
from latent_action_model.models.latent_action_model import LatentActionModel
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips
from video_tokenizer.data.seen_frames import unseen_clips
from video_tokenizer.data.validation import clip_videos, even_batches, local_background
from video_tokenizer.losses import background_of
from video_tokenizer.metrics import CodeUsage, TokenizerMetrics, share
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.device import autocast
from world_model.evaluation.games import RealGames
from world_model.world import WorldModel

CLIP_FRAMES = 16
"""frames per clip in which tokenizer and latent actions are scored, or fewer if the episodes are shorter"""
BATCH_SIZE = 8
"""clips per batch"""


@torch.no_grad()
def tokenizer_scores(tokenizer: Tokenizer, games: RealGames, max_clips: int | None = None) -> dict[str, Any]:
    """psnr_db, ssim, moving_psnr_db, foreground_recall, object_recall, codes_used, perplexity and the copy-last control.

    max_clips: score only this many clips, evenly spaced.
    """
    device = next(tokenizer.parameters()).device
    metrics = TokenizerMetrics(tokenizer.codebook_size)
    background = background_of(games.store.frames).to(device)
    clips = evaluation_clips(games)
    for indices in even_batches(len(clips), BATCH_SIZE, None if max_clips is None else -(-max_clips // BATCH_SIZE)):
        video = clip_videos(clips, indices, device)  # (B, T, C, H, W)
        with autocast(device, "auto"):
            output = tokenizer(video)
        positions, scene = None, None
        if games.ball is not None:
            frames = clips.starts[indices][:, None] + np.arange(clips.num_frames)  # (B, T)
            positions = torch.from_numpy(games.ball[frames])  # from the emulator's memory, so also in front of bricks
            scene = local_background(games.store, clips, indices).to(device)
        metrics.update(output.reconstruction, video, output.indices, background, positions, scene)
    return metrics.result()


def latent_action_scores(model: LatentActionModel, games: RealGames, probe_steps: int, seed: int = 0) -> dict[str, Any]:
    """What the latent actions tell about the true ones, fitted on three quarters of the episodes and tested on the others.

    probe_steps: training steps of the supervised classifier, which is the ceiling; 0 leaves it out, and
    with it the ratios of action_information and mapping_accuracy to it.
    """
    store = games.store
    fit_episodes, test_episodes = learn_and_test(len(store.episodes))
    codes = encode_episodes(model, store, range(len(store.episodes)), clip_length(store))
    usage = CodeUsage(model.num_actions)
    usage.update(torch.from_numpy(codes[codes >= 0]))
    scores: dict[str, Any] = {f"latent_{name}": value for name, value in usage.result().items()}
    if store.num_actions == 0:
        return scores
    store = replace(store, actions=np.where(games.seen, -1, store.actions))  # transitions to training frames are not scored
    fit = find_transitions(codes, store.actions, store.episodes[fit_episodes])
    test = find_transitions(codes, store.actions, store.episodes[test_episodes])
    sizes = (model.num_actions, store.num_actions)
    scores["action_information"] = action_information(fit, test, *sizes)
    scores["action_information_single"] = action_information(fit, test, *sizes, single=True)
    scores |= mapping_accuracy(fit, test, model.num_actions, seed=seed)
    if probe_steps > 0:
        device = next(model.parameters()).device
        ceiling = supervised_information(store, fit_episodes, test_episodes, probe_steps, seed=seed, device=device)
        scores["supervised_information"] = ceiling.supervised_information
        scores["supervised_accuracy"] = ceiling.supervised_accuracy
        scores["supervised_steps"] = ceiling.num_steps
        scores["action_information_ratio"] = share(scores["action_information"], max(0.0, ceiling.supervised_information))
        scores["mapping_accuracy_ratio"] = share(scores["mapping_accuracy"], ceiling.supervised_accuracy)
    return scores


@torch.no_grad()
def frame_clips(world: WorldModel, games: RealGames) -> FrameClips:
    """The games as the dynamics model reads them: tokens or latents, and the actions between them, inferred or true."""
    store, latent = games.store, world.latent_action_model
    frames = encode_store(store, world.tokenizer, world.device, model_class=type(world.dynamics))
    actions = store.actions
    if latent is not None:
        actions = encode_episodes(latent, store, range(len(store.episodes)), clip_length(store))
    return FrameClips(evaluation_clips(games, world.context_frames), frames, actions)


@torch.no_grad()
def dynamics_scores(world: WorldModel, clips: FrameClips, max_clips: int, seed: int = 0) -> dict[str, Any]:
    """loss_changed, for tokens accuracy_changed, loss_changed_shuffled and shuffle_ratio, see `DynamicsMetrics`."""
    metrics = DynamicsMetrics()
    generator = torch.Generator().manual_seed(seed)
    for indices in even_batches(len(clips), BATCH_SIZE, -(-max_clips // BATCH_SIZE)):
        batch = {name: values.to(world.device) for name, values in clips.__getitems__(indices).items()}
        with autocast(world.device, "auto"):
            metrics.update(world.dynamics, batch["frames"], batch["actions"], generator)
    names = ("loss_changed", "accuracy_changed", "loss_changed_shuffled", "shuffle_ratio")
    return {name: value for name, value in metrics.result().items() if name in names}


def untrained_copy(world: WorldModel) -> WorldModel:
    """The same world with fresh weights in its dynamics model; its tokenizer stays trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dynamics = type(world.dynamics)(world.dynamics.config)
    options = {name: getattr(world, name) for name in ("sampling", "seed", "precision", "use_action_prior")}
    return WorldModel(world.tokenizer, dynamics, world.latent_action_model, world.metadata, device=str(world.device), **options)


def evaluation_clips(games: RealGames, num_frames: int = CLIP_FRAMES) -> Clips:
    """Clips that overlap by one frame, so that every transition is in one of them, but for clips that score a training frame."""
    num_frames = clip_length(games.store, num_frames)
    clips = Clips(games.store, range(len(games.store.episodes)), num_frames, stride=num_frames - 1)
    return unseen_clips(clips, games.seen)


def clip_length(store: ClipStore, num_frames: int = CLIP_FRAMES) -> int:
    """num_frames, or the length of the longest episode if that is shorter; at least 2."""
    longest = int((store.episodes[:, 1] - store.episodes[:, 0]).max())
    return max(2, min(num_frames, longest))


def learn_and_test(num_episodes: int) -> tuple[list[int], list[int]]:
    """Episode numbers to fit and to test on, three to one. Policies alternate, so both episodes of a pair go to the same side."""
    if num_episodes < 8:
        return list(range(0, num_episodes, 2)), list(range(1, num_episodes, 2))
    test = [number for number in range(num_episodes) if number // 2 % 4 == 3]
    return [number for number in range(num_episodes) if number not in test], test
