"""A run folder: what a training writes down, and how a stopped training goes on."""

import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from video_tokenizer.command_line import InputError
from video_tokenizer.training.checkpoint import read_torch_file, write_atomically, write_text_atomically

FILES_OF_A_RUN = ("config.json", "best_model.pt", "final_model.pt", "resume.pt", "metrics.json", "curves.png", "samples.png")
FIELDS_THAT_MAY_CHANGE = {
    "device",
    "num_workers",
    "log_every",
    "save_every",
    "checkpoint_dir",
    "config",
    "data_path",
    "preset",
    "shard",
}


class Run:
    """One training's folder. Starting the same command again continues an unfinished run from its resume.pt.

    A folder that holds another run, or a finished one, is emptied into a neighbour `previous-1`, `previous-2`, ... first:
    nothing is overwritten.
    """

    def __init__(self, folder: Path, config: Any, num_steps: int, is_main: bool = True):
        self.folder = folder
        self.num_steps = num_steps
        self.is_main = is_main
        self.history: list[dict[str, float]] = []
        self.resume_state: dict[str, Any] | None = None
        self.started = self.loop_started = time.monotonic()
        self.first_step = 0
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--checkpoint-dir {folder} is a file; give a folder")
        fields = json.loads(json.dumps(dataclasses.asdict(config)))
        resume_file = folder / "resume.pt"
        if resume_file.exists():
            state = read_torch_file(resume_file)
            if _same_run(state["config"], fields) and state["step"] < num_steps:
                # the same training, stopped before its end
                self.resume_state = state
                self.history = state["history"]
                self.first_step = state["step"]
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".*.tmp*"):  # a write that was killed half way
                leftover.unlink()
            if self.resume_state is None:
                self._keep_previous_run()
            write_text_atomically(folder / "config.json", json.dumps(fields, indent=2) + "\n")
        self.fields = fields

    def _keep_previous_run(self) -> None:
        present = [self.folder / name for name in FILES_OF_A_RUN if (self.folder / name).exists()]
        if not present:
            return
        number = 1
        while (self.folder / f"previous-{number}").exists():
            number += 1
        kept = self.folder / f"previous-{number}"
        kept.mkdir()
        for file in present:
            file.rename(kept / file.name)
        self.print(f"the run that was in {self.folder} is kept in {kept.name}/")

    def print(self, text: str) -> None:
        """Print a line, through the progress bar, in the first process only."""
        if self.is_main:
            tqdm.write(text)

    def steps(self, loader: Any, name: str) -> Iterator[Any]:
        """The loader's batches behind a progress bar, which only a terminal shows."""
        self.loop_started = time.monotonic()
        hidden = None if self.is_main else True  # None: tqdm hides itself where the output is not a terminal
        return iter(tqdm(loader, total=self.num_steps, initial=self.first_step, desc=name, unit="step", disable=hidden))

    def log(self, step: int, values: dict[str, tuple[float, str]]) -> None:
        """One log line: values maps a name to (number, its text with unit). The numbers are kept for the curves."""
        steps_done = step - self.first_step
        seconds = (time.monotonic() - self.loop_started) / max(1, steps_done)
        left = (self.num_steps - step) * seconds / 60
        text = " | ".join(f"{name} {shown}" for name, (_, shown) in values.items())
        self.print(f"step {step:6,}/{self.num_steps:,} | {text} | {1000 * seconds:.0f} ms/step | {left:.1f} min left")
        self.history.append({"step": float(step)} | {name: float(number) for name, (number, _) in values.items()})

    def log_validation(self, step: int, metrics: dict[str, Any], names: tuple[str, ...]) -> None:
        """One line of validation scores; the numbers are kept for the curves as well."""
        text = " | ".join(f"{name} {metrics[name]:.3f}" for name in names)
        self.print(f"step {step:6,}/{self.num_steps:,} | validation | {text}")
        self.history.append({"step": float(step)} | {f"validation_{name}": float(metrics[name]) for name in names})

    def check_finite(self, step: int, loss: float) -> None:
        """Stop a training whose loss is not a number any more. Raises InputError."""
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {step}; the last good weights are in {self.folder}, "
                "train again with a lower --learning-rate"
            )

    def save_resume(self, step: int, state: dict[str, Any]) -> None:
        """Write resume.pt: what the loop needs to go on as if nothing had happened."""
        if self.is_main:
            content = state | {"step": step, "config": self.fields, "history": self.history}
            content["rng"] = torch.get_rng_state()
            write_atomically(self.folder / "resume.pt", lambda path: torch.save(content, path))

    def stop(self, step: int) -> None:
        """Leave after a stop signal; resume.pt has been written."""
        self.print(f"stopped after step {step:,}; the same command goes on from there")
        sys.exit(130)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json: the numbers that other tools quote."""
        if self.is_main:
            minutes = (time.monotonic() - self.started) / 60
            content = metrics | {"minutes": round(minutes, 2), "history": self.history}
            write_text_atomically(self.folder / "metrics.json", json.dumps(content, indent=2) + "\n")


def _same_run(stored: dict[str, Any], present: dict[str, Any]) -> bool:
    """Whether two configs describe the same training: all fields equal but those that only say how it is run."""
    names = (set(stored) | set(present)) - FIELDS_THAT_MAY_CHANGE
    return all(stored.get(name) == present.get(name) for name in names)


@contextmanager
def stop_signals() -> Iterator[dict[str, bool]]:
    """Inside the block Ctrl-C and SIGTERM only set `requested`, so that the loop can finish its step and save."""
    stop = {"requested": False}

    def request(*_: Any) -> None:
        stop["requested"] = True

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
