"""Draw from a trained world how MaskGIT fills in a frame, and what a model knows of a step that a copier does not.

python 3.dynamics-model/lab/illustrate.py
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from dynamics_lab.draw_copy_baseline import guesses, save_copy_trap, wrong_actions, wrong_key
from dynamics_lab.illustrations import save_filling_in, save_filling_in_film
from dynamics_model.registry import load_dynamics
from tokenizer_lab.draw_tokens import liveliest_step
from tokenizer_lab.illustrations import check_clip, read_beginnings
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.command_line import InputError, parse_config, run_script


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw how a frame is filled in, and the trap of copying."""

    world: str = "assets/worlds/breakout"
    """folder of a world"""
    clip: int = 3
    """which of its beginnings"""
    key: str = "LEFT"
    """the key that is pressed"""
    seed: int = 3
    """of the draws"""
    copy_clip: int = 5
    """the beginning whose liveliest step copy_trap.png shows"""
    output: str = "assets/3.dynamics-model"
    """folder for the pictures"""


def main() -> None:
    config = parse_config(IllustrateConfig)
    tokenizer, facts = read_beginnings(config.world, config.clip)
    model = load_dynamics(Path(config.world) / "dynamics.pt")
    starts, actions = facts["start_frames"].numpy(), facts["start_actions"]
    if config.key not in facts["action_map"]:
        raise InputError(f"--key {config.key}: {config.world} knows {', '.join(facts['action_map']) or 'no keys'}")
    check_clip("--copy-clip", config.copy_clip, len(starts))
    with torch.no_grad():
        tokens = tokenizer.encode(to_video(starts)).indices  # (S, T, N)
    clip = slice(config.clip, config.clip + 1)
    begun = (model, tokenizer, tokens[clip], actions[clip], facts["action_map"][config.key], config.seed)
    folder = Path(config.output)
    save_filling_in(folder / "filling_in.png", *begun)
    save_filling_in_film(folder / "filling_in.gif", *begun)
    names = facts["latent_names"] if facts["action_kind"] == "latent" else facts["action_names"]
    known = game_facts(facts.get("env_id") or "")
    moving_keys = [key for key in (known.player_keys if known else ()) if key in facts["action_map"]]
    spoken = (names, facts["action_map"], [*moving_keys, *facts["action_map"]])
    said = guesses(model, tokens, actions, wrong_actions(actions, *spoken))
    action = int(actions[config.copy_clip, liveliest_step(tokens[config.copy_clip])])
    pressed = names[action], wrong_key(action, *spoken)
    save_copy_trap(folder / "copy_trap.png", tokenizer, starts, tokens, said, config.copy_clip, pressed)
    print(f"filling_in.png, filling_in.gif and copy_trap.png are in {folder}")


if __name__ == "__main__":
    run_script(main)
