"""What surrounds a process: terminals that close, readers that leave, signals, narrow windows, notebooks, odd characters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from script_runner import load_script
from structure_checks import REPOSITORY

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import one_line, read_config_file
from video_tokenizer.training.device import choose_device
from video_tokenizer.training.run import ONE_REQUEST, stop_signals
from world_model.actions import read_action_file

TRAIN = REPOSITORY / "1.video-tokenizer" / "train.py"
RECORD = REPOSITORY / "1.video-tokenizer" / "record.py"
SIZES = ["--use-dummy-data", "--frame-size", "16", "--embed-dim", "24", "--num-heads", "2", "--num-blocks", "1", "--batch-size",
         "2", "--validation-batches", "1"]  # fmt: skip
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither such signals nor a POSIX shell")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash that ends with the exit code of the first program that fails."""
    line = f"set -o pipefail; {command}"
    return subprocess.run(["bash", "-c", line], env=os.environ | environment, capture_output=True, text=True, timeout=120)


def training(folder: Path, *flags: str) -> str:
    return " ".join([sys.executable, str(TRAIN), *SIZES, "--checkpoint-dir", str(folder), *flags])


# ---- streams ------------------------------------------------------------------------------------------------------------


@posix
def test_a_reader_that_has_enough_ends_a_script_without_a_traceback():
    done = shell(f"{sys.executable} {RECORD} --help | true")
    assert (done.returncode, done.stderr) == (141, "")


@posix
def test_a_training_whose_reader_left_saves_its_step(tmp_path):
    done = shell(training(tmp_path, "--num-steps", "100000", "--log-every", "1") + " | head -4")
    assert done.returncode in (130, 141) and done.stderr == "" and len(done.stdout.splitlines()) == 4
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] >= 1


@posix
def test_a_training_without_output_streams_still_trains(tmp_path):
    assert shell(training(tmp_path, "--num-steps", "2") + " >&- 2>&-").returncode == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 2


@posix
def test_the_picture_backend_of_a_notebook_is_not_needed():
    line = "import video_tokenizer.figures, matplotlib; print(matplotlib.get_backend().lower())"
    assert shell(f'{sys.executable} -c "{line}"', MPLBACKEND="module://matplotlib_inline.backend_inline").stdout == "agg\n"


@posix
def test_a_window_of_five_columns_still_shows_the_flags():
    done = shell(f"{sys.executable} {RECORD} --help", COLUMNS="5")
    assert done.returncode == 0 and "--num-frames" in done.stdout


@posix
def test_characters_that_a_terminal_does_not_have_end_nothing():
    source = "from video_tokenizer.training.command_line import run_script; run_script(lambda: print('up \u25b2'))"
    assert shell(f'{sys.executable} -c "{source}"', PYTHONIOENCODING="cp1252").stdout == "up ?\n"


def test_a_message_is_one_line_of_visible_characters():
    assert one_line("\x1b[31mred\x1b[0m \x1b]0;t\x07 a\nb\tü \u25b2") == "red ?]0;t? a b ü \u25b2"


# ---- signals ------------------------------------------------------------------------------------------------------------


@posix
def test_signals_that_come_together_are_one_request_to_save_and_end(tmp_path):
    """A terminal that closes, then SIGTERMs, as from `timeout` and a build that passes it on, until the process is gone."""
    command = training(tmp_path, "--num-steps", "100000", "--save-every", "2").split()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "resume.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    end = time.monotonic() + ONE_REQUEST / 2
    while process.poll() is None and time.monotonic() < end:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped after step" in printed and error == ""


def test_a_second_request_ends_the_process_at_once(monkeypatch):
    stop = {"requested": False}
    with pytest.raises(KeyboardInterrupt), stop_signals(stop):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same request, passed on by somebody else
        assert stop["requested"]
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2 * ONE_REQUEST)
        signal.raise_signal(signal.SIGINT)


@posix
def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup, whose trainings go on when the terminal is closed."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = {"requested": False}
        with stop_signals(stop):
            signal.raise_signal(signal.SIGHUP)
        assert not stop["requested"]
    finally:
        signal.signal(signal.SIGHUP, previous)


# ---- files that other programs wrote --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    """Windows' Notepad and PowerShell write one."""
    (tmp_path / "actions.json").write_text('[3, "LEFT"]', encoding=encoding)
    (tmp_path / "config.json").write_text('{"seed": 3}', encoding=encoding)
    assert read_action_file(tmp_path / "actions.json").actions == (3, "LEFT")
    assert read_config_file(tmp_path / "config.json") == {"seed": 3}


@pytest.mark.parametrize("name", ["meta", "hpu", "cuda:-1", "gpu"])
def test_a_device_that_cannot_compute_here_is_refused(name):
    with pytest.raises(InputError, match=f"--device {name} is not usable on this machine"):
        choose_device(name)


# ---- addresses ------------------------------------------------------------------------------------------------------------


def test_an_address_that_is_printed_can_be_opened():
    play = load_script(REPOSITORY / "4.inference" / "play.py")
    assert play.addresses_to_open("http://127.0.0.1:8000") == ["http://127.0.0.1:8000"]
    for served in ("http://0.0.0.0:8000", "http://[::]:8000"):
        shown = play.addresses_to_open(served)
        assert shown[0] == "http://127.0.0.1:8000" and not any("0.0.0.0" in one or "::" in one for one in shown)
