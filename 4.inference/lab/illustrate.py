"""Draw the pictures of this chapter: how a key becomes a frame, what the page shows, what PSNR hides, how rollouts drift,
where the ball goes, where the model is unsure.

    python 4.inference/lab/illustrate.py
    python 4.inference/lab/illustrate.py --measure

Without --measure the pictures are drawn within seconds from the numbers measured last.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer_lab.draw import check_clip
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json
from world_lab.chapter_drawings import save_drawings
from world_lab.draw import save_confidence, save_drift, save_sampling_steps, save_standing_still, save_vanished_ball
from world_lab.drift import DriftPlan, measure_drift, rollout_with_probability
from world_lab.planning import save_planning
from world_model.evaluation.games import check_seed
from world_model.real_game import open_game
from world_model.world import WorldModel

PARTS = ("settings", "player", "ball", "standing_still", "vanished_ball", "confidence", "long")
SHOWN = (1, 2, 4, 6, 8)
"""frames of confidence.png"""


@dataclass(frozen=True)
class IllustrateConfig(DriftPlan):
    """Draw what a world's scores show and hide. The numbers of rollouts, frames and episodes count with --measure only."""

    world: str = "assets/worlds/breakout"
    """folder of a world"""
    output: str = "assets/4.inference"
    """folder for the pictures"""
    drift: str = "assets/4.inference/drift.json"
    """file with the numbers that --measure writes"""
    steps: str = "assets/4.inference/sampling_steps.json"
    """file with the numbers that sampling_steps.py --json writes"""
    planning: str = "assets/4.inference/planning.json"
    """file with the numbers that plan.py --json writes"""
    few: str = "assets/4.inference/planning_few_futures.json"
    """the same of plan.py --rollouts 1 4"""
    perfect: str = "assets/4.inference/planning_in_emulator.json"
    """the same of plan.py --imagine-in emulator"""
    measure: bool = False
    """first run the rollouts and record the games for the numbers, some minutes"""
    clip: int = 0
    """number of the start clip that confidence.png continues"""
    key: str = "LEFT"
    """the key that is held there, and pressed in the drawings"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def read_numbers(path: str, names: tuple[str, ...], command: str) -> dict[str, Any]:
    """A JSON file that holds `names`. Raises InputError with the command that writes it if it is missing or incomplete."""
    numbers = read_json(Path(path))
    missing = [name for name in names if name not in numbers]
    if missing:
        raise InputError(f"{path} holds no {missing[0]!r}; measure it with: {command}")
    return numbers


def main() -> None:
    config = parse_config(IllustrateConfig)
    check_seed(config.seed)
    check_smallest(config, {"num_dreams": 1, "num_frames": 4, "num_long_dreams": 1, "long_frames": 1, "num_episodes": 1,
                            "game_frames": 64})  # fmt: skip
    steps = read_numbers(config.steps, ("rows",), f"python 4.inference/lab/sampling_steps.py --json {config.steps}")
    world = WorldModel.load(config.world, config.device, seed=config.seed)
    if config.key not in world.action_map:
        raise InputError(f"--key {config.key}: {config.world} has {', '.join(world.action_map) or 'no keys'}")
    check_clip(config.clip, len(world.start_frames))
    if config.measure:
        env_id = world.metadata.env_id
        if env_id is None:
            raise InputError(f"{config.world} was trained on videos; --measure needs a world of a game")
        results = measure_drift(world, open_game(env_id, world.metadata, world.frame_size), config)
        save_json(config.drift, {"world": config.world, **results})
        print(f"numbers in {config.drift}")
    drift = read_numbers(config.drift, PARTS, "python 4.inference/lab/illustrate.py --measure")

    folder = Path(config.output)
    save_standing_still(folder / "standing_still.png", drift, world.frame_size)
    save_drift(folder / "drift", drift)
    save_vanished_ball(folder / "vanished_ball.png", drift, world.frame_size)
    held = np.full((1, max(SHOWN)), world.action_map[config.key])
    one = slice(config.clip, config.clip + 1)
    frames, sure = rollout_with_probability(world, world.start_frames[one], world.start_actions[one], held, config.seed)
    save_confidence(folder / "confidence.png", frames[0], sure[0], SHOWN, config.key, drift["confidence"])
    save_sampling_steps(folder / "sampling_steps", steps["rows"])
    planned, few, perfect = (
        read_numbers(path, ("players",), f"python 4.inference/plan.py --json {path}{extra}")["players"]
        for path, extra in (
            (config.planning, " --rollouts 16"),
            (config.few, " --rollouts 1 4"),
            (config.perfect, " --imagine-in emulator"),
        )
    )
    save_planning(folder / "planning", few | planned, perfect)
    drawn = [*save_drawings(folder, world, config.key), "planning", "drift", "sampling_steps"]
    pictures = "standing_still.png, vanished_ball.png and confidence.png"
    print(f"{', '.join(drawn)}, {pictures} are in {folder}")


if __name__ == "__main__":
    run_script(main)
