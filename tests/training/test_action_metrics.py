"""The scores of chapter 2, on codes and actions small enough to count by hand."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.clustering import mutual_info_score

from latent_action_model import action_map as maps
from latent_action_model import metrics
from latent_action_model.action_probe import probe_frames, supervised_information
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.games.moving_square import dummy_clip_store

STAY, RIGHT, LEFT = 0, 1, 2


class PerfectActions(nn.Module):
    """Stands in for a trained model: a bright column that stays, goes right or left is coded 0, 1 or 2, and drawn so."""

    num_actions = 3

    def __init__(self, obeys: bool = True):
        super().__init__()
        self.obeys = obeys
        self.device_holder = nn.Parameter(torch.zeros(1))

    def encode(self, video):
        columns = video[:, :, 0, 0].argmax(dim=-1)  # (B, T)
        steps = columns[:, 1:] - columns[:, :-1]
        return SimpleNamespace(indices=torch.where(steps < 0, LEFT, steps))

    def decode_indices(self, past, indices):
        if not self.obeys:
            return past
        shifts = {STAY: 0, RIGHT: 1, LEFT: -1}
        frames = [[past[b, t].roll(shifts[int(indices[b, t])], dims=-1) for t in range(past.shape[1])] for b in range(len(past))]
        return torch.stack([torch.stack(clip) for clip in frames])


def column_store(num_episodes=6, length=41, size=16, seed=0):
    """Episodes in which a bright column follows uniformly random actions over a dark picture; it never touches the edges."""
    rng = np.random.default_rng(seed)
    frames, actions, episodes = [], [], []
    for episode in range(num_episodes):
        column = size // 2
        for frame in range(length):
            action = int(rng.integers(3))
            wanted = column + (0, 1, -1)[action]
            column, action = (wanted, action) if 2 <= wanted <= size - 3 and frame else (column, STAY)
            picture = np.zeros((size, size, 3), np.uint8)
            picture[:, column] = 200
            frames.append(picture)
            actions.append(action if frame else -1)
        episodes.append((episode * length, (episode + 1) * length))
    info = {"action_names": ["NOOP", "RIGHT", "LEFT"]}
    return ClipStore(Path(), np.stack(frames), np.array(actions, np.int16), np.array(episodes, np.int64), info)


def transitions(codes, actions, episode_length=20):
    codes, actions = np.asarray(codes), np.asarray(actions)
    return metrics.Transitions(codes, actions, np.arange(len(actions)) // episode_length)


def single_codes(middle, rng, num_codes):
    """Three codes in a row of which only the middle one is given; its neighbours are random."""
    return np.stack([rng.integers(num_codes, size=len(middle)), middle, rng.integers(num_codes, size=len(middle))], axis=1)


def test_transitions_keep_clear_of_episode_ends_and_unknown_actions():
    actions = np.array([-1, 0, 1, 2, 0, -1, 1, -1, 2, 1])  # two episodes of five frames; frame 7's action is unknown
    codes = np.array([-1, 4, 5, 6, 7, -1, 3, 2, 1, 0])
    found = metrics.find_transitions(codes, actions, np.array([[0, 5], [5, 10]]))
    assert found.codes.tolist() == [[4, 5, 6], [5, 6, 7], [2, 1, 0]]
    assert found.actions.tolist() == [1, 2, 2]
    assert found.episodes.tolist() == [0, 0, 1]


def test_entropy_of_four_even_actions_is_log_four():
    assert metrics.entropy(np.array([0, 1, 2, 3])) == pytest.approx(math.log(4))
    assert metrics.entropy(np.array([2, 2])) == 0.0


def test_mutual_information_equals_torchmetrics():
    rng = np.random.default_rng(0)
    actions = rng.integers(4, size=500)
    codes = np.where(rng.random(500) < 0.6, 7 - actions, rng.integers(8, size=500))
    expected = mutual_info_score(torch.from_numpy(codes), torch.from_numpy(actions)).item()
    assert metrics.mutual_information(codes, actions) == pytest.approx(expected, abs=1e-5)
    assert metrics.mutual_information(np.array([5, 5, 9, 9]), np.array([0, 0, 1, 1])) == pytest.approx(math.log(2))


def test_a_classifier_that_is_sure_of_one_action_in_four():
    # action 0 is always recognised, 1 to 3 are guessed: cross entropy = 3/4 log 3 = 0.824 of log 4 = 1.386 -> 0.406
    certain, guess = [0.0, -99, -99, -99], [-99, *[math.log(1 / 3)] * 3]
    log_probabilities = np.array([certain, guess, guess, guess])
    assert metrics.information_share(log_probabilities, np.array([0, 1, 2, 3])) == pytest.approx(
        1 - 0.75 * math.log(3) / math.log(4)
    )


def test_codes_that_are_the_action_tell_all_and_random_codes_nothing():
    rng = np.random.default_rng(0)
    actions = rng.integers(4, size=4000)
    copy, noise = single_codes(3 - actions, rng, 8), rng.integers(8, size=(4000, 3))
    for codes, low, high in ((copy, 0.97, 1.0), (noise, -0.01, 0.01)):  # by chance, noise is as often harmful
        data = transitions(codes, actions)
        fit, test = data.choose(data.episodes < 150), data.choose(data.episodes >= 150)
        for single in (True, False):
            assert low <= metrics.action_information(fit, test, 8, 4, single) <= high


def test_an_action_that_shows_one_transition_later_is_found_with_three_codes_only():
    rng = np.random.default_rng(1)
    actions = rng.integers(4, size=6000)
    codes = np.stack([np.roll(actions, 1), np.roll(actions, 0), actions], axis=1)  # the code of t+1 names the action of t
    codes[:, 1] = rng.integers(4, size=6000)
    data = transitions(codes, actions)
    fit, test = data.choose(data.episodes < 200), data.choose(data.episodes >= 200)
    assert metrics.action_information(fit, test, 4, 4, single=True) < 0.02
    assert metrics.action_information(fit, test, 4, 4) > 0.9


def test_codes_as_rare_as_fingerprints_earn_nothing_on_new_episodes():
    rng = np.random.default_rng(2)
    actions = rng.integers(4, size=600)
    data = transitions(rng.integers(64, size=(600, 3)), actions)  # 262,144 rows for 600 transitions
    assert metrics.mutual_information(data.codes[:, 1], actions) > 0.1  # counted where measured, noise looks informative
    assert metrics.action_information(data.choose(data.episodes < 20), data.choose(data.episodes >= 20), 64, 4) < 0.02


def test_a_dictionary_from_two_hundred_labels_names_the_actions():
    rng = np.random.default_rng(3)
    actions = np.where(rng.random(2000) < 0.4, 0, rng.integers(4, size=2000))
    data = transitions(single_codes(actions + 2, rng, 8), actions)
    result = metrics.mapping_accuracy(data.choose(data.episodes < 50), data.choose(data.episodes >= 50), 8)
    assert result["mapping_accuracy"] == 1.0
    assert result["majority_accuracy"] == pytest.approx((actions[1000:] == 0).mean())


def test_lift_is_how_much_likelier_the_code_gets():
    counts = np.array([[30, 0], [10, 40]])  # P(code 0 | action 0) = 3/4, P(code 0) = 30/80: lift 2
    assert maps.lift(counts, smoothing=0.0)[0, 0] == pytest.approx(2.0)
    shares = counts.sum(axis=0) / 80
    assert maps.lift(counts, smoothing=10)[0, 0] == pytest.approx((30 + 10 * shares[0]) / 40 / shares[0])
    assert maps.lift(np.zeros((3, 2), np.int64)).tolist() == [[1.0, 1.0]] * 3


def test_the_most_frequent_code_does_not_win_every_action():
    # code 0, "nothing happens", is the most frequent under each action; codes 1 and 2 appear under one action only
    codes = np.repeat([0, 1, 0, 2, 0], [60, 40, 60, 40, 100])
    actions = np.repeat([RIGHT, RIGHT, LEFT, LEFT, STAY], [60, 40, 60, 40, 100])
    assert maps.action_map(codes, actions, num_codes=4, num_actions=3) == [0, 1, 2]


def test_two_actions_that_look_alike_share_a_code_and_a_rare_pure_code_wins_nobody():
    # NOOP and FIRE both rest: code 0 nine times in ten; code 1 was seen three times, by chance always under FIRE
    codes = np.repeat([0, 0, 1, 2], [100, 97, 3, 100])
    actions = np.repeat([0, 1, 1, 2], [100, 97, 3, 100])
    assert maps.action_map(codes, actions, num_codes=4, num_actions=3) == [0, 0, 2]


def test_an_action_that_never_occurs_gets_the_most_frequent_code():
    codes = np.repeat([1, 0], [60, 40])
    actions = np.repeat([0, 1], [60, 40])
    assert maps.action_map(codes, actions, num_codes=2, num_actions=3) == [1, 0, 1]


def test_more_actions_than_codes_share_their_best_code():
    actions = np.repeat(np.arange(4), 100)
    codes = np.repeat([0, 1, 1, 0], 100)
    assert maps.action_map(codes, actions, num_codes=2, num_actions=4) == [0, 1, 1, 0]


def test_without_labels_a_code_gets_the_arrow_key_of_the_way_in_which_it_moves_the_picture():
    """A square on a still background, whose codes are its own actions under other numbers; the sixth is pressed by nobody."""
    store = dummy_clip_store(frame_size=(16, 16))
    moved = np.flatnonzero(store.actions >= 0)
    numbers = np.array([3, 0, 4, 1, 2])
    codes = numbers[store.actions[moved]]
    pairs = store.frames[np.stack([moved - 1, moved], axis=1)]
    named = {name: int(number) for name, number in zip(store.action_names, numbers, strict=True)}
    assert maps.keys_by_motion(pairs, codes, num_codes=6) == named
    still = np.repeat(pairs[:, :1], 2, axis=1)
    assert maps.keys_by_motion(still, codes, num_codes=6) == {"NOOP": int(np.bincount(codes).argmax())}


def test_codes_are_named_after_what_they_mostly_do():
    codes = np.repeat([0, 0, 1, 2, 2, 2], [50, 50, 80, 30, 30, 30])
    actions = np.repeat([0, 1, 2, 0, 1, 2], [50, 50, 80, 30, 30, 30])
    assert maps.latent_names(codes, actions, 4, ["NOOP", "FIRE", "LEFT"]) == ["NOOP or FIRE", "LEFT", "mixed", "unused"]


@pytest.mark.parametrize("num_frames", [2, 4, 7])
def test_every_transition_gets_the_code_of_its_own_movement(num_frames):
    store = column_store(num_episodes=3)
    codes = metrics.encode_episodes(PerfectActions(), store, [0, 2], num_frames, batch_size=3)
    inside = np.r_[0:41, 82:123]
    assert codes[inside].tolist() == store.actions[inside].tolist()
    assert (codes[41:82] == -1).all()


def test_actions_that_matter_raise_delta_psnr_and_pass_the_swap_test():
    store = column_store()
    video = torch.from_numpy(store.frames[:40]).reshape(8, 5, 16, 16, 3).permute(0, 1, 4, 2, 3).float() / 255
    obedient, deaf = metrics.LatentActionMetrics(3), metrics.LatentActionMetrics(3)
    obedient.update(PerfectActions(), video, torch.Generator().manual_seed(0))
    deaf.update(PerfectActions(obeys=False), video, torch.Generator().manual_seed(0))
    assert obedient.result()["delta_psnr_db"] == math.inf  # drawn without any error
    assert obedient.result()["swap_test"] == 1.0
    assert deaf.result()["delta_psnr_db"] == 0.0
    assert deaf.result()["swap_test"] == 0.0
    assert deaf.inferred.result()["psnr_db"] == pytest.approx(deaf.copy_last.result()["psnr_db"])


def test_a_probe_sees_two_frames_back_and_one_ahead():
    store = column_store(num_episodes=2, length=6)
    assert probe_frames(store, [1]).tolist() == [8, 9, 10]


def test_a_supervised_probe_reads_the_action_of_a_moving_column():
    torch.set_num_threads(1)
    store = column_store(num_episodes=8)
    result = supervised_information(store, [0, 1, 2, 3, 4, 5], [6, 7], num_steps=80, batch_size=32)
    assert result.supervised_accuracy > 0.9
    assert result.supervised_information > 0.6


def test_a_slow_clock_does_not_lower_the_ceiling(monkeypatch):
    torch.set_num_threads(1)
    store = column_store(num_episodes=8)
    usual = supervised_information(store, [0, 1, 2, 3, 4, 5], [6, 7], num_steps=20)
    monkeypatch.setattr("time.monotonic", itertools.count(step=3600.0).__next__)  # an hour between two readings
    assert supervised_information(store, [0, 1, 2, 3, 4, 5], [6, 7], num_steps=20) == usual
    assert usual.num_steps == 20
