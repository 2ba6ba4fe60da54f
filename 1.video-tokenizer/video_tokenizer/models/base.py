"""The interface of all tokenizers. Validation and the later chapters use nothing else, so every variant works with them."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import weighted_mse


class Encoded(NamedTuple):
    """indices: (B, T, N) int64, the tokens. codes: (B, T, N, D) float, their vectors.

    A tokenizer without a codebook has only codes; its indices are (B, T, 0). A tokenizer that downsamples time has fewer steps
    than frames.
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
    """(B, T, N, D), the input of the decoder"""
    losses: dict[str, Tensor]
    """terms to add to the reconstruction loss, already weighted"""
    patches: Tensor | None = field(default=None, kw_only=True)
    """(B, K) the patches that were reconstructed, the others are copied; None: all"""


class Diagnostics(NamedTuple):
    """scores: metric name -> value. pictures: label -> video (B, T, C, H, W) in [0, 1]."""

    scores: dict[str, float]
    pictures: dict[str, Tensor]


class Tokenizer(nn.Module):
    """Base class of every tokenizer: frames to tokens, and tokens back to frames.

    A subclass defines `config_class` and `presets`, sets the attributes below, and implements `encode`, `decode`,
    `indices_to_codes` and `forward`. A causal tokenizer also implements `encode_next` and `decode_next`.
    """

    config_class: ClassVar[type[ReconstructionConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {}}
    is_causal: bool = True
    """True if no token and no decoded frame depends on a later frame; may depend on the config"""

    config: ReconstructionConfig
    frame_size: tuple[int, int]
    """(H, W) in pixels"""
    grid_size: tuple[int, int]
    """rows and columns of tokens"""
    codebook_size: int
    """number of codes (K); 0 if codes are not quantized"""
    tokens_per_frame: int
    """tokens per step (N)"""
    code_length: int
    """length of a code (D)"""
    frames_per_step: int = 1
    """frames per step of tokens; above 1 if time is downsampled"""

    @property
    def bits_per_frame(self) -> float:
        """Capacity of the tokens of a frame: N log2(K). Without a codebook, each number of a code counts as 16 bits."""
        bits = math.log2(self.codebook_size) if self.codebook_size else 16 * self.code_length
        return self.tokens_per_frame * bits / self.frames_per_step

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1]. Returns indices (B, T, N) and codes (B, T, N, D)."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns codes (..., N, D). Raises InputError for a tokenizer without a codebook."""
        raise InputError(f"{self.config.model} has no codebook and therefore no token indices; decode its codes instead")

    def decode_indices(self, indices: Tensor) -> Tensor:
        """indices: (B, T, N) int64 in [0, K). Returns video (B, T, C, H, W) in [0, 1]."""
        return self.decode(self.indices_to_codes(indices))

    def random_codes(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Random codes with the shape of codes (B, T, N, D), for the noise baseline.

        They are uniform over the codebook, or over [-1, 1] without one.
        """
        if not self.codebook_size:
            return (2 * torch.rand(codes.shape, generator=generator) - 1).to(codes)
        return self.indices_to_codes(torch.randint(self.codebook_size, codes.shape[:-1], generator=generator).to(codes.device))

    def encode_next(self, video: Tensor, cache: Any = None) -> tuple[Encoded, Any]:
        """Encode the next frames of a stream. video: (B, T, C, H, W) in [0, 1]. Returns the result of `encode`, and the cache."""
        self._check_stream("encode")
        raise NotImplementedError

    def encode_frame(self, frame: Tensor, cache: Any = None) -> tuple[Encoded, Any]:
        """Encode the next frame of a stream. frame: (B, C, H, W) in [0, 1].

        Returns indices (B, N) and codes (B, N, D), and the cache.
        """
        encoded, cache = self.encode_next(frame[:, None], cache)
        return Encoded(encoded.indices[:, 0], encoded.codes[:, 0]), cache

    def decode_next(self, codes: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Decode the next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1] and the cache."""
        self._check_stream("decode")
        raise NotImplementedError

    def decode_frame(self, indices: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Decode the next frame of a stream. indices: (B, N) int64. Returns the frame (B, C, H, W) in [0, 1] and the cache.

        Raises InputError for a tokenizer that is not causal.
        """
        self._check_stream("decode")
        video, cache = self.decode_next(self.indices_to_codes(indices)[:, None], cache)
        return video[:, 0], cache

    def _check_stream(self, verb: str) -> None:
        """Raise InputError for a tokenizer that is not causal. verb: "encode" or "decode"."""
        if not self.is_causal:
            raise InputError(f"{self.config.model} depends on later frames and cannot {verb} a stream; use a causal tokenizer")

    # ---- hooks that a variant may override for training and validation --------------------------------------------------------

    def fit_statistics(self, frames: np.ndarray) -> None:
        """Compute statistics of the recording, such as its variance. frames: uint8 (F, H, W, 3), memory-mapped, all of them.

        Called once at the start of every training run. Store the result in a buffer, so that checkpoints contain it. Do not use
        the random number generator, so that a resumed run samples the same numbers.
        """

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """The terms whose sum is minimized: the weighted reconstruction error, and those in `output.losses`.

        tokenizer_variants/train.py calls this; chapter 1's train.py writes the main line's loss out instead.
        video: (B, T, C, H, W) in [0, 1]; background: (C, H, W).
        """
        weights = (self.config.foreground_weight, self.config.moving_weight)
        return {"reconstruction": weighted_mse(output.reconstruction, video, background, *weights), **output.losses}

    def diagnostics(self, video: Tensor) -> Diagnostics:
        """Scores and pictures that are specific to this tokenizer. validate.py calls this in evaluation mode.

        video: (B, T, C, H, W) in [0, 1], held-out clips.
        """
        return Diagnostics({}, {})


def centered(video: Tensor, background: Tensor | float = 0.5) -> Tensor:
    """video minus background, because networks train better on values around zero. Raises ValueError for pixels in 0..255."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not traced and video.is_cpu and video.numel() and video.max() > 1.5:
        raise ValueError(f"video must be in [0, 1], but its largest value is {video.max():.1f}; divide uint8 pixels by 255")
    return video - background
