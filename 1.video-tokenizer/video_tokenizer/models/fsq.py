"""Finite scalar quantization: round each latent value to one of a few levels (solution 8 of the chapter)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What every quantizer of the course returns.

    codes: (..., D) float32, what the decoder sees; FSQ's are in [-1, 1]. indices: (...) int64 in [0, K), the tokens.
    losses: terms to add to the loss, already weighted; FSQ has none.
    """

    codes: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class FiniteScalarQuantizer(nn.Module):
    """FSQ, arXiv:2309.15505: no codebook to learn, hence none that can collapse.

    levels: number of values per latent dimension. (8, 5, 5, 5) has D = 4 and K = 8 * 5 * 5 * 5 = 1000 tokens.

    Each latent value is bounded by tanh and rounded to an integer: -2, -1, 0, 1, 2 for 5 levels, -4 .. 3 for 8 levels. An even
    number of levels has no middle level, so the range is shifted by half a step, and tanh is shifted so that a latent of 0 still
    falls in the middle of level 0. Two levels are the sign.
    """

    half_width: Tensor
    offset: Tensor
    shift: Tensor
    levels_tensor: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int], epsilon: float = 1e-3):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"every FSQ dimension needs at least 2 levels, got {tuple(levels)}")
        self.levels = tuple(int(level) for level in levels)
        self.latent_dim, self.codebook_size = len(self.levels), math.prod(self.levels)
        level = torch.tensor(self.levels, dtype=torch.float32)
        even = (level % 2 == 0).float()
        half_width = (level - 1) * (1 - epsilon) / 2
        offset = 0.5 * even
        # The paper's listing prints tan; atanh is meant: tanh(0 + shift) * half_width - offset = 0. At L = 2 that shift would
        # push every latent to the same level, so two levels split at 0 instead.
        shift = torch.where(level > 2, torch.atanh(offset / half_width.clamp(min=0.75)), torch.zeros_like(level))
        self.register_buffer("half_width", half_width, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("levels_tensor", level.long(), persistent=False)
        self.register_buffer(
            "basis", torch.tensor([math.prod(self.levels[:i]) for i in range(len(self.levels))]), persistent=False
        )

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., D), any float dtype, unbounded. Gradients pass straight through the rounding."""
        # bfloat16 has 8 bits of precision, too few to count to 1000
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            bounded = torch.tanh(latents + self.shift) * self.half_width - self.offset
            rounded = bounded.round()
            straight_through = bounded + (rounded - bounded).detach()
            return Quantized(self._scale(straight_through), self._levels_to_indices(rounded), {})

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (...) int64 in [0, K). Returns the codes (..., D) that `forward` gave with them, exactly."""
        digits = indices[..., None] // self.basis % self.levels_tensor  # (..., D), each in [0, L)
        return self._scale((digits - self.levels_tensor // 2).float())

    def codes_to_indices(self, codes: Tensor) -> Tensor:
        """codes: (..., D) as `forward` or `indices_to_codes` gave them. Returns (...) int64."""
        half = self.levels_tensor // 2
        rounded = torch.where(self.levels_tensor == 2, (codes - 1) / 2, codes * half).round()
        return self._levels_to_indices(rounded)

    def _scale(self, rounded: Tensor) -> Tensor:
        """Integer levels to codes in [-1, 1]: divide by L // 2. The two levels -1 and 0 of L = 2 become -1 and +1."""
        return torch.where(self.levels_tensor == 2, 2 * rounded + 1, rounded / (self.levels_tensor // 2))

    def _levels_to_indices(self, rounded: Tensor) -> Tensor:
        """Read the levels as the digits of one number, lowest first: [1, 0, 2] in base 5 is 1 + 0 * 5 + 2 * 25 = 51."""
        digits = rounded.long() + self.levels_tensor // 2
        return (digits * self.basis).sum(dim=-1)
