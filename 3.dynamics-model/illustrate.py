"""Draw how MaskGIT fills in a frame, from a trained world: which tokens are settled in which pass, and how sure the model was.

python 3.dynamics-model/illustrate.py
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from dynamics_model.illustrations import save_filling_in, save_filling_in_film
from dynamics_model.loading import load_dynamics
from video_tokenizer.command_line import InputError, parse_config, run_script
from video_tokenizer.data.clips import to_video
from video_tokenizer.illustrations import read_beginnings


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw how a frame is filled in."""

    world: str = "assets/worlds/breakout"
    """folder of a world"""
    clip: int = 3
    """which of its beginnings"""
    key: str = "LEFT"
    """the key that is pressed"""
    seed: int = 3
    """of the draws"""
    output: str = "assets/3.dynamics-model"
    """folder for the pictures"""


def main() -> None:
    config = parse_config(IllustrateConfig)
    tokenizer, facts = read_beginnings(config.world, config.clip)
    model = load_dynamics(Path(config.world) / "dynamics.pt")
    starts, actions = facts["start_frames"].numpy(), facts["start_actions"]
    if config.key not in facts["action_map"]:
        raise InputError(f"--key {config.key}: {config.world} knows {', '.join(facts['action_map']) or 'no keys'}")
    with torch.no_grad():
        tokens = tokenizer.encode(to_video(starts[config.clip : config.clip + 1])).indices  # (1, T, N)
    begun = (model, tokenizer, tokens, actions[config.clip : config.clip + 1], facts["action_map"][config.key], config.seed)
    folder = Path(config.output)
    save_filling_in(folder / "filling_in.png", *begun)
    save_filling_in_film(folder / "filling_in.gif", *begun)
    print(f"filling_in.png and filling_in.gif are in {folder}")


if __name__ == "__main__":
    run_script(main)
