"""Draw the pictures of this chapter's solutions: what PSNR hides, how dreams drift, where the ball goes, where the model doubts.

    python 4.inference/lab/illustrate.py
    python 4.inference/lab/illustrate.py --measure

Without --measure all is drawn within seconds from the numbers that were measured last.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from video_tokenizer.training.command_line import InputError, check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json
from world_lab.drift import DriftPlan, measure_drift, watched_dream
from world_lab.illustrations import (
    read_numbers,
    save_confidence,
    save_drift,
    save_sampling_steps,
    save_standing_still,
    save_vanished_ball,
)
from world_model.evaluation.games import check_seed
from world_model.real_game import open_game
from world_model.world import WorldModel

PARTS = ("settings", "player", "ball", "standing_still", "vanished_ball", "confidence", "long")
SHOWN = (1, 2, 4, 6, 8)
"""frames of confidence.png"""


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw what a world's scores show and hide."""

    world: str = "assets/worlds/breakout"
    """folder of a world"""
    output: str = "assets/4.inference"
    """folder for the pictures"""
    drift: str = "assets/4.inference/drift.json"
    """file with the numbers that --measure writes"""
    steps: str = "assets/4.inference/sampling_steps.json"
    """file with the numbers that sampling_steps.py --json writes"""
    measure: bool = False
    """dream and record games for the numbers first, some minutes"""
    clip: int = 3
    """which of the world's own beginnings confidence.png shows"""
    key: str = "LEFT"
    """the key that is held there"""
    num_dreams: int = DriftPlan.num_dreams
    """with --measure: dreams beside the real game"""
    num_frames: int = DriftPlan.num_frames
    """with --measure: frames of each of them"""
    num_long_dreams: int = DriftPlan.num_long_dreams
    """with --measure: long dreams"""
    long_frames: int = DriftPlan.long_frames
    """with --measure: frames of each of them"""
    num_episodes: int = DriftPlan.num_episodes
    """with --measure: games to record; four times as many tell what real frames are like"""
    game_frames: int = DriftPlan.game_frames
    """with --measure: longest of these games, in frames"""
    seed: int = DriftPlan.seed
    """of games and dreams"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_seed(self.seed)
        check_smallest(self, {"num_dreams": 1, "num_frames": 4, "num_long_dreams": 1, "long_frames": 1, "num_episodes": 1,
                              "game_frames": 64})  # fmt: skip


def write_numbers(config: IllustrateConfig, world: WorldModel) -> None:
    """Measure all that the pictures show, and keep it in the file `drift`."""
    env_id = world.facts.get("env_id")
    if env_id is None:
        raise InputError(f"{config.world} was learnt from videos, not from a game; there is nothing to dream beside")
    names = ("num_dreams", "num_frames", "num_long_dreams", "long_frames", "num_episodes", "game_frames", "seed")
    plan = DriftPlan(**{name: getattr(config, name) for name in names})
    results = measure_drift(world, open_game(env_id, world.facts, world.frame_size), plan)
    save_json(config.drift, {"world": config.world, **results})
    print(f"numbers in {config.drift}")


def main() -> None:
    config = parse_config(IllustrateConfig)
    config.check()
    steps = read_numbers(config.steps, ("rows",), f"python 4.inference/lab/sampling_steps.py --json {config.steps}")
    world = WorldModel.load(config.world, config.device, seed=config.seed)
    if config.key not in world.action_map:
        raise InputError(f"--key {config.key}: {config.world} knows {', '.join(world.action_map) or 'no keys'}")
    if not 0 <= config.clip < len(world.start_frames):
        raise InputError(
            f"--clip {config.clip} is out of range; {config.world} has beginnings 0 to {len(world.start_frames) - 1}"
        )
    if config.measure:
        write_numbers(config, world)
    drift = read_numbers(config.drift, PARTS, "python 4.inference/lab/illustrate.py --measure")

    folder = Path(config.output)
    save_standing_still(folder / "standing_still.png", drift, world.frame_size)
    save_drift(folder / "drift.png", drift)
    save_vanished_ball(folder / "vanished_ball.png", drift, world.frame_size)
    held = np.full((1, max(SHOWN)), world.action_map[config.key])
    start = slice(config.clip, config.clip + 1)
    frames, probability = watched_dream(world, world.start_frames[start], world.start_actions[start], held, config.seed)
    save_confidence(folder / "confidence.png", frames[0], probability[0], SHOWN, config.key, drift["confidence"])
    save_sampling_steps(folder / "sampling_steps.png", steps["rows"])
    print(f"standing_still.png, drift.png, vanished_ball.png, confidence.png and sampling_steps.png are in {folder}")


if __name__ == "__main__":
    run_script(main)
