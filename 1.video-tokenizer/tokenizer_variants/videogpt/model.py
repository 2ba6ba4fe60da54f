"""VideoGPT's tokenizer: 3D convolutions downsample a clip in time and space to a small grid of learned codes.

    python 1.video-tokenizer/tokenizer_variants/train.py --model videogpt --data-path data/breakout

What changes: strided 3D convolutions and residual blocks with axial attention replace patches and space-time blocks. A codebook
of running means replaces FSQ. The error is divided by the variance of the data (arXiv:2104.10157). A token depends on the whole
clip, including later frames, so streams cannot be encoded or decoded.
What stays: the interface, the data, the weights of foreground and moving pixels.

Differences from the released code:
1. LayerNorm over channels, as in the paper's figure 2.4, instead of BatchNorm, so that a frozen tokenizer computes the same codes
   as in training.
2. The axial layers have the learned positions of the paper's section 2.3.
3. An axis that is not downsampled has a kernel of 3 cells instead of an asymmetric 4.
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
        """Measure the variance of all pixels and channels around their common mean, over at most 256 evenly spaced frames.

        frames: uint8 (F, H, W, 3). A black frame with one white pixel in ten has the variance 0.1 * 0.9 = 0.09. Predicting the
        mean everywhere then has an error of 1 in units of the variance.
        """
        if self.config.normalise_loss:
            variance = sample_of(frames).astype(np.float64).var() / 255**2
            self.data_variance.fill_(max(float(variance), 1e-4))  # a recording of a single color has a variance of 0

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """The weighted reconstruction error in units of the variance of the data, and the commitment loss."""
        weights = (self.config.foreground_weight, self.config.moving_weight)
        error = weighted_mse(output.reconstruction, video, background, *weights)
        return {"reconstruction": error / self.data_variance, **output.losses}

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1], T a multiple of s = time_stride.

        Returns indices (B, T/s, N) and codes (B, T/s, N, D).
        """
        quantized = self.quantizer(self._latents(video))
        return Encoded(quantized.indices, quantized.codes)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T / time_stride, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        return self._decode(codes).clamp(0, 1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns codes (..., N, D)."""
        return self.quantizer.indices_to_codes(indices)

    def forward(self, video: Tensor) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1]."""
        codes, indices, losses = self.quantizer(self._latents(video))
        reconstruction = self._decode(codes)
        return TokenizerOutput(reconstruction if self.training else reconstruction.clamp(0, 1), indices, codes, losses)

    def _latents(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, T / time_stride, N, D)."""
        if video.shape[1] % self.frames_per_step:
            raise InputError(f"a clip of {video.shape[1]} frames is not a multiple of time_stride {self.frames_per_step}")
        x = self.encoder(centered(video), self._places(video.shape[1] // self.frames_per_step))
        return self.to_latents(rearrange(x, "b c t h w -> b t (h w) c"))

    def _decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T / time_stride, N, D). Returns video (B, T, C, H, W), not clamped."""
        x = rearrange(self.from_codes(codes), "b t (h w) c -> b c t h w", h=self.grid_size[0])
        return self.decoder(x, self._places(codes.shape[1])).float() + 0.5

    def _places(self, num_steps: int) -> Tensor | None:
        """Position vectors (T, H, W, C), the same for every axial layer of encoder and decoder; None without attention."""
        if self.positions is None:
            return None
        if num_steps > self.max_steps:
            frames, known = num_steps * self.frames_per_step, self.config.num_frames
            raise InputError(f"a clip of {frames} frames is longer than the {known} of training; give shorter clips")
        return self.positions(num_steps)
