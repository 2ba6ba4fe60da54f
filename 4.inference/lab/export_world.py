"""Write a smaller copy of a world to give away: the same files with weights in 8 bits, a quarter of the size.

    python 4.inference/lab/export_world.py --world worlds/breakout --output assets/worlds/breakout

Loading turns the weights back into float32. What rounding costs is measured, not assumed: run evaluate.py on the copy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_tokenizer.training.checkpoint import fingerprint, from_eight_bits, load_checkpoint, to_eight_bits, write_torch_file
from video_tokenizer.training.command_line import InputError, parse_config, run_script
from world_model.world import WorldModel

KINDS = ("tokenizer", "latent_action_model", "dynamics")


@dataclass(frozen=True)
class ExportConfig:
    """Copy a world with weights in 8 bits."""

    world: str = "worlds/breakout"
    """folder of the world to copy"""
    output: str = "assets/worlds/breakout"
    """folder of the copy; files of these names there are replaced"""


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The settings without absolute paths: where a world was trained means nothing on another machine, and may tell a name."""
    return {name: None if isinstance(value, str) and Path(value).is_absolute() else value for name, value in config.items()}


def main() -> None:
    config = parse_config(ExportConfig)
    world, output = Path(config.world), Path(config.output)
    if output.exists() and (not output.is_dir() or output.resolve() == world.resolve()):
        raise InputError(f"--output {output} is a file or the world itself; give another folder")
    WorldModel.load(world)  # refuses a world whose parts do not fit together
    rounded = ""
    for kind in KINDS:
        if kind == "latent_action_model" and not (world / f"{kind}.pt").exists():
            continue  # a world of true actions has none
        content = load_checkpoint(world / f"{kind}.pt", kind)
        content["config"] = without_places(content["config"])
        content["weights"], content["scales"] = to_eight_bits(content["weights"])
        if kind == "tokenizer":
            rounded = fingerprint(from_eight_bits(content["weights"], content["scales"]))
        elif kind == "dynamics":
            content["tokenizer_fingerprint"] = rounded  # it dreams in the rounded tokenizer's tokens from now on
        write_torch_file(output / f"{kind}.pt", content)
        size = (output / f"{kind}.pt").stat().st_size / 2**20
        print(f"{output / f'{kind}.pt'}: {size:.1f} MiB")
    WorldModel.load(output)


if __name__ == "__main__":
    run_script(main)
