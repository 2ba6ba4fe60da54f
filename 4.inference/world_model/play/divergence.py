"""How far a dream has drifted from the real game: two numbers for every pair of frames."""

from typing import Any

import numpy as np

from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_player, game_facts
from video_tokenizer.metrics import moving_psnr_db
from world_model.real_game import RealGame

MAX_PSNR_DB = 60.0
"""shown where dream and game agree to the last bit"""


def frame_divergence(dreamed: np.ndarray, real: np.ndarray, previous_real: np.ndarray, game: RealGame) -> dict[str, Any]:
    """`moving_psnr_db` of the dreamed frame, over the pixels that moved in the real game, and `player`, its place in both.

    dreamed, real, previous_real: (H, W, 3) uint8. A value is None where nothing moved or no player was found. `player` is
    missing for games without a player detector.
    """
    videos = [to_video(frame[None, None], "cpu") for frame in (dreamed, real, previous_real)]  # each (1, 1, C, H, W)
    divergence: dict[str, Any] = {"moving_psnr_db": min(moving_psnr_db(*videos), MAX_PSNR_DB)}  # NaN becomes null on the page
    facts = game_facts(game.game.env_id)
    if facts is not None and facts.player is not None:
        divergence["player"] = detect_player(np.stack([real, dreamed]), game.game.env_id).round(1)
    return divergence
