"""From what a person types to a film: actions, beginnings, files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from video_tokenizer.errors import InputError
from world_model.actions import action_label, parse_actions, read_action_file
from world_model.film import save_film
from world_model.starts import read_start
from world_model.world import WorldModel

GENERATE = REPOSITORY / "4.inference" / "generate.py"
MAP = {"NOOP": 0, "RIGHT": 2, "LEFT": 5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("worlds")
    return {kind: save_tiny_world(root / kind, kind) for kind in ("latent", "true")}


@pytest.fixture(scope="module")
def world(folders) -> WorldModel:
    return WorldModel.load(folders["latent"], "cpu")


# ---- actions as people write them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,3,1", [3, 3, 1, 3, 3]),
        ("RIGHT*2,LEFT", [2, 2, 5, 2, 2]),
        (" right , Left*3", [2, 5, 5, 5, 2]),
        ("4*100", [4, 4, 4, 4, 4]),
    ],
)
def test_a_list_of_actions_is_repeated_until_the_film_is_full(text, expected):
    assert parse_actions(text, 5, 6, MAP).tolist() == expected


def test_random_actions_are_seeded():
    first, again, other = (parse_actions("random", 50, 6, MAP, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert set(first) <= set(range(6))


def test_a_world_without_actions_needs_none():
    assert parse_actions("random", 3, 0).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("text", ["UP", "6", "-1", "", "RIGHT,,LEFT", "RIGHT*0", "RIGHT*x", "2*-3"])
def test_an_unknown_action_is_answered_with_the_names_there_are(text):
    with pytest.raises(InputError, match=r"NOOP, RIGHT, LEFT and the numbers 0 to 5|whole number"):
        parse_actions(text, 5, 6, MAP)


def test_an_action_file_is_a_list_or_an_object(tmp_path):
    path = tmp_path / "actions.json"
    path.write_text('[3, "LEFT"]')
    assert read_action_file(path).actions == (3, "LEFT")
    path.write_text('{"actions": [1], "seed": 4, "comment": "x"}')
    assert read_action_file(path).settings == {"seed": 4}


def test_a_frame_is_labelled_with_its_key_or_its_name():
    names = ["a", "b", "c"]
    assert [action_label(number, names, {"LEFT": 1}) for number in (0, 1, -1, 7)] == ["a", "LEFT", "", "action 7"]


# ---- beginnings and films -----------------------------------------------------------------------------------------------


def test_a_dream_begins_at_a_picture(world, tmp_path):
    Image.fromarray(some_frames(1)[0]).save(tmp_path / "start.png")
    frames, actions = read_start(world, str(tmp_path / "start.png"), 0)
    assert actions is None and np.array_equal(frames, some_frames(1))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_start(world, str(tmp_path / "text.png"), 0)


def test_a_dream_begins_at_one_of_the_worlds_own_starts(world):
    assert np.array_equal(read_start(world, None, 1)[0], world.start_frames[1])
    with pytest.raises(InputError, match=r"there are 2 start clips in this world"):
        read_start(world, None, 2)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".mp4"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_film_is_written_by_its_suffix(tmp_path, suffix, beside):
    videos = {"": some_frames(10)} if not beside else {"dream": some_frames(10), "real game": some_frames(10, seed=1)}
    save_film(tmp_path / f"film{suffix}", videos, ["LEFT"] * 10, 15.0)
    assert (tmp_path / f"film{suffix}").stat().st_size > 1000


def test_generate_films_a_dream_that_its_actions_file_repeats(folders, tmp_path, capsys):
    recording, film = tmp_path / "actions.json", tmp_path / "a.gif"
    recording.write_text(json.dumps({"actions": ["RIGHT", "LEFT", 3], "seed": 5}))
    assert call(GENERATE, "--world", folders["latent"], "--actions-file", recording, "--output", film) == 0
    printed = capsys.readouterr().out
    assert "3 frames" in printed and "seed 5" in printed
    with Image.open(film) as frames:
        assert frames.n_frames == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--output", "dream.txt"], ".gif, .mp4, .png"),
        (["--num-frames", "0"], "--num-frames 0"),
        (["--actions", "UP"], "no action 'UP'; there are NOOP, FIRE, RIGHT, LEFT and the numbers 0 to 5"),
        (["--start", "nowhere"], "nowhere does not exist"),
        (["--start-index", "9"], "--start-index 9"),
        (["--context-signal", "0.5"], "--context-signal is not a sampling flag of the dynamics model maskgit; it has --"),
        (["--world", "nowhere"], "nowhere does not exist"),
    ],
)
def test_generate_answers_bad_input_with_one_sentence(folders, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    assert call(GENERATE, "--world", folders["latent"], *flags) == 2
    assert words in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_generate_plays_the_real_game_beside_the_dream(folders, tmp_path):
    flags = ["--actions", "RIGHT*2,LEFT*2", "--num-frames", 6, "--beside-emulator", "ALE/Breakout-v5"]
    assert call(GENERATE, "--world", folders["true"], *flags, "--output", tmp_path / "both.png") == 0
    assert (tmp_path / "both.png").exists()
