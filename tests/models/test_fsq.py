"""Claims about finite scalar quantization, checked over every code."""

import math

import pytest
import torch

from video_tokenizer.models.fsq import FiniteScalarQuantizer

LEVELS = [(8, 5, 5, 5), (4, 4, 4, 4, 4), (2, 2, 2), (8, 6, 5), (2, 3, 4), (3,)]


@pytest.mark.parametrize("levels", LEVELS)
def test_every_index_survives_the_round_trip_through_its_code(levels):
    quantizer = FiniteScalarQuantizer(levels)
    indices = torch.arange(quantizer.codebook_size)
    codes = quantizer.indices_to_codes(indices)
    assert torch.equal(quantizer.codes_to_indices(codes), indices)
    assert len(codes.unique(dim=0)) == quantizer.codebook_size == math.prod(levels)
    assert codes.min() >= -1 and codes.max() <= 1


@pytest.mark.parametrize("levels", LEVELS)
def test_random_latents_reach_every_code_and_the_decoder_gets_the_same_codes_from_the_indices(levels):
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(levels)
    codes, indices, _ = quantizer(1.5 * torch.randn(100_000, len(levels)))
    assert len(indices.unique()) == quantizer.codebook_size
    assert torch.equal(quantizer.indices_to_codes(indices), codes)


def test_digits_are_read_lowest_first():
    quantizer = FiniteScalarQuantizer([5, 5, 5])
    codes = (torch.tensor([1.0, 0.0, 2.0]) - 2) / 2  # digits 1, 0, 2 of 0..4
    assert quantizer.codes_to_indices(codes) == 1 + 0 * 5 + 2 * 25


def test_the_worked_example_of_the_text():
    quantizer = FiniteScalarQuantizer([3, 3, 3])
    latents = torch.atanh(torch.tensor([0.1, 0.4, 0.8]))
    codes, index, _ = quantizer(latents)
    assert codes.tolist() == [0.0, 0.0, 1.0]
    assert index == 1 + 1 * 3 + 2 * 9 == 22


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6, 8])
def test_levels_are_in_order_and_zero_sits_in_the_middle_of_a_bin(level):
    quantizer = FiniteScalarQuantizer([level])
    line = torch.linspace(-6, 6, 12_001)[:, None]
    indices = quantizer(line).indices
    assert torch.equal(indices, indices.sort().values) and len(indices.unique()) == level
    if level > 2:  # nothing flickers around zero, where a fresh encoder's latents are
        assert len(quantizer(torch.tensor([[-0.05], [0.0], [0.05]])).indices.unique()) == 1


def test_two_levels_are_the_sign():
    quantizer = FiniteScalarQuantizer([2, 2])
    codes, indices, _ = quantizer(torch.tensor([[-0.3, 0.3], [0.3, -0.3], [-2.0, -2.0], [2.0, 2.0]]))
    assert codes.tolist() == [[-1, 1], [1, -1], [-1, -1], [1, 1]]
    assert indices.tolist() == [2, 1, 0, 3]


def test_bfloat16_autocast_does_not_change_an_index():
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer([8, 5, 5, 5])
    latents = 1.5 * torch.randn(20_000, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer(latents)
    outside = quantizer(latents.float())
    assert torch.equal(inside.indices, outside.indices) and inside.codes.dtype == torch.float32
    assert inside.indices.max() < 1000 and len(inside.indices.unique()) > 900


def test_gradient_passes_the_rounding_as_if_it_were_not_there():
    quantizer = FiniteScalarQuantizer([5])
    latents = torch.tensor([[-3.0], [-0.4], [0.0], [0.7], [30.0]], requires_grad=True)
    quantizer(latents).codes.sum().backward()
    half_width = (5 - 1) * (1 - 1e-3) / 2
    expected = half_width * (1 - torch.tanh(latents.detach()) ** 2) / 2  # derivative of tanh(z) * half_width / (L // 2)
    assert torch.allclose(latents.grad, expected, atol=1e-6) and torch.isfinite(latents.grad).all()


def test_a_single_level_is_refused():
    with pytest.raises(ValueError, match="at least 2 levels"):
        FiniteScalarQuantizer([8, 1])
