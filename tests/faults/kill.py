"""Kill trainings, and complete builds of a world, at random moments, start them again, and compare with an undisturbed one.

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
from typing import Any, Literal, get_args

import numpy as np
import torch

from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = ["--embed-dim", 32, "--num-heads", 2, "--batch-size", 2, "--validation-batches", 1,
         "--save-every", 3, "--validate-every", 5, "--log-every", 10]  # fmt: skip
MAY_DIFFER = ("seconds", "minutes", "cpu_minutes", "cpu_seconds", "peak_memory_gib", "frames_per_second", "p95_ms",
              "checkpoint_dir", "data_path", "world", "json", "tokenizer_checkpoint", "latent_action_checkpoint")  # fmt: skip
"""how long a run took and where it lies"""
Target = Literal["tokenizer", "latent_actions", "dynamics", "world"]


@dataclass(frozen=True)
class KillConfig:
    """Kill trainings at random moments and see whether anything is lost."""

    targets: tuple[Target, ...] = get_args(Target)
    """what to kill, in this order: trainings, each of which uses the earlier ones' models, or world (make world, quick)"""
    kills: int = 50
    """kills per target"""
    seed: int = 0
    """of the moments"""
    json: str | None = None
    """file for the counts"""


def start(command: Sequence[object]) -> subprocess.Popen:
    """The command in its own process group, on one thread, with its output in a pipe."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [sys.executable, *map(str, command)]
    return subprocess.Popen(words, env=environment, cwd=REPOSITORY, start_new_session=True, **output)


def kill_after(process: subprocess.Popen, seconds: float | None = None, file: Path | None = None) -> bool:
    """SIGKILL the process and its children after that time, counted from when `file` exists; None: let it end by itself.

    Returns False where it ended before, which must be without an error.
    """
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


def results_in(folder: Path) -> dict[str, Any]:
    """Everything that a finished run leaves: weights, scores, the history of the losses, arrays and films."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".pt": lambda file: torch.load(file, map_location="cpu", weights_only=True),
        ".json": read_json,
        ".npy": Path.read_bytes,
        ".gif": Path.read_bytes,
    }
    files = [file for file in folder.rglob("*") if file.suffix in readers]
    return {str(file.relative_to(folder)): readers[file.suffix](file) for file in files}


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two results differ, bit for bit, except for times and places."""
    if place.rsplit("/", 1)[-1] in MAY_DIFFER:
        return []
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [place]
    if isinstance(first, dict) and isinstance(second, dict):
        missing = [f"{place}/{name} is in one only" for name in first.keys() ^ second.keys()]
        both = first.keys() & second.keys()
        return missing + [text for name in both for text in differences(first[name], second[name], f"{place}/{name}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        return differences(dict(enumerate(first)), dict(enumerate(second)), place)
    return [] if first == second or (first != first and second != second) else [place]


def survive(
    command: Callable[[Path], list[object]], folder: Path, kills: int, longest: float, last_file: str,
    random: np.random.Generator, first_file: str | None = None,
) -> dict[str, int]:  # fmt: skip
    """Run `command(folder / "undisturbed")`, then others that are killed again and again until one ends by itself.

    longest: seconds until a process is killed, at most. last_file: what a run writes last.
    first_file: what it must have written before its time is counted; None: its time starts with it.
    Returns {"kills", "runs", "lost"}: lost counts the runs whose result differs from the undisturbed one in a single bit, or that
    left temporary files behind.
    """
    if not (folder / "undisturbed" / last_file).exists():  # unless the caller has run it
        kill_after(start(command(folder / "undisturbed")))
    expected = results_in(folder / "undisturbed")
    counts = {"kills": 0, "runs": 0, "lost": 0}
    while counts["kills"] < kills:
        place = folder / f"killed-{counts['runs']}"
        ended = False
        while not ended:
            seconds = random.uniform(0.0, longest) if counts["kills"] < kills else None
            killed = kill_after(start(command(place)), seconds, place / first_file if first_file and seconds else None)
            counts["kills"] += killed
            ended = not killed or (place / last_file).exists()  # the same command would start another run
        wrong = differences(expected, results_in(place)) + [str(file) for file in place.rglob(".*.tmp*")]
        counts["lost"] += bool(wrong)
        counts["runs"] += 1
        for text in wrong[:5]:
            print(f"  LOST {place.name}: {text}")
        print(f"  {counts}", flush=True)
    return counts


def commands(folder: Path, num_steps: int = 60) -> dict[str, tuple[Callable[[Path], list[object]], float, str]]:
    """Target -> (the command that writes into a folder, the longest life in seconds, the file it writes last)."""
    data = folder / "data"
    dummy_clip_store(data, frame_size=(32, 32))
    shared = ["--data-path", data, *SIZES, "--num-steps", num_steps]

    def train(chapter: str, *flags: object) -> Callable[[Path], list[object]]:
        return lambda place: [f"{chapter}/train.py", *shared, "--checkpoint-dir", place, *flags]

    def build(place: Path) -> list[object]:
        return ["4.inference/build_world.py", "--quick", "--output", place]

    tokenizer, latent = (folder / name / "undisturbed" / "best_model.pt" for name in ("tokenizer", "latent_actions"))
    dynamics = ("--tokenizer-checkpoint", tokenizer, "--latent-action-checkpoint", latent, "--prior-steps", 20, "--num-blocks", 1)
    return {
        "tokenizer": (train("1.video-tokenizer", "--num-blocks", 1), 9.0, "metrics.json"),
        "latent_actions": (train("2.latent-action-model", "--conv-width", 8), 9.0, "metrics.json"),
        "dynamics": (train("3.dynamics-model", *dynamics), 9.0, "metrics.json"),
        "world": (build, 25.0, "report.html"),
    }


def main() -> None:
    config = parse_config(KillConfig)
    check_smallest(config, {"kills": 1})
    started = time.monotonic()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        available = commands(folder)
        for target in config.targets:
            command, longest, last_file = available[target]
            print(target, flush=True)
            random = np.random.default_rng(config.seed)
            results[target] = survive(command, folder / target, config.kills, longest, last_file, random)
    lost = sum(counts["lost"] for counts in results.values())
    results["seconds"] = round(time.monotonic() - started)
    print(results)
    if config.json:
        save_json(config.json, read_json(Path(config.json)) | results)  # targets that were not tried now keep their counts
    sys.exit(lost > 0)


if __name__ == "__main__":
    run_script(main)
