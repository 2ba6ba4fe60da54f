"""Masks and corrupted tokens for training; the unmasking schedule and the sampling of tokens for rollouts."""

import math

import torch
from torch import Tensor

from video_tokenizer.global_batch import global_batch_size, local_shard

FEW = 32
"""the nucleus is first looked for among this many tokens: sorting all thousand took as long as the rest of a frame"""


def random_mask(shape: tuple[int, int, int], smallest_rate: float, device: torch.device | None = None) -> Tensor:
    """(B, T, N) bool, True where a token is masked. Each clip samples a mask rate from U(smallest_rate, 1); its tokens are i.i.d.

    Genie (arXiv:2402.15391) uses U(0.5, 1). A clip with hardly any masked tokens teaches nothing and destabilizes training.
    """
    num_rows = global_batch_size(shape[0])
    rate = smallest_rate + (1 - smallest_rate) * torch.rand(num_rows, 1, 1, device=device)
    return local_shard(torch.rand(num_rows, *shape[1:], device=device) < rate)


def corrupt(tokens: Tensor, largest_share: float, codebook_size: int) -> Tensor:
    """Replace some tokens by random ones: each clip samples its share from U(0, largest_share). tokens: (B, T, N) int64."""
    shape = (global_batch_size(len(tokens)), *tokens.shape[1:])
    share = largest_share * torch.rand(shape[0], 1, 1, device=tokens.device)
    wrong = torch.rand(shape, device=tokens.device) < share
    others = torch.randint(codebook_size, shape, device=tokens.device)
    return torch.where(local_shard(wrong), local_shard(others), tokens)


def tokens_left_masked(step: int, num_steps: int, num_tokens: int, schedule: str = "cosine") -> int:
    """How many tokens are still masked after decoding pass `step`, 1 .. num_steps. Each pass unmasks at least one.

    "cosine" (MaskGIT, arXiv:2202.04200): 64 tokens in 4 passes leave 60, 46, 25, 0. Few are unmasked while little is known,
    many at the end. Good where everything is new, as in a picture generated from nothing.
    "halving": 64 tokens in 4 passes leave 4, 2, 1, 0. From one frame of a game to the next nearly everything is certain, except
    for a handful of tokens (where is the ball, where is the paddle). These are unmasked last, nearly one by one, so that two
    patches do not sample two different positions of the same paddle.
    """
    if step >= num_steps:
        return 0
    cosine = math.ceil(num_tokens * math.cos(math.pi / 2 * step / num_steps))
    left = 2 ** (num_steps - step - 1) if schedule == "halving" else cosine
    return min(left, num_tokens - step)


def nucleus(probabilities: Tensor, top_p: float, few: int) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest tokens that together have the probability top_p, among the `few` most likely. probabilities: (R, K).

    Returns candidates (R, few), most likely first, their probabilities, 0 for those outside the nucleus, and (R,) bool, True
    where the nucleus is larger than `few`.
    """
    shares, candidates = probabilities.topk(few, dim=-1)
    likelier = shares.cumsum(dim=-1) - shares  # the probability of all tokens before this one
    return candidates, shares.masked_fill(likelier >= top_p, 0.0), shares.sum(dim=-1) < top_p


def sample_rows(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample one column per row, each with a probability in proportion to its weight. weights: (R, K). Returns (R,) int64.

    The same numbers as `torch.multinomial`, without its check of the weights, for which the processor would wait for the GPU:
    if a column's clock rings after an exponential time with its weight as the rate, it rings first with its probability.
    """
    return (weights / torch.empty_like(weights).exponential_(generator=generator)).argmax(dim=-1)


def draw(probabilities: Tensor, top_p: float, generator: torch.Generator | None, few: int = FEW) -> Tensor:
    """Sample one token per row of probabilities (R, K) from its nucleus. Returns (R,) int64."""
    if top_p >= 1:
        return sample_rows(probabilities, generator)
    codebook_size = probabilities.shape[-1]
    if probabilities.is_cuda or few > codebook_size:
        few = codebook_size  # a GPU sorts quickly, and `too_few.any()` below would make it wait
    candidates, shares, too_few = nucleus(probabilities, top_p, few)
    tokens = candidates.gather(1, sample_rows(shares, generator)[:, None])[:, 0]
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
    """Sample one token per position; returns the tokens and the logarithms of their probabilities, (B, M) each.

    logits: (B, M, K). temperature divides the logits; 0 takes the most likely token. top_k: sample from the k most likely only.
    top_p: sample from the nucleus only, the most likely ones that together have this probability (arXiv:1904.09751). A ball that
    is served in one frame of five stays possible, a stray patch with a probability of a thousandth does not.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        scaled = logits.float() / temperature
        if top_k is not None and top_k < logits.shape[-1]:
            smallest_kept = scaled.topk(top_k, dim=-1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < smallest_kept, float("-inf"))
        probabilities = scaled.softmax(dim=-1).flatten(0, 1)  # (B*M, K)
        tokens = draw(probabilities, top_p, generator).view(logits.shape[:2])
    return tokens, log_probabilities.gather(-1, tokens[..., None])[..., 0]
