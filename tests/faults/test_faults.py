"""Short versions of the scripts in this folder: killed processes, cut writes, two runs in one folder, losses that are NaN."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY

from faults.kill import commands, differences, survive
from faults.writes import KINDS, try_kind
from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import (
    FolderLock,
    clear_write_errors,
    replace_folder,
    temporary_neighbour,
    write_text_atomically,
)
from video_tokenizer.training.command_line import shown_command
from video_tokenizer.training.run import first_not_finite, is_finite

TRAIN = REPOSITORY / "1.video-tokenizer" / "train.py"
SIZES = ["--use-dummy-data", "--frame-size", "16", "--embed-dim", "32", "--num-heads", "2", "--num-blocks", "1", "--batch-size",
         "2", "--validation-batches", "1", "--num-steps", "6", "--save-every", "2", "--validate-every", "2"]  # fmt: skip


# ---- killed ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, dict[str, int]]:
    """Each chapter's training, killed once it has saved something; later chapters use the models of the earlier ones."""
    folder = tmp_path_factory.mktemp("killed")
    random = np.random.default_rng()  # other moments each time: a failure anywhere is a failure
    counts = {}
    for name, (command, _, last_file) in commands(folder, num_steps=20).items():
        if name != "world":
            script, *flags = command(folder / name / "undisturbed")
            assert call(REPOSITORY / str(script), *flags) == 0  # undisturbed, in this process
            counts[name] = survive(command, folder / name, 1, 0.5, last_file, random, "resume.pt")
    return counts


@pytest.mark.parametrize("chapter", ["tokenizer", "latent_actions", "dynamics"])
def test_a_training_killed_anywhere_ends_with_the_same_bits(killed, chapter):
    assert killed[chapter]["kills"] == 1 and killed[chapter]["lost"] == 0


def test_a_single_bit_counts_as_a_difference():
    weights = {"a": torch.zeros(3), "seconds": 1.0}
    other = {"a": torch.tensor([0.0, 1e-38, 0.0]), "seconds": 2.0}
    assert differences(weights, {"a": torch.zeros(3), "seconds": 5.0}) == [] and differences(weights, other) == ["/a"]
    assert differences({"loss": [1.0, 2.0]}, {"loss": [1.0, 2.5]}) == ["/loss/1"]
    assert differences({}, {"b": 1}) == ["/b is in one only"]


def stopped_by(number: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Training that receives a signal as soon as it has saved something."""
    command = [sys.executable, str(TRAIN), *SIZES, "--num-steps", "100000", "--checkpoint-dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "resume.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_and_says_how_to_resume(tmp_path, number):
    done = stopped_by(number, tmp_path / "run")
    assert done.returncode == 130, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    again = last.split("resume with: ")[1]
    assert again.endswith(f"{TRAIN} {' '.join(SIZES)} --num-steps 100000 --checkpoint-dir {tmp_path / 'run'}")
    step = int(last.split("stopped after step ")[1].split(";")[0].replace(",", ""))
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"] == step


def test_a_run_that_was_killed_after_its_last_step_only_writes_what_is_missing(tmp_path, capfd):
    assert call(TRAIN, *SIZES, "--checkpoint-dir", tmp_path) == 0
    weights = (tmp_path / "final_model.pt").read_bytes()
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "samples.png").unlink()
    assert call(TRAIN, *SIZES, "--checkpoint-dir", tmp_path) == 0
    assert "resuming from step 6 of 6" in capfd.readouterr().out
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "samples.png").exists()
    assert (tmp_path / "final_model.pt").read_bytes() == weights and not (tmp_path / "previous-1").exists()


# ---- writes ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system cannot limit the size of a file")
@pytest.mark.parametrize("kind", KINDS)
def test_a_write_cut_anywhere_leaves_the_old_file_intact(tmp_path, kind):
    counts = try_kind(tmp_path, kind, 4)
    assert counts == {"killed": 4, "full": 4, "damaged": 0, "not_swept": 0, "not_in_one_sentence": 0}


def test_a_store_whose_replacement_was_killed_between_two_renames_is_found_again(tmp_path):
    path = tmp_path / "store"
    with ClipStoreWriter(path, (16, 16), {}) as writer:
        writer.add_episode(np.full((8, 16, 16, 3), 7, np.uint8))
    with mock.patch.object(Path, "rename") as rename:
        rename.side_effect = lambda target: (os.rename(path, target), rename.configure_mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            replace_folder(tmp_path / "new", path)
    assert not path.exists()
    assert open_clip_store(path).frames[0, 0, 0, 0] == 7 and [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_two_recordings_to_one_place_do_not_destroy_each_other(tmp_path):
    with pytest.raises(InputError, match="already exists"), ClipStoreWriter(tmp_path / "store", (16, 16), {}) as slow:
        with ClipStoreWriter(tmp_path / "other", (16, 16), {}) as quick:
            quick.add_episode(np.full((8, 16, 16, 3), 1, np.uint8))
        (tmp_path / "other").rename(tmp_path / "store")  # as if another process had finished first
        slow.add_episode(np.full((8, 16, 16, 3), 2, np.uint8))
    assert open_clip_store(tmp_path / "store").frames[0, 0, 0, 0] == 1


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours = temporary_neighbour(tmp_path / "a.json")
    left = [ours.with_name(ours.name.replace(str(os.getpid()), str(number))) for number in (dead.pid, os.getppid())]
    for file in left:
        file.write_text("half")
    write_text_atomically(tmp_path / "a.json", "{}")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a.json", left[1].name])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_is_one_sentence_whatever_the_library_says(tmp_path, error):
    is_full = mock.patch("video_tokenizer.training.atomic_files._free_bytes", return_value=100)
    with is_full, pytest.raises(InputError, match="its disk is full"), clear_write_errors(tmp_path / "model.pt"):
        raise error
    with pytest.raises(RuntimeError), clear_write_errors(tmp_path / "model.pt"):
        raise RuntimeError("something else, with room on the disk")


# ---- two in one folder -------------------------------------------------------------------------------------------------


def test_the_second_run_in_a_folder_is_refused_with_the_first_ones_number(tmp_path, capfd):
    lock = FolderLock(tmp_path)
    assert call(TRAIN, *SIZES, "--checkpoint-dir", tmp_path) == 2
    assert f"{tmp_path} is in use by process {os.getpid()};" in capfd.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    lock.release()
    FolderLock(tmp_path).release()


# ---- numbers -----------------------------------------------------------------------------------------------------------


def train_with_a_broken_loss(folder: Path, step: int) -> str:
    """Train in this process with a loss that is NaN at one step. Returns the error message."""
    script = load_script(TRAIN)
    healthy, calls = script.weighted_mse, []

    def breaks(reconstruction: torch.Tensor, *others: object) -> torch.Tensor:
        calls.append(reconstruction.requires_grad)
        return healthy(reconstruction, *others) * (float("nan") if sum(calls) == step and calls[-1] else 1.0)

    argv = [str(TRAIN), *SIZES, "--checkpoint-dir", str(folder)]
    patches = mock.patch.object(script, "weighted_mse", breaks), mock.patch.object(sys, "argv", argv)
    with patches[0], patches[1], pytest.raises(InputError) as error:
        script.main()
    return str(error.value)


def test_a_nan_loss_stops_the_run_and_names_what_broke(tmp_path, capfd):
    sentence = train_with_a_broken_loss(tmp_path, 4)
    assert "at step 4 the loss is nan" in sentence and "the gradient of" in sentence and "\n" not in sentence
    assert "resume.pt holds an earlier step" in sentence and sentence.endswith("--rate-factor 0.5")
    assert len(sentence.split("the batch was clips ")[1].split(";")[0].split(", ")) == 2
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 2
    assert call(TRAIN, *SIZES, "--checkpoint-dir", tmp_path, "--rate-factor", 0.5) == 0
    assert "resuming from step 2 of 6" in capfd.readouterr().out
    history = json.loads((tmp_path / "metrics.json").read_text())["history"]
    assert [entry["step"] for entry in history if "lr" in entry] == [1, 6]


def test_weights_that_are_ruined_already_are_not_resumed_from(tmp_path):
    """Step 5 begins with what step 4 saved: its loss would be NaN again, whatever the learning rate."""
    sentence = train_with_a_broken_loss(tmp_path / "run", 5)
    assert "would end here again" in sentence
    assert sentence.endswith(f"--rate-factor 0.5 --checkpoint-dir {tmp_path / 'run'}-again")


def test_before_anything_was_saved_the_sentence_says_so(tmp_path):
    assert "no earlier step was saved" in train_with_a_broken_loss(tmp_path, 1)


def test_the_first_tensor_that_is_not_finite_is_found():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    good = torch.ones(1, 2)
    model(good).sum().backward()
    assert first_not_finite(model, good) == "the loss" and is_finite([good, {"a": 1}])
    assert first_not_finite(model, good * float("nan")) == "the input"
    model[2].weight.data[:] = 1e38
    assert first_not_finite(model, good * 1e3 - 0.5) == "the output of 2 (Linear)"
    model[2].weight.data[:] = 1.0
    model[0].weight.grad[0, 0] = float("inf")
    assert first_not_finite(model, good) == "the gradient of 0.weight"
    model[2].bias.data[0] = float("nan")
    assert first_not_finite(model, good) == "the weight 2.bias"


def test_a_command_is_repeated_with_another_value():
    assert shown_command(["a.py", "--rate-factor", "0.5", "--seed=1"], rate_factor=0.25, seed=2).endswith(
        "a.py --rate-factor 0.25 --seed 2"
    )
