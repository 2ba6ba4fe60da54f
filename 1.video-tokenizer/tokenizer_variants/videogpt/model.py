"""VideoGPT's tokenizer: 3D convolutions shrink a clip in time and space to a small grid of learned codes.

    python 1.video-tokenizer/tokenizer_variants/train.py --model videogpt --data-path data/breakout

What changes: patches and space-time blocks become strided 3D convolutions and residual blocks with axial attention, FSQ becomes a
codebook that follows running means of the latents, and the error is divided by the variance of the data (arXiv:2104.10157). A
token knows the whole clip, its future included, so nothing can be encoded or drawn as a stream. What stays: the interface, the
data, the weights of foreground and moving pixels.

From the released code three things differ. Cells are normalised over their channels as in the paper's figure 2.4, not over the
batch, so that a frozen tokenizer writes the codes it was trained with; the axial layers have the paper's learned positions (its
section 2.3), which the code leaves out; and an axis that is not halved has a kernel of 3 cells instead of a lopsided 4.
"""

from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenizer_variants.videogpt.blocks import AxialPositions, Decoder, Encoder, ResidualStack, stage_strides
from tokenizer_variants.videogpt.config import PAPER, SMALL, VideoGPTConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import sample_of, weighted_mse
from video_tokenizer.models.base import Encoded, Tokenizer, TokenizerOutput, centered
from video_tokenizer.models.vector_quantizer import TrackingVectorQuantizer


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
        self.quantizer = TrackingVectorQuantizer(config.num_codes, config.code_dim, *settings)
        self.from_codes = nn.Linear(config.code_dim, config.channels)
        self.decoder = Decoder(config.channels, strides, ResidualStack(*sizes))
        self.register_buffer("data_variance", torch.ones(()))  # of pixels in [0, 1], measured before training

    def fit_statistics(self, frames: np.ndarray) -> None:
        """Variance of all pixels and channels around their common mean, over at most 256 evenly spaced frames.

        Black with one white pixel in ten: 0.1 * 0.9 = 0.09. A reconstruction that is that mean everywhere has an error of 1.
        """
        if self.config.normalise_loss:
            variance = sample_of(frames).astype(np.float64).var() / 255**2
            self.data_variance.fill_(max(float(variance), 1e-4))  # frames of one colour divide nothing by 0

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """The weighted error of the reconstruction in units of the data's variance, and the commitment of latents to codes."""
        weights = (self.config.foreground_weight, self.config.moving_weight)
        error = weighted_mse(output.reconstruction, video, background, *weights)
        return {"reconstruction": error / self.data_variance, **output.losses}

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1], T a multiple of time_stride. Returns indices (B, T / time_stride, N) and codes."""
        quantized = self.quantizer(self._latents(video))
        return Encoded(quantized.indices, quantized.codes)

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
