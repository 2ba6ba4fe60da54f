"""Clip stores that were edited, cut, or claim what they do not hold."""

import io
import json
from pathlib import Path

import numpy as np

from malformed.registry import RANDOM, add, case, written
from video_tokenizer.data.clip_store import ClipStoreWriter


def store(folder: Path) -> Path:
    """A sound one."""
    with ClipStoreWriter(folder / "store", (16, 16), {"action_names": ["NOOP", "UP"], "frames_per_second": 15.0}) as writer:
        for number in range(2):
            further = {"rewards": np.arange(20), "ends": np.arange(20) == 19, "lives": np.full(20, 5)}
            writer.add_episode(RANDOM.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), np.full(20, number), **further)
    return folder / "store"


def with_file(folder: Path, name: str, content: str | bytes) -> Path:
    """A store of which one file is another."""
    return written(store(folder) / name, content).parent


def with_info(folder: Path, **entries: object) -> Path:
    """A store with other entries in its clip_store.json."""
    path = store(folder)
    info = json.loads((path / "clip_store.json").read_text()) | entries
    written(path / "clip_store.json", json.dumps(info))
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of an .npy file, without the data that it claims."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


ENTRIES = {
    "store_with_another_checksum": {"checksum": "0" * 64},
    "store_of_another_version": {"format_version": 3},
    "store_with_an_array_of_another_place": {"arrays": {"../store/rewards": "0" * 64}},
    "store_whose_arrays_are_a_list": {"arrays": ["rewards"]},
    "store_whose_action_names_are_a_number": {"action_names": 5},
    "store_whose_speed_is_a_word": {"frames_per_second": "fast"},
    "store_whose_speed_is_nothing": {"frames_per_second": float("nan")},
    "store_whose_game_is_a_list": {"env_id": ["ALE/Pong-v5"]},
}
FILES = {
    "store_of_nested_brackets": ("clip_store.json", "[" * 100_000),
    "store_whose_description_is_a_list": ("clip_store.json", "[1]"),
    "store_whose_description_is_bytes": ("clip_store.json", b"\xff\xfe\x00"),
    "store_whose_actions_carry_objects": ("actions.npy", npy(np.array([{"run": "me"}] * 40, dtype=object))),
    "store_whose_actions_are_an_archive": ("actions.npy", npz(actions=np.zeros(40, np.int16))),
    "store_whose_actions_claim_terabytes": ("actions.npy", header("<i2", (10**12,))),
    "store_whose_rewards_carry_objects": ("rewards.npy", npy(np.array([{"run": "me"}] * 40, dtype=object))),
    "store_whose_rewards_are_too_few": ("rewards.npy", npy(np.zeros(39, np.float32))),
    "store_with_a_reward_changed": ("rewards.npy", npy(np.zeros(40, np.float32))),
    "store_whose_frames_claim_terabytes": ("frames.npy", header("|u1", (10**9, 64, 64, 3))),
    "store_of_frames_without_height": ("frames.npy", npy(np.zeros((40, 0, 16, 3), np.uint8))),
    "store_without_episodes": ("episodes.npy", npy(np.zeros((0, 2), np.int64))),
    "store_with_an_empty_episode": ("episodes.npy", npy(np.array([[0, 20], [20, 20]]))),
}
add("store", {name: lambda folder, entries=entries: with_info(folder, **entries) for name, entries in ENTRIES.items()})
add("store", {name: lambda folder, file=file: with_file(folder, *file) for name, file in FILES.items()})


@case("store")
def store_with_one_pixel_changed(folder):
    path = store(folder)
    frames = (path / "frames.npy").read_bytes()
    written(path / "frames.npy", frames[:-1] + bytes([frames[-1] ^ 1]))
    return path


@case("store")
def store_with_an_action_changed(folder):
    path = store(folder)
    actions = np.load(path / "actions.npy")
    actions[3] = 1 - actions[3]
    written(path / "actions.npy", npy(actions))
    return path


@case("store")
def store_whose_header_is_no_python(folder):
    """Found by fuzz.py: numpy's parser stops with an error of its own."""
    path = store(folder)
    content = (path / "episodes.npy").read_bytes()
    written(path / "episodes.npy", content.replace(b"}" + b" " * 20, b"}" + b" " * 15 + b", 1)}", 1))
    return path
