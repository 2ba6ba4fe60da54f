"""An agent that learns in the dream: what it sees, what it is paid for, and that the emulator tests it as it was taught."""

import json

import gymnasium
import numpy as np
import pytest
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.games.emulator import Game
from world_model.ball_game import BallGame, RealGameEnv, three_keys
from world_model.scored_games import baselines, open_scored_game
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"
TRAIN = REPOSITORY / "4.inference" / "train_agent.py"


class Pictures(gymnasium.Env):
    """Shows one picture after the other, whatever is pressed."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, frames: list[np.ndarray]):
        self.frames, self.pressed = iter(frames), []

    def reset(self, *, seed=None, options=None):
        return next(self.frames), {}

    def step(self, action):
        self.pressed.append(action)
        return next(self.frames), 7.0, False, False, {}


def picture(paddle: float, ball: int | None) -> np.ndarray:
    """Breakout with a paddle around one column, and a ball of 2x2 pixels in row 40 that begins in another."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[58, round(paddle - 3) : round(paddle + 4)] = (200, 72, 72)
    if ball is not None:
        frame[40:42, ball : ball + 2] = (200, 72, 72)
    return frame


def test_the_agent_is_paid_for_being_where_the_ball_is():
    env = BallGame(Pictures([picture(30, 30), picture(30, 50), picture(30, None), picture(30, None)]), BREAKOUT, [1, 3, 2])
    seen, _ = env.reset()
    assert np.allclose(seen[:4], [30 / 64, 30.5 / 64, 40.5 / 64, 1], atol=0.02) and np.array_equal(seen[:4], seen[4:])
    seen, reward, *_, info = env.step(2)
    assert reward == pytest.approx(-(50.5 - 30) / 64, abs=0.02) and info["score"] == 7.0
    assert np.allclose(seen[[0, 4]], 30 / 64, atol=0.02) and np.allclose(seen[[1, 5]], [30.5 / 64, 50.5 / 64], atol=0.02)
    seen, reward, *_ = env.step(0)
    assert reward == 0 and seen[-1] == 0
    env.step(2)
    assert env.unwrapped.pressed == [2, 1, 1]  # larger; stay; and without a ball the wrapper serves


def test_gymnasium_accepts_the_real_game_as_the_agent_plays_it():
    from gymnasium.utils.env_checker import check_env

    env = RealGameEnv(Game(BREAKOUT), max_steps=20)
    check_env(env, skip_render_check=True)
    agents = BallGame(env, BREAKOUT, three_keys(BREAKOUT, {"NOOP": 0, "FIRE": 1, "RIGHT": 2, "LEFT": 3}))
    seen, _ = agents.reset(seed=0)
    for action in (0, 1, 2):
        assert agents.observation_space.contains(seen)
        seen, *_ = agents.step(action)


def test_keys_are_found_by_their_names():
    assert three_keys(BREAKOUT, {"NOOP": 0, "FIRE": 1, "RIGHT": 2, "LEFT": 3}) == [1, 3, 2]
    assert three_keys("ALE/Pong-v5", {"NOOP": 0, "RIGHT": 2, "LEFT": 3}) == [0, 2, 3]  # the Atari's RIGHT moves Pong's paddle up
    with pytest.raises(InputError, match="key LEFT"):
        three_keys(BREAKOUT, {"NOOP": 0, "RIGHT": 2})


def test_a_game_that_nobody_has_described_is_refused():
    with pytest.raises(InputError, match="Breakout or Pong"):
        BallGame(Pictures([]), "ALE/MsPacman-v5", [0, 1, 2])


def test_the_score_is_the_games_own():
    game = Game(BREAKOUT)
    game.reset(0)
    from video_tokenizer.games.policies import scripted_policy

    policy, rng = scripted_policy(game), np.random.default_rng(0)
    while game.score == 0:
        before = game.score
        game.peek(0)
        assert game.score == before  # looking ahead wins nothing
        game.step(policy(game, rng))
    assert game.score in (1, 4, 7)  # a brick
    game.reset(0)
    assert game.score == 0


def test_no_two_scored_games_are_alike_and_all_agents_play_the_same_ones(tmp_path):
    """Without sticky keys a rule without chance plays one game over and over."""
    world = WorldModel.load(save_tiny_world(tmp_path / "world", "true"), "cpu")
    env, rule = open_scored_game(world, None, game_steps=50), baselines()["a rule by hand"]
    films = {}
    for seed in (0, 1, 0):
        seen, info = env.reset(seed=seed)
        agent, frames = rule(seed), [info["frame"]]
        for _ in range(50):
            seen, *_, info = env.step(agent(seen, info["frame"]))
            frames.append(info["frame"])
        films.setdefault(seed, []).append(np.stack(frames))
    assert np.array_equal(*films[0]) and not np.array_equal(films[0][0], films[1][0])


def test_a_sticky_key_is_the_one_of_the_frame_before():
    """With a probability of 1 no key but the first is ever pressed; at the reset that is NOOP, so Breakout never serves."""
    stuck, free = (Game(BREAKOUT, repeat_action_probability=probability) for probability in (1.0, 0.0))
    for game in (stuck, free):
        game.reset(0)
        game.step(1)
    assert np.isnan(detect_ball(stuck.peek(0)[None], BREAKOUT)).all()
    assert np.isfinite(detect_ball(free.peek(0)[None], BREAKOUT)).all()


def test_an_agent_is_trained_in_the_dream_and_tested_in_the_emulator(tmp_path, capsys):
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    world = save_tiny_world(tmp_path / "world", "true")
    numbers = tmp_path / "agent.json"
    flags = ["--num-steps", 40, "--num-games", 1, "--game-steps", 30, "--episode-steps", 8, "--json", numbers]
    assert call(TRAIN, "--world", world, *flags) == 0
    assert "trained on 40 predicted frames" in capsys.readouterr().out
    results = json.loads(numbers.read_text())["players"]
    assert set(results) == {"trained_in_the_dream", "chance", "standing_still", "a_rule_by_hand"}


@pytest.mark.parametrize(
    ("flags", "words"), [(["--num-steps", "0"], "--num-steps 0"), (["--env", "ALE/Pong-v5"], "learned from a game")]
)
def test_bad_input_is_answered_with_one_sentence(tmp_path, capsys, flags, words):
    assert call(TRAIN, "--world", save_tiny_world(tmp_path / "world", "true"), *flags) == 2
    assert words in (error := capsys.readouterr().err) and error.count("\n") == 1
