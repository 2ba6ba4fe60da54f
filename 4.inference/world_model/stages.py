"""Runs the stages of a build one after the other, remembers which are finished, and goes on where it stopped."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from video_tokenizer.training.atomic_files import write_atomically, write_text_atomically
from video_tokenizer.training.command_line import InputError, shown_command
from video_tokenizer.training.results import read_json


@dataclass(frozen=True)
class Stage:
    """One command of a build."""

    name: str
    """short and unique, e.g. "tokenizer" """
    title: str
    """the chapter and what happens in it, for the heading"""
    command: Sequence[str]
    """script and flags, without the interpreter"""
    inputs: Sequence[Path]
    """files and clip stores it reads, and the configuration it takes its defaults from: a change means running it again"""
    output: Path
    """what it leaves behind: absent means running it again"""
    learned: Callable[[], str] = field(default=lambda: "")
    """one plain sentence about the result, read after the stage"""
    copy_to: Path | None = None
    """where the finished output is copied as well"""
    last: Path | None = None
    """what the command writes at its very end; None: its output"""


class StageFailed(Exception):
    """A stage ended with an error of its own, which it has already printed."""

    def __init__(self, stage: Stage, exit_code: int):
        super().__init__(f"stage {stage.name} ended with exit code {exit_code}")
        self.exit_code = exit_code


def run_stages(stages: Sequence[Stage], state_path: Path, restart: str | None = None) -> dict[str, Any]:
    """Run every stage that is not finished yet, in order. Returns stage name -> what is remembered of it.

    state_path: JSON file that remembers, for each finished stage, a hash of its command and inputs, its seconds and its
    peak memory in MiB. restart: name of a stage to run again, finished or not. Raises StageFailed.
    """
    names = [stage.name for stage in stages]
    if restart is not None and restart not in names:
        raise InputError(f"--restart {restart}: there is no such stage; there are {', '.join(names)}")
    state = read_json(state_path)  # absent or damaged: nothing is finished
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage.title}", flush=True)
        present = stage_hash(stage)
        if ended_unseen(stage, state.get(stage.name, {}), present):
            seconds = round(last_file(stage).stat().st_mtime - state[stage.name]["begun_at"], 1)
            state[stage.name] = {"seconds": seconds, "peak_memory_mib": None, "hash": present}
        finished = state.get(stage.name, {}).get("hash") == present and stage.output.exists()
        if finished and stage.name != restart:
            print(f"      finished before in {duration(state[stage.name]['seconds'])}; nothing has changed since")
        else:
            print(f"      $ {shown_command(stage.command)}", flush=True)
            state[stage.name] = {"begun": present, "begun_at": time.time()}
            write_text_atomically(state_path, json.dumps(state, indent=1))
            remembered = run_stage(stage)
            state[stage.name] = remembered | {"hash": stage_hash(stage)}
            write_text_atomically(state_path, json.dumps(state, indent=1))
            memory = f", peak memory {remembered['peak_memory_mib']:,} MiB" if remembered["peak_memory_mib"] else ""
            print(f"      {duration(remembered['seconds'])}{memory}")
        if stage.copy_to is not None:
            write_atomically(stage.copy_to, partial(shutil.copyfile, stage.output))
        if sentence := stage.learned():
            print(f"      {sentence}", flush=True)
    return {name: state[name] for name in names}


def last_file(stage: Stage) -> Path:
    """What the stage's command writes at its very end."""
    return stage.last or stage.output


def ended_unseen(stage: Stage, remembered: dict[str, Any], present: str) -> bool:
    """Whether the command was begun with the present inputs and came to its end, but the build was killed before noting it."""
    file = last_file(stage)
    begun = remembered.get("begun") == present and stage.output.exists() and file.exists()
    return begun and file.stat().st_mtime >= remembered["begun_at"]


def run_stage(stage: Stage) -> dict[str, Any]:
    """Run one stage's command with its output on this terminal. Returns its seconds and peak memory. Raises StageFailed."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, *stage.command])
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # it saves what it has, then ends
    try:
        exit_code, peak_memory_mib = wait_for(process)
    except KeyboardInterrupt:  # Ctrl-C reaches the stage as well; let it save what it has
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if exit_code:
        raise StageFailed(stage, exit_code)
    return {"seconds": round(time.monotonic() - begun, 1), "peak_memory_mib": peak_memory_mib}


def wait_for(process: subprocess.Popen) -> tuple[int, int | None]:
    """Exit code (128 + number for a signal) and peak resident memory of a process in MiB, None where the system keeps none."""
    if not hasattr(os, "wait4"):
        return process.wait(), None
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts in bytes, Linux in KiB
    return (code if code >= 0 else 128 - code), round(usage.ru_maxrss / unit)


def stage_hash(stage: Stage) -> str:
    """SHA-256 over the command and the content of the inputs, as hex digits."""
    digest = hashlib.sha256(json.dumps(list(stage.command)).encode())
    for path in stage.inputs:
        digest.update(str(path).encode())
        if path.is_dir():  # a clip store: its description and sizes stand for hundreds of megabytes of frames
            for file in sorted(file for file in path.iterdir() if file.is_file()):  # not the token cache inside
                digest.update(f"{file.name} {file.stat().st_size}".encode())
                digest.update(file.read_bytes() if file.suffix == ".json" else b"")
        elif path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3.5 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
