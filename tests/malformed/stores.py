"""Clip stores that were edited, cut, or claim what they do not hold."""

import json
from pathlib import Path

import numpy as np

from malformed.museum import RANDOM, Exhibit, exhibit
from video_tokenizer.data.clip_store import ClipStoreWriter


def store(folder: Path) -> Path:
    """A sound one."""
    with ClipStoreWriter(folder / "store", (16, 16), {"action_names": ["NOOP", "UP"], "frames_per_second": 15.0}) as writer:
        for number in range(2):
            writer.add_episode(RANDOM.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), np.full(20, number))
    return folder / "store"


def with_info(path: Path, **entries: object) -> Exhibit:
    file = path / "clip_store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    return path, None


@exhibit("store")
def store_with_one_pixel_changed(folder):
    path = store(folder)
    with open(path / "frames.npy", "rb+") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    return path, None


@exhibit("store")
def store_with_an_action_changed(folder):
    path = store(folder)
    actions = np.load(path / "actions.npy")
    actions[3] = 1 - actions[3]
    np.save(path / "actions.npy", actions)
    return path, None


@exhibit("store")
def store_with_another_checksum(folder):
    return with_info(store(folder), checksum="0" * 64)


@exhibit("store")
def store_of_another_version(folder):
    return with_info(store(folder), format_version=2)


@exhibit("store")
def store_whose_action_names_are_a_number(folder):
    return with_info(store(folder), action_names=5)


@exhibit("store")
def store_whose_speed_is_a_word(folder):
    return with_info(store(folder), frames_per_second="fast")


@exhibit("store")
def store_whose_speed_is_nothing(folder):
    return with_info(store(folder), frames_per_second=float("nan"))


@exhibit("store")
def store_whose_game_is_a_list(folder):
    return with_info(store(folder), env_id=["ALE/Pong-v5"])


@exhibit("store")
def store_of_nested_brackets(folder):
    path = store(folder)
    (path / "clip_store.json").write_text("[" * 100_000)
    return path, None


@exhibit("store")
def store_whose_description_is_a_list(folder):
    path = store(folder)
    (path / "clip_store.json").write_text("[1]")
    return path, None


@exhibit("store")
def store_whose_description_is_bytes(folder):
    path = store(folder)
    (path / "clip_store.json").write_bytes(b"\xff\xfe\x00")
    return path, None


@exhibit("store")
def store_whose_actions_carry_objects(folder):
    path = store(folder)
    np.save(path / "actions.npy", np.array([{"run": "me"}] * 40, dtype=object), allow_pickle=True)
    return path, None


@exhibit("store")
def store_whose_actions_are_an_archive(folder):
    path = store(folder)
    with open(path / "actions.npy", "wb") as file:
        np.savez(file, actions=np.zeros(40, np.int16))
    return path, None


@exhibit("store")
def store_whose_actions_claim_terabytes(folder):
    path = store(folder)
    with open(path / "actions.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": (10**12,)})
    return path, None


@exhibit("store")
def store_whose_frames_claim_terabytes(folder):
    path = store(folder)
    with open(path / "frames.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)})
    return path, None


@exhibit("store")
def store_whose_header_is_no_python(folder):
    """Found by fuzz.py: numpy's parser stops with an error of its own."""
    path = store(folder)
    content = (path / "episodes.npy").read_bytes()
    (path / "episodes.npy").write_bytes(content.replace(b"}" + b" " * 20, b"}" + b" " * 15 + b", 1)}", 1))
    return path, None


@exhibit("store")
def store_of_frames_without_height(folder):
    path = store(folder)
    np.save(path / "frames.npy", np.zeros((40, 0, 16, 3), np.uint8))
    return path, None


@exhibit("store")
def store_without_episodes(folder):
    path = store(folder)
    np.save(path / "episodes.npy", np.zeros((0, 2), np.int64))
    return path, None


@exhibit("store")
def store_with_an_empty_episode(folder):
    path = store(folder)
    np.save(path / "episodes.npy", np.array([[0, 20], [20, 20]]))
    return path, None
