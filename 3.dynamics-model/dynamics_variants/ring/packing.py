"""Several examples in one row, and a loss that does not notice (EECS-2024-193, section 5.2.2).

A batch of short and long examples, padded to the longest, is mostly padding. Packed one behind the other, the same examples fill
fewer rows. Two things must not change by that: what an example sees (only itself: `Layout.examples`) and what it counts. A mean
over all tokens would count an answer of 100 tokens a hundred times as much as one of a single token, so each token is weighted
by its example:

    L = 1/n  sum over examples i  of  1/|V_i|  sum over its target tokens t  of  loss_t
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dynamics_variants.ring.blockwise import Layout
from video_tokenizer.errors import InputError

PADDING = -1
"""the example number of a token that belongs to none"""


class Packed(NamedTuple):
    """Examples in R rows of S tokens."""

    tokens: Tensor
    """(R, S) int64, 0 where there is padding"""
    examples: Tensor
    """(R, S) int64, number of each token's example in the list that was packed, -1 where there is padding"""
    positions: Tensor
    """(R, S) int64, place of each token in its example. Learned positions need it; rotary ones only know distances anyway"""

    @property
    def layout(self) -> Layout:
        """Causal inside each example."""
        return Layout(torch.arange(self.tokens.shape[1], device=self.tokens.device), self.examples)


def pack(sequences: Sequence[Tensor], row_length: int) -> Packed:
    """Put each sequence (int64, 1-D) into the first row that has room for it.

    Lengths 3, 5, 2, 3 in rows of 6: rows [3, 2], [5], [3]. Raises InputError for a sequence longer than a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number, sequence in enumerate(sequences):
        length = len(sequence)
        if length > row_length:
            raise InputError(f"example {number} has {length} tokens, and a row has {row_length}; give longer rows or cut it")
        row = next((row for row, left in enumerate(room) if left >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(row_length)
        rows[row].append(number)
        room[row] -= length
    return _fill(sequences, rows, row_length)


def pad(sequences: Sequence[Tensor], row_length: int) -> Packed:
    """Each sequence in a row for itself, as in a batch that is not packed."""
    return _fill(sequences, [[number] for number in range(len(sequences))], row_length)


def _fill(sequences: Sequence[Tensor], rows: list[list[int]], row_length: int) -> Packed:
    packed = Packed(*(torch.full((len(rows), row_length), empty, dtype=torch.int64) for empty in (0, PADDING, 0)))
    for row, numbers in enumerate(rows):
        start = 0
        for number in numbers:
            place = slice(start, start + len(sequences[number]))
            packed.tokens[row, place] = sequences[number]
            packed.examples[row, place] = number
            packed.positions[row, place] = torch.arange(len(sequences[number]))
            start = place.stop
    return packed


def example_weights(examples: Tensor, is_target: Tensor) -> Tensor:
    """The weight of each token's loss, so that the weighted sum is the mean over examples of the mean over an example's targets.

    examples: (R, S) int64, -1 for padding. is_target: (R, S) bool, the tokens whose loss counts. Returns (R, S) float32.
    Examples of 2 and 1 targets: 1/4 for each of the two, 1/2 for the one. An example without a target does not count.
    """
    counted = is_target & (examples != PADDING)
    number = examples.clamp(min=0)
    targets = torch.zeros(int(number.max()) + 1, device=examples.device)  # (n,) targets of each example
    targets.index_add_(0, number[counted], torch.ones_like(number[counted], dtype=torch.float32))
    num_examples = (targets > 0).sum().clamp(min=1)
    return torch.where(counted, 1 / (targets.clamp(min=1)[number] * num_examples), 0.0)
