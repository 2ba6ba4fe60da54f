"""Frame statistics of long dreams, on games of 4x4 pixels: black, with one white pixel that moves on at every step."""

from pathlib import Path

import numpy as np
import pytest
from tiny_world import save_tiny_world, some_frames

from video_tokenizer.data.clip_store import ClipStore
from world_model.evaluation.games import RealGames, halves
from world_model.evaluation.long_rollouts import (
    LEAD,
    STATISTICS,
    ceiling_scores,
    changed_shares,
    frame_statistics,
    long_rollout_scores,
    pieces,
    random_keys,
    range_scores,
    real_frames,
    realism_scores,
)
from world_model.world import WorldModel

BLACK = np.zeros((4, 4, 3), np.float32)


def wandering(num_frames: int, first: int = 0) -> np.ndarray:
    """(T, 4, 4, 3) uint8: the white pixel is at place first + t of the 16."""
    video = np.zeros((num_frames, 16, 3), np.uint8)
    video[np.arange(num_frames), (first + np.arange(num_frames)) % 16] = 255
    return video.reshape(num_frames, 4, 4, 3)


def games_of(*episodes: np.ndarray) -> RealGames:
    """Real games of these frames, with unknown actions, of no known game."""
    stops = np.cumsum([len(frames) for frames in episodes])
    frames = np.concatenate(episodes)
    starts = np.concatenate([[0], stops[:-1]])
    store = ClipStore(Path("games"), frames, np.full(len(frames), -1, np.int16), np.stack([starts, stops], axis=1), {})
    return RealGames(store, None, None, np.zeros(len(frames), bool))


@pytest.fixture(scope="module")
def real():
    known = real_frames(games_of(wandering(64), wandering(40, first=5)))
    assert known is not None
    return known


def scores_of(dreamed: np.ndarray, real) -> dict:
    """The scores of one dream that follows on a real game's first frames."""
    return realism_scores(np.concatenate([wandering(LEAD), dreamed])[None], real, None)


# ---- the statistics -----------------------------------------------------------------------------------------------------


def test_the_statistics_of_one_white_pixel_on_the_move():
    statistics = frame_statistics(wandering(LEAD + 3), BLACK)
    assert statistics.shape == (3, len(STATISTICS))
    assert statistics[0].tolist() == [1 / 16, 255 / 16, 255 / 16, 255 / 16, 2 / 16]  # two pixels change at every step


def test_what_moves_is_averaged_over_a_second():
    still = np.repeat(wandering(1), LEAD + 1, axis=0)
    still[-1] = 0  # the white pixel disappears in the last frame: one of 16 pixels, in one of 16 steps
    assert frame_statistics(still, BLACK)[0, -1] == 1 / 256


def test_a_change_counts_from_its_size_on():
    video = np.stack([np.zeros((4, 4, 3)), np.zeros((4, 4, 3))]).astype(np.uint8)
    video[1, 0, 0], video[1, 0, 1, 2] = 20, 200  # of 255: a shimmer in all channels, a clear change in one
    assert changed_shares(video, 0.05).tolist() == [2 / 16] and changed_shares(video, 0.3).tolist() == [1 / 16]


def test_every_frame_with_a_second_before_it_is_in_one_piece():
    frames = np.arange(90, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    found = [piece[LEAD:, 0, 0, 0].tolist() for piece in pieces(games_of(frames[:50], frames[50:60], frames[60:]).store, 20)]
    assert found == [list(range(16, 36)), list(range(36, 50)), list(range(76, 90))]  # nothing of the episode of ten frames


def test_the_range_leaves_out_the_rarest_hundredth_on_either_side():
    video = np.zeros((LEAD + 101, 4, 4, 3), np.uint8)
    video[LEAD:] = np.arange(101, dtype=np.uint8)[:, None, None, None]  # levels 0 to 100, each once
    known = real_frames(games_of(video))
    assert known is not None and known.low[1:4].tolist() == [0.5] * 3  # the 1st percentile, less half a level
    assert known.high[1:4].tolist() == [99.5] * 3


def test_games_shorter_than_a_second_say_nothing():
    assert real_frames(games_of(wandering(LEAD))) is None


# ---- the dreams ---------------------------------------------------------------------------------------------------------


def test_a_dream_like_the_real_game_is_always_within_its_range(real):
    scores = scores_of(wandering(200, first=LEAD), real)
    assert {scores[name] for name in ("within_real_range", "all_within", "worst_stretch", *STATISTICS)} == {1.0}
    assert scores["changed_ratio"] == 1.0


def test_a_frozen_dream_looks_right_and_moves_wrong(real):
    scores = scores_of(np.repeat(wandering(1), 200, axis=0), real)
    assert [scores[name] for name in STATISTICS] == [1.0, 1.0, 1.0, 1.0, 1 / 200]  # its first frame still moved
    assert scores["within_real_range"] == scores["all_within"] == 1 / 200 and scores["worst_stretch"] == 0.0
    assert scores["changed_ratio"] == pytest.approx(1 / 200)


def test_a_black_dream_is_never_within_the_range(real):
    scores = scores_of(np.zeros((200, 4, 4, 3), np.uint8), real)
    assert scores["within_real_range"] == scores["foreground"] == scores["red"] == scores["all_within"] == 0.0


def test_a_late_collapse_cannot_hide_behind_a_good_beginning(real):
    dreamed = wandering(1000, first=LEAD)
    dreamed[950:] = 0
    scores = scores_of(dreamed, real)
    assert scores["within_real_range"] == pytest.approx(0.95) and scores["worst_stretch"] == pytest.approx(0.5)


def test_the_smallest_share_counts_and_all_together_can_be_smaller(real):
    statistics = np.tile(real.low, (1, 4, 1))  # one dream of four frames, all of them like real ones
    statistics[0, 0, 0] = statistics[0, 1, 1] = 99.0  # one frame with too much foreground, another one too red
    scores = range_scores(statistics, real)
    assert (scores["foreground"], scores["red"], scores["moving"]) == (0.75, 0.75, 1.0)
    assert scores["within_real_range"] == 0.75 and scores["all_within"] == 0.5


def test_random_keys_are_those_that_a_player_has(tmp_path):
    world = WorldModel.load(save_tiny_world(tmp_path / "latent"), "cpu")  # six codes, keys for 0, 1, 2 and 5
    keys = random_keys(world, (4, 100), seed=1)
    assert keys.shape == (4, 100) and set(keys.ravel().tolist()) == {0, 1, 2, 5}
    assert np.array_equal(keys, random_keys(world, (4, 100), seed=1))
    nobody = WorldModel.load(save_tiny_world(tmp_path / "none", "none", env_id=None), "cpu")
    assert (random_keys(nobody, (1, 3), seed=1) == -1).all()


@pytest.mark.parametrize("actions", ["latent", "true", "none"])
def test_long_dreams_are_measured_beside_their_controls(tmp_path, actions):
    world = WorldModel.load(save_tiny_world(tmp_path, actions, env_id=None), "cpu")
    games, others = (games_of(some_frames(100, seed=seed), some_frames(90, seed=seed + 1)) for seed in (1, 3))
    usual, unused = halves(others)
    real = real_frames(usual)
    assert real is not None and real_frames(games_of(some_frames(10))) is None  # games too short for a statistic
    tables = long_rollout_scores(world, games, real, num_frames=5, num_rollouts=2, seed=0)
    assert tables == long_rollout_scores(world, games, real, num_frames=5, num_rollouts=2, seed=0)
    scores, still = tables
    assert scores.keys() == still.keys() >= {"within_real_range", "worst_stretch", "changed_ratio"}
    ceiling = ceiling_scores(world.tokenizer, unused, real)
    assert ceiling.keys() == {"within_real_range_real", "all_within_real", "within_real_range_redrawn"}
    assert 0.0 <= ceiling["within_real_range_real"] <= 1.0
