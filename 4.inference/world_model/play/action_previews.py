"""What each action of a world does to the picture, and which keys a latent action stands for: the page's action buttons."""

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

LABELED_FRAMES = 600
"""frames of random play in which the keys behind each code are counted"""
LABELED_SEED = 2_000_000_000
"""seed of the first of these games; recordings and evaluations use smaller ones"""
CHUNK_FRAMES = 50
"""frames whose latent actions are inferred at a time"""


@torch.no_grad()
def action_previews(world: WorldModel, frames: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """A frame and the next one under every action, with the region in which the actions differ most.

    frames: (T, H, W, 3) uint8, where a dream starts. The model that discovered a latent action draws its preview; previews of
    true actions are dreamed. Returns (1 + num_actions, H, W, 3) uint8, the frame before first, and [top, left, height, width].
    """
    if world.latent_action_model is not None and len(frames) > 1:
        video = to_video(frames[None, -world.context_frames :], world.device)[0]  # (T, C, H, W)
        clip = torch.cat([video, video[-1:]])  # any last frame will do: the decoder predicts it from the frames before
        after = next_frames_under_every_code(world.latent_action_model, clip)  # (A, C, H, W)
        before = video[-1:]
    else:
        dreams = world.start_rollouts(frames[None].repeat(world.num_actions, axis=0), None, seed=0)
        before = to_video(dreams.frames[None, :1], world.device)[0]
        after = to_video(world.step_rollouts(dreams, np.arange(world.num_actions))[None], world.device)[0]
    rows, columns = close_up(std_across_actions(after)[None])
    region = [rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start]
    return to_frames(torch.cat([before, after])[None])[0], region


def std_across_actions(pictures: Tensor) -> Tensor:
    """Standard deviation over the actions at each pixel, of the channel that differs most: (A, C, H, W) -> (H, W)."""
    return pictures.float().std(dim=0, correction=0).amax(dim=0)


def count_code_meanings(world: WorldModel, game: Game) -> Iterator[np.ndarray]:
    """Counts (codes, true actions) over random play in the emulator, yielded after every chunk of frames.

    The latent action model infers the code of every step, and the key that was really pressed is known.
    """
    assert world.latent_action_model is not None
    counts = np.zeros((world.num_actions, game.num_actions), dtype=np.int64)
    context = world.latent_action_model.config.context_frames
    done = 0
    for number in range(LABELED_FRAMES):
        episode = record_episode(game, random_policy, LABELED_FRAMES - done, LABELED_SEED + number)
        for first in range(0, len(episode.frames) - 1, CHUNK_FRAMES):
            since = max(0, first - context)
            frames = episode.frames[since : first + CHUNK_FRAMES + 1]
            codes = world.infer_actions(to_video(frames[None], world.device))[0, 1 + first - since :]
            counts += count_pairs(codes, episode.actions[first + 1 : first + 1 + len(codes)], *counts.shape)
            yield counts
        done += len(episode.frames)
        if done >= LABELED_FRAMES:
            return
