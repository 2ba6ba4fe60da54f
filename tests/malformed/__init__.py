"""A museum of bad input: files that are broken, lie about themselves, are of another kind, or were made to do harm."""

from malformed import action_files, checkpoints, hdf5_files, pictures, stores  # noqa: F401, opening the rooms fills the museum
from malformed.museum import EXHIBITS

__all__ = ["EXHIBITS"]
