"""VIPER on Catch: what the agent is paid for, and what it never gets to know."""

import json

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_viper import some_frames, tiny_world, train_here

from uses.viper.catch import CELL, CELLS, EPISODE, Catch, expert_action, film, film_expert
from uses.viper.reward import RunningScale, VideoReward
from video_tokenizer.data.clip_store import open_clip_store

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
from stable_baselines3.common.vec_env import DummyVecEnv

from uses.viper.agent import Discriminator, Novelty, Paid

SCRIPT = REPOSITORY / "4.inference" / "uses" / "viper" / "learn_catch.py"


class PaddleOnTheRight:
    """Pays for the paddle's cells in the right half of the picture, and remembers what it has seen."""

    def __init__(self):
        self.started: list[np.ndarray] = []
        self.seen: list[np.ndarray] = []

    def start(self, frames: np.ndarray) -> None:
        self.started.append(frames)

    def pay(self, frames: np.ndarray) -> np.ndarray:
        self.seen.append(frames)
        return frames[:, -1, 32:, 0].mean(axis=1)


class Generous(Catch):
    """The same game, which pays in every step."""

    def step(self, action: int):
        seen, score, terminated, truncated, info = super().step(action)
        return seen, score + 100, terminated, truncated, info


# ---- the game -----------------------------------------------------------------------------------------------------------


def test_a_ball_falls_for_16_steps_and_is_caught_by_the_paddle_below_it():
    """It starts in row 0 and reaches row 15 after 15 steps; the paddle is three cells wide."""
    game = Catch()
    for place, caught in ((7, 1.0), (8, 1.0), (9, 0.0)):
        game.reset(seed=0)
        game.column, game.drift, game.paddle = 7, 0, place
        assert sum(game.step(0)[1] for _ in range(CELLS - 1)) == caught
        assert game.row == CELLS - 1 and game.step(0)[1] == 0 and game.row == 0


def test_the_picture_shows_ball_and_paddle():
    game = Catch()
    picture = game.reset(seed=0)[1]["frame"]
    assert picture.shape == (64, 64, 3) and (picture == 250).all(axis=-1).sum() == CELL**2
    assert (picture[-CELL:] == (240, 140, 40)).all(axis=-1).sum() == 3 * CELL**2


def test_the_expert_catches_all_eight_balls_and_who_stands_still_does_not():
    """And every game has 128 steps, so that nobody gains by ending one."""
    games = {"expert": lambda game, _: expert_action(game), "still": lambda *_: 0}
    films = {name: [film(Catch(), choose, seed) for seed in range(5)] for name, choose in games.items()}
    assert all(len(frames) == EPISODE + 1 for both in films.values() for frames, _ in both)
    assert [caught for _, caught in films["expert"]] == [8.0] * 5 and np.mean([caught for _, caught in films["still"]]) < 4


def test_films_hold_neither_actions_nor_scores(tmp_path):
    film_expert(tmp_path / "films", 2, is_alone=False)
    film_expert(tmp_path / "alone", 1, is_alone=True)
    store, single = open_clip_store(tmp_path / "films"), open_clip_store(tmp_path / "alone")
    assert (store.actions == -1).all() and len(store.frames) == 2 * (EPISODE + 1)
    assert not single.frames[::2].any() and (single.frames[1::2] == store.frames[: EPISODE + 1]).all()


# ---- VI3 and VI4: what the agent is paid for ----------------------------------------------------------------------------


def play_paid(game: type[Catch], payer: PaddleOnTheRight, beta: float) -> np.ndarray:
    """The rewards (steps, 2) of two games that an expert plays for an episode and one step more."""
    torch.manual_seed(0)
    games, rewards = Paid(DummyVecEnv([game] * 2), payer, beta), []
    inside: list[Catch] = games.venv.envs  # type: ignore[attr-defined]
    games.seed(0)
    games.reset()
    for step in range(EPISODE + 1):
        _, paid, done, infos = games.step(np.array([expert_action(game) for game in inside]))
        assert done.all() == done.any() == (step == EPISODE - 1)
        assert (payer.seen[-1] == np.stack([info["frame"] for info in infos])).all()
        rewards.append(paid)
    return np.stack(rewards)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_agent_is_paid_for_the_frames_its_actions_led_to_and_never_by_the_score(beta):
    """A game that pays 100 points a step leads to the same rewards."""
    payer = PaddleOnTheRight()
    rewards = play_paid(Catch, payer, beta)
    assert np.array_equal(rewards, play_paid(Generous, PaddleOnTheRight(), beta)) and rewards.std() > 0.1
    likelihood, scale = play_paid(Catch, PaddleOnTheRight(), 0.0), RunningScale()
    assert np.allclose(likelihood, np.stack([scale(PaddleOnTheRight().pay(frames)) for frames in payer.seen]))
    assert np.array_equal(rewards, likelihood) == (beta == 0)


def test_a_new_episode_begins_with_its_own_first_frame():
    payer = PaddleOnTheRight()
    play_paid(Catch, payer, 0.0)
    _, second = payer.started
    assert len(payer.started) == 2 and (second[:, :CELL] == 250).all(axis=-1).any(axis=(1, 2)).all()  # its ball is at the top
    assert not np.array_equal(payer.seen[EPISODE - 1], second)  # which is not where the last ball has landed


def test_what_is_new_is_paid_more_than_what_has_been_seen_often():
    torch.manual_seed(0)
    novelty = Novelty(4)
    old, new = np.full((8, 4), 0.5, np.float32), np.full((8, 4), -0.5, np.float32)
    for _ in range(200):
        novelty(old)
    assert novelty(np.concatenate([old, new])).reshape(2, 8).mean(axis=1).argmax() == 1


def test_the_discriminator_learns_to_pay_the_experts_pairs_of_frames_more():
    torch.manual_seed(0)
    expert, other = some_frames(12), 255 - some_frames(12)
    judge = Discriminator(VideoReward(tiny_world()), [expert])

    def paid(film: np.ndarray) -> float:
        judge.start(film[:1])
        return float(np.mean([judge.pay(frame[None]) for frame in film[1:]]))

    for _ in range(20):
        paid(other)
    assert paid(expert) > paid(other) > 0


# ---- the command --------------------------------------------------------------------------------------------------------


def test_the_command_films_trains_and_lets_agents_learn(tmp_path, monkeypatch):
    """One agent for each way of being paid, at toy sizes; a second run finds films and models there."""
    commands = train_here(monkeypatch)
    flags = ["--num-films", 4, "--tokenizer-steps", 1, "--num-steps", 1, "--agent-steps", 256, "--seeds", 0, "--num-games", 1,
             "--output", tmp_path / "catch", "--json", tmp_path / "catch.json", "--picture", tmp_path / "catch.png"]  # fmt: skip
    assert call(SCRIPT, *flags) == 0 and len(commands) == 3
    players = json.loads((tmp_path / "catch.json").read_text())["players"]
    assert (tmp_path / "catch.png").exists()
    assert players["expert"]["caught"] == 8 and set(players["random"]) == {"caught", "past_0", "past_1", "past_2", "past_3"}
    assert set(players) == {
        "expert", "random", "standing_still", "score", "viper", "viper_without_bonus", "frame_alone", "discriminator"
    }  # fmt: skip
    assert call(SCRIPT, *flags, "--payments", "score") == 0 and len(commands) == 3
    again = json.loads((tmp_path / "catch.json").read_text())["players"]
    assert again["score"] == players["score"] and again["expert"] == players["expert"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--payments", "viper", "gold"), "--payments gold is not one of score, viper"),
        (("--agent-steps", 15), "--agent-steps 15 is too small; give at least 16"),
        (("--seeds",), "--seeds is empty; give at least one"),
        (("--seeds", "0", "-1"), "--seeds -1 must lie between 0 and 9,999"),
        (("--past-frames", EPISODE + 1), "--past-frames 129 is too large; an episode has 128 frames after its first"),
        (("--picture", "x"), "--picture x does not end in .png; give x.png"),
    ],
)
def test_the_command_refuses_what_cannot_work(tmp_path, capsys, flags, message):
    assert call(SCRIPT, *flags, "--output", tmp_path / "catch") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "catch").exists()
