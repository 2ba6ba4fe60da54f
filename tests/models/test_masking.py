"""Claims about masks and draws: what training hides and spoils, in which order a frame is filled in, and out of what is drawn."""

import itertools
import math

import pytest
import torch

from dynamics_model.models.masking import corrupt, draw, nucleus, random_mask, sample_rows, sample_tokens, tokens_left_masked


@pytest.mark.parametrize("schedule, expected", [("cosine", [60, 46, 25, 0]), ("halving", [4, 2, 1, 0])])
def test_schedules_of_the_docstring_fix_at_least_one_token_a_step(schedule, expected):
    assert [tokens_left_masked(step, 4, 64, schedule) for step in (1, 2, 3, 4)] == expected
    for num_steps in range(1, 65):
        left = [64] + [tokens_left_masked(step, num_steps, 64, schedule) for step in range(1, num_steps + 1)]
        assert left[-1] == 0 and all(a > b for a, b in itertools.pairwise(left))


def test_mask_rate_is_drawn_per_clip_between_the_smallest_and_one():
    torch.manual_seed(0)
    rates = random_mask((400, 5, 64), 0.5).float().mean(dim=(1, 2))
    assert 0.4 < rates.min() < 0.55 and rates.max() > 0.95 and rates.mean() == pytest.approx(0.75, abs=0.03)


def test_corruption_replaces_at_most_the_given_share():
    torch.manual_seed(0)
    tokens = torch.zeros(200, 4, 64, dtype=torch.int64)
    share = (corrupt(tokens, 0.2, 1000) != 0).float().mean(dim=(1, 2))
    assert share.max() < 0.3 and share.mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(corrupt(tokens, 0.0, 1000), tokens)


def test_temperature_acts_on_the_logits():
    logits = torch.tensor([[[0.0, 1.0]]]).expand(1, 20_000, 2)
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 2.0):
        tokens, _ = sample_tokens(logits, temperature, None, generator)
        assert tokens.float().mean() == pytest.approx(1 / (1 + math.exp(-1 / temperature)), abs=0.02)
    assert sample_tokens(logits, 0.0, None, generator)[0].all()


def test_top_k_forbids_the_rest():
    logits = torch.randn(1, 1, 10).expand(1, 5_000, 10)
    tokens, log_probability = sample_tokens(logits, 5.0, 3, torch.Generator().manual_seed(0))
    assert set(tokens.unique().tolist()) == set(logits[0, 0].topk(3).indices.tolist())
    assert torch.allclose(log_probability, logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0])


def test_top_p_keeps_the_fewest_tokens_that_make_up_the_share():
    """Probabilities 0.5, 0.3, 0.1, 0.1 and top_p 0.7: the first two, and no other, however often we draw."""
    logits = torch.tensor([0.5, 0.3, 0.1, 0.1]).log().expand(1, 5_000, 4)
    tokens, _ = sample_tokens(logits, 1.0, None, torch.Generator().manual_seed(0), top_p=0.7)
    assert set(tokens.unique().tolist()) == {0, 1}
    assert (tokens == 0).float().mean().item() == pytest.approx(0.5 / 0.8, abs=0.03)
    almost_none, _ = sample_tokens(logits, 1.0, None, torch.Generator().manual_seed(0), top_p=1e-6)
    assert (almost_none == 0).all()  # the likeliest always stays


def nucleus_by_hand(probabilities, top_p):
    """One token after the other, likeliest first, until the share is reached."""
    expected = torch.zeros_like(probabilities)
    for row, values in enumerate(probabilities):
        share = 0.0
        for place in values.argsort(descending=True).tolist():
            if share < top_p:
                expected[row, place] = values[place]
            share += values[place].item()
    return expected


@pytest.mark.parametrize("sharpness", [0.1, 3.0, 20.0])  # flat, where few tokens are not enough, to nearly certain
def test_the_nucleus_is_that_of_its_definition(sharpness):
    probabilities = (sharpness * torch.randn(10, 300, generator=torch.Generator().manual_seed(0))).softmax(dim=-1)
    expected = nucleus_by_hand(probabilities, 0.9)
    candidates, shares, too_few = nucleus(probabilities, 0.9, few=300)
    assert torch.equal(torch.zeros_like(probabilities).scatter(-1, candidates, shares), expected)
    assert not too_few.any()
    few_candidates, few_shares, too_few = nucleus(probabilities, 0.9, few=32)
    assert torch.equal(too_few, (expected > 0).sum(dim=-1) > 32)
    assert torch.equal(few_shares[~too_few], shares[~too_few, :32])
    assert torch.equal(few_candidates[~too_few], candidates[~too_few, :32])


def test_draws_where_a_few_candidates_are_not_enough_come_from_the_whole_nucleus():
    """Row 0 is flat, row 1 nearly certain: the first may give any of its 180 likeliest tokens, not only the first 32."""
    probabilities = torch.stack([torch.full((200,), 1 / 200) + torch.arange(200) * 1e-9, torch.eye(200)[7]])
    drawn = draw(probabilities.repeat(5_000, 1), 0.9, torch.Generator().manual_seed(0)).view(5_000, 2)
    assert set(drawn[:, 0].tolist()) == set(nucleus_by_hand(probabilities, 0.9)[0].nonzero()[:, 0].tolist())
    assert drawn[:, 0].bincount().max() < 3 * 5_000 / 180 and (drawn[:, 1] == 7).all()


def test_rows_are_sampled_as_multinomial_samples_them():
    """The same numbers from the same generator: only its check of the weights, for which a GPU would be waited for, is gone."""
    weights = torch.rand(1_000, 7) * (torch.rand(1_000, 7) < 0.7) + torch.eye(7)[torch.arange(1_000) % 7]
    mine = sample_rows(weights, torch.Generator().manual_seed(1))
    assert torch.equal(mine, torch.multinomial(weights, 1, generator=torch.Generator().manual_seed(1))[:, 0])
    assert bool((weights[torch.arange(1_000), mine] > 0).all())
