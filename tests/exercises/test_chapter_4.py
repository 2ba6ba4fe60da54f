"""Checks of the exercises of chapter 4."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from world_model.actions import parse_actions
from world_model.environment import WorldModelEnv
from world_model.evaluation.games import directions
from world_model.evaluation.rollouts import agreement
from world_model.world import WorldModel

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"


def test_exercise_1_the_dream_has_the_predicted_size(answers, tmp_path):
    world = WorldModel.load(save_tiny_world(tmp_path, "true"), "cpu")
    dream = world.rollout(world.start_frames[[0, 1, 0]], world.start_actions[[0, 1, 0]], np.zeros((3, 5), np.int64), 0)
    assert dream.shape == tuple(answers.size_of_dream(3, world.start_frames.shape[1], 5, 32))


def test_exercise_2_the_pattern_is_repeated(answers):
    assert answers.keys_pressed("LEFT*2,NOOP", 7) == ["LEFT", "LEFT", "NOOP", "LEFT", "LEFT", "NOOP", "LEFT"]
    names = ["NOOP", "FIRE", "RIGHT", "LEFT"]
    for pattern in ("RIGHT", "RIGHT*3,LEFT,NOOP*2", "FIRE,LEFT*9"):
        numbers = parse_actions(pattern, 8, 4, {name: number for number, name in enumerate(names)})
        assert answers.keys_pressed(pattern, 8) == [names[number] for number in numbers]


def test_exercise_3_obedience(answers):
    real = np.array([[0.0, 5.0, 10.0, 10.0, 5.0], [3.0, np.nan, 3.0, 3.0, 3.0]])
    dreamed = np.array([[0.0, 6.0, 6.5, 6.0, 1.0], [3.0, 3.0, 3.0, np.nan, 3.0]])
    assert answers.obedience(real, dreamed, 2.0) == pytest.approx(3 / 6)
    random = np.random.default_rng(0)
    real, dreamed = (random.normal(scale=4.0, size=(20, 9)).cumsum(axis=1) for _ in range(2))
    expected = agreement(directions(dreamed, 2.0), directions(real, 2.0), ["NOOP"] * 20)["obedience"]
    assert answers.obedience(real, dreamed, 2.0) == pytest.approx(expected)


def test_exercise_4_the_share_of_frames_with_a_ball(answers):
    seen, real = np.zeros((2, 20), bool), np.zeros((2, 20), bool)
    seen[:, :15] = True  # not counted: before the 16th dreamed frame
    real[0, 15:] = True
    assert answers.ball_gap(seen, real) == pytest.approx(50) and answers.ball_gap(real, seen) == pytest.approx(50)


class Frames(gymnasium.Env):
    """Shows prepared frames, one after the other."""

    def __init__(self, frames: np.ndarray):
        self.frames, self.number = frames, 0
        self.observation_space = gymnasium.spaces.Box(0, 255, frames.shape[1:], np.uint8)
        self.action_space = gymnasium.spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        """The first frame."""
        super().reset(seed=seed)
        self.number = 0
        return self.frames[0], {}

    def step(self, action):
        """The next frame, and a reward that must be replaced."""
        self.number += 1
        return self.frames[self.number], 7.0, False, False, {}


def test_exercise_5_a_fallen_brick_pays_and_the_ball_does_not(answers):
    starts = WorldModel.load(WORLD, "cpu").start_frames[:, 0]
    standing = (starts[:, 17:30, 4:60].max(axis=-1) >= 40).mean(axis=(1, 2))
    wall = starts[standing.argmax()].copy()
    assert standing.max() > 0.9  # nothing has fallen yet
    ball, fallen = wall.copy(), wall.copy()
    ball[20:22, 10] = 0
    fallen[20:22, 20:23] = 0
    env = answers.BrickReward(Frames(np.stack([wall, ball, wall, fallen, fallen])))
    env.reset(seed=0)
    assert [env.step(0)[1] for _ in range(4)] == [0.0, 0.0, 1.0, 0.0]
    env.reset(seed=0)
    assert env.step(0)[1] == 0.0


@pytest.mark.filterwarnings("ignore")
def test_exercise_5_gymnasium_accepts_the_wrapper(answers):
    check_env(answers.BrickReward(WorldModelEnv(WORLD, max_steps=8)), skip_render_check=True)
