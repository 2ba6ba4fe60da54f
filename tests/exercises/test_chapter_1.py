"""Checks of the exercises of chapter 1."""

import json
import math

import numpy as np
import pytest
import torch
from structure_checks import REPOSITORY

from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.models.fsq import FiniteScalarQuantizer
from video_tokenizer.models.st_transformer import attention, causal_mask
from video_tokenizer.training.checkpoint import load_checkpoint

CHAPTER = REPOSITORY / "1.video-tokenizer"


def test_exercise_1_the_sizes_are_predicted(answers):
    shape, codebook_size, bits = answers.sizes_of_tokens(8, 4, 128, 4, (8, 6, 5))
    assert tuple(shape) == (8, 4, 1024) and codebook_size == 240 and bits == pytest.approx(8096.6, abs=0.1)
    tokenizer = load_tokenizer(REPOSITORY / "assets" / "worlds" / "breakout" / "tokenizer.pt")
    shape, codebook_size, _ = answers.sizes_of_tokens(2, 3, 64, tokenizer.config.patch_size, tokenizer.config.levels)
    assert tokenizer.encode(torch.rand(2, 3, 3, 64, 64)).indices.shape == shape and tokenizer.codebook_size == codebook_size


def test_exercise_2_a_vector_becomes_a_number(answers):
    assert (
        answers.token_of([math.atanh(0.1), math.atanh(0.4), math.atanh(0.8)], [3, 3, 3]) == 22
    )  # the digits 1, 1 and 2: 1 + 1 * 3 + 2 * 9
    latents = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * 2
    expected = FiniteScalarQuantizer((5, 7, 3))(latents).indices.tolist()
    assert [answers.token_of(latent, [5, 7, 3]) for latent in latents.tolist()] == expected


def test_exercise_3_attention_looks_back_and_never_ahead(answers):
    queries, keys, values = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    found = answers.attend_to_the_past(queries, keys, values, 3)
    assert torch.allclose(found, attention(queries, keys, values, causal_mask(6, 3)), atol=1e-5)
    values[5] = 100.0
    assert torch.equal(answers.attend_to_the_past(queries, keys, values, 3)[:5], found[:5])


def test_exercise_4_rounding_has_a_slope(answers):
    x = torch.tensor([-1.4, 0.2, 0.8, 2.5], requires_grad=True)
    rounded = answers.round_with_slope(x)
    assert torch.equal(rounded, x.round())
    (rounded * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_exercise_5_psnr_hardly_notices_that_the_ball_is_gone(answers):
    starts = load_checkpoint(REPOSITORY / "assets" / "worlds" / "breakout" / "dynamics.pt", "dynamics")["start_frames"].numpy()
    frames = np.concatenate(list(starts))
    ball = detect_ball(frames, "ALE/Breakout-v5")
    there = np.isfinite(ball[:, 0])
    painted = answers.without_ball(frames, ball)
    assert there.sum() > 5 and np.array_equal(painted[~there], frames[~there])
    assert not np.isfinite(detect_ball(painted[there], "ALE/Breakout-v5")[:, 0]).any()
    error = (to_video(painted[None]) - to_video(frames[None]))[0, torch.from_numpy(there)].square().mean()
    assert -10 * torch.log10(error) > 38  # decibels, for pictures of a ball game without a ball


def test_exercise_8_a_better_tokenizer(request):
    """Train your own with --checkpoint-dir 1.video-tokenizer/checkpoints/exercise and as many steps as the default."""
    if not request.config.getoption("--run-exercises"):
        pytest.skip("takes a training: --run-exercises")
    folder = CHAPTER / "checkpoints" / "exercise"
    assert (folder / "metrics.json").exists(), f"train into {folder.relative_to(REPOSITORY)} first"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] <= 1_000 and metrics["moving_psnr_db"] > 27
