"""Starting points for the exercises of chapter 2. Fill in the functions, then check them:

make exercises CHAPTER=2
"""

from torch import Tensor


def sizes_of_actions(
    batch_size: int, num_frames: int, frame_size: int, code_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Exercise 1. The shapes of `encode(video).indices` and `.codes`, and of `past` in `decode`."""
    raise NotImplementedError


def known_share(counts: list[list[int]]) -> float:
    """Exercise 2. The share of the keys' entropy that latent actions tell: mutual information over entropy of the keys, 0 to 1.

    counts: how often latent action a came with key k, one row per latent action, one column per key.
    """
    raise NotImplementedError


def to_nearest_code(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Exercise 3. Each latent's nearest code, and its number; gradients reach the latents as if nothing had been replaced.

    latents: (N, A). codebook: (K, A). Returns codes (N, A) and numbers (N,) int64.
    """
    raise NotImplementedError


def restart_idle_codes(codebook: Tensor, usage: Tensor, latents: Tensor) -> Tensor:
    """Exercise 4. The codebook in which every code that gets less than a twentieth of its fair share is moved onto a latent.

    codebook: (K, A). usage: (K,), shares that add up to 1. latents: (N, A). Other codes stay as they are. Returns (K, A).
    """
    raise NotImplementedError


def actions_to_send(counts: list[list[int]]) -> list[int]:
    """Exercise 5. For every key the latent action to send: the one with the largest P(a | key) * log(P(a | key) / P(a)).

    counts: how often latent action a came with key k, one row per latent action, one column per key, every key at least once. A
    latent action that never came with the key has no part in it.
    """
    raise NotImplementedError
