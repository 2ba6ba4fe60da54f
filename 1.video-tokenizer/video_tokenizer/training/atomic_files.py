"""Atomic file writes and a lock per folder: readers see the old file or the complete new one."""

import errno
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from video_tokenizer.errors import InputError

DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ROOM = 2**20
"""free bytes below which an unexplained write error is reported as a full disk"""


def temporary_neighbour(path: Path) -> Path:
    """A hidden name beside `path`, with the number of this process, to write to before renaming."""
    return path.with_name(f".{path.stem}.{platform.node()}-{os.getpid()}.tmp{path.suffix}")  # the suffix decides the format


def sweep(path: Path) -> None:
    """Remove temporary files and folders for `path` that killed processes of this machine left behind."""
    pattern = re.compile(re.escape(f".{path.stem}.{platform.node()}-") + r"(\d+)\.tmp" + re.escape(path.suffix))
    for leftover in path.parent.glob(".*.tmp*"):
        match = pattern.fullmatch(leftover.name)
        if match and _is_gone(int(match[1])):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _is_gone(process: int) -> bool:
    """Whether no process has this number. Asking would do harm on Windows, so there the answer is no."""
    if sys.platform == "win32":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`.

    A reader sees the old file or the complete new one, whenever the process is killed. Leftovers of killed processes are removed.
    Raises InputError if the disk is full.
    """
    path = Path(path)
    temporary = temporary_neighbour(path)
    try:
        with clear_error_on_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path | str, text: str) -> None:
    """Replace a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """Like `np.save`, which leaves a truncated file without an error if the disk fills up at its end."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array)))
    file.write(np.ascontiguousarray(array).data)


def write_array_atomically(path: Path | str, array: np.ndarray) -> None:
    """Replace an .npy file atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            write_array(file, array)

    write_atomically(path, write)


def _old_one(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`, and only then delete the old one. If killed in between, `restore_folder` repairs it."""
    old = _old_one(path)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Complete or undo a `replace_folder` whose process was killed."""
    old = _old_one(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(path)


@contextmanager
def clear_error_on_full_disk(path: Path) -> Iterator[None]:
    """Turn a write error on a full disk into an InputError that names `path`."""
    try:
        yield
    except (NotADirectoryError, FileExistsError):
        raise InputError(f"{path} cannot be written, because a part of its path is a file; give another place") from None
    except (OSError, RuntimeError) as error:  # torch says RuntimeError, numpy an OSError without a number
        if _for_want_of_room(error) or (getattr(error, "errno", None) is None and _free_bytes(path) < ROOM):
            raise InputError(
                f"{path} cannot be written, its disk is full ({_free_bytes(path) / 2**20:,.0f} MiB free); "
                "the old file is kept; free some space and repeat the command"
            ) from None
        raise


def _for_want_of_room(error: BaseException | None) -> bool:
    """Whether this error, or one it was raised from, says that a file cannot grow."""
    if error is None:
        return False
    return getattr(error, "errno", None) in DISK_IS_FULL or _for_want_of_room(error.__context__)


def _free_bytes(path: Path) -> int:
    """Free bytes on the disk of `path`."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path.cwd())
    return shutil.disk_usage(folder).free


class FolderLock:
    """At most one process works in a folder. The system releases the lock when that process ends, however it ends."""

    def __init__(self, folder: Path):
        """Raises InputError with the number of the process that holds the folder."""
        file = folder / ".lock"
        self._lock = FileLock(file, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            owner = ""
            with suppress(OSError):  # a locked file cannot be read on Windows
                owner = file.read_text()
            raise InputError(
                f"{folder} is in use by process {owner or '(unknown)'}; wait until it has ended, stop it, or give another folder"
            ) from None
        with suppress(OSError):
            file.write_text(str(os.getpid()))

    def release(self) -> None:
        self._lock.release()
