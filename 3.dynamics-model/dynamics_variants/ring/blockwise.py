"""Exact attention without the S x S matrix: blocks of scores are computed, used and forgotten (arXiv:2112.05682, 2205.14135).

softmax(q k^T) v is a quotient of two sums over the keys, so it can be summed up block by block. A running maximum keeps the
exponentials finite, and when it rises, the sums so far are scaled down (the "online softmax", arXiv:1805.02867):

    m' = max(m, max of the block's scores s)
    numerator    = numerator   * e^(m - m') + sum of e^(s - m') v
    denominator  = denominator * e^(m - m') + sum of e^(s - m')

The forward pass keeps the output and one number per query, log(denominator) + m. From it, the backward pass recomputes each
block of probabilities.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_tokenizer.models.st_transformer import Mask, attention

BLOCK_SIZE = 256
"""queries and keys per block of scores"""


@dataclass(frozen=True)
class Layout:
    """Which token may attend to which, in S numbers instead of an S x S mask.

    A token may attend to those whose time is not later than its own, if they belong to the same example:

        causal          times 0 1 2 3 4 5
        block-causal    times 0 0 0 1 1 1     two frames of three tokens, each sees its whole frame
        everything      times 0 0 0 0 0 0
    """

    times: Tensor
    """(S,) int64"""
    examples: Tensor | None = None
    """(B, S) int64, number of the example that each token belongs to (segment ids); None: each sequence is one example"""

    def __getitem__(self, tokens: slice) -> "Layout":
        """The layout of some of the tokens. They keep their times, so that parts on several devices know where they stand."""
        return Layout(self.times[tokens], None if self.examples is None else self.examples[:, tokens])

    def mask(self, keys: "Layout | None" = None) -> Tensor:
        """Which of these tokens may attend to which of `keys` (default: to each other): bool, (S, R) or (B, 1, S, R)."""
        keys = keys or self
        visible = keys.times <= self.times[:, None]
        if self.examples is None or keys.examples is None:
            return visible
        return visible & (keys.examples[:, None, :] == self.examples[:, :, None])[:, None]


def causal_layout(num_tokens: int, device: torch.device | None = None, examples: Tensor | None = None) -> Layout:
    """Each token may attend to itself and all before it."""
    return Layout(torch.arange(num_tokens, device=device), examples)


class Block(NamedTuple):
    """A block of scores of which at least a part is needed."""

    queries: slice
    keys: slice
    mask: Tensor | None
    """bool, broadcast to the scores; None where every query may attend to every key"""


def needed_blocks(queries: Layout, keys: Layout, size: int) -> Iterator[Block]:
    """The blocks of at most size x size scores, without those in which no query may attend to any key.

    Of four blocks of a causal layout, the one above the diagonal is left out, and only the two on it need a mask.
    """
    rows = [slice(start, start + size) for start in range(0, len(queries.times), size)]
    columns = [slice(start, start + size) for start in range(0, len(keys.times), size)]
    # one number per block, so that a GPU is asked once and not for each block
    latest, earliest = _extremes([queries.times[row] for row in rows])
    latest_key, earliest_key = _extremes([keys.times[column] for column in columns])
    hidden = earliest_key[None, :] > latest[:, None]  # (rows, columns)
    full = latest_key[None, :] <= earliest[:, None]
    if queries.examples is not None and keys.examples is not None:
        last, first = _extremes([queries.examples[:, row].T for row in rows])  # (rows, B)
        last_key, first_key = _extremes([keys.examples[:, column].T for column in columns])
        apart = (first_key[None] > last[:, None]) | (last_key[None] < first[:, None])  # (rows, columns, B)
        same = (first == last)[:, None] & (first_key == last_key)[None] & (first[:, None] == first_key[None])
        hidden, full = hidden | apart.all(dim=-1), full & same.all(dim=-1)
    hidden, full = hidden.tolist(), full.tolist()
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if not hidden[i][j]:
                yield Block(row, column, None if full[i][j] else queries[row].mask(keys[column]))


def _extremes(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Largest and smallest value of each part along its first axis: (parts, ...) each."""
    return torch.stack([part.amax(dim=0) for part in parts]), torch.stack([part.amin(dim=0) for part in parts])


def block_scores(queries: Tensor, keys: Tensor, block: Block) -> Tensor:
    """The scores of one block in float32, -inf where a query may not attend. Returns (B, heads, rows, columns)."""
    scale = queries.shape[-1] ** -0.5
    scores = (queries[..., block.queries, :] @ keys[..., block.keys, :].transpose(-2, -1)).float() * scale
    return scores if block.mask is None else scores.masked_fill(~block.mask, float("-inf"))


class RunningSoftmax:
    """Numerator, denominator and maximum of the softmax over all keys so far, for S queries, in float32."""

    def __init__(self, queries: Tensor):
        """queries: (B, heads, S, d)."""
        self.numerator = torch.zeros_like(queries, dtype=torch.float32)
        self.denominator = torch.zeros(queries.shape[:-1], device=queries.device)
        self.maximum = torch.full(queries.shape[:-1], float("-inf"), device=queries.device)

    def add(self, queries: Tensor, keys: Tensor, values: Tensor, blocks: Iterator[Block]) -> None:
        """Attend to more keys and values, (B, heads, R, d) each."""
        for block in blocks:
            rows = block.queries
            scores = block_scores(queries, keys, block)  # (B, heads, rows, columns)
            old = self.maximum[..., rows]
            new = torch.maximum(old, scores.amax(dim=-1))
            reference = new.masked_fill(new == float("-inf"), 0.0)  # a query that has seen no key yet: e^(-inf - 0) = 0
            weights = (scores - reference[..., None]).exp()
            shrink = (old - reference).exp()
            mixed = weights.to(values.dtype) @ values[..., block.keys, :]
            self.numerator[..., rows, :] = self.numerator[..., rows, :] * shrink[..., None] + mixed
            self.denominator[..., rows] = self.denominator[..., rows] * shrink + weights.sum(dim=-1)
            self.maximum[..., rows] = new

    def finish(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The output (B, heads, S, d), and for the backward pass the log of the sum of the exponentials (B, heads, S).

        A query that may attend to nothing gets zeros; its log-sum is +inf, so that its probabilities come out as zeros too.
        """
        seen = self.denominator > 0
        output = self.numerator / torch.where(seen, self.denominator, 1.0)[..., None]
        log_sum = torch.where(seen, self.maximum + self.denominator.log(), float("inf"))
        return output.to(dtype), log_sum


class Gradients(NamedTuple):
    """Of queries, keys and values, in float32: what the blocks add up to."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def add_gradients(
    gradients: Gradients, queries: Tensor, keys: Tensor, values: Tensor, upstream: Tensor, mean: Tensor, log_sum: Tensor,
    blocks: Iterator[Block],
) -> None:  # fmt: skip
    """Add the gradients of some blocks. With probabilities p = e^(s - log_sum), recomputed, and upstream gradient g:

        dv += p^T g        dp = g v^T        ds = p * (dp - mean)        dq += ds k        dk += ds^T q

    mean: (B, heads, S), the sum over all keys of p * dp. It equals the dot product of g and the output, so no block needs to
    know of the others.
    """
    scale = queries.shape[-1] ** -0.5
    for block in blocks:
        rows, columns = block.queries, block.keys
        probabilities = (block_scores(queries, keys, block) - log_sum[..., rows, None]).exp()
        above = upstream[..., rows, :]
        gradients.values[..., columns, :] += probabilities.to(above.dtype).transpose(-2, -1) @ above
        from_values = (above @ values[..., columns, :].transpose(-2, -1)).float()
        from_scores = (probabilities * (from_values - mean[..., rows, None]) * scale).to(queries.dtype)
        gradients.queries[..., rows, :] += from_scores @ keys[..., columns, :]
        gradients.keys[..., columns, :] += from_scores.transpose(-2, -1) @ queries[..., rows, :]


class BlockwiseAttention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(d)) V, with memory that grows with S and not with its square."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, size: int) -> Tensor:
        running = RunningSoftmax(queries)
        with torch.autocast(queries.device.type, enabled=False):
            running.add(queries, keys, values, needed_blocks(layout, layout, size))
        output, log_sum = running.finish(queries.dtype)
        ctx.save_for_backward(queries, keys, values, output, log_sum)
        ctx.layout, ctx.size = layout, size
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, output, log_sum = ctx.saved_tensors
        gradients = Gradients(*(torch.zeros_like(x, dtype=torch.float32) for x in (queries, keys, values)))
        mean = (upstream.float() * output.float()).sum(dim=-1)  # (B, heads, S)
        blocks = needed_blocks(ctx.layout, ctx.layout, ctx.size)
        with torch.autocast(queries.device.type, enabled=False):
            add_gradients(gradients, queries, keys, values, upstream.to(queries.dtype), mean, log_sum, blocks)
        return *(gradient.to(queries.dtype) for gradient in gradients), None, None


def blockwise_attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Mask | Layout = None, size: int = BLOCK_SIZE
) -> Tensor:
    """A backend of the one `attention()`: the same arguments and the same result, without the S x S matrix.

    queries, keys, values: (B, heads, S, d). mask: "causal", a `Layout`, or None (all tokens see all). A mask that exists as a
    tensor is already as large as the scores; it is left to `attention()`, as is a step of a rollout, which has one query for
    many keys. size: queries and keys per block. Returns (B, heads, S, d).
    """
    num_tokens = queries.shape[-2]
    if isinstance(mask, Tensor) or keys.shape[-2] != num_tokens:
        return attention(queries, keys, values, mask.mask() if isinstance(mask, Layout) else mask)
    if mask is None:
        mask = Layout(torch.zeros(num_tokens, dtype=torch.int64, device=queries.device))
    elif isinstance(mask, str):
        mask = causal_layout(num_tokens, queries.device)
    return BlockwiseAttention.apply(queries, keys, values, mask, size)  # type: ignore[return-value]
