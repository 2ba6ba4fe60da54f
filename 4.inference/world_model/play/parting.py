"""How a dream and the real game part: two numbers for every pair of frames."""

from typing import Any

import numpy as np

from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_player, game_facts
from video_tokenizer.metrics import moving_psnr_db
from world_model.real_game import RealGame

BEST_PSNR_DB = 60.0
"""shown where dream and game agree to the last bit"""


def parting(dreamed: np.ndarray, real: np.ndarray, before: np.ndarray, game: RealGame) -> dict[str, Any]:
    """moving_psnr_db of the dreamed frame, over the pixels that moved in the real game, and where the player is in both.

    dreamed, real: (H, W, 3) uint8. before: the real frame one step earlier. A value is None where nothing moved, or where no
    player is found; `player` is missing for games whose player nobody has described.
    """
    videos = [to_video(frame[None, None], "cpu") for frame in (dreamed, real, before)]  # each (1, 1, C, H, W)
    score = moving_psnr_db(*videos)
    apart: dict[str, Any] = {"moving_psnr_db": min(score, BEST_PSNR_DB)}  # NaN stays NaN and becomes null
    facts = game_facts(game.game.env_id)
    if facts is not None and facts.player is not None:
        apart["player"] = detect_player(np.stack([real, dreamed]), game.game.env_id).round(1)
    return apart
