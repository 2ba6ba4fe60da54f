"""Outputs that are no plain files, that cannot be written, or that two processes write at the same time."""

import multiprocessing
import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from script_runner import call, parse_only
from structure_checks import REPOSITORY, scripts

from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import write_video
from video_tokenizer.errors import InputError
from video_tokenizer.figures import save_picture
from video_tokenizer.training.atomic_files import FolderLock, one_at_a_time, write_text_atomically
from video_tokenizer.training.command_line import OUTPUTS

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
RED = np.full((16, 16, 3), (255, 0, 0), np.uint8)


# ---- devices, pipes and links: written to, never replaced ---------------------------------------------------------------


@posix
def test_a_link_stays_and_the_file_it_points_at_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    for name, write in {
        "a.json": lambda path: write_text_atomically(path, "{}"),
        "a.png": lambda path: save_picture(path, RED),
        "a.mp4": lambda path: write_video(path, [RED] * 3, 10),
    }.items():
        (tmp_path / name).symlink_to(Path("disk") / name)  # a relative link, to a file that is not there yet
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).stat().st_size > 0
    assert len([*tmp_path.iterdir()]) == 4 and len([*(tmp_path / "disk").iterdir()]) == 3  # nothing else is left


@posix
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text_atomically(tmp_path / "pipe", '{"psnr_db": 30}')
    reader.join(timeout=10)
    assert read == ['{"psnr_db": 30}'] and (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(not hasattr(os, "mknod") or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(tmp_path):
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    write_text_atomically(tmp_path / "null", "{}")
    assert (tmp_path / "null").is_char_device()


@posix
@pytest.mark.parametrize("by_link", [False, True])
def test_an_open_file_gets_what_was_printed_and_then_the_output(tmp_path, by_link):
    with open(tmp_path / "out.txt", "w+") as file:
        file.write("printed before\n")
        file.flush()
        path = Path(f"/dev/fd/{file.fileno()}")
        if by_link:
            (tmp_path / "stdout").symlink_to(path)
            path = tmp_path / "stdout"
        write_text_atomically(path, "{}\n")
        file.write("printed after\n")
    assert (tmp_path / "out.txt").read_text().splitlines()[:2] == ["printed before", "{}"]
    assert not by_link or (tmp_path / "stdout").is_symlink()


@posix
def test_a_recording_into_a_linked_folder_lands_where_the_link_points(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "game").symlink_to("disk")
    for value, overwrite in ((1, False), (2, True), (3, True)):  # an empty folder is free; a store is replaced when asked to
        with ClipStoreWriter(tmp_path / "game", (16, 16), {}, overwrite) as writer:
            writer.add_episode(np.full((8, 16, 16, 3), value, np.uint8))
        assert open_clip_store(tmp_path / "disk").frames[0, 0, 0, 0] == value
        assert (tmp_path / "game").is_symlink() and len([*tmp_path.iterdir()]) == 2


# ---- outputs that cannot be written are refused before the work ---------------------------------------------------------


def scripts_that_write() -> Iterator[tuple[Path, str]]:
    for script in scripts():
        text = script.read_text()
        flags = [name for name in OUTPUTS if f"\n    {name}: str" in text]
        yield from ((script, name) for name in flags)


@pytest.mark.parametrize(("script", "name"), [*scripts_that_write()], ids=lambda value: str(getattr(value, "stem", value)))
def test_a_script_refuses_an_output_that_cannot_be_written_before_it_does_anything(script, name, tmp_path):
    (tmp_path / "file").write_text("")
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(InputError, match=f"{flag} .*file/new.gif cannot be written .*is a file"):
        parse_only(script, [flag, str(tmp_path / "file" / "new.gif")])


@pytest.mark.parametrize(("script", "name"), [*scripts_that_write()], ids=lambda value: str(getattr(value, "stem", value)))
def test_a_script_takes_no_file_for_a_folder_and_no_folder_for_a_file(script, name, tmp_path):
    """What a flag's help calls a file or a film is one, and everything else that can be written is a folder."""
    (tmp_path / "file.png").write_text("")
    flag = f"--{name.replace('_', '-')}"
    helped = re.search(rf'\n    {name}: str[^\n]*\n    """(.*?)"""', script.read_text(), re.DOTALL)
    assert helped
    is_file = re.match("fil[em] ", helped[1]) is not None
    wrong, kind, other = (tmp_path, "folder", "file") if is_file else (tmp_path / "file.png", "file", "folder")
    with pytest.raises(InputError, match=f"{flag} .* is a {kind}; give a {other}"):
        parse_only(script, [flag, str(wrong)])


@pytest.mark.parametrize("reason", ["Permission denied", "Read-only file system"])
def test_the_reason_of_the_system_is_part_of_the_sentence(tmp_path, monkeypatch, reason):
    def refuse(**_: object) -> None:
        raise OSError(13, reason)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=f"--checkpoint-dir .*new/run cannot be written \\({reason}\\)"):
        parse_only(REPOSITORY / "1.video-tokenizer/train.py", ["--checkpoint-dir", str(tmp_path / "new" / "run")])


def test_a_name_may_be_as_long_as_the_disk_allows_but_not_longer(tmp_path):
    write_text_atomically(tmp_path / ("a" * 250 + ".json"), "{}")  # its temporary neighbour has a shorter name
    write_text_atomically(tmp_path / ("ü" * 100 + ".json"), "{}")
    with pytest.raises(InputError, match="cannot be written"):
        parse_only(REPOSITORY / "4.inference/evaluate.py", ["--json", str(tmp_path / ("a" * 300 + ".json"))])
    with pytest.raises(InputError, match="cannot be written"):
        write_text_atomically(tmp_path / ("a" * 300 + ".json"), "{}")


@pytest.mark.parametrize(("script", "flag"), [("evaluate", "--json"), ("generate", "--output")])
def test_a_file_is_never_written_over_a_folder(tmp_path, capsys, script, flag):
    (tmp_path / "out.gif").mkdir()
    assert call(REPOSITORY / f"4.inference/{script}.py", flag, tmp_path / "out.gif") == 2
    assert "out.gif is a folder" in capsys.readouterr().err


@posix
def test_links_in_a_circle_and_sockets_are_refused_and_a_broken_link_is_followed(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with socket.socket(socket.AF_UNIX) as other, chdir(tmp_path):  # the name of a socket is short
        other.bind("socket")
    for name in ("a", "socket"):
        with pytest.raises(InputError, match=f"--json .*{name} cannot be written"):
            parse_only(REPOSITORY / "4.inference/evaluate.py", ["--json", str(tmp_path / name)])
    (tmp_path / "run").symlink_to("disk/run")
    FolderLock(tmp_path / "run").release()
    assert (tmp_path / "disk" / "run").is_dir()


def test_checking_an_output_leaves_nothing_behind(tmp_path):
    parse_only(REPOSITORY / "4.inference/evaluate.py", ["--json", str(tmp_path / "new" / "numbers.json")])
    assert not [*tmp_path.iterdir()]


# ---- two at the same time ------------------------------------------------------------------------------------------------


def open_often(folder: Path, step: int, answers: Any) -> None:
    """Open a folder of images a few times while others do the same, and touch it so that it is decoded anew."""
    for _ in range(4):
        try:
            os.utime(folder / "0.png")
            answers.put(f"{len(open_clips_source(folder, frame_size=(16, 16), frame_step=step).frames)} of step {step}")
        except Exception as error:
            answers.put(repr(error))


def test_processes_that_open_one_folder_at_the_same_time_get_what_they_asked_for(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((40, 40, 3), 20 * number, np.uint8))
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    answers = context.Queue()
    workers = [context.Process(target=open_often, args=(tmp_path, step, answers)) for step in (1, 1, 3)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=60) for _ in range(12)]
    for worker in workers:
        worker.join()
    assert sorted(found) == ["12 of step 1"] * 8 + ["4 of step 3"] * 4
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".clip_store-16x16", ".clip_store-16x16-frame_step-3"]


def test_a_process_that_waits_says_for_what_and_a_killed_one_holds_nothing(tmp_path, capfd):
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "store", holding))
    holder.start()
    assert holding.wait(timeout=60)
    threading.Timer(1.5, holder.kill).start()
    with one_at_a_time(tmp_path / "store"), one_at_a_time(tmp_path / "store"):
        holder.join()
    assert f"waiting for another process that is writing {tmp_path / 'store'}" in capfd.readouterr().err
    assert not [*tmp_path.iterdir()]


def hold(path: Path, holding: Any) -> None:
    """Enter and stay, until the process is killed."""
    with one_at_a_time(path):
        holding.set()
        threading.Event().wait()
