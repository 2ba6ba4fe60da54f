"""The ruler of second balls: planted ones are found at half the ball's contrast, and bricks and paddles are none."""

import cv2
import numpy as np
import pytest
import torch

from video_tokenizer import metrics
from video_tokenizer.games.detectors import SCREEN_SIZE, ball_lights, game_facts

GAMES = ("ALE/Breakout-v5", "ALE/Pong-v5")
AVERAGES = {"of levels": 1.0, "of light": 2.2}  # the exponent between a level and its light
FIELD = (100, 180, 30, 130)  # top, bottom, left, right on the screen: here is nothing but the ball
BRICK = (80, 86, 24, 32)
PADDLES = dict(zip(GAMES, [(189, 193, 60, 76), (100, 116, 140, 144)], strict=True))
PADDLES_ASIDE = dict(zip(GAMES, [(189, 193, 90, 106), (130, 146, 140, 144)], strict=True))


def frames_of(screens, average):
    """64x64 pixels, float (..., 64, 64, 3) in [0, 1], from screens with levels in 0 to 255."""
    flat = (screens.reshape(-1, *SCREEN_SIZE, 3) / 255) ** AVERAGES[average]
    shrunk = np.stack([cv2.resize(screen, (64, 64), interpolation=cv2.INTER_AREA) for screen in flat])
    return (shrunk ** (1 / AVERAGES[average])).reshape(*screens.shape[:-3], 64, 64, 3)


def paint(env_id, *boxes):
    """A screen (210, 160, 3) with boxes in the ball's color; a ball is 4 rows by 2 columns."""
    ball = game_facts(env_id).ball
    screen = np.full((*SCREEN_SIZE, 3), ball.background, np.float32)
    for top, bottom, left, right in boxes:
        screen[top:bottom, left:right] = ball.color
    return screen


@pytest.fixture(
    scope="module",
    params=[(game, average) for game in GAMES for average in AVERAGES],
    ids=lambda pair: f"{pair[0][4:-3]} {pair[1]}",
)
def scenes(request):
    """Game, 100 real frames with a ball, the same with a second one, the empty scene, and the first one's (x, y)."""
    env_id, average = request.param
    rng = np.random.default_rng(0)
    first = np.column_stack([rng.integers(FIELD[0], FIELD[1], 100), rng.integers(FIELD[2], FIELD[3], 100)])
    away = np.column_stack([rng.integers(20, 60, 100), rng.integers(12, 88, 100)])  # at least 6 pixels of 64
    second = np.array(FIELD[::2]) + (first - FIELD[::2] + away) % (80, 100)
    balls = [[(row, row + 4, column, column + 2) for row, column in places] for places in (first, second)]
    real = frames_of(np.stack([paint(env_id, PADDLES[env_id], one) for one in balls[0]]), average)
    both = frames_of(np.stack([paint(env_id, PADDLES[env_id], *pair) for pair in zip(*balls, strict=True)]), average)
    scene = frames_of(paint(env_id, PADDLES[env_id]), average)
    centers = (first[:, ::-1] + (1.0, 2.0)) * 64 / SCREEN_SIZE[::-1] - 0.5
    return env_id, average, real, both, scene, centers


def ghost_share(prediction, real, scene, centers):
    """Of the frames (T, H, W, 3), as one clip."""
    as_video = [torch.from_numpy(array).float().movedim(-1, -3)[None] for array in (prediction, real, scene)]
    found, visible = metrics.ghosts(as_video[0].expand_as(as_video[1]), *as_video[1:], torch.from_numpy(centers)[None])
    assert visible == len(real)
    return found / visible


def test_a_second_ball_of_half_the_contrast_is_found_and_one_of_a_quarter_is_not(scenes):
    _, _, real, both, scene, centers = scenes
    shares = {contrast: ghost_share(real + contrast * (both - real), real, scene, centers) for contrast in (1.0, 0.5, 0.25)}
    assert shares[1.0] >= 0.95 and shares[0.5] >= 0.95 and shares[0.25] <= 0.05


def test_frames_with_one_ball_have_no_second_one(scenes):
    env_id, average, real, _, scene, centers = scenes
    assert ghost_share(real, real, scene, centers) == 0.0
    assert ghost_share(scene, real, scene, centers) == 0.0  # nor have frames with none
    brick = frames_of(paint(env_id, PADDLES[env_id], BRICK), average)  # the recording's median shows one that is gone
    assert ghost_share(real + brick - scene, real, scene, centers) == 0.0
    aside = frames_of(paint(env_id, PADDLES_ASIDE[env_id]), average)
    assert ghost_share(real + aside - scene, real, scene, centers) == 0.0


def test_a_rollout_of_two_balls_shows_two_lights(scenes):
    env_id, _, real, both, scene, _ = scenes
    one, two, faint, none = (
        ball_lights((255 * video).round().astype(np.uint8), env_id)
        for video in (real, both, real + 0.25 * (both - real), scene[None])
    )
    enough = metrics.SECOND_BALL * np.median(one[:, 0])
    assert (one >= enough).sum(axis=1).tolist() == [1] * 100 and not (none >= enough).any()
    assert (two >= enough).all() and (faint[:, 1] >= enough).mean() <= 0.05
    half = ball_lights((255 * (real + 0.5 * (both - real))).round().astype(np.uint8), env_id)
    assert (half[:, 1] >= enough).mean() >= 0.95
