"""Checkpoints that load without running anybody's code."""

import hashlib
import platform
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from video_tokenizer.errors import InputError, first_line
from video_tokenizer.training.atomic_files import write_atomically

Model = TypeVar("Model", bound=nn.Module)
CHECKPOINT_FORMAT = 1
PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16,
         torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}  # fmt: skip
"""number formats that a checkpoint may hold"""
REPOSITORY = Path(__file__).resolve().parents[3]
CHAPTERS = {
    "tokenizer": "1.video-tokenizer",
    "latent_action_model": "2.latent-action-model",
    "dynamics": "3.dynamics-model",
    "sharpener": "4.inference/uses/sharpening",
    "sound": "4.inference/uses/sound",
    "moca": "4.inference/uses/moca",
}
"""kind of checkpoint -> folder of its training"""


def save_checkpoint(
    path: Path | str,
    kind: str,
    model_name: str,
    config: dict[str, Any],
    weights: dict[str, torch.Tensor],
    step: int,
    metrics: dict[str, Any],
    data_fingerprint: str,
    **extra: Any,
) -> None:
    """Write a model with all that is needed to rebuild it: name, config, weights, step, metrics, data, versions.

    kind: one of CHAPTERS. Everything else must be tensors, plain numbers, strings, lists
    or dictionaries of these, because the file is loaded with `weights_only=True`.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "kind": kind,
        "model_name": model_name,
        "config": config,
        # torch.compile wraps a module and prefixes its names; a checkpoint is the same with and without it
        "weights": {name.removeprefix("_orig_mod."): tensor.detach().cpu() for name, tensor in weights.items()},
        "step": step,
        "metrics": metrics,
        "data_fingerprint": data_fingerprint,
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        **extra,
    }
    write_torch_file(path, content)


def write_torch_file(path: Path | str, content: Any) -> None:
    """torch.save, atomically, into a Python file: torch's own writer ends the process if the disk is full."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            torch.save(content, file)

    write_atomically(path, write)


def read_torch_file(path: Path | str) -> Any:
    """torch.load for tensors and plain values only. Raises InputError for anything else."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist; train the chapter first or give another path")
    if path.is_dir():
        raise InputError(f"checkpoint {path} is a folder; give the .pt file inside it")
    if not _is_archive(path):
        raise InputError(f"checkpoint {path} is truncated or not a PyTorch checkpoint; copy or train it again")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, so it may unpack to any size")  # torch.save never compresses
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = list(_tensors(content))
        if any(tensor.dtype not in PLAIN or tensor.layout != torch.strided or tensor.is_meta for tensor in tensors):
            raise ValueError("it holds a tensor that is no plain array of numbers")
        claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if claimed > 2 * path.stat().st_size:  # a view can repeat one number a billion times
            raise ValueError(f"its tensors claim {claimed / 2**20:,.0f} MiB, more than the file has")
    except Exception as error:  # torch raises many types for damaged or unsafe files; the reader needs one sentence
        reason = first_line(error, 120)
        raise InputError(f"checkpoint {path} cannot be read safely ({reason}); copy or train it again") from None
    return content


def _is_archive(path: Path) -> bool:
    """Whether a file ends like a zip file. A damaged one can make even this check fail."""
    try:
        return zipfile.is_zipfile(path)
    except (OSError, zipfile.BadZipFile):
        return False


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _tensors(entry)


def from_eight_bits(weights: dict[str, torch.Tensor], scales: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float32 weights from int8 rows and one scale per row (written by export_world.py); tensors without a scale as they are."""
    rows = {name: weights[name].float().flatten(1) * scale.float()[:, None] for name, scale in scales.items()}
    return {name: rows[name].view(tensor.shape) if name in rows else tensor for name, tensor in weights.items()}


def load_checkpoint(path: Path | str, kind: str) -> dict[str, Any]:
    """Read a checkpoint written by `save_checkpoint`. Raises InputError for another chapter or format."""
    content = read_torch_file(path)
    if not isinstance(content, dict) or "kind" not in content or "weights" not in content:
        raise InputError(f"checkpoint {path} was not written by this project; train {CHAPTERS[kind]} to get one")
    if content["kind"] != kind:
        other = CHAPTERS.get(str(content["kind"]), "another chapter")
        raise InputError(f"checkpoint {path} holds a {content['kind']} ({other}), but a {kind} ({CHAPTERS[kind]}) is needed here")
    if content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"checkpoint {path} has format {content.get('format')}, this version reads format {CHECKPOINT_FORMAT}; train it again"
        )
    _check_contents(path, content)
    content["weights"] = from_eight_bits(content["weights"], content.pop("scales", {}))
    return content


def _check_contents(path: Path | str, content: dict[str, Any]) -> None:
    """Raise InputError for parts of other types than `save_checkpoint` writes."""
    kinds = {"model_name": str, "config": dict, "weights": dict, "step": int, "metrics": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    weights, scales = content["weights"], content.get("scales", {})
    if not wrong and not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()):
        wrong = ["weights"]
    if not wrong and not isinstance(scales, dict):
        wrong = ["scales"]
    for name, scale in scales.items() if not wrong else ():
        rows = weights[name].shape[:1] if name in weights and weights[name].ndim >= 2 else None
        wrong = wrong if isinstance(scale, torch.Tensor) and scale.shape == rows else ["scales"]
    if wrong:
        raise InputError(f"checkpoint {path} has {wrong[0]} that are missing or of the wrong type; copy or train it again")


def check_weights_fit(
    expected: dict[str, torch.Tensor],
    weights: dict[str, torch.Tensor],
    path: Path | str,
    what: str = "the model its config describes; copy or train it again",
) -> None:
    """Raise InputError where weights do not fit the state dict of a model, or hold values that are not finite."""
    for name in [*expected, *weights]:
        there, here = expected.get(name), weights.get(name)
        if there is None or here is None:
            reason = f"{name!r} is {'not in its config' if there is None else 'missing'}"
        elif there.shape != here.shape:
            reason = f"{name!r} has shape {tuple(here.shape)} instead of {tuple(there.shape)}"
        elif there.is_floating_point() != here.is_floating_point() or here.is_complex():
            reason = f"{name!r} holds {here.dtype} instead of {there.dtype}"
        else:
            continue
        model, _, advice = what.partition("; ")
        raise InputError(f"checkpoint {path} does not fit {model} ({reason[:200]}); {advice}")
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"checkpoint {path} holds values that are not finite in {broken[0]!r}; use an earlier checkpoint")


def build_with_weights(build: Callable[[], Model], content: dict[str, Any], path: Path | str) -> Model:
    """A model, made by `build` from the checkpoint's config, with the checkpoint's weights.

    The sizes are compared before any memory is taken, on a model without data: the config may have been written to exhaust
    somebody's memory. Raises InputError where config and weights do not fit.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    check_weights_fit(expected, content["weights"], path)
    model = build()
    weights = content["weights"].items()
    model.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights})
    return model


def fingerprint(weights: dict[str, torch.Tensor]) -> str:
    """16 hex digits of the SHA-256 over names and bytes of the weights: the key of caches."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def chapter_folder(kind: str) -> Path:
    """The chapter folder whose training writes checkpoints of this kind."""
    return REPOSITORY / CHAPTERS[kind]


def resolve_path(path: str | Path, folder: Path) -> Path:
    """The path; if it is relative and does not exist in the working directory, but in the chapter's folder, that one."""
    path = Path(path)
    return folder / path if not path.is_absolute() and not path.exists() and (folder / path).exists() else path


def find_checkpoint(given: str | None, kind: str, game: str = "breakout", announce: Callable[[str], None] = print) -> Path:
    """The checkpoint to use: the given path, else the reader's own from the chapter, else the reference world's.

    given: value of the flag, or None. game: reference world to fall back to. announce: prints which fallback is used.
    Raises InputError where there is none.
    """
    if given is not None:
        return resolve_path(given, chapter_folder(kind))
    own = chapter_folder(kind) / "checkpoints" / "best_model.pt"
    if own.exists():
        return own
    reference = REPOSITORY / "assets" / "worlds" / game / f"{kind}.pt"
    if reference.exists():
        announce(
            f"{own.relative_to(REPOSITORY)} does not exist yet; using the reference world's {reference.relative_to(REPOSITORY)}"
        )
        return reference
    raise InputError(f"no {kind} checkpoint: train {CHAPTERS[kind]} first (python {CHAPTERS[kind]}/train.py) or give its path")
