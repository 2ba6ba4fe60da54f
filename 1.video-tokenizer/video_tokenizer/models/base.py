"""What every tokenizer offers, so that training, validation and the chapters to come need not know which one it is."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from video_tokenizer.config import TrainingConfig
from video_tokenizer.losses import weighted_mse
from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.optimizer import Optimizers, build_optimizer


class Encoded(NamedTuple):
    """indices: (B, T, N) int64, the tokens. codes: (B, T, N, D) float, the vectors they stand for.

    A tokenizer without a codebook has codes only; its indices are (B, T, 0). One that shortens time has fewer steps than frames.
    """

    indices: Tensor
    codes: Tensor


@dataclass
class TokenizerOutput:
    """What a tokenizer's forward pass returns, the main line's and every variant's."""

    reconstruction: Tensor
    """(B, T, C, H, W), not clamped while training"""
    indices: Tensor
    """(B, T, N) int64, as in `Encoded`"""
    codes: Tensor
    """(B, T, N, D), what the decoder saw"""
    losses: dict[str, Tensor]
    """terms to add to the reconstruction loss, each already weighted"""


class Tokenizer(nn.Module):
    """Frames to tokens to frames. A variant is a subclass of this one, or of the main line's.

    It says what its settings are (`config_class`, `presets`), sets the attributes below, and writes `encode`, `decode`,
    `indices_to_codes` and `forward`; `encode_next` and `decode_next` as well where it is causal. What its training does besides
    moving weights against a loss goes into `measure_data`, `training_loss` and `finish_step`, not into the training script.
    """

    config_class: ClassVar[type[TrainingConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {}}
    is_causal: bool = True
    """whether no token and no drawn frame depends on a later frame; a setting may decide"""
    best_is_newest: bool = False
    """whether best_model.pt holds the newest weights, instead of those with the least error in a validation; so it must be where
    the training gives up error for something that no validation counts"""

    config: TrainingConfig
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
    """frames that a step of tokens stands for, above 1 where time is shortened"""

    @property
    def bits_per_frame(self) -> float:
        """What the tokens of a frame can say at most: N log2(K); without a codebook 16 bits for each number of a code."""
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
        """The noise control: codes drawn evenly, shaped as `codes` (B, T, N, D); from [-1, 1] where there is no codebook."""
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
        """Draw the next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1] and the cache."""
        self._check_stream("draw")
        raise NotImplementedError

    def decode_frame(self, indices: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Draw the next frame of a stream. indices: (B, N) int64. Returns the frame (B, C, H, W) in [0, 1] and the cache.

        Raises InputError where the tokenizer looks at later frames.
        """
        self._check_stream("draw")
        video, cache = self.decode_next(self.indices_to_codes(indices)[:, None], cache)
        return video[:, 0], cache

    def _check_stream(self, verb: str) -> None:
        """Raise InputError where there can be no stream. verb: what was asked for."""
        if not self.is_causal:
            raise InputError(f"{self.config.model} looks at later frames and cannot {verb} a stream; use a causal tokenizer")

    def build_optimizer(self) -> Optimizers:
        """The optimizer of the weights that a checkpoint holds."""
        config = self.config
        return build_optimizer(self, config.learning_rate, config.weight_decay, kind=config.optimizer)

    def measure_data(self, frames: np.ndarray) -> None:
        """Read from the recording what no gradient finds, such as its variance. frames: uint8 (F, H, W, 3), not all in memory.

        Called once before every training, also before one goes on; what it finds belongs into a buffer, so that a checkpoint
        keeps it. No random numbers are drawn here.
        """

    def training_loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> Tensor:
        """What a training step lowers: the weighted error of the reconstruction, and the terms in `output.losses`.

        video: (B, T, C, H, W) in [0, 1]; background: (C, H, W).
        """
        weights = (self.config.foreground_weight, self.config.moving_weight)
        return weighted_mse(output.reconstruction, video, background, *weights) + sum(output.losses.values())

    def start_training(self) -> None:
        """Make what only training needs. Called once, before the first step, in training mode."""

    def finish_step(self, step: int, num_steps: int, video: Tensor, output: TokenizerOutput) -> dict[str, float]:
        """What else a step does, after the weights have moved. Returns numbers for the log."""
        return {}

    def own_scores(self, video: Tensor) -> dict[str, float]:
        """Numbers that only this tokenizer's claims are about; validate.py asks for them once and writes them down.

        video: (B, T, C, H, W) in [0, 1], clips not trained on. Called in evaluation mode, without gradients.
        """
        return {}

    def own_picture(self, video: Tensor) -> dict[str, Tensor]:
        """Label -> video (B, T, C, H, W) in [0, 1]: rows of a picture of what only this tokenizer does; {} for no picture.

        video: (B, T, C, H, W) in [0, 1]. Called like `own_scores`.
        """
        return {}

    def training_state(self) -> dict[str, Any]:
        """What `start_training` made and resume.pt must keep: tensors and plain values."""
        return {}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from what `training_state` returned."""


def centered(video: Tensor) -> Tensor:
    """[0, 1] -> [-0.5, 0.5]: networks start better from values around zero. Refuses pixels in 0..255."""
    if not torch.jit.is_tracing() and not video.is_cuda and video.numel() and video.max() > 1.5:
        raise ValueError(f"video must be in [0, 1], but its largest value is {video.max():.1f}; divide uint8 pixels by 255")
    return video - 0.5
