"""MAGVIT-2 with FSQ: a tokenizer of causal 3D convolutions, trained against a discriminator in the last part of its steps.

    python 1.video-tokenizer/tokenizer_variants/magvit2/train.py --data-path data/breakout

What changes: convolutions replace patches and attention. Strided convolutions downsample, and depth-to-space upsamples. Time may
be downsampled too (`--time-stride 2`). A perceptual and an adversarial loss are added to the squared error.
What stays: FSQ with 8x8 tokens, causality, streams, weights of the loss.
Difference from MAGVIT-2 (arXiv:2310.05737): FSQ replaces lookup-free quantization with its entropy and commitment losses.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from tokenizer_variants.magvit2.causal_convolutions import FrameCache, TimeSettings
from tokenizer_variants.magvit2.config import PAPER, SMALL, Magvit2Config
from tokenizer_variants.magvit2.networks import Decoder, Encoder, Level
from video_tokenizer.errors import InputError
from video_tokenizer.losses import moving_pixels, temporal_consistency_loss
from video_tokenizer.models.base import Diagnostics, Encoded, Tokenizer, TokenizerOutput, centered
from video_tokenizer.models.fsq import FiniteScalarQuantizer


class Magvit2Tokenizer(Tokenizer):
    """Causal convolutions around FSQ. T = 1 + s*t frames become 1 + t steps of tokens, where s is `time_stride`."""

    config_class: ClassVar = Magvit2Config
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    config: Magvit2Config

    def __init__(self, config: Magvit2Config):
        super().__init__()
        self.config, self.is_causal = config, config.causal
        self.frame_size = config.frame_height_width
        factor = 2 ** (len(config.channels) - 1)
        self.grid_size = (self.frame_size[0] // factor, self.frame_size[1] // factor)
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        self.frames_per_step = config.time_stride
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.codebook_size, self.code_length = self.quantizer.codebook_size, self.quantizer.latent_dim

        time = TimeSettings(config.time_kernel, config.time_dilation, config.time_padding, config.causal)
        self.encoder = Encoder(config.channels, config.blocks, self.code_length, time, config.time_strides)
        self.decoder = Decoder(config.channels, config.blocks, self.code_length, time, config.time_strides)
        for module in self.modules():
            if isinstance(module, Level):
                module.recompute = config.activation_checkpointing

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1], T = 1 + s*t. Returns indices (B, 1 + t, N) and codes (B, 1 + t, N, D)."""
        return self._tokens(self._latents(video))

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, 1 + t, N, D). Returns video (B, 1 + s*t, C, H, W) in [0, 1]."""
        return self._decode(codes).clamp(0, 1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns codes (..., N, D)."""
        return self.quantizer.indices_to_codes(indices)

    def forward(self, video: Tensor) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1], T = 1 + s*t."""
        latents = self._latents(video)
        encoded = self._tokens(latents)
        reconstruction, losses = self._decode(encoded.codes), {}
        if self.config.stability_weight and latents.shape[1] > 1:
            cell = self.frame_size[0] // self.grid_size[0]
            losses["stability"] = self.config.stability_weight * temporal_consistency_loss(latents, video, cell)
        reconstruction = reconstruction if self.training else reconstruction.clamp(0, 1)
        return TokenizerOutput(reconstruction, encoded.indices, encoded.codes, losses)

    # ---- streams -------------------------------------------------------------------------------------------------------------

    def encode_next(self, video: Tensor, cache: FrameCache | None = None) -> tuple[Encoded, FrameCache]:
        """Encode the next frames of a stream. video: (B, T, C, H, W) in [0, 1]; T = 1 + s*t at the start, then s*t.

        Returns the result of `encode`, and the cache.
        """
        self._check_stream("encode")
        new_cache = FrameCache(cache)
        return self._tokens(self._latents(video, new_cache)), new_cache

    def decode_next(self, codes: Tensor, cache: FrameCache | None = None) -> tuple[Tensor, FrameCache]:
        """Decode the next steps of a stream. codes: (B, t, N, D).

        Returns video (B, s*t, C, H, W) in [0, 1], s - 1 frames less at the start, and the cache.
        """
        self._check_stream("decode")
        new_cache = FrameCache(cache)
        return self._decode(codes, new_cache).clamp(0, 1), new_cache

    def decode_frame(self, indices: Tensor, cache: FrameCache | None = None) -> tuple[Tensor, FrameCache]:
        """Decode the next frame of a stream. indices: (B, N). Returns the frame (B, C, H, W) in [0, 1], and the cache."""
        if self.frames_per_step > 1:
            raise InputError(f"a step of this magvit2 is {self.frames_per_step} frames, not one; decode steps with decode_next")
        return super().decode_frame(indices, cache)

    def _check_stream(self, verb: str) -> None:
        if not self.is_causal:
            raise InputError(f"magvit2 depends on later frames with --no-causal and cannot {verb} a stream; train it without")

    # ---- training and validation ---------------------------------------------------------------------------------------------

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """The weighted squared error and the temporal consistency loss; train.py adds the perceptual and adversarial losses.

        video: (B, T, C, H, W) in [0, 1]; background: (C, H, W).
        """
        losses = super().loss(video, output, background)
        return losses | {"reconstruction": self.config.reconstruction_weight * losses["reconstruction"]}

    def diagnostics(self, video: Tensor) -> Diagnostics:
        """The sharpness of moving objects, which squared errors hardly measure; frames decoded within their clip and alone."""
        in_clip = self(video).reconstruction
        alone = self(video.flatten(0, 1)[:, None]).reconstruction.view_as(video)
        return Diagnostics(
            {"moving_sharpness": moving_sharpness(in_clip, video)}, {"in its clip": in_clip, "as a picture": alone}
        )

    # ---- the two halves ------------------------------------------------------------------------------------------------------

    def _latents(self, video: Tensor, cache: FrameCache | None = None) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns latents (B, 1 + t, N, D), or (B, t, N, D) if a stream continues.

        Raises InputError for a number of frames that the time stride does not divide.
        """
        frames, stride, at_start = video.shape[1], self.frames_per_step, cache is None or cache.at_start
        if (frames - at_start) % stride:
            wanted = f"1 + a multiple of {stride}" if at_start else f"a multiple of {stride}, because the stream has begun"
            raise InputError(f"{frames} frames cannot be read with time_stride {stride}; give {wanted}")
        return self.encoder(centered(video).transpose(1, 2), cache).flatten(3).permute(0, 2, 3, 1)

    def _tokens(self, latents: Tensor) -> Encoded:
        """latents: (B, S, N, D). Returns indices (B, S, N) and codes (B, S, N, D)."""
        quantized = self.quantizer(latents)
        return Encoded(quantized.indices, quantized.codes)

    def _decode(self, codes: Tensor, cache: FrameCache | None = None) -> Tensor:
        """codes: (B, S, N, D). Returns video (B, T, C, H, W), not clamped."""
        grid = codes.transpose(2, 3).unflatten(3, self.grid_size).transpose(1, 2)  # (B, D, S, h, w)
        return self.decoder(grid, cache).transpose(1, 2).float() + 0.5


def moving_sharpness(reconstruction: Tensor, video: Tensor, reach: int = 2) -> float:
    """Edge energy near moving pixels, reconstruction divided by real video: 1 is as sharp as the video, 0.5 is visibly blurred.

    A squared error hardly rewards sharpness; a discriminator does. reconstruction, video: (B, T, C, H, W) in [0, 1]. The edge
    energy is the squared difference of neighboring pixels, summed over the pixels that are at most `reach` rows and columns from
    a moving one. Positions are not compared, so a sharp ball in the wrong place counts as sharp. Returns 1 if nothing moves.
    """
    near = F.max_pool2d(moving_pixels(video).flatten(0, 1).float(), 2 * reach + 1, 1, reach)  # (B*T, 1, H, W)
    decoded, real = (edge_energy(frames.flatten(0, 1)) for frames in (reconstruction, video))
    total = float((real * near).sum())
    return float((decoded * near).sum()) / total if total else 1.0


def edge_energy(frames: Tensor) -> Tensor:
    """(M, C, H, W) -> (M, 1, H, W): squared differences from the right and lower neighbors, summed over channels."""
    right = F.pad(frames.diff(dim=3).square(), (0, 1))
    below = F.pad(frames.diff(dim=2).square(), (0, 0, 0, 1))
    return (right + below).sum(dim=1, keepdim=True)
