"""Bad data are refused with one sentence that names the problem, and exit code 2 from the script."""

from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from script_runner import call

from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import read_video_frames, write_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import ball_position, detect_player
from video_tokenizer.games.emulator import Game

RECORD = Path(__file__).parents[2] / "1.video-tokenizer" / "record.py"


def noise_video(path: Path, num_frames: int = 30, size: int = 32, codec: str = "mp4v") -> bytes:
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, size, size, 3)).astype(np.uint8)
    write_video(path, frames, 10.0, codec)
    return path.read_bytes()


def refusal(path: Path) -> str:
    """The sentence with which a source is refused. It leaves no half-written store behind."""
    with pytest.raises(InputError) as error:
        open_clips_source(path, frame_size=(16, 16))
    assert "\n" not in str(error.value) and not [*path.glob(".clip_store*"), *path.parent.glob("*clip_store*")]
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.mp4", b"this is no video\n" * 50, "notes.mp4 cannot be opened as a video"),
        ("empty.mp4", b"", "empty.mp4 cannot be opened as a video"),
        ("table.csv", b"1,2,3", "table.csv is neither a clip store, a video, an image nor an HDF5 file"),
        ("picture.png", b"\x89PNG but not really", "picture.png cannot be read as an image"),
        ("play.h5", b"this is no HDF5", "play.h5 cannot be read as HDF5"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_a_folder_without_video_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "contains no clip store, no videos, no images and no HDF5 files" in refusal(tmp_path)
    (tmp_path / "readme.txt").write_text("hello")
    assert "contains no clip store" in refusal(tmp_path)
    np.save(tmp_path / "frames.npy", np.zeros((4, 16, 16, 3), np.uint8))
    assert "is not a complete clip store, it lacks actions.npy, episodes.npy, clip_store.json" in refusal(tmp_path)


def test_a_truncated_video_is_refused(tmp_path):
    """An .mp4 has its index at the end. An .avi cut in half still opens, and ends early."""
    for name, codec, reason in (("half.mp4", "mp4v", "cannot be opened as a video"), ("half.avi", "MJPG", "ends after")):
        content = noise_video(tmp_path / name, codec=codec)
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert f"{name} {reason}" in refusal(tmp_path / name)


def test_a_small_video_is_not_enlarged(tmp_path):
    noise_video(tmp_path / "small.mp4", size=12)
    assert "small.mp4 has frames of 12x12 pixels, smaller than the 16x16 asked for" in refusal(tmp_path / "small.mp4")


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"pixels": (4, 16, 16)}, "has no array of RGB frames under frames, video, videos, observations or images"),
        ({"frames": (4, 16, 16)}, "has shape (4, 16, 16) instead of (N, H, W, 3)"),
        ({"frames": (4, 8, 8, 3)}, "has frames of 8x8 pixels, smaller than the 16x16 asked for"),
    ],
)
def test_an_hdf5_file_with_other_arrays_is_refused(tmp_path, shapes, reason):
    with h5py.File(tmp_path / "play.h5", "w") as file:
        for key, shape in shapes.items():
            file[key] = np.zeros(shape, np.uint8)
    assert reason in refusal(tmp_path / "play.h5")


def test_the_wrong_data_type_is_named(tmp_path):
    noise_video(tmp_path / "film.mp4")
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
    with pytest.raises(InputError, match="cannot be opened as a video"):
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
        ("Textual-v0", "does not render RGB pictures"),
    ],
)
def test_an_environment_that_cannot_be_filmed_says_why(env_id, reason):
    with pytest.raises(InputError) as error:
        Game(env_id).reset(seed=0)
    assert reason in str(error.value) and env_id in str(error.value) and "\n" not in str(error.value)


def test_an_impossible_picture_delay_is_refused():
    with pytest.raises(InputError, match="picture delay 4 is impossible with frame skip 4"):
        Game("ALE/Breakout-v5", picture_delay=4)


def test_an_unknown_ball_or_player_is_refused_by_name():
    with pytest.raises(InputError, match="the position of the ball in ALE/Boxing-v5 is not known"):
        ball_position(np.zeros((1, 128), np.uint8), "ALE/Boxing-v5")
    with pytest.raises(InputError, match="the position of the player in ALE/Tetris-v5 is not known"):
        detect_player(np.zeros((1, 64, 64, 3), np.uint8), "ALE/Tetris-v5")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--env", "ALE/Brekout-v5"], "ALE/Brekout-v5"),
        (["--policy", "genius"], "no policy 'genius'"),
        (["--num-frames", "0"], "--num-frames 0 is too small"),
        (["--picture-delay", "soon"], "--picture-delay 'soon'"),
        (["--env", "ALE/Boxing-v5", "--policy", "scripted", "--picture-delay", "0"], "no scripted player for ALE/Boxing-v5"),
        (["--video", "play.mp4"], "--video play.mp4 is the name of a film; give a folder"),
        (["--colour", "blue"], "--colour"),
    ],
)
def test_record_answers_a_bad_flag_with_one_sentence_and_exit_code_2(tmp_path, capsys, flags, reason):
    assert call(RECORD, "--num-frames", "64", "--output", str(tmp_path / "out"), *flags) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
