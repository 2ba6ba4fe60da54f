"""Solutions of the exercises of chapter 3. Try first; there are other ways."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def size_of_cached_keys(
    batch_size: int, tokens_per_frame: int, num_heads: int, embed_dim: int, frames_seen: int, window: int
) -> tuple[int, int, int, int]:
    """Exercise 1: every position is a sequence of its own, of which the next frame needs the last window - 1 entries."""
    return batch_size * tokens_per_frame, num_heads, min(frames_seen, window - 1), embed_dim // num_heads


def left_by_cosine(num_tokens: int, num_steps: int) -> list[int]:
    """Exercise 2: few are settled while little is known."""
    steps = range(1, num_steps)
    return [min(math.ceil(num_tokens * math.cos(math.pi / 2 * s / num_steps)), num_tokens - s) for s in steps] + [0]


def nucleus_of(probabilities: list[float], top_p: float) -> set[int]:
    """Exercise 3: one token belongs to it as long as those before it do not suffice."""
    chosen: set[int] = set()
    total = 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if total >= top_p:
            break
        chosen.add(token)
        total += probabilities[token]
    return chosen


def fill_in(predict: Callable[[Tensor], Tensor], num_tokens: int, mask_token: int, left: list[int]) -> Tensor:
    """Exercise 4: a token that is settled is infinitely sure."""
    tokens = torch.full((num_tokens,), mask_token)
    for still_hidden in left:
        hidden = tokens == mask_token
        confidence, likeliest = predict(tokens).log_softmax(dim=-1).max(dim=-1)
        tokens = torch.where(hidden, likeliest, tokens)
        again = confidence.masked_fill(~hidden, float("inf")).topk(still_hidden, largest=False).indices
        tokens[again] = mask_token
    return tokens


def guided(logits: Tensor, logits_of_no_action: Tensor, factor: float) -> Tensor:
    """Exercise 5: with factor 1 nothing changes, with 0 nobody presses a key."""
    return logits_of_no_action + factor * (logits - logits_of_no_action)
