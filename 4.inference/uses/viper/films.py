"""From films to models: the trainings of the earlier chapters, each run once."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import write_atomically
from video_tokenizer.training.results import plain, read_json, save_json

REPOSITORY = Path(__file__).resolve().parents[3]


def check_made_with(folder: Path, config: Any, names: Sequence[str]) -> None:
    """Note in a folder the settings from which its films and models are made. Raises InputError where they were others before.

    While the folder holds nothing but the note, because the command failed, the note binds nobody.
    """
    settings = plain({name: getattr(config, name) for name in names})
    is_made = any(path.name != "made_with.json" and path.name[0] != "." for path in folder.glob("*"))
    before = read_json(folder / "made_with.json") if is_made else {}
    if different := [name for name in names if before and before.get(name) != settings[name]]:
        name = different[0]
        raise InputError(f"{folder} was made with {name} {before.get(name)}, not {settings[name]}; give another --output")
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / "made_with.json", settings)


def run_training(script: str, folder: Path, flags: Mapping[str, Any]) -> None:
    """Run a chapter's training script into a folder, and print the command, so that it can be repeated by hand."""
    words = [str(word) for flag, value in {**flags, "checkpoint-dir": folder}.items() for word in (f"--{flag}", value)]
    print("python", script, *words, flush=True)
    if subprocess.run([sys.executable, str(REPOSITORY / script), *words]).returncode:
        raise InputError(f"the training in {folder} stopped, see above; the same command resumes it")


def train_video_model(
    folder: Path, tokenizer: str | Path, num_frames: int, num_steps: int, batch_size: int, seed: int, device: str, **sizes: int
) -> None:
    """Train chapter 3's gpt on folder/films, without actions and with nothing in its loss but the likelihood of clips of
    num_frames. It becomes folder/dynamics.pt, beside its tokenizer. sizes: other flags of the gpt."""
    flags = {
        "model": "gpt", "data-path": folder / "films", "actions": "none", "tokenizer-checkpoint": tokenizer,
        "num-frames": num_frames, "context-frames": num_frames, "num-steps": num_steps, "batch-size": batch_size,
        "warmup-steps": min(30, num_steps), "changed-weight": 1, "context-corruption": 0, "seed": seed, "device": device,
        **{name.replace("_", "-"): size for name, size in sizes.items()},
    }  # fmt: skip
    run_training("3.dynamics-model/dynamics_variants/train.py", folder / "run", flags)
    for source, copy in ((tokenizer, "tokenizer.pt"), (folder / "run" / "final_model.pt", "dynamics.pt")):
        write_atomically(folder / copy, partial(shutil.copyfile, source))
