"""Draw the pictures of this chapter from a trained tokenizer: the trap of PSNR, tokens, patches, codes, attention, quantizer.

python 1.video-tokenizer/lab/illustrate.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokenizer_lab.draw_psnr_failure import save_psnr_trap
from tokenizer_lab.draw_tokens import save_tokens
from tokenizer_lab.illustrations import (
    check_clip,
    read_beginnings,
    save_attention,
    save_causal_mask,
    save_patches,
    save_positions,
    save_quantizer_grid,
)
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.command_line import parse_config, run_script


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw what the parts of a tokenizer see, add, look at and round."""

    world: str = "assets/worlds/breakout"
    """folder of a world; its tokenizer is shown, on the frames with which its dreams begin"""
    clip: int = 3
    """which of these beginnings"""
    tokens_clip: int = 0
    """the beginning whose liveliest step tokens.png shows"""
    output: str = "assets/1.video-tokenizer"
    """folder for the pictures"""


def most_active_patches(tokenizer: VideoTokenizer, frame: np.ndarray, env_id: str | None) -> dict[str, int]:
    """Label -> number of a patch worth asking where it looks: the ball's, the player's, else the middle one."""
    columns = tokenizer.grid_size[1]
    known = game_facts(env_id) if env_id else None
    found: dict[str, int] = {}
    if env_id is not None and known is not None and known.ball is not None:
        x, y = detect_ball(frame[None], env_id)[0]
        if np.isfinite(x):
            found["ball"] = int(y) // tokenizer.config.patch_size * columns + int(x) // tokenizer.config.patch_size
    if env_id is not None and known is not None and known.player is not None:
        place = detect_player(frame[None], env_id)[0]
        if np.isfinite(place) and known.player_axis == "x":
            found["paddle"] = (tokenizer.grid_size[0] - 1) * columns + int(place) // tokenizer.config.patch_size
    return found or {"middle": tokenizer.tokens_per_frame // 2 + columns // 2}


def main() -> None:
    config = parse_config(IllustrateConfig)
    tokenizer, content = read_beginnings(config.world, config.clip)
    starts = content["start_frames"].numpy()  # (S, T, H, W, 3) uint8
    check_clip("--tokens-clip", config.tokens_clip, len(starts))
    frame = starts[config.clip, -1]
    folder = Path(config.output)
    torch.manual_seed(0)
    clip = to_video(starts[config.clip : config.clip + 1])
    save_patches(folder / "patches.png", tokenizer, frame)
    save_positions(folder / "positions.png", tokenizer.positions, tokenizer.grid_size)
    save_attention(folder / "attention.png", tokenizer, clip, frame, most_active_patches(tokenizer, frame, content.get("env_id")))
    save_causal_mask(folder / "causal_mask.png", window=tokenizer.config.context_frames)
    save_quantizer_grid(folder / "quantizer.png", tokenizer, to_video(starts))
    save_tokens(folder / "tokens.png", tokenizer, starts, config.tokens_clip)
    facts = game_facts(content.get("env_id") or "")
    if facts is not None and facts.ball is not None:
        save_psnr_trap(folder / "psnr_trap.png", tokenizer, starts, config.clip, content["env_id"])
    print(f"patches, positions, attention, causal_mask, quantizer and tokens.png are in {folder}, with a ball psnr_trap.png too")


if __name__ == "__main__":
    run_script(main)
