"""HDF5 files of the wrong shape, type or range, or that reach for what is not theirs."""

from pathlib import Path

import h5py
import numpy as np

from malformed.museum import NOISE, RANDOM, exhibit


def hdf5(folder: Path, **arrays: object) -> Path:
    """A file with these keys."""
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


@exhibit("source")
def hdf5_of_floats_up_to_255(folder):
    return hdf5(folder, frames=NOISE.astype(np.float32)), None


@exhibit("source")
def hdf5_of_no_numbers(folder):
    return hdf5(folder, frames=np.full((4, 16, 16, 3), np.nan, np.float32)), None


@exhibit("source")
def hdf5_of_negative_floats(folder):
    return hdf5(folder, frames=np.full((4, 16, 16, 3), -0.5, np.float32)), None


@exhibit("source")
def hdf5_of_words(folder):
    return hdf5(folder, frames=np.full((2, 16, 16, 3), b"pixel")), None


@exhibit("source")
def hdf5_of_complex_numbers(folder):
    return hdf5(folder, frames=np.zeros((4, 16, 16, 3), np.complex64)), None


@exhibit("source")
def hdf5_of_large_integers(folder):
    return hdf5(folder, frames=np.full((4, 16, 16, 3), 300, np.int32)), None


@exhibit("source")
def hdf5_of_no_frames(folder):
    return hdf5(folder, frames=np.zeros((0, 16, 16, 3), np.uint8)), None


@exhibit("source")
def hdf5_with_alpha(folder):
    return hdf5(folder, frames=np.zeros((4, 16, 16, 4), np.uint8)), None


@exhibit("source")
def hdf5_with_a_group_of_frames(folder):
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_group("frames")["0"] = NOISE
    return path, None


@exhibit("source")
def hdf5_with_a_group_of_actions(folder):
    path = hdf5(folder, frames=NOISE)
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    return path, None


@exhibit("source")
def hdf5_of_gigantic_frames(folder):
    """A few kilobytes on the disk, 30 GB when read."""
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (1, 100_000, 100_000, 3), np.uint8, chunks=(1, 1_000, 1_000, 3), compression="gzip")
    return path, None


@exhibit("source")
def hdf5_of_gigantic_actions(folder):
    """Ten billion actions, 80 GB when read."""
    path = hdf5(folder, frames=NOISE)
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", (10**10,), np.int64, chunks=(10**6,))
    return path, None


@exhibit("source")
def hdf5_with_actions_that_are_fractions(folder):
    return hdf5(folder, frames=NOISE, actions=np.full(20, 0.5)), None


@exhibit("source")
def hdf5_with_actions_below_minus_one(folder):
    return hdf5(folder, frames=NOISE, actions=np.full(20, -7)), None


@exhibit("source")
def hdf5_with_episodes_backwards(folder):
    return hdf5(folder, frames=NOISE, episodes=np.array([[10, 20], [0, 10]])), None


@exhibit("source")
def hdf5_with_episodes_that_end_before_they_begin(folder):
    return hdf5(folder, frames=NOISE, episodes=np.array([[10, 0]])), None


@exhibit("source")
def hdf5_with_no_episodes(folder):
    return hdf5(folder, frames=NOISE, episodes=np.zeros((0, 2), np.int64)), None


@exhibit("source")
def hdf5_that_points_at_another_file(folder):
    """Its frames are a link into somebody else's file."""
    (folder / "other").mkdir()
    secret = hdf5(folder / "other", frames=NOISE)
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file["frames"] = h5py.ExternalLink(str(secret), "frames")
    return path, None


@exhibit("source")
def hdf5_that_reads_a_file_as_pixels(folder):
    """Its frames are the bytes of any file of this machine."""
    secret = folder / "secret.txt"
    secret.write_bytes(RANDOM.bytes(4 * 16 * 16 * 3))
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (4, 16, 16, 3), np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    return path, None


@exhibit("source")
def hdf5_cut_in_half(folder):
    path = hdf5(folder, frames=NOISE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, None
