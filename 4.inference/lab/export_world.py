"""Export a smaller copy of a world to give away: the same files with 8-bit weights, a quarter of the size.

    python 4.inference/lab/export_world.py --world worlds/breakout --output assets/worlds/breakout

Loading turns the weights back into float32. To measure what the rounding costs, run evaluate.py on the copy. A copy may also
weigh the keys in another way, which needs no training:

    python 4.inference/lab/export_world.py --world worlds/pong --output worlds/pong-power-7 --key-guidance 7 --key-smoothing 3
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import fingerprint, from_eight_bits, load_checkpoint, write_torch_file
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.config import check_ranges
from world_model.world import WorldModel

KINDS = ("tokenizer", "latent_action_model", "dynamics", "sharpener", "sound")
OPTIONAL = ("latent_action_model", "sharpener", "sound")
"""a world with true actions has no latent action model, and few worlds have a network for sharper frames or for sound"""


@dataclass(frozen=True)
class ExportConfig:
    """Copy a world with 8-bit weights."""

    world: str = "worlds/breakout"
    """folder of the world to copy"""
    output: str = "assets/worlds/breakout"
    """folder for the copy; checkpoints already there are replaced"""
    key_guidance: float | None = None
    """another power of P(key | action) for the copy, see 3.dynamics-model/train.py; default: as in the world"""
    key_smoothing: float | None = None
    """other pseudo-counts in P(key | action) for the copy; default: as in the world"""

    @property
    def key_settings(self) -> dict[str, float]:
        """Those of key_guidance and key_smoothing that were given."""
        settings = {"key_guidance": self.key_guidance, "key_smoothing": self.key_smoothing}
        return {name: value for name, value in settings.items() if value is not None}


def to_eight_bits(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Quantize every matrix and kernel to int8 with one scale per row, the rest to half precision. Returns (weights, scales).

    A row with the largest value 0.254 has the scale 0.254 / 127 = 0.002, so 0.1 becomes 50 and is off by at most 0.001.
    """
    small, scales = {}, {}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.ndim >= 2:
            rows = tensor.float().flatten(1)
            scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-6).half()
            scales[name] = scale
            small[name] = (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).view(tensor.shape)
        else:
            small[name] = tensor.half() if tensor.is_floating_point() else tensor
    return small, scales


def without_absolute_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The settings without absolute paths, which mean nothing on another machine and may contain a user name.

    The `world` that a sharpener or a sound network must name keeps the last part of its path.
    """
    absolute = {name: Path(value) for name, value in config.items() if isinstance(value, str) and Path(value).is_absolute()}
    return config | {name: path.name if name == "world" else None for name, path in absolute.items()}


def main() -> None:
    config = parse_config(ExportConfig)
    world, output = Path(config.world), Path(config.output)
    if output.exists() and (not output.is_dir() or output.resolve() == world.resolve()):
        raise InputError(f"--output {output} is a file or the world itself; give another folder")
    check_ranges(config.key_settings)
    prior = getattr(WorldModel.load(world).dynamics, "action_prior", None)  # refuses a world whose parts do not fit together
    if config.key_settings and prior is None:
        raise InputError(f"{world} sends keys as they are, without an action prior; leave out --key-guidance and --key-smoothing")
    contents: dict[str, dict[str, Any]] = {}
    original = rounded = ""
    for kind in KINDS:
        if kind in OPTIONAL and not (world / f"{kind}.pt").exists():
            continue
        content = load_checkpoint(world / f"{kind}.pt", kind)
        content["config"] = without_absolute_paths(content["config"])
        if kind == "tokenizer":
            original = fingerprint(content["weights"])
        if kind == "dynamics":
            content |= config.key_settings
            content["config"] |= config.key_settings
        content["weights"], content["scales"] = to_eight_bits(content["weights"])
        if kind == "tokenizer":
            rounded = fingerprint(from_eight_bits(content["weights"], content["scales"]))
        elif kind == "dynamics" or content.get("tokenizer_fingerprint") == original:
            content["tokenizer_fingerprint"] = rounded  # the copy predicts tokens of the rounded tokenizer, or their sound
        contents[kind] = content
    for kind, content in contents.items():  # nothing is written before all parts have been read
        file = output / f"{kind}.pt"
        write_torch_file(file, content)
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    WorldModel.load(output)


if __name__ == "__main__":
    run_script(main)
