"""Draw the model's parts, how MaskGIT decodes a frame, what a copier cannot predict, what the action prior knows, how far a dream
follows, and variants.

python 3.dynamics-model/lab/illustrate.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from action_lab.draw import game_of, play_at_random
from dynamics_lab.chapter_drawings import probabilities_along, save_action_prior, save_drawings
from dynamics_lab.draw import predictions, save_copy_trap, save_filling_in, save_filling_in_film, wrong_actions, wrong_key
from dynamics_lab.variant_drawings import save_drawings as save_variant_drawings
from dynamics_model.figures import draw_horizons
from dynamics_model.registry import load_dynamics
from latent_action_model.loading import load_latent_action_model
from tokenizer_lab.draw import check_clip, most_changing_step, read_world, scores_of
from tokenizer_lab.drawing import save_chart
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.command_line import parse_config, run_script

COPY_CLIP = 6
"""start clip shown in copy_trap.png, the last one if there are fewer"""


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw the model's parts, how a frame is decoded, why copying looks perfect, and how far a dream follows the game."""

    world: str = "assets/worlds/breakout"
    """folder of a world"""
    clip: int = 0
    """number of the start clip that filling_in.png and filling_in.gif continue"""
    key: str = "LEFT"
    """the key that is pressed there"""
    seed: int = 2
    """of the sampling"""
    num_frames: int = 1_500
    """frames of real games with random actions that action_prior shows"""
    scores: str = "assets/3.dynamics-model/metrics.json"
    """file that validate.py --json writes, with the scores of rollouts after each number of steps"""
    output: str = "assets/3.dynamics-model"
    """folder for the pictures"""


def draw_action_prior(path: Path, world: Path, tokenizer, model, facts: Mapping[str, Any], num_frames: int) -> bool:
    """Draw what the action prior expects along the player's way. Returns False, and prints why, if there is nothing to draw."""
    known = game_facts(facts.get("env_id") or "")
    if model.action_prior is None or known is None or known.player is None or known.player_axis != "x":
        print(f"{path.name} is left out: it needs latent actions, and a game whose player moves left and right")
        return False
    try:
        game = game_of(facts, tokenizer.frame_size)
    except InputError as error:
        print(f"{path.name} is left out: {error}")
        return False
    latent_action_model = load_latent_action_model(world / "latent_action_model.pt")
    games = [frames for frames, _ in play_at_random(game, num_frames)]
    game.close()
    places, priors = probabilities_along(model, tokenizer, latent_action_model, games, facts["env_id"])
    codes = {key: [code for code, name in enumerate(facts["latent_names"]) if name == key] for key in known.player_keys}
    save_action_prior(
        path, places, {key: priors[:, codes[key]].sum(axis=1) for key in codes}, facts["start_frames"][0, -1].numpy()
    )
    return True


def main() -> None:
    config = parse_config(IllustrateConfig)
    tokenizer, facts = read_world(config.world)
    model = load_dynamics(Path(config.world) / "dynamics.pt")
    starts, actions, action_map = facts["start_frames"].numpy(), facts["start_actions"], facts["action_map"]
    check_clip(config.clip, len(starts))
    if config.key not in action_map:
        raise InputError(f"--key {config.key}: {config.world} has {', '.join(action_map) or 'no keys'}")
    with torch.no_grad():
        tokens = tokenizer.encode(to_video(starts)).indices  # (S, T, N)
    folder, one = Path(config.output), slice(config.clip, config.clip + 1)
    save_variant_drawings(folder / "variants")
    start = (model, tokenizer, tokens[one], actions[one], action_map[config.key], config.seed)
    drawn = save_drawings(folder, tokenizer, model, tokens[one], starts[config.clip], *start[3:])
    if draw_action_prior(folder / "action_prior", Path(config.world), tokenizer, model, facts, config.num_frames):
        drawn.append("action_prior")
    if scores := scores_of(config.world, Path(config.scores), ("rollout_moving",), "horizons"):
        curves = {label: {int(step): score for step, score in curve.items()} for label, curve in scores["rollout_moving"].items()}
        title = "PSNR of moving pixels against steps into a dream, compared with its baselines"
        save_chart(folder / "horizons", draw_horizons(curves, unit="moving PSNR, dB"), title)
        drawn.append("horizons")
    save_filling_in(folder / "filling_in.png", *start)
    save_filling_in_film(folder / "filling_in.gif", *start)

    names = facts["latent_names"] if facts["action_kind"] == "latent" else facts["action_names"]
    known = game_facts(facts.get("env_id") or "")
    moving_keys = [key for key in (known.player_keys if known else ()) if key in action_map]
    keys = [*moving_keys, *action_map]
    predicted = predictions(model, tokens, actions, wrong_actions(actions, names, action_map, keys))
    clip = min(COPY_CLIP, len(starts) - 1)
    action = int(actions[clip, most_changing_step(tokens[clip])])
    pressed = names[action], wrong_key(action, names, action_map, keys)
    save_copy_trap(folder / "copy_trap.png", tokenizer, starts, tokens, predicted, clip, pressed)
    print(f"{', '.join(drawn)}, filling_in.png, filling_in.gif and copy_trap.png are in {folder}")


if __name__ == "__main__":
    run_script(main)
