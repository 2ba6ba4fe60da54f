"""Feed mutated bytes, guided by coverage, to everything that reads files of strangers, and keep those that it cannot handle.

    pip install atheris
    python tests/faults/fuzz.py --minutes 30

A reader must read the bytes or refuse them with an InputError of one line. Anything else ends the run, and the bytes that caused
it are left in --findings, to become a case of tests/malformed.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if "--child" in sys.argv:  # only our own modules are instrumented: all of torch would take minutes
    import atheris

    instrumented = atheris.instrument_imports(include=["video_tokenizer", "world_model"])
else:
    instrumented = nullcontext()
with instrumented:
    from malformed import CASES
    from malformed.checkpoints import checkpoint
    from malformed.hdf5_files import hdf5
    from malformed.pictures import pictures, video
    from malformed.registry import NOISE, written
    from malformed.stores import store

    from video_tokenizer import load_tokenizer
    from video_tokenizer.data.clip_store import FILE_NAMES, FRAME_ARRAYS, ClipStoreWriter, open_clip_store
    from video_tokenizer.data.hdf5_files import convert_hdf5
    from video_tokenizer.data.video_files import BadVideo, read_video
    from video_tokenizer.errors import InputError
    from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
    from video_tokenizer.training.results import read_json, save_json
    from world_model.actions import read_action_file
    from world_model.starts import decode_picture, frames_from_text

STORE_FILES = (*FILE_NAMES, *(f"{name}.npy" for name in FRAME_ARRAYS))
READERS = ("store", "checkpoint", "hdf5", "video", "picture", "actions")
MEGABYTES = 4_096


@dataclass(frozen=True)
class FuzzConfig:
    """Feed readers with mutated bytes."""

    minutes: float = 30.0
    """for all readers together"""
    readers: tuple[str, ...] = READERS
    """which ones"""
    findings: str = "fuzz-findings"
    """folder for the bytes that a reader could not handle"""
    child: str | None = None
    """used by the script itself: the one reader that this process feeds"""
    seed: int = 1
    """of the mutations"""
    json: str | None = None
    """file for the counts"""


def reader(name: str, folder: Path) -> Callable[[bytes], object]:
    """What one execution does with the bytes."""
    path = folder / {"checkpoint": "a.pt", "hdf5": "a.h5", "video": "a.avi", "actions": "a.json"}.get(name, "a")
    sound = {file: file.read_bytes() for file in store(folder).iterdir()} if name == "store" else {}

    def read_store(data: bytes) -> None:
        """The first byte says which file of a sound store the others replace."""
        for file, content in sound.items():
            file.write_bytes(content)
        (folder / "store" / STORE_FILES[data[0] % len(STORE_FILES) if data else 0]).write_bytes(data[1:])
        open_clip_store(folder / "store")

    def convert(path: Path) -> None:
        with ClipStoreWriter(folder / "converted", (16, 16), {}, overwrite=True) as writer:
            convert_hdf5(path, writer)

    def read_text_or_picture(data: bytes) -> None:
        decode_picture(data)
        frames_from_text(data.decode("latin-1"), (16, 16))

    of_bytes: dict[str, Callable[[bytes], object]] = {"store": read_store, "picture": read_text_or_picture}
    of_files: dict[str, Callable[[Path], object]] = {
        "checkpoint": load_tokenizer,
        "hdf5": convert,
        "video": lambda path: [len(chunk) for chunk in read_video(path, (16, 16))],
        "actions": read_action_file,
    }
    return of_bytes.get(name) or (lambda data: of_files[name](written(path, data)))


def seeds(name: str, folder: Path) -> list[bytes]:
    """Bytes to start from: sound ones, and the malformed cases."""
    folder.mkdir(exist_ok=True)
    found = []
    if name == "store":
        sound = store(folder)
        found = [bytes([number]) + (sound / file).read_bytes() for number, file in enumerate(STORE_FILES)]
    elif name == "checkpoint":
        found = [checkpoint(folder).read_bytes()]
    elif name == "hdf5":
        found = [hdf5(folder, frames=NOISE[:2, :16, :16], actions=[0, 1], episodes=[[0, 1], [1, 2]]).read_bytes()]
    elif name == "video":
        found = [video(folder / f"{codec}.avi", NOISE[:3, :32, :32], codec).read_bytes() for codec in ("MJPG", "FFV1")]
    elif name == "picture":
        found = [(pictures(folder, NOISE[0], 1) / "0.png").read_bytes()]
    kind = {"hdf5": "source", "video": "source", "picture": "start"}.get(name, name)
    for case, (make, _) in CASES[kind].items():
        (folder / case).mkdir()
        path = make(folder / case)
        if path.is_file() and path.stat().st_size < 100_000 and (name != "hdf5" or path.suffix == ".h5"):
            found.append(path.read_bytes())
    return found


def feed(name: str, arguments: list[str]) -> None:
    """Let atheris feed one reader in this process; exits when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        read = reader(name, Path(folder))

        def once(data: bytes) -> None:
            try:
                read(data)
            except (InputError, BadVideo) as error:
                assert "\n" not in str(error), f"more than one line: {error}"

        atheris.Setup([sys.argv[0], *arguments], once)
        atheris.Fuzz()


def fuzz(name: str, seconds: int, seed: int, findings: Path) -> dict[str, Any]:
    """Feed one reader in a process that may crash. Returns {"executions", "findings", "ended_well"}."""
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds(name, Path(folder) / "seeds")):
            (corpus / str(number)).write_bytes(data)
        flags = [f"-max_total_time={seconds}", f"-artifact_prefix={findings}/{name}-", f"-rss_limit_mb={MEGABYTES}",
                 "-timeout=30", "-max_len=100000", "-print_final_stats=1", f"-seed={seed}", str(corpus)]  # fmt: skip
        command = [sys.executable, __file__, "--child", name, "--", *flags]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    found = sorted(file.name for file in findings.glob(f"{name}-*"))
    if found or executed is None:
        print(done.stderr[-3_000:])
    return {"executions": int(executed[1]) if executed else 0, "findings": len(found), "ended_well": done.returncode == 0}


def main() -> None:
    if "--" in sys.argv:  # libFuzzer's own flags follow
        place = sys.argv.index("--")
        feed(sys.argv[place - 1], sys.argv[place + 1 :])
    config = parse_config(FuzzConfig)
    check_smallest(config, {"minutes": 0.01})
    seconds = max(1, round(60 * config.minutes / len(config.readers)))
    results = {}
    for name in config.readers:
        results[name] = fuzz(name, seconds, config.seed, Path(config.findings))
        print(name, results[name], flush=True)
    if config.json:
        save_json(config.json, read_json(Path(config.json)) | results)  # readers that were not fed now keep their counts
    sys.exit(not all(counts["ended_well"] and not counts["findings"] for counts in results.values()))


if __name__ == "__main__":
    run_script(main)
