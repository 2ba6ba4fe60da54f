"""Checkpoints of others, from other versions, without numbers, or made to do harm."""

import struct
import zipfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from malformed.registry import RANDOM, add, case, cut, written
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint

CONFIG = {"frame_size": 16, "embed_dim": 24, "num_heads": 2, "num_blocks": 1, "background": "median"}


def tiny_weights() -> dict[str, Tensor]:
    return build_tokenizer(TokenizerConfig(**CONFIG)).state_dict()


def first_matrix(weights: dict[str, Tensor]) -> str:
    return next(name for name, tensor in weights.items() if tensor.ndim == 2)


def checkpoint(folder: Path, settings: dict[str, object] | None = None, edit=dict, **changes: object) -> Path:
    """A sound one, with other settings in its config, edited weights, or other entries in the file."""
    path = folder / "model.pt"
    save_checkpoint(path, "tokenizer", "st-fsq", CONFIG | (settings or {}), edit(tiny_weights()), 1, {}, "data")
    if changes:
        torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


CONFIGS = {
    "of_another_codebook": {"levels": [8, 8, 8, 5, 5]},
    "with_a_field_from_the_future": {"warp_drive": True},
    "whose_width_is_a_word": {"embed_dim": "wide"},
    "of_no_heads": {"num_heads": 0},
    "made_to_fill_the_memory": {"embed_dim": 16_000, "num_blocks": 200},  # 2.4 TB
    "of_a_trillion_blocks": {"num_blocks": 10**12},
}
ENTRIES = {
    "of_another_chapter": {"kind": "dynamics"},
    "of_another_version": {"format": 99},
    "of_another_model": {"model_name": "magvit"},
    "whose_config_is_missing": {"config": None},
    "whose_weights_are_words": {"weights": {"a": "b"}},
    "whose_weights_are_a_list": {"weights": [1, 2]},
    "with_scales_for_nothing": {"scales": {"nothing": torch.ones(3)}},
    "with_scales_of_another_length": {"scales": {first_matrix(tiny_weights()): torch.ones(3)}},
}
FIRST_MATRIX = {
    "of_no_numbers": lambda tensor: tensor * float("nan"),
    "of_infinities": lambda tensor: tensor / 0,
    "with_a_weight_turned": lambda tensor: torch.zeros(tensor.shape[1] + 1, tensor.shape[0]),
    "of_complex_weights": lambda tensor: tensor.to(torch.complex64),
    "of_sparse_weights": lambda tensor: tensor.to_sparse(),
    "that_repeats_one_number_a_trillion_times": lambda _: torch.zeros(1).expand(10**12),
}


def with_first_matrix(change, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    name = first_matrix(weights)
    return weights | {name: change(weights[name])}


EDITS = {name: partial(with_first_matrix, change) for name, change in FIRST_MATRIX.items()} | {
    "with_a_weight_missing": lambda weights: dict(list(weights.items())[1:]),
    "with_a_weight_too_many": lambda weights: weights | {"backdoor": torch.zeros(3)},
}
add("checkpoint", {f"checkpoint_{name}": partial(checkpoint, settings=settings) for name, settings in CONFIGS.items()})
add("checkpoint", {f"checkpoint_{name}": partial(checkpoint, **entries) for name, entries in ENTRIES.items()})
add("checkpoint", {f"checkpoint_{name}": partial(checkpoint, edit=edit) for name, edit in EDITS.items()})
add(
    "checkpoint",
    {
        "checkpoint_of_random_bytes": lambda folder: written(folder / "a.pt", RANDOM.bytes(4_000)),
        "checkpoint_cut_short": lambda folder: cut(checkpoint(folder), -500),
    },
)


@case("checkpoint")
def checkpoint_that_is_an_archive_of_texts(folder):
    with zipfile.ZipFile(folder / "a.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    return folder / "a.pt"


@case("checkpoint")
def checkpoint_on_several_disks(folder):
    """Found by fuzz.py: the end of the zip file says that there are others."""
    end64 = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 5)
    return written(folder / "a.pt", bytes(100) + end64 + b"PK\x05\x06" + bytes(18))


@case("checkpoint")
def checkpoint_that_is_a_list(folder):
    torch.save([1, 2, 3], folder / "a.pt")
    return folder / "a.pt"


@case("checkpoint")
def checkpoint_that_runs_code(folder):
    class Dangerous:
        def __reduce__(self):
            return (Path.touch, (folder / "was_run",))

    torch.save({"kind": "tokenizer", "weights": {}, "config": Dangerous()}, folder / "a.pt")
    return folder / "a.pt"


@case("checkpoint")
def checkpoint_that_is_compressed(folder):
    """Zeros pack a thousandfold: a megabyte could become a gigabyte."""
    packed = folder / "packed.pt"
    with zipfile.ZipFile(checkpoint(folder)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed
