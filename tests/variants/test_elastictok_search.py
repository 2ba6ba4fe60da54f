"""ElasticTok's searches: the fewest tokens that are good enough, and the study of them (EECS-2024-193, chapter 4)."""

import pytest
import torch
from tiny_tokenizers import tiny_config

from tokenizer_lab.elastic_lengths import random_places, scores_of
from tokenizer_variants.elastictok.length_search import (
    LengthQuery,
    LengthRegressor,
    LengthResult,
    binary_search,
    binned_search,
    encode_to_threshold,
    full_search,
    mean_squared_error,
    threshold_of,
)
from video_tokenizer.metrics import psnr_db
from video_tokenizer.registry import build_tokenizer


def built(**changes):
    """A tokenizer of frames of 16x16 with 16 tokens each, of which 2 to 16 are kept in training."""
    torch.manual_seed(0)
    return build_tokenizer(tiny_config("elastictok", **changes)).eval()


@pytest.fixture
def clip():
    """(2, 4, 3, 16, 16) in [0, 1]."""
    return torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def question(needed, length=16, shortest=2):
    """Blocks that need so many tokens each: the error is 0 from there on, and 1 below."""
    needed = torch.tensor(needed)
    frames = torch.rand(len(needed), 1, 3, 16, 16)
    return LengthQuery(lambda lengths: (lengths < needed).float(), 0.5, shortest, length, frames, frames)


# ---- EL5: threshold inference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("search", "evaluations"), [(full_search, 15), (binned_search, 15), (binary_search, 4)])
def test_every_search_finds_the_fewest_tokens_that_pass(search, evaluations):
    """Lengths 2 .. 16 are 15 candidates, which 4 halvings tell apart. The last block never passes, and gets all tokens."""
    answer = search(question([1, 9, 10, 16, 99]))
    assert (answer.lengths.tolist(), answer.evaluations) == ([2, 9, 10, 16, 16], evaluations)


def test_bins_answer_with_the_next_bin():
    assert binned_search(question([1, 9, 12]), num_bins=3).lengths.tolist() == [2, 9, 16]  # 2, 9 and 16 are tried


def test_binary_search_returns_a_length_that_has_passed_even_where_the_error_rises():
    """Lengths 5, 9 and 16 pass: halving tries 9, passes; 5, passes; 3, fails; 4, fails. The last tried, 4, is not the answer."""
    passing = torch.zeros(17, dtype=torch.bool)
    passing[[5, 9, 16]] = True
    asked = question([1])
    tried = []

    def error_at(lengths):
        tried.append(int(lengths))
        return (~passing[lengths]).float()

    answer = binary_search(LengthQuery(error_at, 0.5, 2, 16, asked.frames, asked.before))
    assert tried == [9, 5, 3, 4] and answer.lengths.tolist() == [5]


def test_the_regression_network_learns_lengths_from_blocks_and_answers_with_one_look():
    """Blocks of even grey, of which brighter ones need more: brightness 0, 0.5 and 1 need 2, 9 and 16 of 16 tokens."""
    torch.manual_seed(0)
    grey = torch.linspace(0, 1, 15)
    frames = grey[:, None, None, None, None].expand(15, 1, 3, 16, 16)
    asked = LengthQuery(lambda lengths: lengths.float(), 0.001, 2, 16, frames, frames)
    regressor = LengthRegressor(patch_size=4)
    regressor.fit([(asked, torch.arange(2, 17))])
    answer = regressor.search(asked)
    assert answer.evaluations == 1
    assert (answer.lengths - torch.arange(2, 17)).abs().float().mean() < 1.5


@torch.no_grad()
def test_a_block_is_searched_with_the_past_as_it_was_decoded(clip):
    """The answer of the walk is what one pass with the lengths it found gives, and not what a full past would."""
    tokenizer = built(bottleneck="vae")
    torch.nn.init.normal_(tokenizer.patch_unembedding.projection.weight)  # so that pictures differ visibly
    lengths = iter(torch.tensor([[3, 7], [16, 2], [5, 5], [2, 16]]))
    found = encode_to_threshold(tokenizer, clip, 0.1, search=lambda question: LengthResult(next(lengths), 1))
    assert found.lengths.tolist() == [[3, 16, 5, 2], [7, 2, 5, 16]] and found.evaluations == 1
    at_once = tokenizer.encode_to_length(clip, found.lengths).codes
    assert torch.allclose(found.encoded.codes, at_once, atol=1e-5)
    assert torch.allclose(found.reconstruction, tokenizer.decode(at_once), atol=1e-5)
    full_past = tokenizer.encode_to_length(clip, torch.tensor([[16, 16, 16, 2], [16, 16, 16, 16]]))
    assert (found.reconstruction[0, 3] - tokenizer.decode(full_past.codes)[0, 3]).abs().max() > 1e-3


@torch.no_grad()
def test_a_video_can_be_searched_piece_by_piece(clip):
    tokenizer = built()
    whole = encode_to_threshold(tokenizer, clip, 0.3)
    first = encode_to_threshold(tokenizer, clip[:, :2], 0.3)
    second = encode_to_threshold(tokenizer, clip[:, 2:], 0.3, caches=first.caches)
    assert torch.equal(torch.cat([first.lengths, second.lengths], dim=1), whole.lengths)
    assert torch.equal(torch.cat([first.encoded.indices, second.encoded.indices], dim=1), whole.encoded.indices)


def test_the_threshold_is_a_mean_squared_error_on_pixels_from_minus_one_to_one(clip):
    off = (clip + 0.1).clamp(0, 2)
    assert torch.allclose(mean_squared_error(off, clip), torch.tensor([0.04, 0.04]))  # 0.2 squared
    assert psnr_db(off, clip) == pytest.approx(20) and threshold_of(20) == pytest.approx(0.04)
    assert [round(threshold_of(psnr), 4) for psnr in (36.02, 31.25, 24.26)] == [0.001, 0.003, 0.015]


# ---- EL7: targets and scores ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_any_number_can_be_the_target(clip):
    """A target that only looks at the first frame's upper half, and one that nothing reaches."""
    tokenizer = built()
    upper = tokenizer.encode_to_threshold(
        clip, 0.0, target=lambda drawn, real: (drawn - real)[..., :8, :].abs().amax((1, 2, 3, 4))
    )
    assert (upper.lengths == 16).all() and (upper.errors > 0).all()
    easy = tokenizer.encode_to_threshold(clip, 0.5, target=lambda drawn, real: torch.zeros(len(real)))
    assert (easy.lengths == 2).all() and easy.evaluations == 4


def test_the_scores_set_tokens_beside_satisfaction_and_the_prefix_beside_random_tokens(clip):
    tokenizer = built()
    state = torch.get_rng_state()
    scores = scores_of(tokenizer, clip)
    assert torch.equal(torch.get_rng_state(), state) and all(isinstance(value, float) for value in scores.values())
    assert 2 <= scores["tokens_at_28_db"] <= 16 and 0 <= scores["satisfied_at_28_db"] <= 1
    assert scores["prefix_psnr_db_16_tokens"] == pytest.approx(scores["random_psnr_db_16_tokens"])  # all is all
    assert scores["full_search_error_percent"] == 0 and scores["full_search_evaluations"] == 15
    assert scores["binary_search_evaluations"] == 4 and scores["regression_search_evaluations"] == 1
    fixed = scores_of(built(kept_tokens=6), clip)
    assert fixed["tokens_at_28_db"] == fixed["tokens_at_31_db"] == 6


def test_random_places_are_as_many_in_every_block():
    kept = built(block_frames=2).kept_places(torch.tensor([[20, 3], [1, 32]]), torch.zeros(2, 4, 1))
    drawn = random_places(kept, 2, torch.Generator().manual_seed(0))
    assert drawn.view(2, 2, 32).sum(dim=-1).tolist() == [[20, 3], [1, 32]] and not torch.equal(drawn, kept)
