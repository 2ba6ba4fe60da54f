"""Solutions of the exercises of chapter 2. Try first; there are other ways."""

import math

import torch
from torch import Tensor


def sizes_of_actions(
    batch_size: int, num_frames: int, frame_size: int, code_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Exercise 1: an action lies between two frames, so there is one less."""
    actions = (batch_size, num_frames - 1)
    return actions, (*actions, code_dim), (*actions, 3, frame_size, frame_size)


def entropy(counts: list[int]) -> float:
    """In nats, of frequencies that need not add up to 1."""
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count)


def known_share(counts: list[list[int]]) -> float:
    """Exercise 2: I(action; key) = H(action) + H(key) - H(action and key)."""
    actions, keys = [sum(row) for row in counts], [sum(column) for column in zip(*counts, strict=True)]
    pairs = [count for row in counts for count in row]
    return (entropy(actions) + entropy(keys) - entropy(pairs)) / entropy(keys)


def to_nearest_code(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Exercise 3: what is detached counts forwards only."""
    distances = (latents[:, None] - codebook[None]).square().sum(dim=-1)  # (N, K)
    numbers = distances.argmin(dim=-1)
    return latents + (codebook[numbers] - latents).detach(), numbers


def restart_idle_codes(codebook: Tensor, usage: Tensor, latents: Tensor) -> Tensor:
    """Exercise 4: each idle code gets a latent of its own, drawn at random."""
    idle = torch.nonzero(usage < 1 / (20 * len(codebook)))[:, 0]
    moved = codebook.clone()
    moved[idle] = latents[torch.randperm(len(latents))[: len(idle)]]
    return moved


def actions_to_send(counts: list[list[int]]) -> list[int]:
    """Exercise 5: frequency alone would send "nothing happens" for every key, lift alone an action seen once."""
    total = sum(sum(row) for row in counts)
    best = []
    for column in zip(*counts, strict=True):
        given_key = [count / sum(column) for count in column]
        alone = [sum(row) / total for row in counts]
        told = [share * math.log(share / overall) if share else 0.0 for share, overall in zip(given_key, alone, strict=True)]
        best.append(told.index(max(told)))
    return best
