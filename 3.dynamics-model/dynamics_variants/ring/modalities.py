"""One sequence of text and video, in any order (LWM: arXiv:2402.08268, section 4.1).

A video stands between two text tokens, and each of its frames ends with a token of the vision vocabulary that says whether
another one follows:

    words ... <vision> [codes of a frame, eof] [codes of a frame, eof] [codes of a frame, eov] </vision> words ...

Text before video trains generation, video before text trains captioning.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamics_variants.ring.packing import example_weights


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of all tokens: words first, then the codes of the tokenizer, both with their own markers behind."""

    num_words: int
    num_codes: int

    @property
    def start_of_vision(self) -> int:
        """<vision>, a text token"""
        return self.num_words

    @property
    def end_of_vision(self) -> int:
        """</vision>, a text token"""
        return self.num_words + 1

    @property
    def first_code(self) -> int:
        """the number of code 0; it also is the number of text tokens"""
        return self.num_words + 2

    @property
    def end_of_frame(self) -> int:
        """eof, behind every frame but the last"""
        return self.first_code + self.num_codes

    @property
    def end_of_video(self) -> int:
        """eov, behind the last frame"""
        return self.first_code + self.num_codes + 1

    @property
    def size(self) -> int:
        """number of tokens of both kinds"""
        return self.first_code + self.num_codes + 2

    def is_vision(self, tokens: Tensor) -> Tensor:
        """Which tokens are codes, eof or eov; they have a table and an output of their own."""
        return tokens >= self.first_code

    def video(self, codes: Tensor) -> Tensor:
        """codes: (T, N) int64. Returns the video with its markers, (T * (N + 1) + 2,). One frame of two codes has 5 tokens."""
        ends = torch.full((len(codes), 1), self.end_of_frame)
        ends[-1] = self.end_of_video
        frames = torch.cat([codes + self.first_code, ends], dim=1)  # (T, N + 1)
        return torch.cat([torch.tensor([self.start_of_vision]), frames.flatten(), torch.tensor([self.end_of_vision])])

    def pair(self, words: Tensor, codes: Tensor, text_first: bool) -> Tensor:
        """Words (S,) and a video (T, N), which follow each other in either order."""
        parts = [words, self.video(codes)]
        return torch.cat(parts if text_first else parts[::-1])


class ModalityTables(nn.Module):
    """A table of vectors and an output of its own for each kind of token."""

    def __init__(self, vocabulary: Vocabulary, width: int):
        super().__init__()
        self.vocabulary = vocabulary
        sizes = {"text": vocabulary.first_code, "vision": vocabulary.size - vocabulary.first_code}
        self.vectors = nn.ModuleDict({kind: nn.Embedding(size, width) for kind, size in sizes.items()})
        self.outputs = nn.ModuleDict({kind: nn.Linear(width, size, bias=False) for kind, size in sizes.items()})

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens: (R, S) int64. Returns (R, S, E), from the table of each token's kind."""
        first = self.vocabulary.first_code
        text, vision = self.vectors["text"](tokens.clamp(max=first - 1)), self.vectors["vision"]((tokens - first).clamp(min=0))
        return torch.where(self.vocabulary.is_vision(tokens)[..., None], vision, text)

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy in nats of each target (R, S), by the output of its kind. x: (R, S, E)."""
        vision, first = self.vocabulary.is_vision(targets), self.vocabulary.first_code
        losses = torch.zeros(targets.shape, device=x.device)
        losses[vision] = F.cross_entropy(self.outputs["vision"](x[vision]).float(), targets[vision] - first, reduction="none")
        losses[~vision] = F.cross_entropy(self.outputs["text"](x[~vision]).float(), targets[~vision], reduction="none")
        return losses


def modality_weights(examples: Tensor, is_target: Tensor, is_vision: Tensor) -> Tensor:
    """Weights of a loss in which text and video count the same, however many more tokens a video has:

        L = 1/2 (mean over the examples with video targets of their mean) + 1/2 (the same with text targets)

    examples, is_target, is_vision: (R, S), see `example_weights`. If a batch has targets of one kind only, these count fully: an
    empty kind would otherwise look like a loss of zero. Returns (R, S) float32, whose sum is 1.
    """
    kinds = [example_weights(examples, is_target & is_vision), example_weights(examples, is_target & ~is_vision)]
    present = sum((weights.sum() > 0).float() for weights in kinds)
    return (kinds[0] + kinds[1]) / torch.as_tensor(present).clamp(min=1)
