"""What the actions of a world look like, and what latent ones stand for: chapter 2's gallery, for the page's buttons."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from latent_action_model.action_map import count_pairs
from latent_action_model.figures import close_up, next_frames_under_every_code
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import random_policy
from world_model.world import WorldModel

LABELLED_FRAMES = 600
"""frames of random play from which the shares are counted"""
LABELLED_SEED = 2_000_000_000
"""seed of the first of these games; recordings and evaluations use smaller ones"""
PIECE = 50
"""frames whose actions are read off at a time"""


@torch.no_grad()
def pictures_of_actions(world: WorldModel, frames: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """A frame and the next one under every action, with the part of the picture in which actions differ most.

    frames: (T, H, W, 3) uint8, a beginning. A latent action is drawn by the model that discovered it, a true one is dreamed.
    Returns (1 + num_actions, H, W, 3) uint8, the frame before first; and top, left, height, width of that part.
    """
    if world.latent_action_model is not None and len(frames) > 1:
        video = to_video(frames[None, -world.context_frames :], world.device)[0]  # (T, C, H, W)
        clip = torch.cat([video, video[-1:]])  # what comes next is what we ask for, so any last frame will do
        drawn = next_frames_under_every_code(world.latent_action_model, clip)  # (K, C, H, W)
        before = video[-1:]
    else:
        count = world.num_actions
        dreams = world.begin(frames[None].repeat(count, axis=0), None, seed=0)
        before = to_video(dreams.frames[None, :1], world.device)[0]
        drawn = to_video(world.advance(dreams, np.arange(count))[None], world.device)[0]
    rows, columns = close_up(spread(drawn)[None])
    part = [rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start]
    return to_frames(torch.cat([before, drawn])[None])[0], part


def spread(drawn: Tensor) -> Tensor:
    """How much the drawings (K, C, H, W) differ at each pixel: (H, W)."""
    return drawn.float().std(dim=0, correction=0).amax(dim=0)


def count_meanings(world: WorldModel, game: Game) -> Iterator[np.ndarray]:
    """Counts (codes, true actions) from random play in the emulator, yielded after every piece.

    The latent action model reads a code off every step, and the key that was really pressed is known.
    """
    assert world.latent_action_model is not None
    counts = np.zeros((world.num_actions, game.num_actions), dtype=np.int64)
    context = world.latent_action_model.config.context_frames
    done = 0
    for number in range(LABELLED_FRAMES):
        episode = record_episode(game, random_policy, LABELLED_FRAMES - done, LABELLED_SEED + number)
        for first in range(0, len(episode.frames) - 1, PIECE):
            since = max(0, first - context)
            frames = episode.frames[since : first + PIECE + 1]
            codes = world.infer_actions(to_video(frames[None], world.device))[0, 1 + first - since :]
            counts += count_pairs(codes, episode.actions[first + 1 : first + 1 + len(codes)], *counts.shape)
            yield counts
        done += len(episode.frames)
        if done >= LABELLED_FRAMES:
            return
