"""The pictures of chapter 4 are drawn from numbers that say what the text says of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from script_runner import call
from structure_checks import REPOSITORY

from video_tokenizer.training.checkpoint import load_checkpoint
from world_lab.drift import (
    confidence_by_place,
    frame_psnr,
    kept_pictures,
    longest_gap,
    longest_without,
    middle_stretch,
    player_series,
)
from world_lab.illustrations import heat, ringed, running_mean
from world_model.starts import frames_from_text

SCRIPT = REPOSITORY / "4.inference" / "lab" / "illustrate.py"
ASSETS = REPOSITORY / "assets" / "4.inference"
PICTURES = ("standing_still.png", "drift.png", "vanished_ball.png", "confidence.png", "sampling_steps.png")
BREAKOUT = "ALE/Breakout-v5"
RED = (200, 72, 72)


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    """What `illustrate.py --measure` has found out about the shipped world."""
    return json.loads((ASSETS / "drift.json").read_text())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    assert call(SCRIPT, "--output", folder) == 0
    return folder


def breakout(paddles: list[int], ball: tuple[int, int] | None = None) -> np.ndarray:
    """Frames (T, 64, 64, 3) uint8, black but for a paddle around each place and a ball of 2x2 pixels from row and column on."""
    video = np.zeros((len(paddles), 64, 64, 3), np.uint8)
    for frame, place in zip(video, paddles, strict=True):
        frame[57:59, place - 3 : place + 4] = RED
        if ball is not None:
            frame[ball[0] : ball[0] + 2, ball[1] : ball[1] + 2] = RED
    return video


def names_in(value: Any) -> Any:
    """The keys of nested dictionaries, without their values."""
    return {name: names_in(entry) for name, entry in value.items()} if isinstance(value, dict) else None


# ---- the pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_illustrate_draws_from_the_shipped_numbers(drawn, name):
    """Other versions of matplotlib place letters otherwise, other processors draw other tokens; what is shown stays."""
    ours, again = (Image.open(folder / name).convert("RGB") for folder in (ASSETS, drawn))
    assert abs(ours.width - again.width) < 20 and abs(ours.height - again.height) < 20
    small = [np.asarray(picture.resize((60, 40), Image.Resampling.BOX), np.float32) for picture in (ours, again)]
    assert np.abs(small[0] - small[1]).mean() < 4
    assert (ASSETS / name).stat().st_size < 60_000


def test_a_small_measurement_writes_the_same_names_as_the_shipped_one(numbers, tmp_path):
    few = ("--num-dreams", 2, "--num-frames", 8, "--num-long-dreams", 1, "--long-frames", 20, "--num-episodes", 1)
    files = ("--drift", tmp_path / "drift.json", "--output", tmp_path)
    assert call(SCRIPT, "--measure", *few, "--game-frames", 120, *files) == 0
    fresh = json.loads((tmp_path / "drift.json").read_text())
    assert names_in(fresh) == names_in(numbers)
    assert fresh["player"]["dream"]["error_px"] and len(fresh["player"]["dream"]["error_px"]) == 8
    assert all(0 <= value <= 1 for series in fresh["ball"].values() for value in series["share"])
    assert all((tmp_path / name).is_file() for name in PICTURES)


def test_without_numbers_the_script_says_how_to_measure_them(tmp_path, capsys):
    assert call(SCRIPT, "--drift", tmp_path / "drift.json", "--output", tmp_path) == 2
    assert "illustrate.py --measure" in capsys.readouterr().err
    (tmp_path / "drift.json").write_text('{"settings": {}}')
    assert call(SCRIPT, "--drift", tmp_path / "drift.json", "--output", tmp_path) == 2
    assert "holds no 'player'" in capsys.readouterr().err


# ---- what the text says of them -----------------------------------------------------------------------------------------


def test_psnr_knows_no_difference_between_standing_still_and_dreaming_under_other_keys(numbers):
    still, other, dream = (numbers["player"][kind] for kind in ("still", "random_keys", "dream"))
    for frame in (4, 16, 64):
        assert abs(still["psnr_db"][frame - 1] - other["psnr_db"][frame - 1]) < 1
    assert 0 < dream["psnr_db"][63] - still["psnr_db"][63] < 3  # what obeying is worth in decibels
    assert max(dream["error_median_px"]) < 2 and min(still["error_median_px"][7:]) > 7  # and in pixels


def test_a_low_temperature_leaves_dreams_without_a_ball(numbers):
    real, usual, cold = (numbers["ball"][kind] for kind in ("real", "dream", "cold"))
    assert real["late_share"] - usual["late_share"] < 0.1 < real["late_share"] - cold["late_share"]
    assert real["gone"] == 0 and cold["gone"] > usual["gone"]
    assert cold["comes_back"] < usual["comes_back"] < real["comes_back"]


def test_long_dreams_stay_in_the_range_that_a_frozen_one_leaves(numbers):
    long = numbers["long"]
    for name in ("foreground", "moving"):
        dreams = np.array(long["dream"][name])
        assert ((long["low"][name] <= dreams) & (dreams <= long["high"][name])).mean() > 0.9
    assert (np.array(long["still"]["moving"])[:, 1:] == 0).all() and long["low"]["moving"] > 0


def test_doubt_sits_at_ball_and_player(numbers):
    places = numbers["confidence"]["by_place"]
    assert places["ball"] < places["player"] < places["neither"] and places["neither"] > 0.98


# ---- how the numbers come about, small enough to check by hand ----------------------------------------------------------


def test_the_error_of_a_still_picture_is_the_way_of_the_real_player():
    real = breakout([20, 29, 38, 38])
    still = np.repeat(real[:1], 4, axis=0)
    series = player_series(still[None], real[None], BREAKOUT)
    assert series["error_px"] == pytest.approx([0, 9, 18, 18], abs=0.5)  # the paddle runs 9 pixels a step
    same = player_series(real[None], real[None], BREAKOUT)
    assert same["error_px"] == [0, 0, 0, 0] and same["psnr_db"] == [np.inf] * 4


def test_the_psnr_of_a_paddle_in_the_wrong_place_is_flattering():
    """28 of 4,096 pixels are wrong by (200, 72, 72) of 255: a mean squared error of 0.0018, 27.5 dB."""
    error = 28 / 4096 * np.mean(np.square(np.array(RED) / 255))
    assert frame_psnr(breakout([20]), breakout([38])) == pytest.approx(-10 * np.log10(error)) == pytest.approx(27.5, abs=0.1)


def test_the_longest_gap_of_a_ball():
    assert longest_gap(np.array([True, True, False, False, False, True, False])) == (2, 3)
    assert longest_gap(np.array([False, True, False, False])) == (2, 2)
    assert longest_gap(np.array([True, True]))[1] == 0


def test_the_stretch_that_is_shown_is_the_middle_one_and_not_the_best():
    real = np.stack([breakout([20] * 4)] * 3)
    dream = np.stack([breakout([20] * 4), breakout([50] * 4), breakout([26] * 4)])  # 0, 30 and 6 pixels off
    chosen = middle_stretch({"real": real, "dream": dream, "still": real}, BREAKOUT)
    assert chosen["stretch"] == 2 and chosen["frames"] == [4]
    assert chosen["dream"]["error_px"] == pytest.approx([6] * 4, abs=0.5) and chosen["still"]["error_px"] == [0] * 4


def test_the_dream_that_is_shown_is_the_one_without_a_ball_longest():
    there, gone = breakout([20] * 6, ball=(40, 30)), breakout([20] * 6)
    cold = np.stack([there, np.concatenate([there[:2], gone[2:]])])
    chosen = longest_without({"real": np.stack([there] * 2), "dream": np.stack([there] * 2), "cold": cold}, BREAKOUT)
    assert (chosen["stretch"], chosen["gone_for"], chosen["frames"]) == (1, 4, [2, 3, 4, 5, 6])  # frame 2 is the last with it


def test_confidence_is_told_apart_by_what_a_patch_shows():
    """8x8 patches of 8 pixels: the ball at row 41, column 31 is in patch (5, 3), the paddle from 17 to 23 in patch (7, 2)."""
    video = breakout([20], ball=(41, 28))[None]
    probability = np.full((1, 1, 8, 8), 0.9)
    probability[..., 5, 3], probability[..., 7, 2] = 0.3, 0.6
    found = confidence_by_place(probability.reshape(1, 1, 64), video, (8, 8), BREAKOUT)
    assert found["by_place"] == pytest.approx({"ball": 0.3, "player": 0.6, "neither": 0.9})
    assert np.array(found["mean"]).shape == (8, 8) and found["mean"][5][3] == 0.3
    assert found["share_doubtful"] == pytest.approx(2 / 64)


def test_a_heat_map_is_yellow_where_the_model_is_sure():
    picture = heat(np.array([[1.0, 0.5], [0.2, 0.75]]), 3)
    assert picture.shape == (6, 6, 3)
    sure, doubt, less, between = picture[0, 0], picture[0, 3], picture[3, 0], picture[3, 3]
    assert sure.tolist() == [253, 231, 36] and doubt.tolist() == less.tolist() == [68, 1, 84]
    assert between.tolist() not in (sure.tolist(), doubt.tolist())


def test_a_running_mean_has_as_many_values_as_full_windows():
    assert running_mean([1, 2, 3, 6], 2).tolist() == [1.5, 2.5, 4.5]
    assert running_mean([1, 3], 8).tolist() == [2]


def test_kept_pictures_differ_by_what_nobody_sees():
    frames = load_checkpoint(ASSETS.parent / "worlds" / "breakout" / "dynamics.pt", "dynamics")["start_frames"][0].numpy()
    again = frames_from_text(kept_pictures(frames), (64, 64))
    assert np.abs(again.astype(int) - frames).max() <= 4
    assert (ringed(frames, np.full((len(frames), 2), 30.0)) != ringed(frames, np.full((len(frames), 2), np.nan))).any()
