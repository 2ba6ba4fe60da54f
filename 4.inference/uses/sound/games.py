"""What the network learns from: real games with their sound, whose frames the world's tokenizer has encoded."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynamics_model.data.frame_cache import encode_store
from dynamics_model.models.base import codes_of
from uses.sound.config import SoundConfig
from uses.sound.model import emulator_frames
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.training_data import open_store
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import CHUNK
from world_model.evaluation.games import RealGames, check_seed, record_games
from world_model.real_game import open_game
from world_model.recordings import check_recording
from world_model.world import WorldModel

TRAINING_GAMES = 8_000
"""offset of the games of the training from the first evaluation game of the same seed, so that no test plays one of them"""


class Heard(NamedTuple):
    """F frames of some games, as the world knows them, and what was heard."""

    store: ClipStore
    """the frames (F, H, W, 3), with actions and episodes"""
    codes: Tensor
    """(F, N, D) float16, each episode encoded as in play"""
    sound: np.ndarray
    """(F, chunks * 512) uint8, of each frame what was heard since the picture before it"""


def training_games(world: WorldModel, config: SoundConfig) -> Heard:
    """The games of --data-path, or else games that are played now, the same ones every time."""
    if config.data_path is None and not config.use_dummy_data:
        check_seed(config.seed)
        return encode(world, play_games(world, config.num_games, config.game_frames, config.seed, TRAINING_GAMES).store)
    store = open_store(config)
    skip, needed = store.array("sound").shape[1] / CHUNK, emulator_frames(world)
    if skip != needed:
        raise InputError(f"{store.path} has {skip:g} emulator frames a frame; record it with --frame-skip {needed}, the world's")
    check_recording(store, world)
    return encode(world, store)


def play_games(world: WorldModel, num_games: int, num_frames: int, seed: int, first_game: int = 0) -> RealGames:
    """Games with their sound, from the middle of play, see `record_games`."""
    env_id = world.metadata.env_id
    if not env_id:
        raise InputError("this world was learned from videos; sound can only be learned from a game")
    game = open_game(env_id, world.metadata, world.frame_size, sound=True)
    games = record_games(game, num_games, num_frames, seed, first_game=first_game)
    game.close()
    return games


@torch.no_grad()
def encode(world: WorldModel, store: ClipStore) -> Heard:
    """Encode every episode as one stream, as in play."""
    frames = encode_store(store, world.tokenizer, world.device, world.precision, type(world.dynamics))
    codes = codes_of(torch.from_numpy(frames).to(world.device), world.tokenizer)
    return Heard(store, codes.half().cpu(), store.array("sound"))
