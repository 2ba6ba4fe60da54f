"""The fewest tokens that meet a quality: four searches, and the walk through a video, block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.models.base import Encoded

Target = Callable[[Tensor, Tensor], Tensor]
"""(reconstruction, video), both (B, T, C, H, W) in [0, 1], to one number for each clip (B,); smaller is better"""
Caches = tuple[Any, Any]
"""of the encoder and of the decoder"""


def mean_squared_error(reconstruction: Tensor, video: Tensor) -> Tensor:
    """(B,), on the scale of the paper, where pixels lie in [-1, 1]: its .001, .003 and .015 are 36.0, 31.2 and 24.3 dB."""
    return 4 * (reconstruction - video).square().flatten(1).mean(dim=1)


def threshold_of(psnr_db: float) -> float:
    """The mean squared error on [-1, 1] that is a PSNR of so many decibels: 30 dB is 4 * 0.001."""
    return 4 * 10 ** (-psnr_db / 10)


@dataclass(frozen=True)
class Question:
    """How many tokens does this block need? A search asks for the error at lengths of its choice."""

    error_at: Callable[[Tensor], Tensor]
    """lengths (B,) to errors (B,), the past being as it was decoded; one evaluation of encoder and decoder"""
    threshold: float
    """largest error that is good enough"""
    shortest: int
    """fewest tokens"""
    longest: int
    """all tokens of the block, also the answer where no length is good enough"""
    frames: Tensor
    """(B, frames of the block, C, H, W)"""
    before: Tensor
    """(B, 1, C, H, W), the last frame before the block; of the first block its own first frame"""


class Answer(NamedTuple):
    """lengths: (B,) int64. evaluations: how often encoder and decoder, or a network in their place, were run."""

    lengths: Tensor
    evaluations: int


Search = Callable[[Question], Answer]


def best_among(question: Question, candidates: Sequence[int]) -> Answer:
    """The shortest of the given lengths, ascending, that is good enough."""
    batch_size, device = len(question.frames), question.frames.device
    lengths = torch.tensor(candidates, device=device)  # (L,)
    errors = torch.stack([question.error_at(length.expand(batch_size)) for length in lengths])  # (L, B)
    passes = errors <= question.threshold
    first = lengths[passes.int().argmax(dim=0)]  # argmax finds the first of equals
    return Answer(torch.where(passes.any(dim=0), first, question.longest), len(candidates))


def full_search(question: Question) -> Answer:
    """Try every length. 4,096 evaluations in the paper."""
    return best_among(question, range(question.shortest, question.longest + 1))


def binned_search(question: Question, num_bins: int = 16) -> Answer:
    """Try `num_bins` evenly spaced lengths, the longest among them; 100 in the paper. Off by half a bin on average."""
    places = torch.linspace(question.shortest, question.longest, num_bins).round().long()
    return best_among(question, places.unique().tolist())


def binary_search(question: Question) -> Answer:
    """Halve the range again and again, as if the error never rose with the length: 61 lengths take 6 evaluations.

    Where it does rise, the answer may be longer than necessary, but it has passed: the best passing length is remembered.
    """
    device, batch_size = question.frames.device, len(question.frames)
    low = torch.full((batch_size,), question.shortest, device=device)
    high = best = torch.full((batch_size,), question.longest, device=device)
    rounds = (question.longest - question.shortest + 1).bit_length()
    for _ in range(rounds):
        searching = low <= high
        middle = torch.where(searching, (low + high) // 2, best)
        passes = question.error_at(middle) <= question.threshold
        best = torch.where(searching & passes, middle, best)
        high = torch.where(searching & passes, middle - 1, high)
        low = torch.where(searching & ~passes, middle + 1, low)
    return Answer(best, rounds)


class LengthRegressor(nn.Module):
    """A small network that looks at a block, and at what changed since the frame before, and says how many tokens it needs."""

    def __init__(self, patch_size: int, width: int = 32):
        super().__init__()
        self.patch_size = patch_size
        self.look = nn.Sequential(nn.Linear(6 * patch_size**2, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.judge = nn.Sequential(nn.Linear(2 * width + 1, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, frames: Tensor, before: Tensor, thresholds: Tensor) -> Tensor:
        """frames: (B, k, C, H, W); before: (B, 1, C, H, W); thresholds: (B,). Returns (B,), shares of the lengths, in [0, 1]."""
        change = frames - torch.cat([before, frames[:, :-1]], dim=1)
        pictures = torch.cat([frames, change], dim=2)  # (B, k, 2C, H, W)
        patches = F.pixel_unshuffle(pictures, self.patch_size).flatten(3).transpose(2, 3)  # (B, k, N, 2C*P*P)
        seen = self.look(patches).flatten(1, 2)  # (B, k*N, width)
        wanted = -thresholds.log10()[:, None]  # (B, 1)
        summary = torch.cat([seen.mean(dim=1), seen.amax(dim=1), wanted], dim=-1)
        return self.judge(summary)[:, 0].sigmoid()

    @torch.enable_grad()
    def fit(self, examples: Sequence[tuple[Question, Tensor]], num_steps: int = 200, learning_rate: float = 3e-3) -> None:
        """Learn from blocks whose lengths (B,) a search has found."""
        frames, before = (torch.cat([getattr(question, name) for question, _ in examples]) for name in ("frames", "before"))
        thresholds = torch.cat([found.new_full(found.shape, q.threshold, dtype=torch.float32) for q, found in examples])
        shares = torch.cat([(found - q.shortest) / max(1, q.longest - q.shortest) for q, found in examples])
        optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)
        for _ in range(num_steps):
            optimizer.zero_grad()
            F.mse_loss(self(frames, before, thresholds), shares).backward()
            optimizer.step()

    @torch.no_grad()
    def search(self, question: Question) -> Answer:
        """One look, and no try: the answer need not be good enough."""
        thresholds = torch.full((len(question.frames),), question.threshold, device=question.frames.device)
        share = self(question.frames, question.before, thresholds)
        lengths = question.shortest + share * (question.longest - question.shortest)
        return Answer(lengths.round().long(), 1)


class Elastic(NamedTuple):
    """A video as so many tokens as it needs.

    encoded: as in `Tokenizer.encode`, zero beyond the kept tokens. reconstruction: (B, T, C, H, W) in [0, 1].
    lengths: (B, blocks) int64, kept tokens. errors: (B, blocks), what the target says of each block as it was decoded.
    evaluations: of encoder and decoder a block. caches: to go on with the next blocks.
    """

    encoded: Encoded
    reconstruction: Tensor
    lengths: Tensor
    errors: Tensor
    evaluations: float
    caches: Caches


@torch.no_grad()
def encode_to_threshold(
    tokenizer: Any,
    video: Tensor,
    threshold: float,
    search: Search = binary_search,
    target: Target = mean_squared_error,
    caches: Caches = (None, None),
) -> Elastic:
    """Keep the fewest tokens of every block, one block after the other, with which `target` is at most `threshold`.

    tokenizer: an ElasticTokenizer. video: (B, T, C, H, W) in [0, 1]. caches: of the blocks before, where the video goes on. A
    block is searched with the past as it was decoded, and run once more with the chosen length to write the caches.
    """
    size, walked = tokenizer.config.block_frames, []
    for first in range(0, video.shape[1], size):
        frames, before = video[:, first : first + size], video[:, max(0, first - 1)][:, None]

        def draw(lengths: Tensor, frames: Tensor = frames, caches: Caches = caches) -> tuple[Encoded, Tensor, Caches]:
            kept = tokenizer.kept_places(lengths[:, None], frames)
            encoded, encoder_cache = tokenizer.encode_kept(frames, kept, caches[0])
            picture, decoder_cache = tokenizer.decode_next(encoded.codes, caches[1])
            return encoded, picture, (encoder_cache, decoder_cache)

        def error_at(lengths: Tensor, frames: Tensor = frames, draw=draw) -> Tensor:
            return target(draw(lengths)[1], frames)

        longest = frames.shape[1] * tokenizer.tokens_per_frame
        question = Question(error_at, threshold, min(tokenizer.config.min_tokens, longest), longest, frames, before)
        answer = search(question)
        encoded, picture, caches = draw(answer.lengths)
        walked.append((encoded.indices, encoded.codes, picture, answer.lengths, target(picture, frames), answer.evaluations))
    indices, codes, pictures, lengths, errors, evaluations = zip(*walked, strict=True)
    encoded = Encoded(torch.cat(indices, dim=1), torch.cat(codes, dim=1))
    mean = sum(evaluations) / len(evaluations)
    return Elastic(encoded, torch.cat(pictures, dim=1), torch.stack(lengths, 1), torch.stack(errors, 1), mean, caches)
