"""What ElasticTok's claims need beyond the usual scores: tokens for a quality, the order of the tokens, the cost of the searches.

The searches run encoder and decoder hundreds of times, so this is measured by experiments.py and not by validate.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from tokenizer_variants.elastictok.length_search import (
    LengthQuery,
    LengthRegressor,
    LengthResult,
    best_among,
    binary_search,
    binned_search,
    encode_to_threshold,
    full_search,
    threshold_of,
)
from tokenizer_variants.elastictok.model import ElasticTokenizer
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.data.validation import clip_videos, open_validation_data
from video_tokenizer.metrics import psnr_db
from video_tokenizer.registry import load_tokenizer
from video_tokenizer.training.device import autocast, choose_device

CLIPS = 32
"""validation clips on which the scores are measured, evenly spaced"""
THRESHOLDS_DB = (24, 28, 31)
"""PSNR that every block shall reach: the .015 and .003 of the paper are 24.3 and 31.2 dB (36.0, .001, is too much for minutes)"""
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""shares of a block's tokens at which the reconstruction is scored"""
MOST_EVALUATIONS = 256
"""of a full search; longer blocks are searched at as many evenly spaced lengths"""


def length_scores(checkpoint: Path) -> dict[str, float]:
    """The scores of an ElasticTok's checkpoint on its validation clips; {} for any other tokenizer."""
    tokenizer = load_tokenizer(checkpoint)
    if not isinstance(tokenizer, ElasticTokenizer):
        return {}
    device = choose_device(tokenizer.config.device)
    clips = open_validation_data(SimpleNamespace(data_path=None, use_dummy_data=False), tokenizer.config).validation
    video = clip_videos(clips, evenly_spaced(len(clips), CLIPS), device)
    with autocast(device, tokenizer.config.precision):
        return scores_of(tokenizer.to(device), video)


@torch.no_grad()
def scores_of(tokenizer: ElasticTokenizer, video: Tensor) -> dict[str, float]:
    """The same of a tokenizer. video: (B, T, C, H, W) in [0, 1], clips it was not trained on.

    The searches take every second clip if there are enough.
    """
    scores = prefix_scores(tokenizer, video)
    fixed = tokenizer.config.kept_tokens
    if fixed is not None:  # the baseline always keeps the same number of tokens
        found = encode_to_threshold(
            tokenizer,
            video,
            0.0,
            search=lambda block: LengthResult(torch.full_like(block.frames[:, 0, 0, 0, 0], fixed, dtype=torch.long), 0),
        )
        for psnr in THRESHOLDS_DB:
            scores |= satisfaction(psnr, found.lengths, found.errors)
        return scores
    searched: list[tuple[LengthQuery, Tensor]] = []
    for psnr in THRESHOLDS_DB:
        found = encode_to_threshold(
            tokenizer,
            video[::2] if len(video) >= 4 else video,
            threshold_of(psnr),
            search=lambda block: recorded(block, searched),
        )
        scores |= satisfaction(psnr, found.lengths, found.errors)
    with torch.autocast(video.device.type, enabled=False):  # its cache would keep outdated weights of the network that is trained
        return scores | search_scores(searched, tokenizer.config.patch_size)


def satisfaction(psnr: float, lengths: Tensor, errors: Tensor) -> dict[str, float]:
    """Mean tokens a block, and the share of the blocks that reach `psnr` dB with them. lengths, errors: (B, blocks).

    The first and the last block of the clips are also scored alone, because with a past there is less to say.
    """
    return {
        f"tokens_at_{psnr}_db": lengths.float().mean().item(),
        f"tokens_at_{psnr}_db_first_block": lengths[:, 0].float().mean().item(),
        f"tokens_at_{psnr}_db_last_block": lengths[:, -1].float().mean().item(),
        f"satisfied_at_{psnr}_db": (errors <= threshold_of(psnr)).float().mean().item(),
    }


def prefix_scores(tokenizer: ElasticTokenizer, video: Tensor) -> dict[str, float]:
    """PSNR with the first tokens of every block, and with as many at random places; the encoder knows which in both cases.

    blind_*: the encoder assumes that all are kept, so that the codes are the same and only the choice differs.
    """
    generator = torch.Generator().manual_seed(0)
    all_codes = tokenizer.encode(video).codes
    scores = {}
    for share in SHARES:
        length = max(1, round(share * tokenizer.block_tokens))
        first = tokenizer.kept_places(length, video)
        random = random_places(first, tokenizer.config.block_frames, generator)
        codes = {
            "prefix": tokenizer.encode_kept(video, first)[0].codes,
            "random": tokenizer.encode_kept(video, random)[0].codes,
            "blind_prefix": all_codes * first[..., None],
            "blind_random": all_codes * random[..., None],
        }
        psnr = {name: psnr_db(tokenizer.decode(kept), video) for name, kept in codes.items()}
        scores |= {f"{name}_psnr_db_{length}_tokens": value for name, value in psnr.items()}
        scores[f"prefix_gain_db_{length}_tokens"] = psnr["prefix"] - psnr["random"]
    return scores


def random_places(kept: Tensor, block_frames: int, generator: torch.Generator) -> Tensor:
    """As many places of every block as in `kept` (B, T, N) bool, sampled at random: bool of the same shape."""
    parts = []
    for block in kept.cpu().split(block_frames, dim=1):
        flat = block.flatten(1)  # (B, tokens of the block)
        order = torch.rand(flat.shape, generator=generator).argsort(dim=1)
        parts.append(flat.gather(1, order).view_as(block))
    return torch.cat(parts, dim=1).to(kept.device)


def recorded(block: LengthQuery, searched: list[tuple[LengthQuery, Tensor]]) -> LengthResult:
    """A full search that appends the block and its answer to `searched`, with all errors in a table for the cheaper searches."""
    candidates = torch.linspace(block.shortest, block.longest, MOST_EVALUATIONS).round().long().unique()
    table: dict[int, Tensor] = {}

    def remembered(lengths: Tensor) -> Tensor:
        length = int(lengths[0])
        table[length] = block.error_at(lengths)
        return table[length]

    answer = best_among(replace(block, error_at=remembered), candidates.tolist())
    errors = torch.stack([table[int(length)] for length in candidates])  # (L, B)
    places = candidates.to(errors.device)

    def looked_up(lengths: Tensor) -> Tensor:
        nearest = torch.searchsorted(places, lengths.contiguous()).clamp(max=len(places) - 1)
        return errors.gather(0, nearest[None])[0]

    searched.append((replace(block, error_at=looked_up), answer.lengths))
    return answer


def search_scores(searched: Sequence[tuple[LengthQuery, Tensor]], patch_size: int) -> dict[str, float]:
    """Of each search: mean distance from the full search's length, in % of all tokens, and evaluations a block.

    Scored on every second clip; the regression network is trained on the others.
    """
    examples = [(replace(block, frames=block.frames[0::2], before=block.before[0::2]), found[0::2]) for block, found in searched]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regressor = LengthRegressor(patch_size).to(searched[0][0].frames.device)
    regressor.fit(examples)
    searches = {"full": full_search, "binned": binned_search, "binary": binary_search, "regression": regressor.search}
    scores = {}
    for name, search in searches.items():
        answers = [(search(block), found, block.longest) for block, found in searched]
        errors = torch.cat([(answer.lengths - found)[1::2].abs().float() / longest for answer, found, longest in answers])
        scores[f"{name}_search_error_percent"] = 100 * errors.mean().item()
        scores[f"{name}_search_evaluations"] = sum(answer.evaluations for answer, *_ in answers) / len(answers)
    return scores
