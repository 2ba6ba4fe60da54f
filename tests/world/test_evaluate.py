"""The numbers of an evaluation: by hand where they are small, against the emulator where they are not."""

import itertools
import json
import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from evaluation_names import has_every_score
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from dynamics_model.data.metadata import WorldMetadata
from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.seen_frames import frame_hashes
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.games.emulator import record_episode
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.games.policies import random_policy
from world_model.evaluation.games import (
    EVALUATION_SEEDS,
    LABELLED_SEEDS,
    OTHER_SEEDS,
    check_seed,
    directions,
    halves,
    play_opening,
    record_branches,
    record_games,
    usual_step,
)
from world_model.evaluation.model_scores import evaluation_clips, learn_and_test
from world_model.evaluation.rollouts import (
    agreement,
    delta_psnr_scores,
    horizon_scores,
    rollout_windows,
    sprite_scores,
    world_actions,
)
from world_model.evaluation.table import flatten, margin_over_seeds, mean_over_seeds, results_table, spread_over_seeds
from world_model.evaluation.true_action_baseline import read_true_metrics, shares_of_baseline
from world_model.real_game import open_game, open_its_game, play_beginning, play_keys
from world_model.world import WorldModel

EVALUATE = REPOSITORY / "4.inference" / "evaluate.py"
BREAKOUT = "ALE/Breakout-v5"


@pytest.fixture(scope="module")
def game():
    return open_game(BREAKOUT, WorldMetadata(frame_skip=4), (32, 32))


@pytest.fixture(scope="module")
def games(game):
    return record_games(game, num_episodes=2, num_frames=60, seed=7)


# ---- the games ----------------------------------------------------------------------------------------------------------


def test_no_evaluation_game_can_have_been_recorded():
    largest_recorded = 9_999 * 100_000 + 99_999  # record.py --seed 9999, its last episode
    assert largest_recorded < EVALUATION_SEEDS
    for seed in (-1, 10_000):
        with pytest.raises(InputError, match=f"--seed {seed}"):
            check_seed(seed)


def test_the_same_seed_plays_the_same_games(game, games):
    again, other = (record_games(game, 2, 60, seed) for seed in (7, 8))
    assert np.array_equal(again.store.frames, games.store.frames)
    assert not np.array_equal(other.store.actions, games.store.actions)
    assert (games.store.actions[games.store.episodes[:, 0]] == -1).all()


def test_no_game_is_in_two_sets(game, games):
    others = record_games(game, 4, 60, 7, first_game=OTHER_SEEDS)
    labelled = record_games(game, 2, 60, 7, "random", LABELLED_SEEDS)
    first_games = [np.array(one.store.frames[one.store.episodes[0][0] :][:60]) for one in (games, *halves(others), labelled)]
    assert all(not np.array_equal(first_games[a], first_games[b]) for a, b in itertools.combinations(range(4), 2))
    assert all(len(half.store.episodes) == 2 for half in halves(others))


def test_ball_and_player_are_known_for_every_frame(games):
    assert games.ball.shape == (len(games.store.frames), 2) and np.isfinite(games.ball).any()
    assert np.isfinite(games.player).mean() > 0.9


def test_branches_share_their_beginning_and_part_with_their_keys(game):
    branches = record_branches(game, num_beginnings=2, context_frames=3, num_steps=4, seed=1)
    assert branches.keys == ["LEFT", "RIGHT", "NOOP"] * 2
    assert branches.frames.shape == (6, 4, 32, 32, 3) and branches.start_frames.shape == (6, 3, 32, 32, 3)
    assert np.array_equal(branches.start_frames[0, 0], branches.start_frames[1, 0])
    assert np.array_equal(branches.start_actions[0], branches.start_actions[1])
    assert not np.array_equal(branches.frames[0], branches.frames[1])


def test_a_game_repeats_itself_from_its_actions(game):
    beginning = play_beginning(game, lambda game, rng: int(rng.integers(4)), 20, seed=3)
    first, again = (play_keys(game, beginning, ["LEFT"] * 5, seed=3) for _ in range(2))
    assert len(first.frames) == 25 and np.array_equal(first.frames, again.frames)
    assert first.actions[20:].tolist() == [game.action_names.index("LEFT")] * 5


def test_a_world_is_evaluated_on_its_own_game():
    with pytest.raises(InputError, match="learned from a game with UP"):
        open_game(BREAKOUT, WorldMetadata(action_names=["UP"]), (32, 32))


def test_a_world_meets_its_game_as_it_was_recorded(game):
    """An older world sees averages of sRGB values, as all its life; one that was trained on averages of light sees those."""
    assert np.array_equal(first_picture(game), cv2.resize(first_picture(game, play=True), (32, 32), interpolation=cv2.INTER_AREA))
    linear = open_game(BREAKOUT, WorldMetadata(frame_skip=4, linear_light=True), (32, 32))
    brighter = first_picture(linear).astype(int) - first_picture(game)
    assert brighter.min() >= -1 and brighter.max() > 20


def first_picture(game, play=False):
    game.reset(7)
    return (game.play if play else game.step)(0)[0]


def test_two_games_are_alike_nowhere_although_they_begin_alike(game):
    """From the first frame on, games of different seeds share most of their frames; after an opening they share none."""

    def shared(opening):
        first, second = (
            {frame.tobytes() for frame in record_episode(game, random_policy, 40, seed, opening).frames} for seed in (11, 12)
        )
        return len(first & second)

    assert shared(None) >= 3 and shared(play_opening) == 0


class ShortGame:
    """As much of a `Game` as an opening needs, over after 20 steps, as CartPole is under random keys."""

    env_id, num_actions, fire_action, needs_fire = "CartPole-v1", 2, None, False

    def reset(self, seed):
        self.num_steps, self.over = 0, False

    def play(self, action):
        assert not self.over
        self.num_steps += 1
        self.over = self.num_steps == 20


@pytest.mark.parametrize("seed", range(5))
def test_an_opening_leaves_half_of_a_short_game(seed):
    short = ShortGame()
    short.reset(seed)
    play_opening(short, np.random.default_rng(seed))
    assert not short.over and short.num_steps <= 10


def test_frames_of_the_training_are_marked_and_not_scored(game, games):
    known = frame_hashes(games.store.frames[10:20])
    marked = record_games(game, num_episodes=2, num_frames=60, seed=7, known=known)
    assert np.array_equal(marked.store.frames, games.store.frames)
    assert set(range(10, 20)) <= set(np.flatnonzero(marked.seen)) and not games.seen.any()
    assert marked.seen_share == marked.seen.mean()
    windows = rollout_windows(marked, context_frames=3, num_frames=16, count=100)
    assert len(windows) and not marked.seen[windows[:, None] + 2 + np.array([1, 4, 16])].any()
    clips = evaluation_clips(marked)
    assert not marked.seen[clips.starts[:, None] + np.arange(1, clips.num_frames)].any()
    branches = record_branches(game, num_beginnings=2, context_frames=3, num_steps=4, seed=1)
    known = frame_hashes(branches.frames[0, :2])
    seen = record_branches(game, num_beginnings=2, context_frames=3, num_steps=4, seed=1, known=known).seen
    assert seen[0].tolist() == [True, True, False, False] and not branches.seen.any()


# ---- the scores ---------------------------------------------------------------------------------------------------------


def test_a_movement_much_shorter_than_usual_is_none():
    places = np.array([[0.0, 8.0, 16.0, 15.9, 14.4, 6.0]])
    assert usual_step(places) == 8.0  # of the steps 8, 8, 1.5 and 8.4; a tenth of a pixel is none
    assert directions(places, still=2.0).tolist() == [[1, 1, 0, 0, -1]]
    assert np.isnan(directions(np.array([1.0, np.nan, 3.0]), still=2.0)).all()


def test_obedience_counts_steps_in_which_the_real_player_is_seen():
    real = np.array([[1.0, 1.0, 0.0, np.nan], [-1.0, 0.0, 0.0, 0.0]])
    dreamed = np.array([[1.0, -1.0, 0.0, 1.0], [-1.0, np.nan, 0.0, 1.0]])
    scores = agreement(dreamed, real, ["RIGHT", "LEFT"])
    assert scores["obedience"] == pytest.approx(4 / 7)  # right in 1, 3 of the first row and 1, 3 of the second
    assert scores["obedience_moving"] == pytest.approx(2 / 3)
    assert scores["obedience_by_key"] == {"RIGHT": pytest.approx(2 / 3), "LEFT": pytest.approx(2 / 4)}


def test_a_player_who_stands_still_obeys_only_where_the_real_one_does():
    real = np.array([[1.0, 1.0, 0.0]])
    assert agreement(np.zeros_like(real), real, ["RIGHT"])["obedience"] == pytest.approx(1 / 3)


def test_a_perfect_dream_scores_perfectly(games):
    real = games.store.frames[10:36][None]  # one frame before the dream, then 25
    table = horizon_scores(real[:, 1:], real, BREAKOUT)
    assert list(table) == ["1", "4", "16", "ball_share_gap", "one_ball_share"]
    assert table["ball_share_gap"] == 0.0 and table["one_ball_share"] == 1.0
    for horizon in ("1", "4", "16"):
        row = table[horizon]
        assert row["psnr_db"] == math.inf and row["sprite_error_px"] == row["sprite_error_median_px"] == 0.0
        assert row["ball_share"] == row["ball_share_real"]


def test_a_dream_that_loses_the_ball_has_a_gap_of_all_frames_with_one(games):
    real = games.store.frames[10:36][None]
    table = horizon_scores(np.zeros_like(real[:, 1:]), real, BREAKOUT)
    seen = np.isfinite(detect_ball(real[0, 16:], BREAKOUT)[:, 0])  # in frames 16 to 25 after the first
    assert table["16"]["ball_share"] == 0.0 and seen.any()
    assert table["ball_share_gap"] == pytest.approx(100 * seen.mean())


def test_one_lost_paddle_does_not_move_the_median():
    scores = sprite_scores(predicted=np.array([1.0, 2.0, 31.0, np.nan, 5.0]), there=np.array([1.0, 1.0, 1.0, 4.0, np.nan]))
    assert scores["sprite_error_px"] == pytest.approx(31 / 3) and scores["sprite_error_median_px"] == 1.0  # of 0, 1 and 30
    assert scores["sprite_found"] == 3 / 4


def test_actions_that_change_nothing_are_worth_nothing(tmp_path, games):
    world = WorldModel.load(save_tiny_world(tmp_path), "cpu", temperature=1.0)
    for embedding in world.dynamics.action_embeddings:
        torch.nn.init.zeros_(embedding.get_parameter("weight"))
    scores = delta_psnr_scores(world, games, count=2, seed=0)  # the same dice for both dreams: the same frames to the last bit
    assert scores["delta_psnr_db"] == {1: 0.0, 4: 0.0, 16: 0.0}


def test_a_dream_of_an_unknown_game_has_pictures_only():
    frames = some_frames(1, 5)
    assert set(horizon_scores(frames[:, 1:], frames, None)["4"]) == {"psnr_db", "moving_psnr_db"}


def test_no_rollout_crosses_the_end_of_an_episode(games):
    windows = rollout_windows(games, context_frames=3, num_frames=16, count=10)
    assert 0 < len(windows) <= 10
    for start in windows:
        first, last = (np.searchsorted(games.store.episodes[:, 0], frame, side="right") for frame in (start, start + 18))
        assert first == last
    assert len(rollout_windows(games, 3, 1000, 10)) == 0


def test_true_actions_reach_a_latent_world_through_its_map(tmp_path):
    names = ["NOOP", "FIRE", "RIGHT", "LEFT"]
    latent = WorldModel.load(save_tiny_world(tmp_path / "latent"), "cpu")
    assert world_actions(latent, np.array([3, 2, -1, 0]), names).tolist() == [5, 2, -1, 0]
    true = WorldModel.load(save_tiny_world(tmp_path / "true", "true"), "cpu")
    assert world_actions(true, np.array([3, 2, -1, 0]), names).tolist() == [3, 2, -1, 0]


def test_both_players_are_on_both_sides_of_the_split():
    assert learn_and_test(8) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert learn_and_test(2) == ([0], [1])


def test_a_share_of_the_true_world_is_a_quotient(tmp_path):
    true = {"delta_psnr_db": {"4": 4.0}, "obedience_moving": 0.8, "settings": {"env": BREAKOUT, "action_kind": "true"}}
    (tmp_path / "true.json").write_text(json.dumps(true))
    read = read_true_metrics(tmp_path / "true.json", BREAKOUT)
    shares = shares_of_baseline({"delta_psnr_db": {1: 9.0, 4: 3.0}, "obedience_moving": 0.6}, read)
    assert shares == {"delta_psnr_share": 0.75, "obedience_moving_share": pytest.approx(0.75)}
    assert shares_of_baseline({"delta_psnr_db": {4: 3.0}}, read) == {"delta_psnr_share": 0.75}  # a game without a known player


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"settings": {"env": BREAKOUT, "action_kind": "latent"}}, "with latent actions"),
        ({"settings": {"env": "ALE/Pong-v5", "action_kind": "true"}}, "a world of ALE/Pong-v5"),
        ({"delta_psnr_db": {"1": 2.0}}, "no positive delta_psnr_db.4"),
        ({"delta_psnr_db": {"4": -0.1}}, "no positive delta_psnr_db.4"),
        ({"settings": None}, "holds no metrics of evaluate.py"),
        (None, "no such file"),
    ],
)
def test_a_yardstick_that_is_none_is_refused(tmp_path, changed, complaint):
    true = {"delta_psnr_db": {"4": 4.0}, "settings": {"env": BREAKOUT, "action_kind": "true"}}
    if changed is not None:
        (tmp_path / "true.json").write_text(json.dumps(true | changed))
    with pytest.raises(InputError, match=complaint):
        read_true_metrics(tmp_path / "true.json", BREAKOUT)


def test_a_score_is_the_mean_over_the_seeds_beside_their_standard_deviation():
    tables = [{"a": 1.0, "rollout": {4: {"px": 2}}, "b": math.nan}, {"a": 3.0, "rollout": {4: {"px": 6}}, "b": 5.0}, {"a": 5.0}]
    assert mean_over_seeds(tables) == {"a": 3.0, "rollout": {4: {"px": 4.0}}, "b": 5.0}
    spread = spread_over_seeds(tables)
    assert spread["a"] == 2.0 and spread["rollout"][4]["px"] == pytest.approx(math.sqrt(8)) and math.isnan(spread["b"])


def test_a_margin_of_error_is_half_of_the_confidence_interval_of_the_mean():
    """Of three seeds with a standard deviation of 2, t = 4.303 in any table of Student's distribution: 4.303 * 2 / sqrt(3)."""
    margin = margin_over_seeds([{"a": 1.0, "b": 4.0}, {"a": 3.0, "b": math.nan}, {"a": 5.0}])
    assert margin["a"] == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-4) and math.isnan(margin["b"])
    draws = np.random.default_rng(0).normal(size=(4000, 4))  # true mean 0
    held = [
        abs(mean_over_seeds(rows)["a"]) <= margin_over_seeds(rows)["a"] for rows in [[{"a": x} for x in row] for row in draws]
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_nested_scores_become_rows_with_their_controls():
    results = {
        "rollout": {"4": {"psnr_db": 30.0}},
        "obedience": None,
        "spread": {"rollout": {"4": {"psnr_db": 0.6}}},
        "margin_of_error": {"rollout": {"4": {"psnr_db": 1.5}}},
        "controls": {"untrained": {"rollout": {"4": {"psnr_db": 5.5}}}, "copy_last": {}},
        "reasons": {"obedience": "no player"},
    }
    assert flatten({"a": {"b": 1}, "c": 2}) == {"a.b": 1, "c": 2}
    lines = results_table(results).splitlines()
    assert lines[1].split() == ["rollout.4.psnr_db", "30.00", "1.500", "5.500"]
    assert lines[2].split() == ["obedience", "-"]
    assert lines[3] == "- obedience: no player"


# ---- the script ---------------------------------------------------------------------------------------------------------


def test_evaluate_writes_every_name(tmp_path, capsys):
    """For true actions; the scores of latent ones are checked where a world is built."""
    flags = ["--world", save_tiny_world(tmp_path / "world", "true"), "--quick", "--device", "cpu"]
    assert call(EVALUATE, *flags, "--json", tmp_path / "metrics.json") == 0
    has_every_score(tmp_path / "metrics.json", "true")
    assert "rollout.64.sprite_error_px" in capsys.readouterr().out


def test_a_world_of_videos_is_measured_without_a_game(tmp_path, capsys):
    flags = ["--world", save_tiny_world(tmp_path / "world", env_id=None), "--quick", "--device", "cpu"]
    assert call(EVALUATE, *flags) == 2 and "give --data-path" in capsys.readouterr().err
    store = dummy_clip_store(frame_size=(32, 32), seed=0)
    assert call(EVALUATE, *flags, "--data-path", store.path, "--json", tmp_path / "m.json") == 0
    results = json.loads((tmp_path / "m.json").read_text())
    assert results["obedience"] is None and "no game" in results["reasons"]["obedience"]
    assert results["object_recall"] is None and results["psnr_db"] > 0


def test_brief_leaves_out_untrained_models_and_the_ceiling_and_keeps_the_headlines(tmp_path):
    flags = ["--world", save_tiny_world(tmp_path / "world", "true"), "--brief", "--quick", "--device", "cpu"]
    assert call(EVALUATE, *flags, "--json", tmp_path / "m.json") == 0
    results = json.loads((tmp_path / "m.json").read_text())
    assert set(results["controls"]) == {"copy_last"}
    assert (
        {"object_recall", "obedience", "obedience_moving", "rollout"}
        <= results["margin_of_error"].keys()
        == results["spread"].keys()
    )


def test_a_world_of_videos_learns_its_keys_from_their_game(tmp_path, games):
    """If the videos show it: the same speed, the same frame."""
    starts = torch.from_numpy(games.store.frames[:32]).unflatten(0, (8, 4))

    def load(name: str, **facts: Any) -> WorldModel:
        return WorldModel.load(save_tiny_world(tmp_path / name, env_id=None, **facts), "cpu")

    world = load("films", start_frames=starts)
    assert world.action_map == {} and not world.p_key_given_action.any()
    game = open_its_game(BREAKOUT, world)
    assert (game.picture_delay, game.merged_frames) == (1, 1)
    assert list(world.action_map) == game.action_names and world.metadata.env_id == BREAKOUT and world.p_key_given_action.any()
    assert np.sum(world.metadata.code_counts) == 200
    with pytest.raises(InputError, match="30 frames a second and the steps of ALE/Breakout-v5 15"):
        open_its_game(BREAKOUT, load("fast", start_frames=starts, frames_per_second=30.0))
    with pytest.raises(InputError, match=r"correlation of -?0\.[0-8].*give the game that they show"):
        open_its_game(BREAKOUT, load("noise"))


def test_seeds_are_told_apart_and_what_training_saw_is_left_out_of_them(tmp_path, games, capsys):
    """--trained-on names the recording: here the world's start frames and some frames of seed 7."""
    world = save_tiny_world(tmp_path / "world", "true")
    starts = WorldModel.load(world, "cpu").start_frames
    with ClipStoreWriter(tmp_path / "other", (32, 32), {}) as writer:
        writer.add_episode(games.store.frames[:30])
    flags = ["--world", world, "--quick", "--seed", 7, "--device", "cpu", "--json", tmp_path / "m.json"]
    assert call(EVALUATE, *flags, "--trained-on", tmp_path / "other") == 2
    assert "lacks the frames that this world starts from" in capsys.readouterr().err
    with ClipStoreWriter(tmp_path / "trained", (32, 32), {}) as writer:
        writer.add_episode(games.store.frames[:30])
        writer.add_episode(starts.reshape(-1, 32, 32, 3))
    assert call(EVALUATE, *flags, "--trained-on", tmp_path / "trained") == 0
    results = json.loads((tmp_path / "m.json").read_text())
    assert list(results["per_seed"]) == ["7", "8"] == [str(seed) for seed in results["settings"]["seeds"]]
    one, other = (results["per_seed"][seed]["moving_psnr_db"] for seed in ("7", "8"))
    assert results["moving_psnr_db"] == pytest.approx((one + other) / 2)
    assert results["spread"]["moving_psnr_db"] == pytest.approx(abs(one - other) / math.sqrt(2))
    assert results["per_seed"]["7"]["seen_in_training"] > results["per_seed"]["8"]["seen_in_training"] >= 0
    assert "of which it was trained on" in capsys.readouterr().out
