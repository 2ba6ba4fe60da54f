"""Kill trainings, and whole builds of a world, at random moments, start them again, and compare with one never disturbed.

    python tests/faults/kill.py --kills 50

Every kill is a SIGKILL, which no program can catch. The promise: the weights at the end are the same to the last bit.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = ["--embed-dim", 32, "--num-heads", 2, "--batch-size", 2, "--validation-batches", 1,
         "--num-steps", 60, "--save-every", 3, "--validate-every", 5, "--log-every", 10]  # fmt: skip
TARGETS = ("tokenizer", "latent_actions", "dynamics", "world")
MAY_DIFFER = ("seconds", "minutes", "cpu_minutes", "cpu_seconds", "peak_memory_gib", "frames_per_second", "p95_ms",
              "checkpoint_dir", "data_path", "world", "json", "tokenizer_checkpoint", "latent_action_checkpoint")  # fmt: skip
"""what differs between two runs because of how long they took and where they lie"""


@dataclass(frozen=True)
class KillConfig:
    """Kill trainings at random moments and see whether anything is lost."""

    targets: tuple[str, ...] = TARGETS
    """what to kill: tokenizer, latent_actions, dynamics (trainings), world (make world, quick)"""
    kills: int = 50
    """kills per target"""
    seed: int = 0
    """of the moments"""
    json: str | None = None
    """file for the counts"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"kills": 1})


def start(command: Sequence[object]) -> subprocess.Popen:
    """The command in a process group of its own, on one thread, with its output in a pipe."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        cwd=REPOSITORY,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Let it end by itself, which must be well. Returns what it printed."""
    output = process.communicate()[0]
    assert process.returncode == 0, f"ended with {process.returncode}:\n{output[-2000:]}"
    return output


def kill_after(process: subprocess.Popen, seconds: float, file: Path | None = None) -> bool:
    """SIGKILL the process and its children after that time, counted from when `file` is there. False where it ended before."""
    while file is not None and not file.exists() and process.poll() is None:
        time.sleep(0.01)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, f"ended with {process.returncode}:\n{output[-2000:]}"
    return False


def learnt(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, without the times that it took: weights, scores, the history of the losses."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if file.suffix == ".pt":
            found[name] = torch.load(file, map_location="cpu", weights_only=True)
        elif file.suffix == ".json":
            found[name] = read_json(file)
        elif file.suffix in (".npy", ".gif"):
            found[name] = file.read_bytes()
    return found


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two results differ, bit for bit, times and places left out."""
    if place.rsplit("/", 1)[-1] in MAY_DIFFER:
        return []
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [place]
    if isinstance(first, dict) and isinstance(second, dict):
        places = [f"{place}/{name} is in one only" for name in set(first) ^ set(second)]
        for name in set(first) & set(second):
            places += differences(first[name], second[name], f"{place}/{name}")
        return places
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [text for number, pair in pairs for text in differences(*pair, f"{place}/{number}")]
    return [] if first == second or (first != first and second != second) else [place]


def survive(
    command: Callable[[Path], list[object]], folder: Path, kills: int, longest: float, last_file: str,
    random: np.random.Generator, first_file: str | None = None,
) -> dict[str, int]:  # fmt: skip
    """Run `command(folder / "whole")` undisturbed, then others, each killed again and again until it ends by itself.

    longest: seconds that a process lives at most before it is killed. last_file: what a run writes last.
    first_file: what it must have written before its time is counted; None: its time begins with it.
    Returns {"kills", "runs", "lost"}: lost counts the runs whose result differs from the undisturbed one in a single bit, or that
    left traces behind.
    """
    finish(start(command(folder / "whole")))
    expected = learnt(folder / "whole")
    counts = {"kills": 0, "runs": 0, "lost": 0}
    while counts["kills"] < kills:
        place = folder / f"killed-{counts['runs']}"
        while True:
            process = start(command(place))
            if counts["kills"] >= kills:
                finish(process)
                break
            if not kill_after(process, random.uniform(0.0, longest), None if first_file is None else place / first_file):
                break
            counts["kills"] += 1
            if (place / last_file).exists():  # it had just ended; the same command would begin another run
                break
        wrong = differences(expected, learnt(place))
        wrong += [str(file) for file in place.rglob(".*.tmp*")]
        counts["lost"] += bool(wrong)
        counts["runs"] += 1
        for text in wrong[:5]:
            print(f"  LOST {place.name}: {text}")
        print(f"  {counts}", flush=True)
    return counts


def commands(folder: Path) -> dict[str, tuple[Callable[[Path], list[object]], float, str]]:
    """Target -> (the command that writes into a folder, the longest life in seconds, the file it writes last)."""
    data = dummy_clip_store(folder / "data", frame_size=(32, 32)).path
    shared = ["--data-path", data, *SIZES]
    earlier = {name: folder / name / "whole" / "best_model.pt" for name in ("tokenizer", "latent_actions")}

    def train(chapter: str, *flags: object) -> Callable[[Path], list[object]]:
        return lambda place: [f"{chapter}/train.py", *shared, "--checkpoint-dir", place, *flags]

    def build(place: Path) -> list[object]:
        return ["4.inference/build_world.py", "--quick", "--output", place]

    models = ("--tokenizer-checkpoint", earlier["tokenizer"], "--latent-action-checkpoint", earlier["latent_actions"])
    return {
        "tokenizer": (train("1.video-tokenizer", "--num-blocks", 1), 9.0, "metrics.json"),
        "latent_actions": (train("2.latent-action-model", "--conv-width", 8), 9.0, "metrics.json"),
        "dynamics": (train("3.dynamics-model", *models, "--prior-steps", 20, "--num-blocks", 1), 9.0, "metrics.json"),
        "world": (build, 25.0, "report.html"),
    }


def main() -> None:
    config = parse_config(KillConfig)
    config.check()
    begun = time.monotonic()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        available = commands(folder)
        needed = [target for target in TARGETS if target in config.targets]
        for target in needed:
            command, longest, last_file = available[target]
            print(target, flush=True)
            results[target] = survive(
                command, folder / target, config.kills, longest, last_file, np.random.default_rng(config.seed)
            )
    results["seconds"] = round(time.monotonic() - begun)
    print(results)
    if config.json:
        save_json(config.json, read_json(Path(config.json)) | results)  # targets that were not tried now keep their counts
    sys.exit(any(counts["lost"] for counts in results.values() if isinstance(counts, dict)))


if __name__ == "__main__":
    run_script(main)
