"""The scores of chapter 3, on token clips small enough to count by hand."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_world import save_tiny_world, some_frames

from dynamics_model import load_dynamics, metrics
from dynamics_model.figures import roll_out_every_action
from dynamics_model.models.base import Predictions
from dynamics_model.models.maskgit import MaskGITSampling
from dynamics_model.rollouts import roll_out
from video_tokenizer import load_tokenizer


class CountingModel:
    """Stands in for a trained model of one token per frame: the next token is the last one plus the action, modulo 8.

    certainty: the probability that it gives to its prediction. If it ignores its actions, it always predicts "plus one".
    """

    num_actions, num_own_codes = 3, 0

    def __init__(self, certainty: float = 0.9, ignores_actions: bool = False):
        self.certainty, self.ignores_actions = certainty, ignores_actions

    def teacher_forced(self, tokens, actions):
        step = torch.ones_like(actions) if self.ignores_actions else actions
        predicted = (tokens[:, :-1] + step[:, 1:, None]) % 8
        probability = torch.where(predicted == tokens[:, 1:], self.certainty, (1 - self.certainty) / 7)
        return Predictions(-probability.log(), predicted)

    def start(self, tokens, actions):
        return SimpleNamespace(tokens=tokens[:, -1])

    def step(self, state, action, sampling=None, generator=None):
        state.tokens = (state.tokens + action[:, None]) % 8
        return state.tokens


def counting_clips(actions):
    """Token clips (B, T, 1) that follow the actions (B, T) from token 0."""
    return actions.clamp(min=0).cumsum(dim=1)[..., None] % 8


def test_copying_is_right_on_all_tokens_but_those_that_changed():
    previous, tokens = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 7]])
    copy = metrics.FrameScores()
    copy.update(torch.tensor([[0.1, 0.1, 0.2, 4.0]]), previous, tokens, previous)
    result = copy.result()
    assert result["accuracy"] == result["copy_accuracy"] == 0.75 and result["share_changed"] == 0.25
    assert result["accuracy_changed"] == result["copy_accuracy_changed"] == 0.0
    assert result["loss"] == pytest.approx(1.1)
    assert result["loss_changed"] == pytest.approx(4.0)


def test_a_latent_has_changed_if_it_changed_more_than_its_frame_on_average():
    """Four latents of two numbers: one moves by 2 in one number, one by 1; squared changes 0, 0, 0.5 and 2, mean 0.625."""
    previous = torch.zeros(1, 1, 4, 2)
    latents = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])[None, None]
    scores = metrics.FrameScores()
    scores.update(torch.tensor([[[0.1, 0.1, 0.2, 0.4]]]), latents, latents, previous)
    assert scores.result() == pytest.approx(
        {"loss": 0.2, "loss_changed": 0.4, "share_changed": 0.25, "copy_loss": 0.625, "copy_loss_changed": 2.0}
    )


def test_a_model_that_uses_its_actions_suffers_under_another_clips_actions():
    actions = torch.tensor([[-1, 1, 1, 1], [-1, 2, 2, 2]])
    report = metrics.DynamicsMetrics()
    report.update(CountingModel(certainty=0.93), counting_clips(actions), actions, torch.Generator().manual_seed(0))
    result = report.result()
    # the right action: -log 0.93 = 0.0726 nats a token; the other clip's: -log 0.01 = 4.605
    assert result["loss_changed"] == pytest.approx(-math.log(0.93), rel=1e-4)
    assert result["loss_changed_shuffled"] == pytest.approx(-math.log(0.01), rel=1e-4)
    assert result["shuffle_ratio"] == pytest.approx(4.605 / 0.0726, rel=1e-2)
    assert result["accuracy"] == result["accuracy_changed"] == 1.0
    assert result["copy_accuracy"] == 0.0


def test_a_model_that_ignores_its_actions_has_shuffle_ratio_one():
    actions = torch.randint(1, 3, (4, 6), generator=torch.Generator().manual_seed(0))
    report = metrics.DynamicsMetrics()
    report.update(CountingModel(ignores_actions=True), counting_clips(actions), actions, torch.Generator().manual_seed(0))
    assert report.result()["shuffle_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_no_clip_keeps_its_own_actions_when_they_are_shuffled(batch_size):
    actions = torch.arange(batch_size)[:, None].expand(batch_size, 3)
    for seed in range(5):
        shuffled = metrics.shuffle_actions(actions, torch.Generator().manual_seed(seed))
        assert (shuffled != actions).all()
        assert sorted(shuffled[:, 0].tolist()) == list(range(batch_size))


def test_a_rollout_follows_its_actions_and_feeds_its_own_tokens_back():
    tokens = torch.tensor([[[0], [1]]])
    dreamed = roll_out(CountingModel(), tokens, torch.tensor([[-1, 1]]), torch.tensor([[2, 2, 1]]))
    assert dreamed.tolist() == [[[3], [5], [6]]]


def test_rollouts_of_large_frames_are_drawn_one_by_one_and_are_the_same(tmp_path, monkeypatch):
    """Attention inside frames of 576 tokens, 8 actions and 32 frames at once, took 16 GiB on a CPU."""
    save_tiny_world(tmp_path)
    model, tokenizer = load_dynamics(tmp_path / "dynamics.pt"), load_tokenizer(tmp_path / "tokenizer.pt")
    rows, start, decode = [], model.start, tokenizer.decode
    monkeypatch.setattr(model, "start", lambda frames, *rest: rows.append(len(frames)) or start(frames, *rest))
    monkeypatch.setattr(tokenizer, "decode", lambda codes: rows.append(len(codes)) or decode(codes))
    frames, actions = torch.from_numpy(some_frames(3)), torch.tensor([-1, 0, 1])
    draw = partial(roll_out_every_action, model, tokenizer, frames, actions, 4, sampling=MaskGITSampling(temperature=0))
    together = draw()
    assert rows == [6, 6]  # six actions
    monkeypatch.setattr("dynamics_model.rollouts.MOST_PAIRS", 3 * 2 * 16**2)  # prompts of two rows of 3 frames of 16 tokens
    assert np.abs(draw() - together.astype(int)).max() <= 1 and rows[2:] == [2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_each_horizon_scores_its_own_step():
    real = torch.zeros(2, 4, 3, 8, 8)
    dreamed = real.clone()
    dreamed[:, 0] += 0.1  # 20 dB after one step
    dreamed[:, 3] += 0.01  # 40 dB after four
    scores = metrics.HorizonScores([1, 4, 16])
    scores.update(dreamed, real, before=real[:, 0])
    result = scores.result()
    assert result[1] == pytest.approx(20.0, abs=1e-3)
    assert result[4] == pytest.approx(40.0, abs=1e-3)
    assert math.isnan(result[16])  # a rollout of four frames has no sixteenth


def test_moving_pixels_of_a_rollout_are_those_of_the_real_video():
    real = torch.zeros(1, 2, 3, 8, 8)
    real[:, 1, :, 0, 0] = 0.5
    scores = metrics.HorizonScores([1, 2])
    scores.update(torch.zeros_like(real), real, before=real[:, 0])
    result = scores.result("moving_psnr_db")
    assert math.isnan(result[1])  # nothing moved
    assert result[2] == pytest.approx(-10 * math.log10(0.25), abs=1e-3)


def test_delta_psnr_is_what_the_right_actions_are_worth():
    real = torch.zeros(1, 1, 3, 8, 8)
    inferred, random = metrics.HorizonScores([1]), metrics.HorizonScores([1])
    inferred.update(real + 0.01, real, before=real[:, 0])
    random.update(real + 0.1, real, before=real[:, 0])
    assert metrics.delta_psnr_db(inferred, random)[1] == pytest.approx(20.0, abs=1e-3)


def test_a_copy_pays_for_saying_whether_a_code_changed_and_which_it_is_now():
    assert metrics.copy_bits_per_code(0.5, 5) == pytest.approx(1 + 0.5 * 2)
    assert metrics.copy_bits_per_code(0.0, 1_000) == 0 and metrics.copy_bits_per_code(1.0, 1_025) == pytest.approx(10)
