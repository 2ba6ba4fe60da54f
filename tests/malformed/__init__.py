"""Files that are broken, lie about themselves, are of another kind, or were made to do harm."""

from malformed import action_files, checkpoints, hdf5_files, pictures, stores  # noqa: F401, importing them fills CASES
from malformed.registry import CASES

__all__ = ["CASES"]
