"""Cut every kind of write short, at many places, by killing the writer and by filling the disk, and check what is left.

    python tests/faults/writes.py

The kernel cuts: it limits the size of the files that a process may write, and the write that exceeds the limit either kills the
process (SIGXFSZ) or fails as on a full disk. A disk that is really full, a tmpfs of a few MiB, is tried where one may be mounted.
"""

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import save_gif
from video_tokenizer.training.atomic_files import write_array_atomically
from video_tokenizer.training.checkpoint import load_checkpoint, save_checkpoint
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class WritesConfig:
    """Cut writes short and check that the old file is intact."""

    places: int = 20
    """places at which the write of each kind of file is cut, from the first byte to the last"""
    json: str | None = None
    """file for the counts"""


def checkpoint(path: Path, version: int) -> None:
    weights = {f"layer{number}": torch.full((64, 64), float(version)) for number in range(8)}
    save_checkpoint(path, "tokenizer", "st-fsq", {}, weights, version, {}, "data")


def store(path: Path, version: int) -> None:
    with ClipStoreWriter(path, (16, 16), {"source": "fault", "action_names": []}, overwrite=True) as writer:
        for _ in range(4):
            writer.add_episode(np.full((40, 16, 16, 3), version, np.uint8))


def tokens(path: Path, version: int) -> None:
    write_array_atomically(path, np.full((500, 64), version, np.int32))


def report(path: Path, version: int) -> None:
    save_json(path, {"version": version, "numbers": list(range(2_000))})


def film(path: Path, version: int) -> None:
    save_gif(path, np.random.default_rng(version).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))


def store_version(path: Path) -> int:
    frames = open_clip_store(path).frames
    assert len(frames) == 160 and (frames == frames[0, 0, 0, 0]).all()
    return int(frames[0, 0, 0, 0])


KINDS: dict[str, tuple[str, Callable[[Path, int], None], Callable[[Path], int]]] = {
    "checkpoint": ("model.pt", checkpoint, lambda path: load_checkpoint(path, "tokenizer")["step"]),
    "clip_store": ("store", store, store_version),
    "token_cache": ("tokens.npy", tokens, lambda path: int(np.load(path).mean())),
    "report": ("metrics.json", report, lambda path: read_json(path)["version"]),
    "film": ("dream.gif", film, lambda path: path.stat().st_size),
}
"""kind of file -> (its name, how version n of it is written, how its version is read back, which fails on a damaged one)"""


def cut_write(write: Callable[[Path, int], None], path: Path, largest: int, kill: bool) -> int:
    """Write version 2 in a child process that may write files of at most `largest` bytes. Returns the child's exit code."""
    child = os.fork()
    if child == 0:  # pragma: no cover, another process
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        code = 0
        try:
            write(path, 2)
        except InputError as error:
            code = 2 if "disk is full" in str(error) else 3
        except BaseException as error:
            print(f"  not in one sentence: {type(error).__name__}: {error}", flush=True)
            code = 4
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def try_kind(folder: Path, kind: str, places: int) -> dict[str, int]:
    """Cut the writing of version 2 over version 1 at evenly spaced places, killed and with a full disk."""
    name, write, version = KINDS[kind]
    counts = {"killed": 0, "full": 0, "damaged": 0, "not_swept": 0, "not_in_one_sentence": 0}
    complete = folder / f"{kind}-complete" / name
    write(complete, 2)
    files = [file for file in (complete.rglob("*") if complete.is_dir() else [complete]) if file.is_file()]
    largest = max(file.stat().st_size for file in files)
    cuts = np.linspace(0, largest - 1, places).astype(int).tolist()
    for kill, size in itertools.product((True, False), cuts):
        path = folder / f"{kind}-{size}-{kill}" / name
        write(path, 1)
        before = version(path)
        code = cut_write(write, path, size, kill)
        assert code != 0, f"{kind} of {largest} bytes was written to its end although cut at {size}"
        counts["killed" if kill else "full"] += 1
        counts["not_in_one_sentence"] += not kill and code != 2
        counts["damaged"] += version(path) != before
        write(path, 2)  # the next start
        counts["damaged"] += version(path) != version(complete)
        counts["not_swept"] += sum(entry.name != name for entry in path.parent.iterdir())
        shutil.rmtree(path.parent)
    return counts


def full_disk(folder: Path) -> dict[str, Any]:
    """A training and a recording on a tmpfs that is too small, then with room."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        return {"skipped": "this user may not mount a tmpfs"}
    try:
        return {"training": full_disk_training(disk), "recording": full_disk_recording(disk)}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def call(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *command.split(), *map(str, arguments)]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)


@contextmanager
def room(disk: Path, size: int) -> Iterator[None]:
    """Inside the block the disk has room for that many bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - size)))
    yield
    ballast.unlink()


def says_that_the_disk_is_full(done: subprocess.CompletedProcess) -> bool:
    """Whether a script ended with code 2 and one sentence about the full disk; prints its output otherwise."""
    sentence = done.stderr.strip().splitlines()
    fine = done.returncode == 2 and len(sentence) == 1 and "disk is full" in sentence[0]
    if not fine:
        print(f"  exit code {done.returncode}\n{done.stderr[-1500:]}")
    return fine


def full_disk_training(disk: Path) -> dict[str, int]:
    """Train until the disk is full, then with room; the result must be that of a run that always had room."""
    train = (
        "1.video-tokenizer/train.py --use-dummy-data --frame-size 16 --embed-dim 32 --num-heads 2 --num-blocks 1 --batch-size 2 "
        "--validation-batches 1 --num-steps 12 --save-every 4 --validate-every 4 --checkpoint-dir"
    )
    undisturbed = disk.parent / "undisturbed"
    assert call(train, undisturbed).returncode == 0
    expected = load_checkpoint(undisturbed / "final_model.pt", "tokenizer")["weights"]
    used = sum(file.stat().st_size for file in undisturbed.iterdir())
    results = {"tries": 0, "one_sentence": 0, "resumed": 0}
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        place = disk / f"run-{share}"
        results["tries"] += 1
        with room(disk, int(used * share)):
            results["one_sentence"] += says_that_the_disk_is_full(call(train, place))
        fine = call(train, place).returncode == 0
        weights = load_checkpoint(place / "final_model.pt", "tokenizer")["weights"]
        results["resumed"] += fine and all(torch.equal(weights[name], expected[name]) for name in expected)
        shutil.rmtree(place)
    return results


def full_disk_recording(disk: Path) -> dict[str, int]:
    """Record a game of 3 MiB into less room, over an older recording that must stay as it was, then with room."""
    record = "1.video-tokenizer/record.py --env ALE/Pong-v5 --num-frames 1000 --frame-size 32 --overwrite --output"
    results = {"tries": 0, "one_sentence": 0, "resumed": 0}
    for share in (0.05, 0.5, 0.95):
        place = disk / "recording"
        store(place, 1)
        results["tries"] += 1
        with room(disk, int(1000 * 32 * 32 * 3 * share)):
            results["one_sentence"] += says_that_the_disk_is_full(call(record, place))
            kept = store_version(place) == 1 and {entry.name for entry in disk.iterdir()} == {"recording", "ballast"}
        fine = call(record, place).returncode == 0
        results["resumed"] += kept and fine and len(open_clip_store(place).frames) >= 1000
        shutil.rmtree(place)
    return results


def main() -> None:
    config = parse_config(WritesConfig)
    check_smallest(config, {"places": 2})
    with tempfile.TemporaryDirectory() as name:
        results: dict[str, Any] = {kind: try_kind(Path(name), kind, config.places) for kind in KINDS}
        for kind, counts in results.items():
            print(kind, counts, flush=True)
        results["full_disk"] = full_disk(Path(name))
        print("full disk", results["full_disk"])
    if config.json:
        save_json(config.json, results)
    bad = sum(results[kind][name] for kind in KINDS for name in ("damaged", "not_swept", "not_in_one_sentence"))
    tried = [counts for counts in results["full_disk"].values() if isinstance(counts, dict)]
    sys.exit(bool(bad) or any(len(set(counts.values())) > 1 for counts in tried))


if __name__ == "__main__":
    run_script(main)
