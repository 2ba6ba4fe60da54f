"""Draw what stands before the chapters: one step of a world as an animation, and its three networks on one page.

python 4.inference/lab/overview.py
"""

from dataclasses import dataclass
from pathlib import Path

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script
from world_lab.overview import clear_step, clear_transition, save_pipeline, save_three_networks
from world_model.world import WorldModel


@dataclass(frozen=True)
class OverviewConfig:
    """Draw pipeline_light.svg, three_networks_light.svg and their dark versions."""

    world: str = "assets/worlds/breakout"
    """folder of a world with latent actions and a ball"""
    output: str = "assets"
    """folder for the drawings"""
    key: str = "LEFT"
    """the key that is pressed in the animation"""


def main() -> None:
    config = parse_config(OverviewConfig)
    # tokens are unmasked as in MaskGIT, a few at first, so that one can watch; a world's own schedule begins with nearly all
    world = WorldModel.load(config.world, "cpu", seed=0, schedule="cosine")
    if world.action_kind != "latent" or config.key not in world.action_map:
        raise InputError(f"--world {config.world} has no latent action for {config.key}; choose another world or --key")
    save_pipeline(Path(config.output) / "pipeline", clear_step(world, config.key))
    save_three_networks(Path(config.output) / "three_networks", clear_transition(world), world.num_actions)
    print(f"pipeline and three_networks are in {config.output}, each as _light.svg and _dark.svg")


if __name__ == "__main__":
    run_script(main)
