"""Whatever is wrong with the data, the answer is one sentence that names it, and exit code 2 from the script."""

from pathlib import Path

import cv2
import gymnasium
import h5py
import numpy as np
import pytest
from script_runner import call

from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import read_video_frames, write_video
from video_tokenizer.games.detectors import ball_position, detect_player
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.command_line import InputError

RECORD = Path(__file__).parents[2] / "1.video-tokenizer" / "record.py"


def grey_video(path: Path, num_frames: int = 30, size: int = 32) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, size, size, 3)).astype(np.uint8)
    write_video(path, frames, 10.0)
    return path


def make_missing(folder):
    return folder / "nowhere", "does not exist"


def make_empty_folder(folder):
    return folder, "contains no clip store, no videos, no images and no HDF5 files"


def make_folder_of_texts(folder):
    (folder / "readme.txt").write_text("hello")
    return folder, "contains no clip store"


def make_text_named_mp4(folder):
    (folder / "notes.mp4").write_text("this is no video\n" * 50)
    return folder, "has no file that can be used: notes.mp4 cannot be opened as a video"


def make_empty_file_named_mp4(folder):
    (folder / "empty.mp4").write_bytes(b"")
    return folder / "empty.mp4", "empty.mp4 cannot be opened as a video"


def make_truncated_video(folder):
    video = grey_video(folder / "half.mp4")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    return folder, "half.mp4 cannot be opened as a video"


def make_truncated_stream(folder):
    """An .avi has its index at the end and its frames in order: half of it still opens, and ends early."""
    path = folder / "half.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (32, 32))
    for frame in np.random.default_rng(0).integers(0, 255, (30, 32, 32, 3)).astype(np.uint8):
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder, "half.avi ends after"


def make_small_video(folder):
    grey_video(folder / "small.mp4", size=12)
    return folder, "small.mp4 has frames of 12x12 pixels, smaller than the 16x16 asked for"


def make_unknown_file(folder):
    (folder / "table.csv").write_text("1,2,3")
    return folder / "table.csv", "is neither a clip store, a video, an image nor an HDF5 file"


def make_broken_image(folder):
    (folder / "picture.png").write_bytes(b"\x89PNG but not really")
    return folder, "picture.png cannot be read as an image"


def make_incomplete_store(folder):
    np.save(folder / "frames.npy", np.zeros((4, 16, 16, 3), np.uint8))
    return folder, "is not a complete clip store, it lacks actions.npy, episodes.npy, clip_store.json"


def make_text_named_h5(folder):
    (folder / "play.h5").write_text("this is no HDF5")
    return folder / "play.h5", "cannot be read as HDF5"


def make_h5_without_frames(folder):
    with h5py.File(folder / "play.h5", "w") as file:
        file["pixels"] = np.zeros((4, 16, 16, 3), np.uint8)
    return folder / "play.h5", "has no key frames, video, videos, observations or images, only pixels"


def make_h5_of_grey_frames(folder):
    with h5py.File(folder / "play.h5", "w") as file:
        file["frames"] = np.zeros((4, 16, 16), np.uint8)
    return folder / "play.h5", "has shape (4, 16, 16) instead of (N, H, W, 3)"


def make_h5_with_too_few_actions(folder):
    with h5py.File(folder / "play.h5", "w") as file:
        file["frames"], file["actions"] = np.zeros((4, 16, 16, 3), np.uint8), np.zeros(3, int)
    return folder / "play.h5", "key 'actions'"


def make_h5_of_small_frames(folder):
    with h5py.File(folder / "play.h5", "w") as file:
        file["frames"] = np.zeros((4, 8, 8, 3), np.uint8)
    return folder / "play.h5", "has frames of 8x8 pixels, smaller than the 16x16 asked for"


@pytest.mark.parametrize("make", [value for name, value in list(globals().items()) if name.startswith("make_")])
def test_an_unusable_source_is_refused_in_one_sentence(tmp_path, make):
    path, reason = make(tmp_path)
    with pytest.raises(InputError) as error:
        open_clips_source(path, frame_size=(16, 16))
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]  # no half-written store stays behind


def test_the_wrong_data_type_is_named(tmp_path):
    grey_video(tmp_path / "film.mp4")
    for data_type, reason in {
        "images": "contains no image",
        "h5": "contains no HDF5 file",
        "film": "no data type 'film'",
    }.items():
        with pytest.raises(InputError, match=reason):
            open_clips_source(tmp_path, data_type, (16, 16))


def test_a_folder_of_static_videos_only_is_refused_by_the_filter(tmp_path):
    write_video(tmp_path / "night.mp4", np.zeros((30, 32, 32, 3), np.uint8), 10.0)
    with pytest.raises(InputError, match="is left after filtering static stretches"):
        open_clips_source(tmp_path, frame_size=(16, 16), filter_static=True)


def test_a_start_video_that_is_none_is_refused(tmp_path):
    (tmp_path / "notes.mp4").write_text("this is no video")
    with pytest.raises(InputError, match="cannot be decoded as a video"):
        read_video_frames(tmp_path / "notes.mp4", 3)


@pytest.mark.parametrize("env_id", ["ALE/Brekout-v5", "Nothing-v0", "no id at all", "Brekout"])
def test_an_unknown_game_is_refused_by_name(env_id):
    with pytest.raises(InputError) as error:
        Game(env_id)
    assert env_id in str(error.value) and "\n" not in str(error.value)


class Continuous(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return 0, {}


class Undrawable(Continuous):
    action_space = gymnasium.spaces.Discrete(2)

    def render(self):
        raise gymnasium.error.DependencyNotInstalled('pygame is not installed, run `pip install "gymnasium[classic-control]"`')


class Textual(Continuous):
    action_space = gymnasium.spaces.Discrete(2)

    def render(self):
        return "a picture made of letters"


for name, kind in {"Continuous": Continuous, "Undrawable": Undrawable, "Textual": Textual}.items():
    gymnasium.register(f"{name}-v0", kind)


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("Continuous-v0", "only environments with discrete actions"),
        ("Undrawable-v0", "pip install"),
        ("Textual-v0", "does not draw RGB pictures"),
    ],
)
def test_an_environment_that_cannot_be_filmed_says_why(env_id, reason):
    with pytest.raises(InputError) as error:
        Game(env_id).reset(seed=0)
    assert reason in str(error.value) and env_id in str(error.value) and "\n" not in str(error.value)


def test_an_impossible_picture_delay_is_refused():
    with pytest.raises(InputError, match="picture delay 4 is impossible with frame skip 4"):
        Game("ALE/Breakout-v5", picture_delay=4)


def test_the_ball_of_a_game_without_one_is_not_guessed():
    with pytest.raises(InputError, match="the place of the ball in ALE/Boxing-v5 is not known"):
        ball_position(np.zeros((1, 128), np.uint8), "ALE/Boxing-v5")
    with pytest.raises(InputError, match="the place of the player in ALE/Tetris-v5 is not known"):
        detect_player(np.zeros((1, 64, 64, 3), np.uint8), "ALE/Tetris-v5")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--env", "ALE/Brekout-v5"], "ALE/Brekout-v5"),
        (["--policy", "genius"], "no policy 'genius'"),
        (["--num-frames", "0"], "--num-frames 0 is too small"),
        (["--picture-delay", "soon"], "--picture-delay 'soon'"),
        (["--env", "ALE/Boxing-v5", "--policy", "scripted", "--picture-delay", "0"], "no scripted player for ALE/Boxing-v5"),
        (["--colour", "blue"], "--colour"),
    ],
)
def test_record_answers_a_bad_flag_with_one_sentence_and_exit_code_2(tmp_path, capsys, flags, reason):
    assert call(RECORD, "--num-frames", "64", "--output", str(tmp_path / "out"), *flags) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
