"""A run: one training with its folder. It resumes, logs, keeps the best and the final weights, and stops when asked to."""

import atexit
import dataclasses
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.figures import save_curves
from video_tokenizer.global_batch import gather_rows, mean_over_processes, rank_and_size
from video_tokenizer.training.atomic_files import FolderLock, sweep, write_text_atomically
from video_tokenizer.training.checkpoint import (
    chapter_folder,
    check_weights_fit,
    load_checkpoint,
    read_torch_file,
    save_checkpoint,
    write_torch_file,
)
from video_tokenizer.training.command_line import nobody_reads, shown_command
from video_tokenizer.training.device import choose_device, described, device_generator, number_format, tune
from video_tokenizer.training.distributed import (
    any_rank,
    gather_full,
    load_full_state_dict,
    start_processes,
    stop_processes,
    wait_for_processes,
)
from video_tokenizer.training.results import to_json
from video_tokenizer.training.tensorboard import Board, summary_writer

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None

FILES_OF_A_RUN = ("config.json", "best_model.pt", "final_model.pt", "resume.pt", "metrics.json", "curves.png", "samples.png",
                  "tensorboard")  # fmt: skip
FIELDS_THAT_MAY_CHANGE = {"device", "num_workers", "log_every", "save_every", "checkpoint_dir", "config", "data_path", "preset",
                          "rate_factor", "shard", "tensorboard", "key_guidance", "key_smoothing"}  # fmt: skip
"""settings that only say how a run is carried out or how its world is steered: with others, a stopped run still resumes"""
PEAK_UNITS_PER_GIB = 2**30 if sys.platform == "darwin" else 2**20
"""macOS counts the peak of memory in bytes, Linux in KiB"""
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
"""Ctrl-C, a polite kill, a closed terminal, and Ctrl-Break on Windows"""
ONE_REQUEST = 2.0
"""seconds within which further signals belong to the first: `timeout` and a build each pass theirs on"""


def start_training(config: Any) -> torch.device:
    """Choose the device, join torchrun's other processes, and seed all random numbers. Returns the device."""
    device = choose_device(config.device, large=config.preset != "tiny")
    if config.tensorboard:
        summary_writer()  # refused now, before anything is decoded
    config.check_processes(int(os.environ.get("WORLD_SIZE", "1")))  # before there is a group in which somebody could wait
    start_processes(device)
    tune(device)
    torch.manual_seed(config.seed)
    return device


class Run:
    """One training and its folder. Starting the same command again resumes an unfinished run from its resume.pt.

    A folder that holds another run, or a finished one, is first emptied into a subfolder `previous-1`, `previous-2`, ...: nothing
    is overwritten. While a run is going on, no other process can use its folder.
    """

    def __init__(
        self, kind: str, config: Any, data: Any, made_from: str | None = None, extra: Mapping[str, Any] | None = None,
        subfolder: str = "",
    ):  # fmt: skip
        """kind: of checkpoint, such as "tokenizer". data: store, training and validation clips.

        made_from: fingerprints of all that is learned from, where that is more than the store; a run that was stopped on other
        data is another run. extra: goes into the checkpoints. subfolder: a variant's, inside checkpoints/, because later chapters
        take what lies in checkpoints/ itself. Raises InputError where the folder is a file or in use.
        """
        self.kind, self.config, self.data = kind, config, data
        self.extra = {"linear_light": data.store.linear_light, **(extra or {})}
        self.folder = Path(config.checkpoint_dir or chapter_folder(kind) / "checkpoints" / subfolder)
        self.num_steps = config.num_steps
        if config.num_epochs is not None:
            self.num_steps = max(1, round(config.num_epochs * len(data.training) / config.batch_size))
        self.fingerprints = made_from or data.store.fingerprint
        self.is_main = rank_and_size()[0] == 0
        self.fields = json.loads(json.dumps(dataclasses.asdict(config)))
        self.history: list[dict[str, float]] = []
        self.metrics: dict[str, Any] = {}
        self.best_error = float("inf")
        self.step = self.first_step = self.saved_step = 0
        self.stop = {"requested": False}
        self.started = self.loop_started = time.monotonic()
        self.vitals: Tensor | None = None  # (step, loss, gradient norm) of the newest step, or of the first that was not finite
        self.clips: dict[int, Tensor] = {}  # step -> clips of its batch, since the last look at `vitals`
        self.cpu_seconds_before = 0.0
        for path in (self.folder, *self.folder.parents):
            if path.exists() and not path.is_dir():
                raise InputError(f"--checkpoint-dir {self.folder}: {path} is a file; give a folder")
        if self.is_main:
            self._lock = FolderLock(self.folder)  # released with this object, or with the process
        self.resume_state = self._find_stopped_run()
        wait_for_processes()  # all have looked before anything is moved away
        if self.is_main:
            for name in FILES_OF_A_RUN:
                sweep(self.folder / name)
            if self.resume_state is None:
                self._keep_previous_run()
            write_text_atomically(self.folder / "config.json", json.dumps(self.fields, indent=2) + "\n")
        self.board = Board(self.folder, self.first_step) if config.tensorboard and self.is_main else None
        self.draw: Callable[[Path, Run], object] | None = None
        """set by a training: draws samples.png with the averaged weights. It is given the run, because a function that kept it
        would keep the folder locked after an error."""

    @property
    def resumes(self) -> bool:
        """Whether a stopped run was found, so that nothing needs to be prepared that `track` will load."""
        return self.resume_state is not None

    def track(self, model: nn.Module, optimizer: Any, ema: Any, **others: Any) -> None:
        """Save these with the run, and resume them where a stopped run is found. others: whatever else has a state_dict."""
        self.model = model
        self.parts = {"optimizer": optimizer, "ema": ema, **others}
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.device = next(model.parameters()).device
        precision, why = number_format(self.device, self.config.precision)
        self.print(
            f"device {described(self.device)} | matrix products in {precision} ({why}) | {self.num_parameters:,} parameters"
        )
        training, validation = len(self.data.training), len(self.data.validation)
        self.print(f"data {self.data.store.path} | {training:,} training and {validation:,} validation clips")
        if seen := self.data.describe_seen():
            self.print(seen)
        self.print(f"run folder {self.folder}")
        if self.resume_state is not None:
            state = self.resume_state
            try:
                load_full_state_dict(model, state["model"])
                for name, part in self.parts.items():
                    part.load_state_dict(state[name])
            except (RuntimeError, KeyError, ValueError):
                raise InputError(
                    f"{self.folder / 'resume.pt'} was written by another version and cannot be resumed; "
                    "move it away, or give another --checkpoint-dir"
                ) from None
            self.best_error, self.metrics = state["best_error"], state["metrics"]
            torch.set_rng_state(state["rng"])
            if device_generator(self.device) and state.get("rng_device") is not None:  # another device starts from the seed
                device_generator(self.device).set_rng_state(state["rng_device"])
            self.resume_state = None  # frees the memory
            self.print(f"resuming from step {self.first_step:,} of {self.num_steps:,}")

    # ---- the loop ------------------------------------------------------------------------------------------------------------

    def steps(self, loader: Iterable[Any]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(step, batch) for every step that is left, from 1 on, behind a progress bar; resume.pt is written when it is due.

        Ctrl-C, SIGTERM and a closed terminal let the step finish, save it, print how to resume, and leave with exit code 130.
        """
        self.loop_started = time.monotonic()
        self.timed_from, self.loading = (self.first_step, self.loop_started), 0.0
        hidden = None if self.is_main else True  # None: tqdm hides itself where the output is not a terminal
        name = self.kind.replace("_", " ")
        bar = tqdm(self._timed(loader), total=self.num_steps, initial=self.first_step, desc=name, unit="step", disable=hidden)
        with stop_signals(self.stop):
            for step, batch in enumerate(bar, start=self.first_step + 1):
                self.step, self.batch = step, batch
                yield step, batch
                stopping = any_rank(self.stop["requested"])
                if self.is_due(self.config.save_every) or stopping:
                    self._save_resume()
                if stopping and self.step < self.num_steps:
                    self.print(f"stopped after step {self.step:,}; resume with: {shown_command(sys.argv)}")
                    sys.exit(130)
        stop_processes()

    def _timed(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The same batches; the seconds in which the training had to wait for them are added to `loading`."""
        asked = time.monotonic()
        for batch in loader:
            self.loading += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def is_due(self, every: int) -> bool:
        """Whether something is due at this step that happens every n-th step, and at the last one."""
        return self.step % every == 0 or self.step == self.num_steps

    @property
    def should_log(self) -> bool:
        """Whether this is the first step, a log_every-th, or the last one."""
        return self.step == 1 or self.is_due(self.config.log_every)

    def check_finite(self, loss: Tensor, gradient_norm: Tensor, *inputs: Tensor) -> None:
        """End the run before `optimizer.step()` if loss or gradient norm is NaN or infinite. inputs: what the model was given.

        A GPU is not asked at every step, because the processor would wait for it. There such a step and all after it leave the
        weights as they are, and the run ends before it next logs or saves anything.
        """
        self.inputs, self.clips[self.step] = inputs, self.batch["index"]
        vitals = torch.stack([torch.full_like(loss, self.step), loss.detach(), gather_full(gradient_norm)])
        if self.device.type != "cuda":
            self.vitals = vitals
            self.end_if_not_finite()
            return
        if self.vitals is not None:  # the first step that is not finite is remembered
            vitals = torch.where(self.vitals.isfinite().all(), vitals, self.vitals)
        self.vitals = vitals
        if not self.config.shard:
            self.parts["optimizer"].skip_if(~vitals.isfinite().all())

    def end_if_not_finite(self) -> None:
        """Raise InputError that names the step, the first tensor that is not finite, the clips, and what to try."""
        if self.vitals is None:
            return
        step, loss, norm = self.vitals.tolist()
        if math.isfinite(loss + norm):
            self.clips.clear()
            return
        broken = first_not_finite(self.model, *self.inputs)  # in every process: sharded weights are gathered for it
        clips = ", ".join(str(clip) for clip in gather_rows(self.clips[round(step)]).tolist())
        changes: dict[str, Any] = {"rate_factor": 0.5 * self.fields["rate_factor"]}
        kept = f"{self.folder / 'resume.pt'} holds an earlier step to resume from"
        if not self.saved_step:
            kept = "no earlier step was saved"
        elif self.saved_step == round(step) - 1:  # this step began with the saved weights, which no learning rate mends
            kept = f"resuming from {self.folder / 'resume.pt'} would end here again, so begin anew in another folder"
            changes["checkpoint_dir"] = f"{self.folder}-again"
        if self.is_main:
            self._lock.release()
        command = shown_command(sys.argv, **changes)
        raise InputError(
            f"at step {round(step):,} the loss is {loss:.3g} and the gradient norm {norm:.3g}; the first value that is not "
            f"finite is {broken}; the batch was clips {clips}; nothing of this step is kept, {kept}; try a lower learning "
            f"rate: {command}"
        )

    # ---- what a run writes ---------------------------------------------------------------------------------------------------

    def print(self, text: str) -> None:
        """Print a line, through the progress bar, in the first process only."""
        if not self.is_main:
            return
        try:
            tqdm.write(text)
            sys.stdout.flush()
        except OSError as error:
            if not nobody_reads(error):
                raise
            self.stop["requested"] = True  # save and end, as `| head` and a closed terminal end other programs
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, open until the process ends

    def log(self, **values: Any) -> None:
        """One log line, and a point of the curves. A tensor is averaged over the processes, so every process must call it."""
        self.end_if_not_finite()
        numbers = {
            name: mean_over_processes(value).item() if isinstance(value, Tensor) else value for name, value in values.items()
        }
        now = time.monotonic()
        passed = max(1e-9, now - self.timed_from[1])
        seconds = passed / max(1, self.step - self.timed_from[0])
        speed = [f"{1000 * seconds:.0f} ms/step", f"{self.config.batch_size * self.config.num_frames / seconds:,.0f} frames/s"]
        speed.append(f"{self.loading / passed:.0%} loading")
        self.timed_from, self.loading = (self.step, now), 0.0
        if self.device.type == "cuda":
            speed.append(f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.1f} GiB")
        left = (self.num_steps - self.step) * (now - self.loop_started) / max(1, self.step - self.first_step) / 60
        shown = [f"{name} {_as_text(value)}" for name, value in numbers.items()]
        self.print(" | ".join([f"step {self.step:6,}/{self.num_steps:,}", *shown, *speed, f"{left:.1f} min left"]))
        self.history.append({"step": float(self.step)} | {name: float(value) for name, value in numbers.items()})
        if self.board is not None:
            self.board.add("training", numbers, self.step)

    def save(self, averaged: nn.Module, metrics: dict[str, Any], error: float, shown: Sequence[str]) -> None:
        """Log a validation; keep the weights in best_model.pt if the error is the least so far, at the end in final_model.pt.

        error: what the best weights have least of. NaN, a score that these data do not have, keeps the newest weights.
        """
        self.end_if_not_finite()
        text = " | ".join(f"{name} {metrics[name]:.3f}" for name in shown)
        self.print(f"step {self.step:6,}/{self.num_steps:,} | validation | {text}")
        self.history.append({"step": float(self.step)} | {f"validation_{name}": float(metrics[name]) for name in shown})
        self.metrics = metrics
        if self.board is not None:
            self.board.add("validation", metrics, self.step)
            if (draw := self.draw) is not None:
                self.board.add_picture(lambda path: draw(path, self), self.folder / "samples.png", self.step)
        if not error > self.best_error:
            self._save_checkpoint("best_model.pt", averaged)
        if self.step == self.num_steps:
            self._save_checkpoint("final_model.pt", averaged)
        self.best_error = min(self.best_error, error)
        self.timed_from, self.loading = (self.step, time.monotonic()), 0.0  # the validation is no part of a step's time

    def finish(self) -> None:
        """Write samples.png, curves.png, and last of all metrics.json, by which a finished run is known."""
        if not self.is_main:
            return
        if self.draw is not None:
            self.draw(self.folder / "samples.png", self)
        save_curves(self.folder / "curves.png", self.history)
        content = self.metrics | {
            "parameters": self.num_parameters,
            "steps": self.num_steps,
            "minutes": round((time.monotonic() - self.started) / 60, 2),
            "cpu_minutes": round(self.cpu_seconds / 60, 3),
            "peak_memory_gib": peak_memory_gib(),
            "history": self.history,
        }
        if self.device.type == "cuda":
            content["peak_gpu_memory_gib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**30, 3)
        write_text_atomically(self.folder / "metrics.json", to_json(content))
        self._lock.release()
        self.print(f"done: {self.folder / 'best_model.pt'}, pictures samples.png and curves.png beside it")

    @property
    def cpu_seconds(self) -> float:
        """Processor time of this training: unlike the clock's, it hardly depends on what else the machine does."""
        return self.cpu_seconds_before + time.process_time()

    def _save_checkpoint(self, name: str, averaged: nn.Module) -> None:
        if self.is_main:
            save_checkpoint(
                self.folder / name, self.kind, getattr(self.config, "model", self.kind.replace("_", "-")),
                dataclasses.asdict(self.config), averaged.state_dict(), self.step, self.metrics, self.data.store.fingerprint,
                **self.extra,
            )  # fmt: skip

    def _save_resume(self) -> None:
        """Write resume.pt: all that the loop needs to continue as if nothing had happened."""
        self.end_if_not_finite()
        parts = {"model": self.model, **self.parts}
        state = gather_full({name: part.state_dict() for name, part in parts.items()}, saving=True)  # in every process
        if self.is_main:
            state |= {"best_error": self.best_error, "metrics": self.metrics, "step": self.step, "history": self.history}
            state |= {"config": self.fields, "data": self.fingerprints, "cpu_seconds": self.cpu_seconds}
            state["seconds"] = time.monotonic() - self.started
            state["rng"] = torch.get_rng_state()
            generator = device_generator(self.device)  # the same in all processes, as the CPU's is
            state["rng_device"] = generator.get_rng_state() if generator else None
            write_torch_file(self.folder / "resume.pt", state)
        self.saved_step = self.step

    # ---- an earlier run in the same folder -----------------------------------------------------------------------------------

    def _find_stopped_run(self) -> dict[str, Any] | None:
        """The state in resume.pt, where it belongs to this very training and that is not finished."""
        file = self.folder / "resume.pt"
        state = read_torch_file(file) if file.exists() else None
        if not isinstance(state, dict) or not {"config", "data", "step", "history", "seconds", "best_error"} <= state.keys():
            return None
        finished = state["step"] >= self.num_steps and (self.folder / "metrics.json").exists()
        names = (set(state["config"]) | set(self.fields)) - FIELDS_THAT_MAY_CHANGE
        same_settings = all(state["config"].get(name) == self.fields.get(name) for name in names)
        if finished or not same_settings or state["data"] != self.fingerprints:
            return None
        self.history, self.first_step = state["history"], state["step"]
        self.step = self.saved_step = self.first_step
        self.started -= state["seconds"]
        self.cpu_seconds_before = state.get("cpu_seconds", 0.0)
        return state

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


def _as_text(value: Any) -> str:
    """A number of the log line: 0.0312, 1.2e-05, 871."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def peak_memory_gib() -> float | None:
    """The most memory that this process has had; None on Windows, where Python does not know it."""
    if resource is None:
        return None
    if sys.platform == "linux":  # whose ru_maxrss also counts what the program had that started this one
        kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        if kib is not None:
            return round(int(kib[1]) / 2**20, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_UNITS_PER_GIB, 3)


@contextmanager
def stop_signals(stop: dict[str, bool]) -> Iterator[None]:
    """Inside the block Ctrl-C, SIGTERM and a closed terminal only set stop["requested"], so that the loop can finish its step and
    save. A second one that is not an echo of the first ends the process at once. Under nohup a closed terminal stays ignored."""
    begun = float("inf")

    def request(number: Any, _: Any) -> None:
        nonlocal begun
        stop["requested"] = True
        begun = min(begun, time.monotonic())
        if time.monotonic() - begun > ONE_REQUEST:
            # a shell starts its background jobs with Ctrl-C ignored
            ignored = previous[number] is signal.SIG_IGN
            signal.signal(number, signal.default_int_handler if ignored else previous[number])
            signal.raise_signal(number)

    closed = getattr(signal, "SIGHUP", None)
    obeyed = [number for number in STOP_SIGNALS if number != closed or signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, request) for number in obeyed}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if stop["requested"]:  # its echoes may come while the process ends, also after Python gave its handlers back
                atexit.register(signal.signal, number, signal.SIG_IGN)
            else:
                signal.signal(number, handler)


def load_initial_weights(model: nn.Module, config: Any, kind: str) -> None:
    """Start from the weights of --init-from, if it is given. Raises InputError where they belong to another model."""
    if config.init_from is None:
        return
    content = load_checkpoint(config.init_from, kind)
    wanted = getattr(config, "model", content["model_name"])
    if content["model_name"] != wanted:
        raise InputError(f"--init-from {config.init_from} holds model {content['model_name']!r}; give a checkpoint of {wanted}")
    check_weights_fit(model.state_dict(), content["weights"], config.init_from, "the sizes given; give those of the checkpoint")
    model.load_state_dict(content["weights"])


def is_finite(value: Any) -> bool:
    """Whether all floating-point tensors in a tensor, tuple, list, dictionary or dataclass are finite; True for anything else."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(is_finite(entry) for entry in value.values())
    if isinstance(value, list | tuple):
        return all(is_finite(entry) for entry in value)
    if dataclasses.is_dataclass(value):
        return all(is_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    return True


@torch.no_grad()
def first_not_finite(model: nn.Module, *inputs: Any) -> str:
    """Words for the first place at which a model is not finite: its inputs, its weights, a module's output in the order of the
    forward pass, or a gradient in the order of the backward pass."""
    if not is_finite(inputs):
        return "the input"
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"the weight {name}"
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        if not found and not is_finite(output):
            found.append(f"the output of {name} ({type(module).__name__})")

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    broken = [name for name, parameter in model.named_parameters() if not is_finite(parameter.grad)]
    return f"the gradient of {broken[-1]}" if broken else "the loss"
