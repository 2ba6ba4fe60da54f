"""Checkpoints that load without running anybody's code, and writes that are never seen half done."""

import hashlib
import os
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from video_tokenizer.command_line import InputError

CHECKPOINT_FORMAT = 1
REPOSITORY = Path(__file__).resolve().parents[3]
CHAPTERS = {
    "tokenizer": "1.video-tokenizer",
    "latent_action_model": "2.latent-action-model",
    "dynamics": "3.dynamics-model",
}


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to disk, then rename it over `path`.

    A reader sees the old file or the whole new one, never a part, whatever kills the process in between.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")  # the suffix stays: savers look at it
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path | str, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


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
    """Write one model with all that is needed to rebuild it: name, config, weights, step, metrics, data, versions.

    kind: "tokenizer", "latent_action_model" or "dynamics". Everything else must be tensors, plain numbers, strings, lists
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
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def read_torch_file(path: Path | str) -> Any:
    """torch.load restricted to tensors and plain values. Raises InputError for anything else."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist; train the chapter first or give another path")
    if path.is_dir():
        raise InputError(f"checkpoint {path} is a folder; give the .pt file inside it")
    if not zipfile.is_zipfile(path):
        raise InputError(f"checkpoint {path} is truncated or not a PyTorch checkpoint; copy or train it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged or unsafe files; the reader needs one sentence
        reason = str(error).strip().splitlines()[0][:120]
        raise InputError(f"checkpoint {path} cannot be read safely ({reason}); copy or train it again") from None


def to_eight_bits(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(weights, scales): every matrix and kernel as int8 with one scale per row, the rest in half precision.

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


def from_eight_bits(weights: dict[str, torch.Tensor], scales: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float32 weights from what `to_eight_bits` returned; tensors without a scale as they are."""
    rows = {name: weights[name].float().flatten(1) * scale.float()[:, None] for name, scale in scales.items()}
    return {name: rows[name].view(tensor.shape) if name in rows else tensor for name, tensor in weights.items()}


def load_checkpoint(path: Path | str, kind: str) -> dict[str, Any]:
    """Read a checkpoint written by `save_checkpoint` and check that it is of this chapter and format."""
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
    content["weights"] = from_eight_bits(content["weights"], content.pop("scales", {}))
    return content


def load_weights(model: nn.Module, content: dict[str, Any], path: Path | str) -> None:
    """Put a checkpoint's weights into a model rebuilt from its config. Raises InputError where they do not fit."""
    weights = content["weights"]
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"checkpoint {path} holds values that are not finite in {broken[0]!r}; use an earlier checkpoint")
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[1:2] or [str(error)]
        raise InputError(f"checkpoint {path} does not fit the model its config describes ({first[0].strip()[:160]})") from None


def fingerprint(weights: dict[str, torch.Tensor]) -> str:
    """A short name for a set of weights: 16 hex digits of the SHA-256 over names and bytes. Caches are keyed to it."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def chapter_folder(kind: str) -> Path:
    """The chapter folder whose training writes checkpoints of this kind."""
    return REPOSITORY / CHAPTERS[kind]


def resolve_path(path: str | Path, folder: Path) -> Path:
    """A relative path that does not exist from the working directory is looked up in the chapter's folder as well."""
    path = Path(path)
    return folder / path if not path.is_absolute() and not path.exists() and (folder / path).exists() else path


def find_checkpoint(given: str | None, kind: str, game: str = "breakout", announce: Callable[[str], None] = print) -> Path:
    """The checkpoint to use: the given path, else the reader's own from the chapter, else the reference world's.

    given: what the flag says, or None. game: reference world to fall back to. announce: is told when the fallback is used.
    Raises InputError where there is none.
    """
    if given is not None:
        return resolve_path(given, chapter_folder(kind))
    own = chapter_folder(kind) / "checkpoints" / "best_model.pt"
    if own.exists():
        return own
    shipped = REPOSITORY / "assets" / "worlds" / game / f"{kind}.pt"
    if shipped.exists():
        announce(f"{own.relative_to(REPOSITORY)} is not there yet; using the reference world's {shipped.relative_to(REPOSITORY)}")
        return shipped
    raise InputError(f"no {kind} checkpoint: train {CHAPTERS[kind]} first (python {CHAPTERS[kind]}/train.py) or give its path")
