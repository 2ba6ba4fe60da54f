"""Find the smallest number of tokens that reaches a quality: four searches for one block, and encoding a video block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.models.base import Encoded

Target = Callable[[Tensor, Tensor], Tensor]
"""(reconstruction, video), both (B, T, C, H, W) in [0, 1] -> error of each clip (B,)"""
Caches = tuple[Any, Any]
"""caches of the encoder and of the decoder"""


def mean_squared_error(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Error of each clip (B,) with pixels in [-1, 1], as in the paper: .001, .003 and .015 are 36.0, 31.2 and 24.3 dB."""
    return 4 * (reconstruction - video).square().flatten(1).mean(dim=1)


def threshold_of(psnr_db: float) -> float:
    """The mean squared error of a PSNR in dB, with pixels in [-1, 1]: 30 dB is 4 * 0.001."""
    return 4 * 10 ** (-psnr_db / 10)


@dataclass(frozen=True)
class LengthQuery:
    """One block whose length is searched: how many of its tokens does it need?"""

    error_at: Callable[[Tensor], Tensor]
    """lengths (B,) -> errors (B,), given the decoded past; each call runs encoder and decoder once"""
    threshold: float
    """largest acceptable error"""
    shortest: int
    """smallest length to try"""
    longest: int
    """all tokens of the block; also the result if no length reaches the threshold"""
    frames: Tensor
    """(B, frames of the block, C, H, W)"""
    before: Tensor
    """(B, 1, C, H, W), the last frame before the block; for the first block, its own first frame"""


class LengthResult(NamedTuple):
    """lengths: (B,) int64. evaluations: how often encoder and decoder ran, or the regressor instead of them."""

    lengths: Tensor
    evaluations: int


Search = Callable[[LengthQuery], LengthResult]


def best_among(query: LengthQuery, candidates: Sequence[int]) -> LengthResult:
    """The shortest candidate that reaches the threshold. candidates: lengths in ascending order."""
    batch_size, device = len(query.frames), query.frames.device
    lengths = torch.tensor(candidates, device=device)  # (L,)
    errors = torch.stack([query.error_at(length.expand(batch_size)) for length in lengths])  # (L, B)
    passes = errors <= query.threshold
    first = lengths[passes.int().argmax(dim=0)]  # argmax returns the first maximum
    return LengthResult(torch.where(passes.any(dim=0), first, query.longest), len(candidates))


def full_search(query: LengthQuery) -> LengthResult:
    """Try every length, which takes 4,096 evaluations in the paper."""
    return best_among(query, range(query.shortest, query.longest + 1))


def binned_search(query: LengthQuery, num_bins: int = 16) -> LengthResult:
    """Try `num_bins` evenly spaced lengths, including the longest (100 in the paper). Too long by half a bin on average."""
    lengths = torch.linspace(query.shortest, query.longest, num_bins).round().long()
    return best_among(query, lengths.unique().tolist())


def binary_search(query: LengthQuery) -> LengthResult:
    """Binary search, which assumes that the error does not increase with the length: 61 lengths take 6 evaluations.

    If the error does increase, the result may be longer than necessary, but it still reaches the threshold, because the search
    returns the shortest length that did.
    """
    device, batch_size = query.frames.device, len(query.frames)
    low = torch.full((batch_size,), query.shortest, device=device)
    high = best = torch.full((batch_size,), query.longest, device=device)
    rounds = (query.longest - query.shortest + 1).bit_length()
    for _ in range(rounds):
        searching = low <= high
        middle = torch.where(searching, (low + high) // 2, best)
        passes = query.error_at(middle) <= query.threshold
        best = torch.where(searching & passes, middle, best)
        high = torch.where(searching & passes, middle - 1, high)
        low = torch.where(searching & ~passes, middle + 1, low)
    return LengthResult(best, rounds)


class LengthRegressor(nn.Module):
    """A small network that predicts how many tokens a block needs, from its pixels and their change from the previous frame."""

    def __init__(self, patch_size: int, width: int = 32):
        super().__init__()
        self.patch_size = patch_size
        self.look = nn.Sequential(nn.Linear(6 * patch_size**2, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.judge = nn.Sequential(nn.Linear(2 * width + 1, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, frames: Tensor, before: Tensor, thresholds: Tensor) -> Tensor:
        """frames: (B, k, C, H, W); before: (B, 1, C, H, W); thresholds: (B,).

        Returns (B,) in [0, 1], where 0 is the shortest length and 1 the longest.
        """
        change = frames - torch.cat([before, frames[:, :-1]], dim=1)
        pictures = torch.cat([frames, change], dim=2)  # (B, k, 2C, H, W)
        patches = F.pixel_unshuffle(pictures, self.patch_size).flatten(3).transpose(2, 3)  # (B, k, N, 2C*P*P)
        seen = self.look(patches).flatten(1, 2)  # (B, k*N, width)
        wanted = -thresholds.log10()[:, None]  # (B, 1)
        summary = torch.cat([seen.mean(dim=1), seen.amax(dim=1), wanted], dim=-1)
        return self.judge(summary)[:, 0].sigmoid()

    @torch.enable_grad()
    def fit(self, examples: Sequence[tuple[LengthQuery, Tensor]], num_steps: int = 200, learning_rate: float = 3e-3) -> None:
        """Train on blocks and their lengths (B,), found by another search."""
        frames, before = (torch.cat([getattr(query, name) for query, _ in examples]) for name in ("frames", "before"))
        thresholds = torch.cat([found.new_full(found.shape, q.threshold, dtype=torch.float32) for q, found in examples])
        shares = torch.cat([(found - q.shortest) / max(1, q.longest - q.shortest) for q, found in examples])
        optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)
        for _ in range(num_steps):
            optimizer.zero_grad()
            F.mse_loss(self(frames, before, thresholds), shares).backward()
            optimizer.step()

    @torch.no_grad()
    def search(self, query: LengthQuery) -> LengthResult:
        """Predict the length without evaluating it, so that the result may miss the threshold."""
        thresholds = torch.full((len(query.frames),), query.threshold, device=query.frames.device)
        share = self(query.frames, query.before, thresholds)
        lengths = query.shortest + share * (query.longest - query.shortest)
        return LengthResult(lengths.round().long(), 1)


class Elastic(NamedTuple):
    """A video encoded with a variable number of tokens.

    encoded: as in `Tokenizer.encode`, zero beyond the kept tokens. reconstruction: (B, T, C, H, W) in [0, 1].
    lengths: (B, blocks) int64, kept tokens. errors: (B, blocks), the error of each decoded block.
    evaluations: mean number per block. caches: for encoding the next blocks.
    """

    encoded: Encoded
    reconstruction: Tensor
    lengths: Tensor
    errors: Tensor
    evaluations: float
    caches: Caches


def encode_and_decode(tokenizer: Any, frames: Tensor, lengths: Tensor, caches: Caches) -> tuple[Encoded, Tensor, Caches]:
    """Encode one block, keep its first `lengths` (B,) tokens, and decode it. frames: (B, frames of the block, C, H, W).

    Returns the tokens, the reconstruction, and the caches for the next block.
    """
    kept = tokenizer.kept_places(lengths[:, None], frames)
    encoded, encoder_cache = tokenizer.encode_kept(frames, kept, caches[0])
    reconstruction, decoder_cache = tokenizer.decode_next(encoded.codes, caches[1])
    return encoded, reconstruction, (encoder_cache, decoder_cache)


def error_at(tokenizer: Any, frames: Tensor, caches: Caches, target: Target, lengths: Tensor) -> Tensor:
    """Errors (B,) of one block, decoded from its first `lengths` (B,) tokens."""
    return target(encode_and_decode(tokenizer, frames, lengths, caches)[1], frames)


@torch.no_grad()
def encode_to_threshold(
    tokenizer: Any,
    video: Tensor,
    threshold: float,
    search: Search = binary_search,
    target: Target = mean_squared_error,
    caches: Caches = (None, None),
) -> Elastic:
    """Encode block by block, each with the smallest number of tokens for which `target` is at most `threshold`.

    tokenizer: an ElasticTokenizer. video: (B, T, C, H, W) in [0, 1]. caches: those of earlier blocks, if the video continues a
    stream. The search for a block conditions on the decoded past. The block then runs once more at the chosen length, to update
    the caches.
    """
    size, blocks = tokenizer.config.block_frames, []
    for first in range(0, video.shape[1], size):
        frames, before = video[:, first : first + size], video[:, max(0, first - 1)][:, None]
        longest = frames.shape[1] * tokenizer.tokens_per_frame
        errors_of = partial(error_at, tokenizer, frames, caches, target)
        result = search(LengthQuery(errors_of, threshold, min(tokenizer.config.min_tokens, longest), longest, frames, before))
        encoded, picture, caches = encode_and_decode(tokenizer, frames, result.lengths, caches)
        blocks.append((encoded.indices, encoded.codes, picture, result.lengths, target(picture, frames), result.evaluations))
    indices, codes, pictures, lengths, errors, evaluations = zip(*blocks, strict=True)
    encoded = Encoded(indices=torch.cat(indices, dim=1), codes=torch.cat(codes, dim=1))
    mean = sum(evaluations) / len(evaluations)
    return Elastic(encoded, torch.cat(pictures, dim=1), torch.stack(lengths, 1), torch.stack(errors, 1), mean, caches)
