"""A run folder: what a training writes down, and how a stopped training goes on."""

import dataclasses
import json
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from video_tokenizer.training.atomic_files import FolderLock, sweep, write_text_atomically
from video_tokenizer.training.checkpoint import read_torch_file, write_torch_file
from video_tokenizer.training.command_line import InputError, shown_command
from video_tokenizer.training.finite import first_not_finite
from video_tokenizer.training.results import to_json

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
    "rate_factor",
    "shard",
}


PEAK_UNITS_PER_GIB = 2**30 if sys.platform == "darwin" else 2**20
"""macOS counts the peak of memory in bytes, Linux in KiB"""


class Run:
    """One training's folder. Starting the same command again continues an unfinished run from its resume.pt.

    A folder that holds another run, or a finished one, is emptied into a neighbour `previous-1`, `previous-2`, ... first:
    nothing is overwritten. While a run is going on, no other process can use its folder.
    """

    def __init__(self, folder: Path, config: Any, num_steps: int, data: str, is_main: bool = True):
        """data: fingerprints of what is learnt from; a run stopped on other data is another run. Raises InputError where the
        folder is a file or in use by another process."""
        self.folder = folder
        self.num_steps = num_steps
        self.is_main = is_main
        self.data = data
        self.fields = json.loads(json.dumps(dataclasses.asdict(config)))
        self.history: list[dict[str, float]] = []
        self.resume_state: dict[str, Any] | None = None
        self.started = self.loop_started = time.monotonic()
        self.first_step = 0
        self.cpu_seconds_before = 0.0
        self.saved = False
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--checkpoint-dir {folder} is a file; give a folder")
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder)  # goes with this object, or with the process
        self._look_for_a_stopped_run()
        if is_main:
            for name in FILES_OF_A_RUN:
                sweep(folder / name)
            if self.resume_state is None:
                self._keep_previous_run()
            write_text_atomically(folder / "config.json", json.dumps(self.fields, indent=2) + "\n")

    def _look_for_a_stopped_run(self) -> None:
        resume_file = self.folder / "resume.pt"
        state = read_torch_file(resume_file) if resume_file.exists() else None
        if not isinstance(state, dict) or not {"config", "data", "step", "history", "seconds"} <= state.keys():
            return
        finished = state["step"] >= self.num_steps and (self.folder / "metrics.json").exists()
        if _same_run(state["config"], self.fields) and state["data"] == self.data and not finished:
            self.resume_state = state
            self.history = state["history"]
            self.first_step = state["step"]
            self.saved = True
            self.started -= state["seconds"]
            self.cpu_seconds_before = state.get("cpu_seconds", 0.0)

    def _keep_previous_run(self) -> None:
        present = [self.folder / name for name in FILES_OF_A_RUN if (self.folder / name).exists()]
        if [file.name for file in present] in ([], ["config.json"]):  # a run that was stopped before it had anything to keep
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

    def check_finite(
        self, step: int, loss: Tensor, gradient_norm: Tensor, model: nn.Module, inputs: Sequence[Tensor], batch: dict[str, Tensor]
    ) -> None:
        """Stop a training, before the optimizer's step, whose loss or gradients are not numbers any more. Raises InputError.

        inputs: what the model was last given. batch: as the loader made it. No step is ever left out instead.
        """
        if torch.isfinite(loss.detach() + gradient_norm):
            return
        broken = first_not_finite(model, *inputs)  # in every process: sharded weights are put together for it
        if not self.is_main:
            sys.exit(2)
        clips = ", ".join(str(clip) for clip in batch["index"].tolist())
        kept = f"{self.folder / 'resume.pt'} holds an earlier step to go on from" if self.saved else "no earlier step was saved"
        self._lock.release()
        command = shown_command(sys.argv, rate_factor=0.5 * self.fields["rate_factor"])
        raise InputError(
            f"at step {step:,} the loss is {float(loss):.3g} and the gradient's norm {float(gradient_norm):.3g}; not finite is "
            f"first {broken}; the batch was clips {clips}; nothing of this step is kept, {kept}; "
            f"try a lower rate: {command}"
        )

    def save_resume(self, step: int, state: dict[str, Any]) -> None:
        """Write resume.pt: what the loop needs to go on as if nothing had happened."""
        if self.is_main:
            content = state | {"step": step, "config": self.fields, "data": self.data, "history": self.history}
            content["seconds"] = time.monotonic() - self.started
            content["cpu_seconds"] = self.cpu_seconds
            content["rng"] = torch.get_rng_state()
            content["rng_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
            write_torch_file(self.folder / "resume.pt", content)
            self.saved = True

    def restore_random_numbers(self) -> None:
        """Go on drawing where the stopped run was."""
        assert self.resume_state is not None
        torch.set_rng_state(self.resume_state["rng"])
        if len(self.resume_state["rng_cuda"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all(self.resume_state["rng_cuda"])

    def stop(self, step: int) -> None:
        """Leave after a stop signal; resume.pt has been written."""
        self.print(f"stopped after step {step:,}; go on from there with: {shown_command(sys.argv)}")
        sys.exit(130)

    @property
    def cpu_seconds(self) -> float:
        """Time that the processor has spent on this training: unlike the clock's it hardly knows what else the machine does."""
        return self.cpu_seconds_before + time.process_time()

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json: the numbers that other tools quote, with what the training cost."""
        if self.is_main:
            content = metrics | {
                "minutes": round((time.monotonic() - self.started) / 60, 2),
                "cpu_minutes": round(self.cpu_seconds / 60, 3),
                "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_UNITS_PER_GIB, 3),
                "history": self.history,
            }
            write_text_atomically(self.folder / "metrics.json", to_json(content))
            self._lock.release()


def _same_run(stored: dict[str, Any], present: dict[str, Any]) -> bool:
    """Whether two configs describe the same training: all fields equal but those that only say how it is run."""
    names = (set(stored) | set(present)) - FIELDS_THAT_MAY_CHANGE
    return all(stored.get(name) == present.get(name) for name in names)


@contextmanager
def stop_signals() -> Iterator[dict[str, bool]]:
    """Inside the block Ctrl-C and SIGTERM only set `requested`, so that the loop can finish its step and save; a second one ends
    the process at once, as it would outside."""
    stop = {"requested": False}

    def request(number: Any, _: Any) -> None:
        if stop["requested"]:
            signal.signal(number, previous[number])
            signal.raise_signal(number)
        stop["requested"] = True

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
