"""The chapters one after the other, as a reader runs them, two steps each; and which input the scripts refuse."""

import io
import json
import shutil
import warnings
from contextlib import chdir, redirect_stdout
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch._dynamo
from script_runner import call, load_script, run
from structure_checks import REPOSITORY

from video_tokenizer.data.video_files import write_video
from video_tokenizer.games.moving_square import dummy_clip_store

TRAIN_1 = REPOSITORY / "1.video-tokenizer" / "train.py"
TINY = ("--embed-dim", 32, "--num-heads", 2, "--num-steps", 2, "--batch-size", 4, "--validation-batches", 1)
TINY_TOKENIZER = (*TINY, "--num-blocks", 1, "--context-frames", 2)
FILES_OF_A_RUN = {"best_model.pt", "final_model.pt", "resume.pt", "config.json", "metrics.json", "curves.png", "samples.png"}


# ---- chapter after chapter ----------------------------------------------------------------------------------------------


class Reader:
    """Somebody who runs the scripts from the root of the repository, or from inside a chapter's folder, without a warning."""

    def __init__(self, place: str, folder: Path):
        self.place = place
        self.folder = folder
        self.actions = {"root": "latent", "chapter": "true"}[place]  # so that both kinds of worlds are made
        self.compile = {"root": [], "chapter": ["--compile"]}[place]
        self.data = dummy_clip_store(folder / "data", frame_size=(32, 32)).path

    def runs(self, script: str, *arguments: object) -> str:
        """What a script prints; it must succeed. In a chapter's folder the first training has a process of its own."""
        chapter, name = script.split("/")
        if self.place == "chapter" and script == "1.video-tokenizer/train.py":
            done = run(name, *arguments, folder=REPOSITORY / chapter)
            assert done.returncode == 0 and "Warning" not in done.stderr, f"{script}: {done.stderr}"
            return done.stdout
        place = {"root": REPOSITORY, "chapter": REPOSITORY / chapter}[self.place]
        nothing_compiled = mock.patch.object(torch._dynamo.config, "disable", True)  # a minute per model
        with warnings.catch_warnings(action="error"), nothing_compiled, chdir(place), redirect_stdout(io.StringIO()) as output:
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")  # its own, when it is imported
            assert call(REPOSITORY / script, *arguments) == 0
        return output.getvalue()


@pytest.fixture(scope="module", params=["root", "chapter"])
def reader(request, tmp_path_factory):
    return Reader(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def tokenizer(reader):
    folder = reader.folder / "tokenizer"
    flags = (*TINY_TOKENIZER, *reader.compile, "--checkpoint-dir", folder)
    reader.runs("1.video-tokenizer/train.py", "--data-path", reader.data, *flags)
    return folder


@pytest.fixture(scope="module")
def latent_actions(reader):
    folder = reader.folder / "latent_actions"
    flags = (*TINY, *reader.compile, "--conv-width", 8, "--checkpoint-dir", folder)
    reader.runs("2.latent-action-model/train.py", "--data-path", reader.data, *flags)
    return folder


@pytest.fixture(scope="module")
def dynamics(reader, tokenizer, latent_actions):
    folder = reader.folder / "dynamics"
    models = {"--tokenizer-checkpoint": tokenizer, "--latent-action-checkpoint": latent_actions}
    flags = [word for flag, run_folder in models.items() for word in (flag, run_folder / "best_model.pt")]
    flags += ["--actions", reader.actions, *reader.compile, "--num-blocks", 1, "--checkpoint-dir", folder]
    reader.runs("3.dynamics-model/train.py", "--data-path", reader.data, *TINY, "--prior-steps", 2, *flags)
    return folder


@pytest.fixture(scope="module")
def world(reader, tokenizer, latent_actions, dynamics):
    folder = reader.folder / "world"
    folder.mkdir()
    for kind, run_folder in {"tokenizer": tokenizer, "latent_action_model": latent_actions, "dynamics": dynamics}.items():
        shutil.copy(run_folder / "best_model.pt", folder / f"{kind}.pt")
    return folder


def test_chapter_1_trains_and_validates(reader, tokenizer):
    assert {file.name for file in tokenizer.iterdir()} >= FILES_OF_A_RUN
    flags = ("--checkpoint", tokenizer / "best_model.pt", "--num-batches", 1, "--save-images")
    output = reader.runs("1.video-tokenizer/validate.py", *flags)
    assert "copy last frame" in output
    assert json.loads((tokenizer / "validation" / "validation.json").read_text())["codebook_size"] == 1000
    assert (tokenizer / "validation" / "noise_control.png").stat().st_size > 1000


def test_lpips_of_the_tokenizer_and_of_copying_are_of_the_same_frames(tokenizer, monkeypatch, tmp_path):
    script, pairs = REPOSITORY / "1.video-tokenizer" / "validate.py", []
    monkeypatch.setattr(load_script(script), "lpips_is_present", lambda: True)
    monkeypatch.setattr(load_script(script), "lpips_distance", lambda *pair: pairs.append(pair) or len(pairs) / 8)
    flags = ("--checkpoint", tokenizer / "best_model.pt", "--num-batches", 1, "--json", tmp_path / "scores.json")
    assert call(script, *flags) == 0
    (redrawn, target), (copied, same_target) = pairs
    assert redrawn.shape == target.shape and torch.equal(target, same_target)
    assert torch.equal(copied[:, 1:], target[:, :-1])
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["lpips"], scores["copy_last_lpips"]) == (1 / 8, 2 / 8)


def test_chapter_2_trains_and_validates(reader, latent_actions):
    assert {file.name for file in latent_actions.iterdir()} >= FILES_OF_A_RUN
    flags = ("--checkpoint", latent_actions / "best_model.pt", "--num-batches", 1, "--probe-steps", 3, "--save-images")
    reader.runs("2.latent-action-model/validate.py", *flags)
    assert -1 < json.loads((latent_actions / "validation" / "validation.json").read_text())["action_information"] <= 1


def test_chapter_3_trains_and_validates(reader, dynamics):
    assert {file.name for file in dynamics.iterdir()} >= FILES_OF_A_RUN
    flags = ("--num-batches", 1, "--num-rollouts", 2, "--num-samples", 1, "--save-images")
    reader.runs("3.dynamics-model/validate.py", "--checkpoint", dynamics / "best_model.pt", *flags)
    assert json.loads((dynamics / "validation" / "validation.json").read_text())["shuffle_ratio"] > 0


def test_chapter_4_generates_and_evaluates(reader, world):
    film = reader.folder / "dream.gif"
    reader.runs("4.inference/generate.py", "--world", world, "--num-frames", 3, "--output", film)
    assert film.read_bytes()[:4] == b"GIF8"
    numbers = reader.folder / "metrics.json"
    reader.runs("4.inference/evaluate.py", "--world", world, "--data-path", reader.data, "--quick", "--json", numbers)
    assert json.loads(numbers.read_text())["frames_per_second"] > 0


# ---- input that cannot be used ------------------------------------------------------------------------------------------


@pytest.fixture
def is_refused(tmp_path, capfd):
    """Checks that a script ends with code 2 and one sentence that holds the given words, and leaves nothing behind."""

    def check(words: str, script: str, *arguments: object) -> None:
        before = set(tmp_path.rglob("*"))
        capfd.readouterr()
        code = call(REPOSITORY / script, *arguments)
        error = capfd.readouterr().err
        assert code == 2, error
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert words in error
        assert set(tmp_path.rglob("*")) == before

    return check


@pytest.fixture
def train(is_refused, tmp_path):
    """Checks that chapter 1's training refuses some data."""

    def check(words: str, *arguments: object) -> None:
        is_refused(words, "1.video-tokenizer/train.py", *arguments, *TINY_TOKENIZER, "--checkpoint-dir", tmp_path / "run")

    return check


@pytest.fixture
def video(tmp_path):
    """A good video of 24 frames of 32x32 pixels, alone in its folder."""
    frames = np.arange(0, 240, 10, dtype=np.uint8).repeat(32 * 32 * 3).reshape(24, 32, 32, 3)
    write_video(tmp_path / "videos" / "good.mp4", frames, 10)
    return tmp_path / "videos" / "good.mp4"


def test_training_without_data_is_refused(train):
    train("give --data-path")


def test_a_missing_path_is_refused(train, tmp_path):
    train(f"{tmp_path / 'gone'} does not exist", "--data-path", tmp_path / "gone")


def test_an_empty_folder_is_refused(train, tmp_path):
    (tmp_path / "empty").mkdir()
    train("contains no", "--data-path", tmp_path / "empty")
    train("contains no video", "--data-path", tmp_path / "empty", "--data-type", "folder")


def test_a_text_file_named_mp4_is_refused(train, tmp_path):
    (tmp_path / "notes.mp4").write_text("this is no video\n" * 100)
    train("notes.mp4", "--data-path", tmp_path / "notes.mp4")


def test_a_truncated_video_is_refused(train, video):
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    train("good.mp4", "--data-path", video.parent)


def test_episodes_shorter_than_a_clip_are_refused(train, tmp_path):
    store = dummy_clip_store(tmp_path / "short", num_episodes=4, episode_frames=8, frame_size=(16, 16))
    train("no clip of 16 frames fits", "--data-path", store.path, "--num-frames", 16)


def test_one_bad_video_among_good_ones_is_named_skipped_and_counted(video, tmp_path, capfd):
    (video.parent / "broken.mp4").write_bytes(b"no video")
    flags = ("--data-path", video.parent, "--frame-size", 32, *TINY_TOKENIZER, "--checkpoint-dir", tmp_path / "run")
    assert call(TRAIN_1, *flags) == 0
    output = capfd.readouterr().out
    assert "skipped broken.mp4" in output and "skipped 1 of 2 files" in output
    assert (tmp_path / "run" / "best_model.pt").exists()


def test_frames_smaller_than_a_patch_are_refused(train, tmp_path):
    store = dummy_clip_store(tmp_path / "small", num_episodes=2, frame_size=(16, 16))
    train("frame_size 16 is smaller than patch_size 32", "--data-path", store.path, "--patch-size", 32)


def test_a_frame_size_that_the_patch_does_not_divide_is_refused(train):
    train("frame_size 36 is not a multiple of patch_size 8", "--use-dummy-data", "--frame-size", 36)


def test_a_frame_size_other_than_the_stores_is_refused(train, tmp_path):
    store = dummy_clip_store(tmp_path / "small", num_episodes=2, frame_size=(16, 16))
    train("frame_size 32 differs from the 16", "--data-path", store.path, "--frame-size", 32)


@pytest.mark.parametrize("name", ["frames.npy", "actions.npy", "episodes.npy", "clip_store.json"])
def test_a_clip_store_cut_short_is_refused(train, tmp_path, name):
    file = dummy_clip_store(tmp_path / "store", num_episodes=2, frame_size=(16, 16)).path / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    train(name, "--data-path", file.parent)
    file.unlink()
    train(name, "--data-path", file.parent)


def test_a_checkpoint_of_another_chapter_is_refused(is_refused, reader, tokenizer, latent_actions, tmp_path):
    wrong = latent_actions / "best_model.pt"
    is_refused("holds a latent_action_model", "1.video-tokenizer/validate.py", "--checkpoint", wrong)
    is_refused("holds a tokenizer", "2.latent-action-model/validate.py", "--checkpoint", tokenizer / "best_model.pt")
    is_refused("holds a tokenizer", "3.dynamics-model/validate.py", "--checkpoint", tokenizer / "best_model.pt")
    flags = ("--data-path", reader.data, "--tokenizer-checkpoint", wrong, "--checkpoint-dir", tmp_path / "run")
    is_refused("holds a latent_action_model", "3.dynamics-model/train.py", *flags)


def test_a_recording_shrunk_otherwise_than_that_of_the_training_is_refused(is_refused, reader, tokenizer, world, tmp_path):
    """Chapters 1 and 3 and the world, beside the same store made the other way."""
    other = tmp_path / "other"
    shutil.copytree(reader.data, other)
    info = json.loads((other / "clip_store.json").read_text())
    (other / "clip_store.json").write_text(json.dumps(info | {"linear_light": True}))
    refused = partial(is_refused, f"by averaging sRGB values, those of {other} by averaging light")
    refused("1.video-tokenizer/validate.py", "--checkpoint", tokenizer / "best_model.pt", "--data-path", other)
    flags = ("--data-path", other, "--actions", "true", "--tokenizer-checkpoint", tokenizer / "best_model.pt")
    refused("3.dynamics-model/train.py", *flags, "--checkpoint-dir", tmp_path / "run")
    refused("4.inference/generate.py", "--world", world, "--start", other, "--output", tmp_path / "dream.gif")
    refused("4.inference/evaluate.py", "--world", world, "--data-path", other, "--quick", "--json", tmp_path / "metrics.json")


def test_a_checkpoint_cut_short_is_refused(is_refused, tokenizer, tmp_path):
    content = (tokenizer / "best_model.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    is_refused("cut.pt is truncated", "1.video-tokenizer/validate.py", "--checkpoint", tmp_path / "cut.pt")
    is_refused("gone.pt does not exist", "1.video-tokenizer/validate.py", "--checkpoint", tmp_path / "gone.pt")


def test_an_unknown_game_is_refused(is_refused, tmp_path):
    is_refused("NoSuchGame", "1.video-tokenizer/record.py", "--env", "ALE/NoSuchGame-v5", "--output", tmp_path / "game")
    is_refused("nosuchgame", "4.inference/build_world.py", "--game", "nosuchgame", "--output", tmp_path / "world")


def test_a_recording_is_never_written_over_something_else(is_refused, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    is_refused("already exists", "1.video-tokenizer/record.py", "--output", tmp_path / "thesis")
    is_refused("is no clip store", "1.video-tokenizer/record.py", "--output", tmp_path / "thesis", "--overwrite")


def test_a_world_that_is_not_there_is_refused(is_refused, tmp_path):
    is_refused("does not exist", "4.inference/generate.py", "--world", tmp_path / "gone", "--output", tmp_path / "dream.gif")
    is_refused("does not exist", "4.inference/evaluate.py", "--world", tmp_path / "gone")


def test_what_a_reader_sees_is_one_sentence(tmp_path):
    done = run(TRAIN_1, "--data-path", tmp_path / "gone", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
