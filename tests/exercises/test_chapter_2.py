"""Checks of the exercises of chapter 2."""

import json

import numpy as np
import pytest
import torch
from structure_checks import REPOSITORY

from latent_action_model import load_latent_action_model
from latent_action_model.action_map import action_map
from latent_action_model.metrics import entropy, mutual_information

CHAPTER = REPOSITORY / "2.latent-action-model"
WORLD = REPOSITORY / "assets" / "worlds" / "breakout"


def labels_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latent actions and keys of as many transitions as the table counts."""
    actions, keys = np.indices(counts.shape)
    return actions.repeat(counts.ravel()), keys.repeat(counts.ravel())


def test_exercise_1_the_sizes_are_predicted(answers):
    assert [tuple(shape) for shape in answers.sizes_of_actions(3, 16, 64, 32)] == [(3, 15), (3, 15, 32), (3, 15, 3, 64, 64)]
    model = load_latent_action_model(WORLD / "latent_action_model.pt")
    indices, codes, past = answers.sizes_of_actions(2, 5, 64, model.config.code_dim)
    video = torch.rand(2, 5, 3, 64, 64)
    encoded = model.encode(video)
    assert (encoded.indices.shape, encoded.codes.shape, video[:, :-1].shape) == (indices, codes, past)


def test_exercise_2_what_latent_actions_reveal_about_keys(answers):
    assert answers.known_share([[25, 25, 0, 25], [0, 0, 25, 0]]) == pytest.approx(0.406, abs=0.001)  # one means RIGHT
    assert answers.known_share([[7, 0], [0, 3]]) == pytest.approx(1) and abs(answers.known_share([[6, 3], [4, 2]])) < 1e-9
    counts = np.random.default_rng(0).integers(1, 20, (5, 4))
    actions, keys = labels_of(counts.reshape(5, 4))
    assert answers.known_share(counts.tolist()) == pytest.approx(mutual_information(actions, keys) / entropy(keys))


def test_exercise_3_the_nearest_code_lets_gradients_pass(answers):
    generator = torch.Generator().manual_seed(0)
    latents, codebook = torch.randn(20, 4, generator=generator).requires_grad_(), torch.randn(6, 4, generator=generator)
    codes, numbers = answers.to_nearest_code(latents, codebook)
    assert torch.equal(numbers, torch.cdist(latents, codebook).argmin(dim=-1))
    assert torch.allclose(codes, codebook[numbers], atol=1e-6)
    codes.sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, torch.ones_like(latents))


def test_exercise_4_idle_codes_are_moved_and_others_are_not(answers):
    codebook, latents = torch.arange(8.0).view(4, 2), 100 + torch.arange(40.0).view(20, 2)
    moved = answers.restart_idle_codes(codebook, torch.tensor([0.5, 0.001, 0.495, 0.004]), latents)
    assert torch.equal(moved[[0, 2]], codebook[[0, 2]])
    assert all((latents == moved[code]).all(dim=1).any() for code in (1, 3)) and not torch.equal(moved[1], moved[3])
    assert torch.equal(answers.restart_idle_codes(codebook, torch.full((4,), 0.25), latents), codebook)


def test_exercise_5_the_latent_action_for_a_key(answers):
    counts = np.array([[90, 80, 30, 30], [2, 1, 60, 0], [3, 0, 1, 70], [5, 19, 9, 0]])  # action 0 comes with every key
    assert answers.actions_to_send(counts.tolist())[2:] == [1, 2]
    many = 1_000 * counts  # so many that the few imaginary transitions of action_map do not matter
    assert answers.actions_to_send(many.tolist()) == action_map(*labels_of(many), 4, 4)


def test_exercise_8_more_about_the_keys(request):
    """Train your own with --checkpoint-dir 2.latent-action-model/checkpoints/exercise, on the recording of chapter 1."""
    if not request.config.getoption("--run-exercises"):
        pytest.skip("takes a training: --run-exercises")
    file = CHAPTER / "checkpoints" / "exercise" / "metrics.json"
    assert file.exists(), f"train into {file.parent.relative_to(REPOSITORY)} first"
    metrics = json.loads(file.read_text())
    assert metrics["steps"] <= 150 and metrics["action_information_single"] > 0.39
