"""What validate.py is told about an ElasticTok: tokens needed, the order of the tokens, and what the searches cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tokenizer_variants.elastictok.length_search import (
    Answer,
    LengthRegressor,
    Question,
    Search,
    best_among,
    binary_search,
    binned_search,
    encode_to_threshold,
    full_search,
    threshold_of,
)
from video_tokenizer.metrics import psnr_db

THRESHOLDS_DB = (24, 28, 31)
"""PSNR that every block shall reach: the .015 and .003 of the paper are 24.3 and 31.2 dB (36.0, .001, is too much for minutes)"""
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""of a block's tokens, at which the picture is scored"""
MOST_EVALUATIONS = 256
"""of a full search; longer blocks are searched on as many evenly spaced lengths"""


@torch.no_grad()
def own_scores(tokenizer: Any, video: Tensor) -> dict[str, float]:
    """Names with numbers. tokenizer: an ElasticTokenizer. video: (B, T, C, H, W) in [0, 1], clips it was not trained on.

    The searches look at every second clip, where there are enough: they run encoder and decoder hundreds of times.
    """
    scores = prefix_scores(tokenizer, video)
    if tokenizer.config.kept_tokens is not None:
        return scores | fixed_scores(tokenizer, video)
    records, searched = [], video[::2] if len(video) >= 4 else video
    for wanted in THRESHOLDS_DB:
        record = Record()
        found = encode_to_threshold(tokenizer, searched, threshold_of(wanted), search=record.search)
        scores |= satisfaction(wanted, found.lengths, found.errors)
        records.append(record)
    with torch.autocast(video.device.type, enabled=False):  # it would keep the rounded weights of a network that is learning
        return scores | search_scores(records, tokenizer.config.patch_size)


def satisfaction(wanted: float, lengths: Tensor, errors: Tensor) -> dict[str, float]:
    """Mean tokens a block, and the share of the blocks that reach `wanted` dB with them; the tokens of the first and last block
    of the clips too, because with a past there is less to say. lengths, errors: (B, blocks)."""
    return {
        f"tokens_at_{wanted}_db": lengths.float().mean().item(),
        f"tokens_at_{wanted}_db_first_block": lengths[:, 0].float().mean().item(),
        f"tokens_at_{wanted}_db_last_block": lengths[:, -1].float().mean().item(),
        f"satisfied_at_{wanted}_db": (errors <= threshold_of(wanted)).float().mean().item(),
    }


def fixed_scores(tokenizer: Any, video: Tensor) -> dict[str, float]:
    """The same of a tokenizer that always keeps as many tokens: the baseline."""

    def same(_: Question) -> Answer:
        return Answer(torch.full((len(video),), tokenizer.config.kept_tokens, device=video.device), 0)

    found = encode_to_threshold(tokenizer, video, 0.0, search=same)
    scores = {}
    for wanted in THRESHOLDS_DB:
        scores |= satisfaction(wanted, found.lengths, found.errors)
    return scores


def prefix_scores(tokenizer: Any, video: Tensor) -> dict[str, float]:
    """PSNR with the first tokens of every block, and with as many at random places: the encoder is told in both cases.

    blind_*: the encoder is told that all are kept, so that the codes are the same and only the choice differs.
    """
    generator = torch.Generator().manual_seed(0)
    everything = tokenizer.encode(video).codes
    scores = {}
    for share in SHARES:
        length = max(1, round(share * tokenizer.block_tokens))
        first = tokenizer.kept_places(length, video)
        anywhere = random_places(first, tokenizer.config.block_frames, generator)
        drawn = {
            "prefix": tokenizer.encode_kept(video, first)[0].codes,
            "random": tokenizer.encode_kept(video, anywhere)[0].codes,
            "blind_prefix": everything * first[..., None],
            "blind_random": everything * anywhere[..., None],
        }
        psnr = {name: psnr_db(tokenizer.decode(codes), video) for name, codes in drawn.items()}
        scores |= {f"{name}_psnr_db_{length}_tokens": value for name, value in psnr.items()}
        scores[f"prefix_gain_db_{length}_tokens"] = psnr["prefix"] - psnr["random"]
    return scores


def random_places(kept: Tensor, block_frames: int, generator: torch.Generator) -> Tensor:
    """As many places of every block as in `kept` (B, T, N) bool, drawn anew: bool of the same shape."""
    parts = []
    for block in kept.cpu().split(block_frames, dim=1):
        flat = block.flatten(1)  # (B, tokens of the block)
        order = torch.rand(flat.shape, generator=generator).argsort(dim=1)
        parts.append(flat.gather(1, order).view_as(block))
    return torch.cat(parts, dim=1).to(kept.device)


@dataclass
class Record:
    """A full search that remembers what it was asked, and all errors it saw, so that cheaper searches can be tried on them."""

    questions: list[Question] = field(default_factory=list)
    """one a block, whose `error_at` looks the error up"""
    answers: list[Tensor] = field(default_factory=list)
    """the lengths (B,) it found"""

    def search(self, question: Question) -> Answer:
        """As in `elastictok_search`."""
        candidates = torch.linspace(question.shortest, question.longest, MOST_EVALUATIONS).round().long().unique()
        table: dict[int, Tensor] = {}

        def remembered(lengths: Tensor) -> Tensor:
            length = int(lengths[0])
            table[length] = question.error_at(lengths)
            return table[length]

        answer = best_among(replace(question, error_at=remembered), candidates.tolist())
        errors = torch.stack([table[int(length)] for length in candidates])  # (L, B)
        places = candidates.to(errors.device)

        def looked_up(lengths: Tensor) -> Tensor:
            nearest = torch.searchsorted(places, lengths.contiguous()).clamp(max=len(places) - 1)
            return errors.gather(0, nearest[None])[0]

        self.questions.append(replace(question, error_at=looked_up))
        self.answers.append(answer.lengths)
        return answer


def search_scores(records: Sequence[Record], patch_size: int) -> dict[str, float]:
    """Of each search: mean distance from the full search's length, in % of all tokens, and evaluations a block.

    Scored on every second clip; the regression network learns from the others.
    """
    asked = [(q, found) for record in records for q, found in zip(record.questions, record.answers, strict=True)]
    learnt = [(_every_second(question, 0), found[0::2]) for question, found in asked]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regressor = LengthRegressor(patch_size).to(asked[0][0].frames.device)
    regressor.fit(learnt)
    searches: dict[str, Search] = {
        "full": full_search,
        "binned": binned_search,
        "binary": binary_search,
        "regression": regressor.search,
    }
    scores = {}
    for name, search in searches.items():
        errors, evaluations = [], []
        for question, found in asked:
            answer = search(question)
            errors.append((answer.lengths - found)[1::2].abs().float() / question.longest)
            evaluations.append(answer.evaluations)
        scores[f"{name}_search_error_percent"] = 100 * torch.cat(errors).mean().item()
        scores[f"{name}_search_evaluations"] = sum(evaluations) / len(evaluations)
    return scores


def _every_second(question: Question, start: int) -> Question:
    return replace(question, frames=question.frames[start::2], before=question.before[start::2])
