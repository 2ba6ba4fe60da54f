"""Cut every kind of write short, at many places, by killing the writer and by filling the disk, and look at what is left.

    python tests/faults/writes.py

The kernel does the cutting: a process may write a file only up to a given size, and the write beyond it either kills the process
in the middle (SIGXFSZ) or fails as on a full disk. A real full disk, a tmpfs of a few MiB, is tried as well where one may mount.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.figures import save_gif
from video_tokenizer.training.atomic_files import write_array_atomically
from video_tokenizer.training.checkpoint import load_checkpoint, save_checkpoint
from video_tokenizer.training.command_line import InputError, check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class WritesConfig:
    """Cut writes short and see whether the old file is still whole."""

    places: int = 20
    """places per kind of file at which the write is cut, from the first byte to the last"""
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
    """Cut the writing of version 2 over version 1 at evenly spread places, killed and with a full disk."""
    name, write, version = KINDS[kind]
    counts = {"killed": 0, "full": 0, "damaged": 0, "not_swept": 0, "not_in_one_sentence": 0}
    whole = folder / f"{kind}-whole" / name
    write(whole, 2)
    files = [file for file in (whole.rglob("*") if whole.is_dir() else [whole]) if file.is_file()]
    largest = max(file.stat().st_size for file in files)
    for kill in (True, False):
        for size in np.linspace(0, largest - 1, places).astype(int).tolist():
            place = folder / f"{kind}-{size}-{kill}"
            path = place / name
            write(path, 1)
            before = version(path)
            code = cut_write(write, path, size, kill)
            assert code != 0, f"{kind} of {largest} bytes was written whole although cut at {size}"
            counts["killed" if kill else "full"] += 1
            counts["not_in_one_sentence"] += not kill and code != 2
            counts["damaged"] += version(path) != before
            write(path, 2)  # the next start
            counts["damaged"] += version(path) != version(whole)
            counts["not_swept"] += sum(entry.name != name for entry in place.iterdir())
            shutil.rmtree(place)
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


def full_disk_training(disk: Path) -> dict[str, Any]:
    """Train until a ballast leaves no room, then without the ballast; the result must be that of a run that always had room."""
    sizes = "--use-dummy-data --frame-size 16 --embed-dim 32 --num-heads 2 --num-blocks 1 --batch-size 2 --validation-batches 1"
    rhythm = "--num-steps 12 --save-every 4 --validate-every 4"
    command = [sys.executable, "1.video-tokenizer/train.py", *sizes.split(), *rhythm.split(), "--checkpoint-dir"]

    def train(place: Path) -> subprocess.CompletedProcess:
        return subprocess.run([*command, str(place)], cwd=ROOT, capture_output=True, text=True)

    whole = disk.parent / "whole"
    assert train(whole).returncode == 0
    used = sum(file.stat().st_size for file in whole.iterdir())
    results = {"tries": 0, "one_sentence": 0, "resumed": 0}
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        place = disk / f"run-{share}"
        room = int(used * share)
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(bytes(max(0, free - room)))
        done = train(place)
        results["tries"] += 1
        results["one_sentence"] += refused_for_want_of_room(done)
        (disk / "ballast").unlink()
        done = train(place)
        weights = [load_checkpoint(folder / "final_model.pt", "tokenizer")["weights"] for folder in (whole, place)]
        results["resumed"] += done.returncode == 0 and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        shutil.rmtree(place)
    return results


def refused_for_want_of_room(done: subprocess.CompletedProcess) -> bool:
    """Whether a script ended with code 2 and the one sentence about the full disk; prints what it said otherwise."""
    sentence = done.stderr.strip().splitlines()
    fine = done.returncode == 2 and len(sentence) == 1 and "disk is full" in sentence[0]
    if not fine:
        print(f"  exit code {done.returncode}\n{done.stderr[-1500:]}")
    return fine


def full_disk_recording(disk: Path) -> dict[str, Any]:
    """Record a game of 3 MiB into less room, over an older recording that must stay as it was, then with room."""
    command = [
        sys.executable,
        "1.video-tokenizer/record.py",
        "--env",
        "ALE/Pong-v5",
        "--num-frames",
        "1000",
        "--frame-size",
        "32",
    ]
    results = {"tries": 0, "one_sentence": 0, "resumed": 0}
    for share in (0.05, 0.5, 0.95):
        place = disk / "recording"
        store(place, 1)
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(bytes(max(0, free - int(1000 * 32 * 32 * 3 * share))))
        again = [*command, "--output", str(place), "--overwrite"]
        results["tries"] += 1
        results["one_sentence"] += refused_for_want_of_room(subprocess.run(again, cwd=ROOT, capture_output=True, text=True))
        kept = store_version(place) == 1 and [entry.name for entry in disk.iterdir()] in (
            ["recording", "ballast"],
            ["ballast", "recording"],
        )
        (disk / "ballast").unlink()
        done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True)
        results["resumed"] += kept and done.returncode == 0 and len(open_clip_store(place).frames) >= 1000
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
