"""Checks of the exercises of chapter 3."""

import pytest
import torch
from structure_checks import REPOSITORY

from dynamics_model import load_dynamics
from dynamics_model.models.masking import nucleus, tokens_left_masked
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_video
from video_tokenizer.training.checkpoint import load_checkpoint

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"


@pytest.fixture(scope="module")
def beginning():
    """The reference world's model, and the tokens of a real beginning."""
    frames = load_checkpoint(WORLD / "dynamics.pt", "dynamics")["start_frames"][:2].numpy()
    tokens = load_tokenizer(WORLD / "tokenizer.pt").encode(to_video(frames)).indices  # (2, T, N)
    return load_dynamics(WORLD / "dynamics.pt"), tokens


def test_exercise_1_the_cache_is_predicted(answers, beginning):
    assert answers.size_of_cached_keys(2, 64, 4, 128, 3, 8) == (128, 4, 3, 32)
    model, tokens = beginning
    for num_frames in (3, 8):
        state = model.start(tokens[:, :num_frames])
        expected = answers.size_of_cached_keys(
            2, 64, model.config.num_heads, model.config.embed_dim, num_frames, model.context_frames
        )
        assert tuple(state.cache.blocks[0][0].shape) == tuple(expected)


def test_exercise_2_the_cosine_schedule(answers):
    assert answers.left_by_cosine(64, 8) == [63, 60, 54, 46, 36, 25, 13, 0]
    for num_tokens, num_steps in ((64, 4), (16, 16), (10, 3)):
        expected = [tokens_left_masked(step, num_steps, num_tokens, "cosine") for step in range(1, num_steps + 1)]
        assert list(answers.left_by_cosine(num_tokens, num_steps)) == expected


def test_exercise_3_the_nucleus(answers):
    assert answers.nucleus_of([0.1, 0.6, 0.05, 0.25], 0.8) == {1, 3} and answers.nucleus_of([0.1, 0.6, 0.3], 0.6) == {1}
    probabilities = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).mul(2).softmax(dim=-1)
    candidates, shares, _ = nucleus(probabilities, 0.9, 30)
    for row, tokens, kept in zip(probabilities.tolist(), candidates, shares > 0, strict=True):
        assert answers.nucleus_of(row, 0.9) == set(tokens[kept].tolist())


@torch.no_grad()
def test_exercise_4_a_frame_is_filled_in_as_the_model_does_it(answers, beginning):
    model, tokens = beginning
    action, everywhere = torch.tensor([2]), torch.arange(64)[None]
    expected = model.step(model.start(tokens[:1]), action, model.sampling_class(num_steps=4, temperature=0))[0]
    cache = model.start(tokens[:1]).cache

    def predict(hidden: torch.Tensor) -> torch.Tensor:
        return model._present_logits(cache, hidden[None], action, everywhere)[0]

    assert torch.equal(answers.fill_in(predict, 64, model.mask_token, [4, 2, 1, 0]), expected)


def test_exercise_5_guidance(answers):
    logits, free = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(answers.guided(logits, free, 1.0), logits, atol=1e-6)
    assert torch.allclose(answers.guided(logits, free, 0.0), free, atol=1e-6)
    assert torch.allclose(answers.guided(logits, free, 1.5), 1.5 * logits - 0.5 * free, atol=1e-5)
