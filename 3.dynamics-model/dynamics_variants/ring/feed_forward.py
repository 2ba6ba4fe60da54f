"""The feed-forward network, a few tokens at a time (arXiv:2305.19370)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chunked_feed_forward(feed_forward: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """feed_forward(x) for x (..., S, E), `size` tokens at a time; the backward pass computes each chunk again.

    A network that widens E to 8/3 E for a gate and as much for a value holds more than five numbers for each number of x. Here
    it holds them for one chunk, as each token is treated alone.
    """
    chunks = [checkpoint(feed_forward, chunk, use_reentrant=False) for chunk in x.split(size, dim=-2)]
    return torch.cat(chunks, dim=-2)  # type: ignore[arg-type]
