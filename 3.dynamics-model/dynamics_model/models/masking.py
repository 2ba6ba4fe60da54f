"""What the model may not see: masks and mistakes for training, and the order in which a frame is filled in."""

import math

import torch
from torch import Tensor

from video_tokenizer.global_batch import global_batch_size, local_shard

FEW = 32
"""tokens among which the nucleus is looked for first: sorting all thousand took as long as the rest of a dreamed frame"""


def random_mask(shape: tuple[int, int, int], smallest_rate: float, device: torch.device | None = None) -> Tensor:
    """(B, T, N) bool, True where a token is hidden. Each clip draws its own rate from U(smallest_rate, 1), each token a coin.

    Genie (arXiv:2402.15391) uses U(0.5, 1). A clip with hardly anything hidden teaches nothing and unsettles training.
    """
    num_rows = global_batch_size(shape[0])
    rate = smallest_rate + (1 - smallest_rate) * torch.rand(num_rows, 1, 1, device=device)
    return local_shard(torch.rand(num_rows, *shape[1:], device=device) < rate)


def corrupt(tokens: Tensor, largest_share: float, codebook_size: int) -> Tensor:
    """Replace some tokens by random ones: each clip draws its share from U(0, largest_share). tokens: (B, T, N) int64."""
    shape = (global_batch_size(len(tokens)), *tokens.shape[1:])
    share = largest_share * torch.rand(shape[0], 1, 1, device=tokens.device)
    wrong = torch.rand(shape, device=tokens.device) < share
    others = torch.randint(codebook_size, shape, device=tokens.device)
    return torch.where(local_shard(wrong), local_shard(others), tokens)


def tokens_left_masked(step: int, num_steps: int, num_tokens: int, schedule: str = "cosine") -> int:
    """How many tokens are still masked after sampling step 1 .. num_steps. Each step fixes at least one.

    "cosine" (MaskGIT, arXiv:2202.04200): 64 tokens in 4 steps leave 60, 46, 25, 0. Few are fixed while little is known, many at
    the end. Good where everything is new, as in a picture made from nothing.
    "halving": 64 tokens in 4 steps leave 4, 2, 1, 0. From one frame of a game to the next nearly everything is certain; what is
    not (which way did the ball go, where is the paddle) is the least confident handful. It is settled last, one after the
    other, so that two patches never guess two different places for the same paddle.
    """
    if step >= num_steps:
        return 0
    cosine = math.ceil(num_tokens * math.cos(math.pi / 2 * step / num_steps))
    left = 2 ** (num_steps - step - 1) if schedule == "halving" else cosine
    return min(left, num_tokens - step)


def nucleus(probabilities: Tensor, top_p: float, few: int) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest tokens that together have the share top_p, looked for among the `few` likeliest. probabilities: (R, K).

    Returns candidates (R, few), likeliest first, their probabilities, 0 for those that are not in the nucleus, and (R,) bool,
    True where a few were not enough.
    """
    shares, candidates = probabilities.topk(few, dim=-1)
    likelier = shares.cumsum(dim=-1) - shares  # the share of the tokens before
    return candidates, shares.masked_fill(likelier >= top_p, 0.0), shares.sum(dim=-1) < top_p


def draw(probabilities: Tensor, top_p: float, generator: torch.Generator | None, few: int = FEW) -> Tensor:
    """One token per row of probabilities (R, K), out of its nucleus. Returns (R,) int64."""
    if top_p >= 1:
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    codebook_size = probabilities.shape[-1]
    if probabilities.is_cuda or few > codebook_size:
        few = codebook_size  # a GPU sorts quickly, and should not be asked halfway how it went
    candidates, shares, too_few = nucleus(probabilities, top_p, few)
    tokens = candidates.gather(1, torch.multinomial(shares, 1, generator=generator))[:, 0]
    if few < codebook_size and too_few.any():
        tokens[too_few] = draw(probabilities[too_few], top_p, generator, codebook_size)
    return tokens


def sample_tokens(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator | None,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One token per position, and the logarithm of its probability.

    logits: (B, W, K). temperature divides the logits; 0 takes the most likely token. top_k: only the k most likely may be drawn.
    top_p: only the most likely ones that together have this share, the nucleus (arXiv:1904.09751). A ball that is served in one
    frame of five stays possible, crumbs of a thousandth do not.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        scaled = logits.float() / temperature
        if top_k is not None and top_k < logits.shape[-1]:
            smallest_kept = scaled.topk(top_k, dim=-1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < smallest_kept, float("-inf"))
        probabilities = scaled.softmax(dim=-1).flatten(0, 1)  # (B*W, K)
        tokens = draw(probabilities, top_p, generator).view(logits.shape[:2])
    return tokens, log_probabilities.gather(-1, tokens[..., None])[..., 0]
