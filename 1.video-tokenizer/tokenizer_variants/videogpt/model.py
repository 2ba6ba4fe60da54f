"""VideoGPT's tokenizer: 3D convolutions shrink a clip in time and space to a small grid of learned codes.

    python 1.video-tokenizer/train.py --model videogpt --data-path data/breakout

What changes: patches and space-time blocks become strided 3D convolutions and residual blocks with axial attention, FSQ becomes a
codebook that follows running means of the latents, and the error is divided by the variance of the data (arXiv:2104.10157). A
token knows the whole clip, its future included, so nothing can be encoded or drawn as a stream. What stays: the interface, the
data, the weights of foreground and moving pixels.

From the released code three things differ. Cells are normalised over their channels as in the paper's figure 2.4, not over the
batch, so that a frozen tokenizer writes the codes it was trained with; the axial layers have the paper's learned positions (its
section 2.3), which the code leaves out; and an axis that is not halved has a kernel of 3 cells instead of a lopsided 4.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenizer_variants.videogpt.blocks import AxialPositions, Decoder, Encoder, ResidualStack, stage_strides
from video_tokenizer.config import TrainingConfig
from video_tokenizer.losses import sample_of, weighted_mse
from video_tokenizer.models.base import Encoded, Tokenizer, TokenizerOutput, centered
from video_tokenizer.models.vector_quantizer import VectorQuantizer
from video_tokenizer.training.command_line import InputError


@dataclass(frozen=True)
class VideoGPTConfig(TrainingConfig):
    """Train VideoGPT's tokenizer (arXiv:2104.10157, sections 2.2 to 2.4)."""

    model: Literal["videogpt"] = "videogpt"  # type: ignore[assignment]
    """tokenizer to train; --help after another name shows the flags of that one"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for everything; muon moves space-time blocks only, of which there are none here"""
    time_stride: int = 1
    """frames that share a step of tokens: 1, 2, 4, ...; divides num_frames; the dynamics model of chapter 3 needs 1"""
    space_stride: int = 8
    """side of the square of pixels that share a token: 2, 4, 8, ...; divides frame_size"""
    channels: int = 64
    """width of the convolutions (C); a multiple of num_heads"""
    inner_channels: int = 32
    """width inside a residual block"""
    num_blocks: int = 2
    """residual blocks in the encoder, and again in the decoder"""
    num_heads: int = 2
    """attention heads along each axis"""
    axial_attention: Literal["on", "off"] = "on"
    """off: residual blocks without attention, more of them, so that the number of parameters stays within 5 %"""
    num_codes: int = 512
    """vectors in the codebook (K)"""
    code_dim: int = 64
    """length of each of them (D)"""
    commitment_weight: float = 0.25
    """how strongly a latent is pulled to its code"""
    codebook_ema: float = 0.99
    """a code is the running mean of the latents that chose it, with this memory"""
    restart_below: float = 1.0
    """a code chosen by fewer latents a step than this moves onto a random latent; 0 is off"""
    data_start: bool = True
    """take the first codes from the first batch"""
    normalise_loss: bool = True
    """divide the error of the reconstruction by the variance of the data, so that commitment_weight means the same everywhere"""

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        """(steps, rows, columns) of a training clip's latents."""
        height, width = self.frame_height_width
        return self.num_frames // self.time_stride, height // self.space_stride, width // self.space_stride

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        height, _ = self.frame_height_width
        for name, stride, whole, length in (
            ("time_stride", self.time_stride, "num_frames", self.num_frames),
            ("space_stride", self.space_stride, "frame_size", height),
        ):
            if stride < 1 or stride & (stride - 1) or length < stride or length % stride:
                raise InputError(f"{name} {stride} must be a power of 2 that divides {whole} {length}")
        if self.space_stride < 2:
            raise InputError(f"space_stride {self.space_stride} must be at least 2; 8 is the default")
        if self.channels < 1 or self.inner_channels < 1 or self.channels % self.num_heads:
            raise InputError(f"channels {self.channels} must be a multiple of num_heads {self.num_heads}; change one of them")
        if self.num_codes < 2 or self.code_dim < 1:
            raise InputError(f"num_codes {self.num_codes} and code_dim {self.code_dim} must be at least 2 and 1")
        if not 0 < self.codebook_ema < 1:
            raise InputError(f"codebook_ema {self.codebook_ema} must lie between 0 and 1; 0.99 is VideoGPT's")
        self._check_restarts()

    def _check_restarts(self) -> None:
        """An evenly used code is chosen by latents / K a step: a threshold near that restarts codes that are in good use."""
        steps, rows, columns = self.latent_grid
        latents = self.batch_size // self.accumulate * steps * rows * columns
        highest = latents / (4 * self.num_codes)
        if self.restart_below > highest:
            raise InputError(
                f"restart_below {self.restart_below} is too high for {latents} latents a step and num_codes {self.num_codes}: "
                f"codes in use would restart; give --restart-below {highest:.2g} or less, fewer codes or larger batches"
            )


PAPER = dict(  # arXiv:2104.10157, table A.1, BAIR: 16 x 64 x 64 pixels to 8 x 32 x 32 codes
    num_frames=16, time_stride=2, space_stride=2, channels=240, inner_channels=128, num_blocks=4, num_codes=1_024, code_dim=256,
    batch_size=32, num_steps=100_000, learning_rate=7e-4, warmup_steps=1_000, activation_checkpointing=True,
)  # fmt: skip
SMALL = dict(  # for one GPU of 16 GB: 16 x 64 x 64 pixels to 8 x 16 x 16 codes
    num_frames=16, time_stride=2, space_stride=4, channels=128, inner_channels=64, num_blocks=4, num_codes=1_024, code_dim=64,
    batch_size=8, num_steps=30_000, learning_rate=7e-4, warmup_steps=1_000,
)  # fmt: skip


class VideoGPTTokenizer(Tokenizer):
    """A VQ-VAE of 3D convolutions and axial attention (arXiv:2104.10157)."""

    config_class: ClassVar = VideoGPTConfig
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    is_causal: ClassVar = False
    config: VideoGPTConfig
    data_variance: Tensor

    def __init__(self, config: VideoGPTConfig):
        super().__init__()
        self.config = config
        self.frame_size = config.frame_height_width
        self.max_steps, rows, columns = config.latent_grid
        self.grid_size, self.tokens_per_frame = (rows, columns), rows * columns
        self.codebook_size, self.code_length = config.num_codes, config.code_dim
        self.frames_per_step = config.time_stride

        heads = config.num_heads if config.axial_attention == "on" else 0
        sizes = (config.channels, config.inner_channels, heads, config.num_blocks, config.activation_checkpointing)
        strides = stage_strides(config.time_stride, config.space_stride)
        self.positions = AxialPositions(config.channels, config.latent_grid) if heads else None
        self.encoder = Encoder(config.channels, strides, ResidualStack(*sizes))
        self.to_latents = nn.Linear(config.channels, config.code_dim)
        settings = (config.commitment_weight, config.codebook_ema, config.data_start, config.restart_below)
        self.quantizer = VectorQuantizer(config.num_codes, config.code_dim, *settings)
        self.from_codes = nn.Linear(config.code_dim, config.channels)
        self.decoder = Decoder(config.channels, strides, ResidualStack(*sizes))
        self.register_buffer("data_variance", torch.ones(()))  # of pixels in [0, 1], measured before training

    def measure_data(self, frames: np.ndarray) -> None:
        """Variance of all pixels and channels around their common mean, over at most 256 evenly spaced frames.

        Black with one white pixel in ten: 0.1 * 0.9 = 0.09. A reconstruction that is that mean everywhere has an error of 1.
        """
        if self.config.normalise_loss:
            variance = sample_of(frames).astype(np.float64).var() / 255**2
            self.data_variance.fill_(max(float(variance), 1e-4))  # frames of one colour divide nothing by 0

    def training_loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> Tensor:
        """The weighted error of the reconstruction in units of the data's variance, and the commitment of latents to codes."""
        weights = (self.config.foreground_weight, self.config.moving_weight)
        error = weighted_mse(output.reconstruction, video, background, *weights)
        return error / self.data_variance + sum(output.losses.values())

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1], T a multiple of time_stride. Returns indices (B, T / time_stride, N) and codes."""
        codes, indices, _ = self.quantizer(self._latents(video))
        return Encoded(indices, codes)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T / time_stride, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        return self._decode(codes).clamp(0, 1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns the codes (..., N, D) they stand for."""
        return self.quantizer.indices_to_codes(indices)

    def forward(self, video: Tensor) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1]."""
        codes, indices, losses = self.quantizer(self._latents(video))
        reconstruction = self._decode(codes)
        return TokenizerOutput(reconstruction if self.training else reconstruction.clamp(0, 1), indices, codes, losses)

    def _latents(self, video: Tensor) -> Tensor:
        """(B, T / time_stride, N, D)."""
        if video.shape[1] % self.frames_per_step:
            raise InputError(f"a clip of {video.shape[1]} frames is not a multiple of time_stride {self.frames_per_step}")
        x = self.encoder(centered(video), self._places(video.shape[1] // self.frames_per_step))
        return self.to_latents(rearrange(x, "b c t h w -> b t (h w) c"))

    def _decode(self, codes: Tensor) -> Tensor:
        """(B, T, C, H, W), not clamped."""
        x = rearrange(self.from_codes(codes), "b t (h w) c -> b c t h w", h=self.grid_size[0])
        return self.decoder(x, self._places(codes.shape[1])).float() + 0.5

    def _places(self, num_steps: int) -> Tensor | None:
        """Position vectors (T, H, W, C), the same for every axial layer of encoder and decoder; None without attention."""
        if self.positions is None:
            return None
        if num_steps > self.max_steps:
            frames, known = num_steps * self.frames_per_step, self.config.num_frames
            raise InputError(f"a clip of {frames} frames is longer than the {known} of training; give shorter ones")
        return self.positions(num_steps)
