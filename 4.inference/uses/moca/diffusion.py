"""Noise that ends in pure noise, v-prediction, DDIM, and guidance with three scales."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

NUM_LEVELS = 1_000
"""T, the noisiest level; 0 is a clean clip"""
Given = tuple[bool, bool, bool]
"""image, text, motion"""
ORDER: tuple[Given, ...] = ((False, False, False), (True, False, False), (True, True, False), (True, True, True))
"""the four calls of a guided step: nothing is given, then the image, then the text, and at last the motion"""
TEXT_ONLY: tuple[Given, ...] = ((False, False, False), (False, True, False))


def signal_and_noise() -> tuple[Tensor, Tensor]:
    """alpha and sigma of the levels 0 to T, both (T + 1,): a noisy clip is alpha * clip + sigma * noise.

    The schedule of latent diffusion (arXiv:2112.10752) leaves 7 % of the signal at its last level, and sampling begins with none.
    Rescaled to zero terminal SNR (arXiv:2305.08891), alpha is shifted to 0 there, and stretched so that it starts as before.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, NUM_LEVELS, dtype=torch.float64).square()
    alpha = (1 - betas).cumprod(dim=0).sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha = torch.cat([torch.ones(1, dtype=torch.float64), alpha])
    return alpha.float(), (1 - alpha.square()).sqrt().float()


def velocity(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network predicts (arXiv:2202.00512). At level T it is -clean, so even pure noise has an answer."""
    return alpha * noise - sigma * clean


def guide(predict: Callable[[Given], Tensor], scales: Sequence[float], order: Sequence[Given] = ORDER) -> Tensor:
    """v of nothing, plus scale times what each further condition changes: s_I [v(I) - v()] + s_T [v(T, I) - v(I)] + ...

    predict: the network's velocity under the conditions that are given. scales: one for each entry of `order` but the first.
    A call after the last scale that is not 0 is left out, because it would change nothing.
    """
    guided = before = predict(order[0])
    for number, given in enumerate(order[1:]):
        if not any(scales[number:]):
            break
        now = predict(given)
        guided, before = guided + scales[number] * (now - before), now
    return guided


@torch.no_grad()
def denoise(predict: Callable[[Tensor, int], Tensor], noisy: Tensor, num_steps: int, first_level: int = NUM_LEVELS) -> Tensor:
    """DDIM (arXiv:2010.02502) from `first_level` to a clean clip, in steps of equal length that begin at that very level.

    predict: (noisy clips, level) -> velocity. noisy: (B, ...), pure noise if first_level is T.
    """
    alphas, sigmas = signal_and_noise()
    levels = torch.linspace(first_level, 0, num_steps + 1).round().long().tolist()
    for level, following in pairwise(levels):
        alpha, sigma = alphas[level].item(), sigmas[level].item()
        predicted = predict(noisy, level)
        clean = alpha * noisy - sigma * predicted
        noise = sigma * noisy + alpha * predicted
        noisy = alphas[following].item() * clean + sigmas[following].item() * noise
    return noisy
