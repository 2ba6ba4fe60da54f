"""The interface of all tokenizers: validation and the later chapters need not know which one it is."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import weighted_mse


class Encoded(NamedTuple):
    """indices: (B, T, N) int64, the tokens. codes: (B, T, N, D) float, the vectors they stand for.

    A tokenizer without a codebook has codes only; its indices are (B, T, 0). One that downsamples time has fewer steps than
    frames.
    """

    indices: Tensor
    codes: Tensor


@dataclass
class TokenizerOutput:
    """What the forward pass of a tokenizer returns."""

    reconstruction: Tensor
    """(B, T, C, H, W), not clamped while training"""
    indices: Tensor
    """(B, T, N) int64, as in `Encoded`"""
    codes: Tensor
    """(B, T, N, D), what the decoder saw"""
    losses: dict[str, Tensor]
    """terms to add to the reconstruction loss, already weighted"""


class Diagnostics(NamedTuple):
    """scores: numbers that only one tokenizer's claims are about. pictures: label -> video (B, T, C, H, W) in [0, 1]."""

    scores: dict[str, float]
    pictures: dict[str, Tensor]


class Tokenizer(nn.Module):
    """Frames to tokens to frames: the base class of the main line's tokenizer and of every variant.

    A subclass names its settings (`config_class`, `presets`), sets the attributes below, and writes `encode`, `decode`,
    `indices_to_codes` and `forward`. A causal one writes `encode_next` and `decode_next` as well.
    """

    config_class: ClassVar[type[ReconstructionConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {}}
    is_causal: bool = True
    """whether no token and no decoded frame depends on a later frame; a setting may decide"""

    config: ReconstructionConfig
    frame_size: tuple[int, int]
    """(H, W) in pixels"""
    grid_size: tuple[int, int]
    """rows and columns of tokens"""
    codebook_size: int
    """different tokens (K); 0 where codes are not quantized"""
    tokens_per_frame: int
    """tokens of a step (N)"""
    code_length: int
    """numbers in a code (D)"""
    frames_per_step: int = 1
    """frames per step of tokens, above 1 where time is downsampled"""

    @property
    def bits_per_frame(self) -> float:
        """The most that the tokens of a frame can hold: N log2(K); without a codebook 16 bits per number of a code."""
        bits = math.log2(self.codebook_size) if self.codebook_size else 16 * self.code_length
        return self.tokens_per_frame * bits / self.frames_per_step

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1]. Returns indices (B, T, N) and codes (B, T, N, D)."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns the codes (..., N, D) they stand for."""
        raise InputError(f"{self.config.model} has no codebook, and so no token numbers; decode its codes instead")

    def decode_indices(self, indices: Tensor) -> Tensor:
        """indices: (B, T, N) int64 in [0, K). Returns video (B, T, C, H, W) in [0, 1]."""
        return self.decode(self.indices_to_codes(indices))

    def random_codes(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of the noise baseline, uniform over the codebook, or over [-1, 1] without one. codes: (B, T, N, D), the shape."""
        if not self.codebook_size:
            return (2 * torch.rand(codes.shape, generator=generator) - 1).to(codes)
        return self.indices_to_codes(torch.randint(self.codebook_size, codes.shape[:-1], generator=generator).to(codes.device))

    def encode_next(self, video: Tensor, cache: Any = None) -> tuple[Encoded, Any]:
        """The next frames of a stream. video: (B, T, C, H, W) in [0, 1]. Returns what `encode` gives for them, and the cache."""
        self._check_stream("encode")
        raise NotImplementedError

    def encode_frame(self, frame: Tensor, cache: Any = None) -> tuple[Encoded, Any]:
        """The next frame of a stream. frame: (B, C, H, W) in [0, 1]. Returns indices (B, N), codes (B, N, D) and the cache."""
        encoded, cache = self.encode_next(frame[:, None], cache)
        return Encoded(encoded.indices[:, 0], encoded.codes[:, 0]), cache

    def decode_next(self, codes: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Decode the next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1] and the cache."""
        self._check_stream("decode")
        raise NotImplementedError

    def decode_frame(self, indices: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Decode the next frame of a stream. indices: (B, N) int64. Returns the frame (B, C, H, W) in [0, 1] and the cache.

        Raises InputError where the tokenizer looks at later frames.
        """
        self._check_stream("decode")
        video, cache = self.decode_next(self.indices_to_codes(indices)[:, None], cache)
        return video[:, 0], cache

    def _check_stream(self, verb: str) -> None:
        """Raise InputError for a tokenizer that is not causal. verb: what was asked for."""
        if not self.is_causal:
            raise InputError(f"{self.config.model} looks at later frames and cannot {verb} a stream; use a causal tokenizer")

    # ---- what a variant may add to its training and validation ---------------------------------------------------------------

    def fit_statistics(self, frames: np.ndarray) -> None:
        """Measure on the recording what no gradient finds, such as its variance. frames: uint8 (F, H, W, 3), memory-mapped.

        Called once before every training. Keep the result in a buffer, so that a checkpoint holds it. Draw no random numbers.
        """

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """The terms whose sum a training step minimizes: the weighted error of the reconstruction, and those in `output.losses`.

        video: (B, T, C, H, W) in [0, 1]; background: (C, H, W).
        """
        weights = (self.config.foreground_weight, self.config.moving_weight)
        return {"reconstruction": weighted_mse(output.reconstruction, video, background, *weights), **output.losses}

    def diagnostics(self, video: Tensor) -> Diagnostics:
        """Scores and pictures that only this tokenizer has. validate.py asks for them once, in evaluation mode.

        video: (B, T, C, H, W) in [0, 1], clips not trained on.
        """
        return Diagnostics({}, {})


def centered(video: Tensor) -> Tensor:
    """[0, 1] -> [-0.5, 0.5]: networks start better from values around zero. Refuses pixels in 0..255."""
    if not torch.jit.is_tracing() and not video.is_cuda and video.numel() and video.max() > 1.5:
        raise ValueError(f"video must be in [0, 1], but its largest value is {video.max():.1f}; divide uint8 pixels by 255")
    return video - 0.5
