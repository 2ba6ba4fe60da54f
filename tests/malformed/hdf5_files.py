"""HDF5 files of the wrong shape, type or range, or that reach for what is not theirs."""

from pathlib import Path

import h5py
import numpy as np

from malformed.registry import NOISE, RANDOM, add, case, cut, written


def hdf5(folder: Path, **arrays: object) -> Path:
    """A file with these keys."""
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


SHAPE = (4, 16, 16, 3)
FRAMES = {
    "floats_up_to_255": NOISE.astype(np.float32),
    "no_numbers": np.full(SHAPE, np.nan, np.float32),
    "negative_floats": np.full(SHAPE, -0.5, np.float32),
    "words": np.full(SHAPE, b"pixel"),
    "complex_numbers": np.zeros(SHAPE, np.complex64),
    "large_integers": np.full(SHAPE, 300, np.int32),
    "no_frames": np.zeros((0, 16, 16, 3), np.uint8),
    "four_channels": np.zeros((4, 16, 16, 4), np.uint8),
}
KEYS = {
    "episodes_backwards": {"episodes": np.array([[10, 20], [0, 10]])},
    "episodes_that_stop_before_they_start": {"episodes": np.array([[10, 0]])},
    "no_episodes": {"episodes": np.zeros((0, 2), np.int64)},
}
add("source", {f"hdf5_of_{name}": lambda folder, frames=frames: hdf5(folder, frames=frames) for name, frames in FRAMES.items()})
add("source", {f"hdf5_with_{name}": lambda folder, keys=keys: hdf5(folder, frames=NOISE, **keys) for name, keys in KEYS.items()})
UNUSED = {
    "actions_that_are_fractions": {"actions": np.full(20, 0.5)},
    "actions_that_are_no_numbers": {"actions": np.full(20, np.nan)},
    "actions_below_minus_one": {"actions": np.full(20, -7)},
    "words_as_actions": {"actions": np.full(20, b"left")},
    "fewer_actions": {"actions": np.zeros(7, np.int64)},
}
add("source", {f"hdf5_with_{name}": lambda folder, keys=keys: hdf5(folder, frames=NOISE, **keys)
               for name, keys in UNUSED.items()}, frames=20)  # fmt: skip
add("source", {"hdf5_cut_in_half": lambda folder: cut(hdf5(folder, frames=NOISE))})


@case("source", frames=20)
def hdf5_with_a_group_of_frames(folder):
    path = hdf5(folder)
    with h5py.File(path, "a") as file:
        file.create_group("frames")["0"] = NOISE
    return path


@case("source", frames=20)
def hdf5_with_a_group_of_actions(folder):
    path = hdf5(folder, frames=NOISE)
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    return path


@case("source")
def hdf5_of_gigantic_frames(folder):
    """A few kilobytes on the disk, 30 GB when read."""
    path = hdf5(folder)
    with h5py.File(path, "a") as file:
        file.create_dataset("frames", (1, 100_000, 100_000, 3), np.uint8, chunks=(1, 1_000, 1_000, 3), compression="gzip")
    return path


@case("source", frames=20)
def hdf5_of_gigantic_actions(folder):
    """Ten billion actions, 80 GB when read; they are not, because there are 20 frames."""
    path = hdf5(folder, frames=NOISE)
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", (10**10,), np.int64, chunks=(10**6,))
    return path


@case("source")
def hdf5_whose_episodes_are_files_of_others(folder):
    """A link in a group, which is not followed."""
    (folder / "other").mkdir()
    other = hdf5(folder / "other", frames=NOISE)
    path = hdf5(folder)
    with h5py.File(path, "a") as file:
        file.create_group("data/demo_0")["frames"] = h5py.ExternalLink(str(other), "frames")
    return path


@case("source")
def hdf5_whose_actions_are_a_file_of_others(folder):
    """Its actions are the bytes of any file of this machine."""
    secret = written(folder / "secret.txt", RANDOM.bytes(20))
    path = hdf5(folder, frames=NOISE)
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", (20,), np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return path


@case("source")
def hdf5_that_points_at_another_file(folder):
    """Its frames are a link into somebody else's file."""
    (folder / "other").mkdir()
    other = hdf5(folder / "other", frames=NOISE)
    return hdf5(folder, frames=h5py.ExternalLink(str(other), "frames"))


@case("source")
def hdf5_that_reads_a_file_as_pixels(folder):
    """Its frames are the bytes of any file of this machine."""
    secret = written(folder / "secret.txt", RANDOM.bytes(4 * 16 * 16 * 3))
    path = hdf5(folder)
    with h5py.File(path, "a") as file:
        file.create_dataset("frames", SHAPE, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return path
