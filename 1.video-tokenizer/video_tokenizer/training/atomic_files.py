"""Files that are whole or not there: atomic writes, sweeping up after killed processes, full disks, one process per folder."""

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
"""bytes; where fewer are free, a write that failed without saying why failed for want of room"""


def temporary_neighbour(path: Path) -> Path:
    """The name under which this process writes what shall become `path`: hidden, and tells whose it is."""
    return path.with_name(f".{path.stem}.{platform.node()}-{os.getpid()}.tmp{path.suffix}")  # the suffix stays: savers look at it


def sweep(path: Path) -> None:
    """Remove what processes of this machine that are gone had begun to write for `path`: files or folders."""
    pattern = re.compile(re.escape(f".{path.stem}.{platform.node()}-") + r"(\d+)\.tmp" + re.escape(path.suffix))
    for leftover in path.parent.glob(".*.tmp*"):
        match = pattern.fullmatch(leftover.name)
        if match and _is_gone(int(match[1])):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _is_gone(process: int) -> bool:
    """Whether no process has this number; where one cannot ask without doing harm (Windows), it may be there."""
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
    """Let `write` fill a temporary neighbour of `path`, flush it to disk, then rename it over `path`.

    A reader sees the old file or the whole new one, never a part, whatever kills the process in between. What a killed process
    left behind is removed. Raises InputError where the disk is full.
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
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path | str, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """What `np.save` writes. np.save itself does not notice when the disk is full by the end, and leaves a file cut short."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array)))
    file.write(np.ascontiguousarray(array).data)


def write_array_atomically(path: Path | str, array: np.ndarray) -> None:
    """Write an .npy file so that it is either the old one or the whole new one."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            write_array(file, array)

    write_atomically(path, write)


def _old_one(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; what was there goes only after that. Killed in between, `restore_folder` undoes it."""
    old = _old_one(path)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Finish or undo a `replace_folder` whose process was killed."""
    old = _old_one(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(path)


@contextmanager
def clear_error_on_full_disk(path: Path) -> Iterator[None]:
    """Turn a write that fails for want of room into an InputError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch says RuntimeError, numpy an OSError without a number
        if _for_want_of_room(error) or (getattr(error, "errno", None) is None and _free_bytes(path) < ROOM):
            raise InputError(
                f"{path} cannot be written, its disk is full ({_free_bytes(path) / 2**20:,.0f} MiB free); "
                "what was there is kept, so make room and give the same command again"
            ) from None
        raise


def _for_want_of_room(error: BaseException | None) -> bool:
    """Whether this error, or one that it hides, is the system's word that a file cannot grow."""
    if error is None:
        return False
    return getattr(error, "errno", None) in DISK_IS_FULL or _for_want_of_room(error.__context__)


def _free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds the nearest folder above `path` that exists."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path.cwd())
    return shutil.disk_usage(folder).free


class FolderLock:
    """One process at a time works in a folder. The system takes the lock back when that process ends, however it ends."""

    def __init__(self, folder: Path):
        """Raises InputError, with the other process's number, where the folder is taken."""
        file = folder / ".lock"
        self._lock = FileLock(file, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            owner = ""
            with suppress(OSError):  # on Windows nobody else can read a locked file
                owner = file.read_text()
            raise InputError(
                f"{folder} is in use by process {owner or '(unknown)'}; wait until it has ended, stop it, or give another folder"
            ) from None
        with suppress(OSError):
            file.write_text(str(os.getpid()))

    def release(self) -> None:
        """Let others in; again and again does no harm."""
        self._lock.release()
