"""Checkpoints of others, from other versions, without numbers, or made to do harm."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from malformed.museum import RANDOM, Exhibit, exhibit
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint

CONFIG = {"frame_size": 16, "embed_dim": 24, "num_heads": 2, "num_blocks": 1}


def weights() -> dict[str, Tensor]:
    return build_tokenizer(TokenizerConfig(**CONFIG)).state_dict()


def checkpoint(folder: Path, config: dict = CONFIG, given: object = None, **changes: object) -> Exhibit:
    path = folder / "model.pt"
    save_checkpoint(path, "tokenizer", "st-fsq", config, weights() if given is None else given, 1, {}, "data")  # type: ignore[arg-type]
    if changes:
        content = torch.load(path, weights_only=True) | changes
        torch.save(content, path)
    return path, None


def with_first(value: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Weights of which the first matrix is another."""
    found = weights()
    name = next(name for name, tensor in found.items() if tensor.ndim == 2)
    return found | {name: value(found[name])}


@exhibit("checkpoint")
def checkpoint_of_random_bytes(folder):
    (folder / "a.pt").write_bytes(RANDOM.bytes(4_000))
    return folder / "a.pt", None


@exhibit("checkpoint")
def checkpoint_cut_short(folder):
    path, _ = checkpoint(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path, None


@exhibit("checkpoint")
def checkpoint_that_is_an_archive_of_texts(folder):
    with zipfile.ZipFile(folder / "a.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    return folder / "a.pt", None


@exhibit("checkpoint")
def checkpoint_on_several_disks(folder):
    """Found by fuzz.py: the zip file's end says that there are others."""
    end64 = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 5)
    (folder / "a.pt").write_bytes(bytes(100) + end64 + b"PK\x05\x06" + bytes(18))
    return folder / "a.pt", None


@exhibit("checkpoint")
def checkpoint_that_is_a_list(folder):
    torch.save([1, 2, 3], folder / "a.pt")
    return folder / "a.pt", None


@exhibit("checkpoint")
def checkpoint_that_runs_code(folder):
    class Dangerous:
        def __reduce__(self):
            return (Path.touch, (folder / "was_run",))

    torch.save({"kind": "tokenizer", "weights": {}, "config": Dangerous()}, folder / "a.pt")
    return folder / "a.pt", None


@exhibit("checkpoint")
def checkpoint_that_is_compressed(folder):
    """Zeros pack a thousandfold: a megabyte could become a gigabyte."""
    path, _ = checkpoint(folder)
    packed = folder / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed, None


@exhibit("checkpoint")
def checkpoint_of_another_chapter(folder):
    return checkpoint(folder, kind="dynamics")


@exhibit("checkpoint")
def checkpoint_of_another_version(folder):
    return checkpoint(folder, format=99)


@exhibit("checkpoint")
def checkpoint_of_another_model(folder):
    return checkpoint(folder, model_name="magvit")


@exhibit("checkpoint")
def checkpoint_of_another_codebook(folder):
    return checkpoint(folder, CONFIG | {"levels": [8, 8, 8, 5, 5]})


@exhibit("checkpoint")
def checkpoint_with_a_field_from_the_future(folder):
    return checkpoint(folder, CONFIG | {"warp_drive": True})


@exhibit("checkpoint")
def checkpoint_whose_width_is_a_word(folder):
    return checkpoint(folder, CONFIG | {"embed_dim": "wide"})


@exhibit("checkpoint")
def checkpoint_of_no_heads(folder):
    return checkpoint(folder, CONFIG | {"num_heads": 0})


@exhibit("checkpoint")
def checkpoint_made_to_fill_the_memory(folder):
    """A width of 16,000 and 200 blocks would take 2.4 TB."""
    return checkpoint(folder, CONFIG | {"embed_dim": 16_000, "num_blocks": 200})


@exhibit("checkpoint")
def checkpoint_of_a_trillion_heads(folder):
    return checkpoint(folder, CONFIG | {"num_blocks": 10**12})


@exhibit("checkpoint")
def checkpoint_of_no_numbers(folder):
    return checkpoint(folder, given=with_first(lambda tensor: tensor * float("nan")))


@exhibit("checkpoint")
def checkpoint_of_infinities(folder):
    return checkpoint(folder, given=with_first(lambda tensor: tensor / 0))


@exhibit("checkpoint")
def checkpoint_with_a_weight_missing(folder):
    return checkpoint(folder, given=dict(list(weights().items())[1:]))


@exhibit("checkpoint")
def checkpoint_with_a_weight_too_many(folder):
    return checkpoint(folder, given=weights() | {"backdoor": torch.zeros(3)})


@exhibit("checkpoint")
def checkpoint_with_a_weight_turned(folder):
    return checkpoint(folder, given=with_first(lambda tensor: torch.zeros(tensor.shape[1] + 1, tensor.shape[0])))


@exhibit("checkpoint")
def checkpoint_of_complex_weights(folder):
    return checkpoint(folder, given=with_first(lambda tensor: tensor.to(torch.complex64)))


@exhibit("checkpoint")
def checkpoint_of_sparse_weights(folder):
    return checkpoint(folder, given=with_first(lambda tensor: tensor.to_sparse()))


@exhibit("checkpoint")
def checkpoint_that_repeats_one_number_a_trillion_times(folder):
    return checkpoint(folder, given=with_first(lambda _: torch.zeros(1).expand(10**12)))


@exhibit("checkpoint")
def checkpoint_whose_weights_are_words(folder):
    return checkpoint(folder, weights={"a": "b"})


@exhibit("checkpoint")
def checkpoint_whose_weights_are_a_list(folder):
    return checkpoint(folder, weights=[1, 2])


@exhibit("checkpoint")
def checkpoint_whose_config_is_missing(folder):
    return checkpoint(folder, config_=1, config=None)


@exhibit("checkpoint")
def checkpoint_with_scales_for_nothing(folder):
    return checkpoint(folder, scales={"nothing": torch.ones(3)})


@exhibit("checkpoint")
def checkpoint_with_scales_of_another_length(folder):
    name = next(name for name, tensor in weights().items() if tensor.ndim == 2)
    return checkpoint(folder, scales={name: torch.ones(3)})
