"""Starting points for the exercises of chapter 3. Fill in the functions, then check them:

make exercises CHAPTER=3
"""

from collections.abc import Callable

from torch import Tensor


def size_of_cached_keys(
    batch_size: int, tokens_per_frame: int, num_heads: int, embed_dim: int, frames_seen: int, window: int
) -> tuple[int, int, int, int]:
    """Exercise 1. The shape of one block's cached keys after `start` has read frames_seen frames."""
    raise NotImplementedError


def left_by_cosine(num_tokens: int, num_steps: int) -> list[int]:
    """Exercise 2. How many tokens MaskGIT's cosine schedule leaves masked after each step, the last one 0; in plain Python.

    ceil(N cos(pi/2 s/S)), and every step settles at least one.
    """
    raise NotImplementedError


def nucleus_of(probabilities: list[float], top_p: float) -> set[int]:
    """Exercise 3. The fewest tokens that together have the share top_p, likeliest first. Returns their numbers."""
    raise NotImplementedError


def fill_in(predict: Callable[[Tensor], Tensor], num_tokens: int, mask_token: int, left: list[int]) -> Tensor:
    """Exercise 4. MaskGIT, always taking the likeliest token: all tokens begin masked, and step s leaves left[s] of them so.

    predict: tokens (N,), some of them mask_token -> logits (N, K). In every step each masked token is predicted, and the least
    confident ones are masked again; what was kept once stays. Returns the tokens (N,).
    """
    raise NotImplementedError


def guided(logits: Tensor, logits_of_no_action: Tensor, factor: float) -> Tensor:
    """Exercise 5. Classifier-free guidance: go `factor` times the way from the logits without an action to those with it."""
    raise NotImplementedError
