"""Draw the pictures of this chapter from a trained tokenizer: what its parts compute, its tokens, and how PSNR misleads.

python 1.video-tokenizer/lab/illustrate.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokenizer_lab.chapter_drawings import (
    save_architecture,
    save_fsq_dials,
    save_patch_to_vector,
    save_picture_delay,
    save_space_time_attention,
    save_straight_through,
)
from tokenizer_lab.draw import (
    check_clip,
    read_world,
    save_attention,
    save_causal_mask,
    save_patches,
    save_positions,
    save_psnr_trap,
    save_tokens,
)
from tokenizer_lab.variant_drawings import save_drawings
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.command_line import parse_config, run_script


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw what the parts of a tokenizer compute."""

    world: str = "assets/worlds/breakout"
    """folder of a world; the pictures show its tokenizer on the start frames stored with it"""
    clip: int = 3
    """number of the start clip whose last frame is shown; tokens.png always shows clip 0"""
    output: str = "assets/1.video-tokenizer"
    """folder for the pictures"""


def patches_to_ask(tokenizer: VideoTokenizer, frame: np.ndarray, env_id: str) -> dict[str, int]:
    """Label -> number of a patch whose attention is shown: the ball's and the paddle's, or the middle one if nothing is known."""
    facts, (rows, columns), patch_size = game_facts(env_id), tokenizer.grid_size, tokenizer.config.patch_size
    found = {}
    if facts is not None and facts.ball is not None:
        x, y = detect_ball(frame[None], env_id)[0]
        if np.isfinite(x):
            found["ball"] = int(y) // patch_size * columns + int(x) // patch_size
    if facts is not None and facts.player is not None and facts.player_axis == "x":
        x = detect_player(frame[None], env_id)[0]
        if np.isfinite(x):
            found["paddle"] = (rows - 1) * columns + int(x) // patch_size
    return found or {"middle": tokenizer.tokens_per_frame // 2 + columns // 2}


def main() -> None:
    config = parse_config(IllustrateConfig)
    tokenizer, content = read_world(config.world)
    starts, env_id = content["start_frames"].numpy(), content.get("env_id") or ""  # (S, T, H, W, 3) uint8
    check_clip(config.clip, len(starts))
    frame, clip = starts[config.clip, -1], to_video(starts[config.clip : config.clip + 1])
    folder = Path(config.output)
    save_patches(folder / "patches.png", tokenizer, frame)
    save_positions(folder / "positions.png", tokenizer.positions, tokenizer.grid_size)
    save_attention(folder / "attention.png", tokenizer, clip, frame, patches_to_ask(tokenizer, frame, env_id))
    save_causal_mask(folder / "causal_mask", window=tokenizer.config.context_frames)
    save_tokens(folder / "tokens.png", tokenizer, starts, 0)
    save_space_time_attention(folder / "space_time_attention")
    save_fsq_dials(folder / "fsq_dials")
    save_straight_through(folder / "straight_through")
    save_picture_delay(folder / "picture_delay")
    save_drawings(folder / "variants", frame)
    facts = game_facts(env_id)
    if facts is not None and facts.ball is not None:
        save_psnr_trap(folder / "psnr_trap.png", tokenizer, starts, config.clip, env_id)
        save_architecture(folder / "architecture", tokenizer, starts[config.clip], env_id)
        save_patch_to_vector(folder / "patch_to_vector", tokenizer, frame, env_id)
    print(f"the pictures and drawings of chapter 1 are in {folder}; lab/learning.py draws the one that needs a training")


if __name__ == "__main__":
    run_script(main)
