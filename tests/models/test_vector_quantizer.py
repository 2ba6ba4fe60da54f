"""The learned codebook, on latents of one number: running means, start on data, restarts, gradients straight through."""

import pytest
import torch
from torch import nn

from video_tokenizer.models.vector_quantizer import TrackingVectorQuantizer
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.config import TrainingConfig
from video_tokenizer.training.optimizer import build_optimizer


def quantizer(codes, **settings):
    """A codebook of the given numbers, in training, that needs no start."""
    one = TrackingVectorQuantizer(len(codes), 1, data_start=False, **{"ema_decay": 0.99} | settings).train()
    one.codebook.weight.data.copy_(torch.tensor(codes, dtype=torch.float32)[:, None])
    one.sums.copy_(one.codebook.weight.detach() * one.counts[:, None])
    return one


def test_a_code_is_the_running_mean_of_the_latents_that_chose_it():
    """Codes 0 and 10, counted once each. Latents 1, 3 and 11 choose 0, 0 and 10: counts 1.01 and 1, sums 0.04 and 10.01."""
    one = quantizer([0.0, 10.0])
    one(torch.tensor([[1.0], [3.0], [11.0]]))
    assert one.counts.tolist() == pytest.approx([0.99 + 0.01 * 2, 0.99 + 0.01 * 1])
    assert one.codebook.weight.flatten().tolist() == pytest.approx([0.04 / 1.01, 10.01 / 1.00], rel=1e-5)


def test_gradients_pass_straight_through_and_commitment_pulls_with_a_quarter():
    """Latents 1 and 3 with the code 0: 0.25 * (1 + 9) / 2 = 1.25, with the gradient 0.25 * 2 * (1, 3) / 2 = (0.25, 0.75)."""
    latents = torch.tensor([[1.0], [3.0]], requires_grad=True)
    codes, _, losses = quantizer([0.0, 50.0]).eval()(latents)
    codes.sum().backward(retain_graph=True)
    assert latents.grad is not None and latents.grad.flatten().tolist() == [1.0, 1.0]
    latents.grad = None
    losses["commitment"].backward()
    assert losses["commitment"].item() == 1.25 and latents.grad.flatten().tolist() == [0.25, 0.75]


def test_the_first_batch_gives_the_codes_and_a_loaded_one_does_not_start_again():
    torch.manual_seed(0)
    one = TrackingVectorQuantizer(4, 1, ema_decay=0.99).train()
    one(torch.tensor([[101.0], [102.0], [103.0], [104.0]]))
    assert sorted(one.codebook.weight.flatten().tolist()) == pytest.approx([101, 102, 103, 104], rel=1e-4)
    again = TrackingVectorQuantizer(4, 1, ema_decay=0.99)
    again.load_state_dict(one.state_dict())
    again.train()(torch.zeros(4, 1))
    assert again.codebook.weight.min() > 90  # a fresh start would have moved all of them to 0


def test_a_code_that_nobody_chooses_moves_onto_a_latent():
    """The code at 50 is chosen by nobody: its count falls from 1 to 0.99, below 1, and it moves to one of the latents."""
    latents = torch.tensor([[1.0], [1.5], [2.0], [2.5]])
    kept, moved = quantizer([0.0, 50.0]), quantizer([0.0, 50.0], restart_below=1.0)
    kept(latents), moved(latents)
    assert kept.codebook.weight[1].item() == pytest.approx(50) and moved.codebook.weight[1] in latents
    assert moved.codebook.weight[0].item() == pytest.approx(0.07 / 1.03, rel=1e-5)  # in use, so it follows its mean


def test_codes_start_close_together_so_that_latents_far_apart_choose_different_ones():
    """A fresh encoder says nearly the same of every patch: among codes from a normal distribution all choose the same one."""
    torch.manual_seed(0)
    one = TrackingVectorQuantizer(256, 32, data_start=False).eval()
    assert one.codebook.weight.abs().max() <= 1 / 256
    latents = 0.1 * torch.randn(1, 32) + 0.1 * torch.randn(100, 32)
    assert one.nearest(latents).unique().numel() > 10
    one.codebook.weight.data = torch.randn(256, 32)
    assert one.nearest(latents).unique().numel() == 1


@pytest.mark.parametrize(("restart_below", "saved"), [(1.0, 2.0), (0.0, 11.0)])
def test_the_average_of_the_weights_copies_a_code_that_restarts_and_averages_one_that_does_not(restart_below, saved):
    """The code moves from 20 to 2. The mean of half old and half new is 11, which is neither place."""
    one = quantizer([20.0], ema_decay=0.0, restart_below=restart_below)
    model = nn.ModuleDict({"to_latents": nn.Linear(1, 1), "quantizer": one})
    average = ExponentialMovingAverage(model, decay=0.5)
    average.num_updates = 100  # the decay has grown to its full size
    nn.init.constant_(one.codebook.weight, 2.0)
    average.update(model)
    assert average.weights["quantizer.codebook.weight"].item() == saved


@pytest.mark.parametrize("ema_decay", [0.0, 0.99])
def test_a_codebook_has_no_weight_decay(ema_decay):
    groups = build_optimizer(TrackingVectorQuantizer(4, 2, ema_decay=ema_decay), TrainingConfig(weight_decay=0.1)).param_groups
    assert not any(group["params"] for group in groups if group["weight_decay"])
