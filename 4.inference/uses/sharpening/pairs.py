"""What the network learns from: a frame as the world's tokenizer decodes it, and the emulator's larger picture of the moment.

Both come from one screen of the game. Shrunk to 64x64 as the recorder shrinks it, the screen is encoded and decoded as in play.
Shrunk to 128x128, it is the truth. At 256x256 nothing is left to shrink, so the Atari's 160x210 pixels are enlarged instead.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dynamics_model.models.base import codes_of
from uses.sharpening.config import SharpeningConfig
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.data.training_data import open_store
from video_tokenizer.data.video_files import resize_by_area
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import ball_position
from video_tokenizer.games.emulator import Episode, record_episode
from video_tokenizer.games.policies import MixedPolicy, make_players
from video_tokenizer.training.config import size_text
from video_tokenizer.training.device import autocast
from world_model.evaluation.games import EVALUATION_SEEDS, check_seed, play_opening
from world_model.lively_starts import is_ball_game
from world_model.real_game import open_game
from world_model.recordings import check_recording
from world_model.world import WorldModel

TRAINING_GAMES = 8_000
"""offset of the games of the training from the first evaluation game of the same seed, so that no test plays one of them"""
CHUNK = 32
"""frames that are decoded at a time; any other number gives the same pictures"""


class Pairs(NamedTuple):
    """F frames of some episodes, three times."""

    store: ClipStore
    """the truth: frames (F, sH, sW, 3), with actions and episodes; in memory, never written"""
    small: np.ndarray
    """(F, H, W, 3) uint8, what the recorder would have written"""
    decoded: np.ndarray
    """(F, H, W, 3) uint8, the same, encoded and decoded"""
    ball: np.ndarray | None
    """(F, 2) x and y of the ball in the truth, from the emulator's memory, NaN where absent; None where it is not known"""


def open_pairs(world: WorldModel, config: SharpeningConfig) -> Pairs:
    """The pairs of a training: of --data-path or --use-dummy-data, or else of games that are played now."""
    if config.data_path is None and not config.use_dummy_data:
        return make_pairs(world, training_games(world, config), config.scale)
    store = open_store(config)
    check_recording(store, world, same_size=False)
    if store.frame_size[0] <= world.frame_size[0] or store.frame_size[1] <= world.frame_size[1]:
        size, larger = size_text(store.frame_size), size_text((2 * world.frame_size[0], 2 * world.frame_size[1]))
        raise InputError(f"frames of {size} pixels are no larger than the world's own; give --frame-size {larger}")
    episodes = (Episode(store.frames[start:stop], store.actions[start:stop], None, {}) for start, stop in store.episodes)
    return make_pairs(world, episodes, config.scale, store.path)


def training_games(world: WorldModel, config: SharpeningConfig) -> Iterator[Episode]:
    """The games that a training plays, the same ones every time."""
    check_seed(config.seed)
    return play_games(world, config.num_games, config.game_frames, EVALUATION_SEEDS + 10_000 * config.seed + TRAINING_GAMES)


def play_games(world: WorldModel, num_games: int, num_frames: int, first: int) -> Iterator[Episode]:
    """Games of the seeds from `first` on, with frames of the screen's own size, from the middle of play (`play_opening`)."""
    env_id = world.metadata.env_id
    if not env_id:
        raise InputError("this world was learned from videos; give --data-path with the same videos and a larger --frame-size")
    game = open_game(env_id, world.metadata, world.frame_size)
    game.reset(first)
    game.frame_size = game.screen().shape[:2]
    players = MixedPolicy(make_players("mixed", game))
    for number in tqdm(range(num_games), desc="playing", unit="game", disable=None):
        name, policy = players.next_player()
        episode = record_episode(game, policy, num_frames, first + number, play_opening)
        players.num_frames[name] += len(episode.frames)
        yield episode
    game.close()


def make_pairs(world: WorldModel, episodes: Iterable[Episode], scale: int, source: Path | None = None) -> Pairs:
    """Shrink and redraw episodes whose frames are larger than the world's. source: where they come from, if not from its game."""
    env_id, linear_light = world.metadata.env_id, world.metadata.linear_light
    size = world.frame_size[0] * scale, world.frame_size[1] * scale
    small, decoded, truth, actions, balls = [], [], [], [], []
    for episode in episodes:
        small.append(shrink(episode.frames, world.frame_size, linear_light))
        truth.append(shrink(episode.frames, size, linear_light))
        decoded.append(redraw(world, small[-1]))
        actions.append(episode.actions)
        if is_ball_game(env_id) and episode.ram is not None:
            balls.append(ball_position(episode.ram, env_id or "", size))
    stops = np.cumsum([len(frames) for frames in truth])
    ranges = np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)
    info = {"env_id": env_id, "action_names": list(world.metadata.action_names), "linear_light": linear_light}
    store = ClipStore(source or Path(f"games of {env_id}"), np.concatenate(truth), np.concatenate(actions), ranges, info)
    ball = np.concatenate(balls) if len(balls) == len(truth) else None
    return Pairs(store, np.concatenate(small), np.concatenate(decoded), ball)


def shrink(frames: np.ndarray, size: tuple[int, int], linear_light: bool) -> np.ndarray:
    """Resize (T, H, W, 3) uint8 to (T, *size, 3) as the recorder does."""
    return np.stack([resize_by_area(frame, size, linear_light) for frame in frames])


@torch.no_grad()
def redraw(world: WorldModel, frames: np.ndarray) -> np.ndarray:
    """What the world's tokenizer makes of a game, one frame after the other, as in play. (T, H, W, 3) uint8, both."""
    pictures, encoder_cache, decoder_cache = [], None, None
    with autocast(world.device, world.precision):
        for first in range(0, len(frames), CHUNK):
            video = to_video(frames[None, first : first + CHUNK], world.device)  # (1, T, 3, H, W)
            encoded, encoder_cache = world.tokenizer.encode_next(video, encoder_cache)
            codes = codes_of(world.dynamics.frames_of(encoded), world.tokenizer)
            video, decoder_cache = world.tokenizer.decode_next(codes, decoder_cache)
            pictures.append(to_frames(video)[0])
    return np.concatenate(pictures)
