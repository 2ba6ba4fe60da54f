"""Atomic file writes and locks: readers see the old file or the complete new one, and writers wait for each other."""

import errno
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from video_tokenizer.errors import InputError

DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|\d+))/fd/(\d+)")
"""the path of an open file of this process: what /dev/stdout and the shell's >(command) stand for"""
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ROOM = 2**20
"""free bytes below which an unexplained write error is reported as a full disk"""


def temporary_neighbour(path: Path) -> Path:
    """A hidden name beside `path`, with the number of this process, to write to before renaming."""
    return path.with_name(f"{_temporary_start(path)}{os.getpid()}.tmp{path.suffix}")  # the suffix decides the format


def _temporary_start(path: Path) -> str:
    return f".{path.stem[:40]}.{platform.node()}-"  # shortened, so that the longest allowed name still has room for the number


def sweep(path: Path) -> None:
    """Remove temporary files and folders for `path` that killed processes of this machine left behind."""
    pattern = re.compile(re.escape(_temporary_start(path)) + r"(\d+)\.tmp" + re.escape(path.suffix))
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
    A link stays, and the file it points at is replaced. A device or a pipe is written to. Raises InputError if that fails.
    """
    path = Path(path)
    if _is_special(path):
        _write_through(path, write)
        return
    path = Path(os.path.realpath(path))
    temporary = temporary_neighbour(path)
    try:
        with clear_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _links(path: Path) -> Iterator[Path]:
    """The path, what it links to, what that links to, and so on."""
    for _ in range(40):  # a circle of links ends here, and the system's own error says so
        yield path
        if not os.path.islink(path):
            return
        path = path.parent / os.readlink(path)


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that a path such as /dev/stdout stands for; None for any other path."""
    matches = (DESCRIPTOR.fullmatch(os.path.abspath(link)) for link in _links(path))
    return next((int(match[1]) for match in matches if match), None)


def _is_special(path: Path) -> bool:
    """Whether a path is a device, a pipe or an open file, which can be written to but must never be replaced by a file."""
    return _descriptor(path) is not None or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def _write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, and send its bytes to a device, a pipe or an open file."""
    with tempfile.TemporaryDirectory(prefix="video-world-models-") as folder, clear_write_errors(path):
        temporary = Path(folder) / f"output{path.suffix}"
        write(temporary)
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before comes first
        number = _descriptor(path)
        with open(path if number is None else os.dup(number), "wb") as target, open(temporary, "rb") as source:
            shutil.copyfileobj(source, target)


def check_can_be_written(path: Path | str, flag: str, is_file: bool = False) -> None:
    """Raise InputError, before any work is done, for a file (or else a folder) that could not be written at the end. Leaves no
    trace."""
    path = Path(path)
    if is_file and os.path.isdir(path):
        raise InputError(f"{flag} {path} is a folder; give a file")
    if not is_file and os.path.isfile(path):
        raise InputError(f"{flag} {path} is a file; give a folder")
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # names the reason where the name is too long
        if _is_special(path):
            if _descriptor(path) is None and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if path.is_socket():
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return
        place = Path(os.path.realpath(path))
        if os.path.islink(place):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        while not place.is_dir():
            if place.exists() and place != Path(os.path.realpath(path)):
                raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
            place = place.parent
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise InputError(f"{flag} {path} cannot be written ({error.strerror or error}); give another place") from None


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
    with one_at_a_time(path):
        old = _old_one(path)
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Complete or undo a `replace_folder` whose process was killed."""
    path = Path(os.path.realpath(path))
    if not _old_one(path).exists():
        return
    with one_at_a_time(path):  # waits where that process is alive
        old = _old_one(path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(path)


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system into an InputError that names `path` and the reason."""
    try:
        yield
    except (NotADirectoryError, FileExistsError):
        raise InputError(
            f"{path} cannot be written, because a part of its path is a file or a broken link; give another place"
        ) from None
    except (OSError, RuntimeError) as error:  # torch says RuntimeError, numpy an OSError without a number
        if _for_want_of_room(error) or (getattr(error, "errno", None) is None and _free_bytes(path) < ROOM):
            raise InputError(
                f"{path} cannot be written, its disk is full ({_free_bytes(path) / 2**20:,.0f} MiB free); "
                "the old file is kept; free some space and repeat the command"
            ) from None
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, BrokenPipeError):
            raise InputError(f"{path} cannot be written ({error.strerror}); give another place") from None
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


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Processes that make the same thing take turns; a thread that is inside may enter again.

    The lock is a hidden file beside `path`. The system releases it when its process ends, however it ends.
    """
    file = path.with_name(f".{path.name.removeprefix('.')}.lock")
    with clear_write_errors(path):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, is_singleton=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"waiting for another process that is writing {path} ...", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # a process that already waits for this file finds it gone, and takes the next one
                file.unlink()
        lock.release()


class FolderLock:
    """At most one process works in a folder. The system releases the lock when that process ends, however it ends."""

    def __init__(self, folder: Path):
        """Raises InputError with the number of the process that holds the folder."""
        file = folder / ".lock"
        self._lock = FileLock(file, timeout=0)
        try:
            with clear_write_errors(folder):
                Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # where a link points, if it is one
                self._lock.acquire()
        except Timeout:
            owner = ""
            with suppress(OSError):  # a locked file cannot be read on Windows
                owner = file.read_text(encoding="utf-8")
            raise InputError(
                f"{folder} is in use by process {owner or '(unknown)'}; wait until it has ended, stop it, or give another folder"
            ) from None
        with suppress(OSError):
            file.write_text(str(os.getpid()), encoding="utf-8")

    def release(self) -> None:
        self._lock.release()
