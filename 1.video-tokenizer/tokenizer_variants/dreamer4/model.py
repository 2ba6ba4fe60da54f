"""Dreamer 4's tokenizer: a masked autoencoder that compresses a frame into a few latent tokens.

    python 1.video-tokenizer/tokenizer_variants/train.py --model dreamer4 --data-path data/breakout

What changes: a frame has a few latents, which attend to all patches, instead of one token per patch. There is no codebook; codes
are numbers in [-1, 1]. In training, random patches are hidden from the encoder, and the loss covers all patches. Every term of
the loss is divided by its running root mean square.
What stays: causal in time, frame by frame with caches, the weights of foreground and moving pixels.
Source: arXiv:2509.24527, section 3.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from tokenizer_variants.dreamer4.block_causal_transformer import BlockCausalSizes
from tokenizer_variants.dreamer4.config import PAPER, SMALL, Dreamer4Config
from tokenizer_variants.dreamer4.parts import LatentDecoder, LatentEncoder, LatentSizes, hidden_patches
from tokenizer_variants.perceptual import PerceptualDistance
from video_tokenizer.global_batch import mean_over_processes
from video_tokenizer.losses import weighted_mse
from video_tokenizer.metrics import psnr_db
from video_tokenizer.models.base import Diagnostics, Encoded, Tokenizer, TokenizerOutput
from video_tokenizer.models.st_transformer import KVCache


@dataclass
class MaskedOutput(TokenizerOutput):
    """The result of the forward pass, with the mask of the encoder's input."""

    hidden: Tensor | None = None
    """(B, T, patches) bool, True where a patch was hidden; None without a mask"""


class RunningScale(nn.Module):
    """Divide a loss by the running root mean square of its values, so that every term of a sum has a size of about 1.

    The estimate starts as a plain mean of squares and becomes an exponential average. No gradient flows through it, so the
    gradient of each term keeps its direction. It is a buffer, so resumed training continues with it.
    """

    mean_square: Tensor
    num_updates: Tensor

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("mean_square", torch.ones(()))
        self.register_buffer("num_updates", torch.zeros(()))

    def forward(self, loss: Tensor) -> Tensor:
        """loss: a scalar above 0, which first updates the estimate in training. Returns the loss divided by the estimate."""
        if self.training:
            with torch.no_grad():
                value = mean_over_processes(loss.float())
                kept = torch.clamp(self.num_updates / (self.num_updates + 1), max=self.decay)
                self.mean_square.copy_(kept * self.mean_square + (1 - kept) * value.square())
                self.num_updates += 1
        return loss / self.mean_square.sqrt().clamp(min=1e-8)


class Dreamer4Tokenizer(Tokenizer):
    """Masked autoencoding through a tanh bottleneck, causal in time (arXiv:2509.24527, section 3)."""

    config_class: ClassVar = Dreamer4Config
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    config: Dreamer4Config
    codebook_size = 0

    def __init__(self, config: Dreamer4Config):
        super().__init__()
        self.config = config
        self.frame_size = config.frame_height_width
        self.patch_grid = (self.frame_size[0] // config.patch_size, self.frame_size[1] // config.patch_size)
        self.tokens_per_frame, self.code_length = config.num_latents, config.latent_channels
        self.grid_size = (1, config.num_latents)  # latents have no position in the frame
        transformer = BlockCausalSizes(
            config.embed_dim, config.num_heads, config.num_layers, config.context_frames, config.time_every,
            query_key_scale=config.query_key_scale, soft_cap=config.soft_cap,
            activation_checkpointing=config.activation_checkpointing,
        )  # fmt: skip
        sizes = LatentSizes(
            transformer, self.patch_grid, config.patch_size, config.num_latents, config.num_registers, config.latent_channels
        )
        self.encoder = LatentEncoder(sizes)
        self.decoder = LatentDecoder(sizes)
        self.pixel_scale, self.perceptual_scale = RunningScale(), RunningScale()
        self.perceptual_distance: PerceptualDistance | None = None

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1]. Returns empty indices (B, T, 0), and codes (B, T, N, D) in [-1, 1]."""
        return self.encode_next(video)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        return self.decode_next(codes)[0]

    def encode_next(self, video: Tensor, cache: KVCache | None = None) -> tuple[Encoded, KVCache]:
        """Encode the next frames of a stream. video: (B, T, C, H, W) in [0, 1]. Returns the result of `encode`, and the cache."""
        codes, kept = self.encoder(video, cache=cache)
        return Encoded(no_indices(codes), codes), kept

    def decode_next(self, codes: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Decode the next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1], and the cache."""
        video, kept = self.decoder(codes, cache)
        return video.clamp(0, 1), kept

    def forward(self, video: Tensor) -> MaskedOutput:
        """video: (B, T, C, H, W) in [0, 1]. In training, random patches are hidden from the encoder."""
        hidden = None
        if self.training and self.config.largest_hidden_share:
            hidden = self.random_mask(video)
        codes, _ = self.encoder(video, hidden)  # (B, T, N, D)
        reconstruction, _ = self.decoder(codes)
        reconstruction = reconstruction if self.training else reconstruction.clamp(0, 1)
        return MaskedOutput(reconstruction, no_indices(codes), codes, {}, hidden)

    def random_mask(self, video: Tensor) -> Tensor:
        """(B, T, patches) bool, True where a patch is hidden from the encoder. video: (B, T, C, H, W)."""
        batch_size, num_frames = video.shape[:2]
        num_patches = self.decoder.readouts.num_embeddings
        hidden = hidden_patches(batch_size * num_frames, num_patches, self.config.largest_hidden_share, video.device)
        return hidden.unflatten(0, (batch_size, num_frames))

    def seen_pixels(self, output: TokenizerOutput) -> Tensor | float:
        """(B, T, 1, H, W) bool, True where the encoder saw the pixel; 1.0 if it saw all of them.

        The loss includes hidden patches, but without the extra weights for foreground and moving pixels. Otherwise hidden balls
        would dominate the loss, and the best prediction for them is a faint ball everywhere.
        """
        if not isinstance(output, MaskedOutput) or output.hidden is None:
            return 1.0
        side, rows = self.config.patch_size, self.patch_grid[0]
        return repeat(~output.hidden, "b t (y x) -> b t 1 (y p) (x q)", y=rows, p=side, q=side)

    def fit_statistics(self, frames: np.ndarray) -> None:
        """Measure the mean frame of the recording and the scale of the rest. frames: uint8 (F, H, W, 3).

        Also sets up the perceptual distance, if the config has one. Raises InputError if LPIPS is chosen but not installed.
        """
        config = self.config
        if config.normalise_frames:
            self.encoder.normalise.measure(frames)
        if config.perceptual != "none" and config.perceptual_weight:
            device = self.decoder.readouts.weight.device
            self.perceptual_distance = PerceptualDistance(config.perceptual, config.num_frames, config.precision, device)

    def loss(self, video: Tensor, output: TokenizerOutput, background: Tensor) -> dict[str, Tensor]:
        """Squared error + perceptual_weight * perceptual distance, each divided by its running root mean square.

        video: (B, T, C, H, W) in [0, 1]; background: (C, H, W).
        """
        config = self.config
        seen = self.seen_pixels(output)
        weights = (config.foreground_weight * seen, config.moving_weight * seen)
        pixels = weighted_mse(output.reconstruction, video, background, *weights)
        losses = {"pixels": self.pixel_scale(pixels) if config.normalise_losses else pixels}
        if self.perceptual_distance is not None:
            distance = self.perceptual_distance(output.reconstruction, video)
            scaled = self.perceptual_scale(distance) if config.normalise_losses else distance
            losses["perceptual"] = config.perceptual_weight * scaled
        return losses

    def diagnostics(self, video: Tensor) -> Diagnostics:
        """How much the past improves the reconstruction, and how well frames are reconstructed if half of them is hidden.

        video: (B, T, C, H, W) in [0, 1], T at least 2.

        context_gain_db: PSNR of frames 1 to T-1 with their past, minus that of the same frames encoded and decoded alone.
        hidden_context_gain_db: the same with half of each frame's patches hidden from the encoder.
        half_hidden_psnr_db: PSNR of all frames with their past and half of their patches hidden.
        """
        hidden = self.half_hidden(video)
        half = self._reconstruct(video, hidden)
        scores = {"half_hidden_psnr_db": psnr_db(half, video)}
        for name, mask, with_past in (
            ("context_gain_db", None, self._reconstruct(video)),
            ("hidden_context_gain_db", hidden, half),
        ):
            one_by_one = rearrange(video, "b t c h w -> (b t) 1 c h w")
            alone = self._reconstruct(one_by_one, None if mask is None else rearrange(mask, "b t n -> (b t) 1 n"))
            alone = rearrange(alone, "(b t) 1 c h w -> b t c h w", b=len(video))
            scores[name] = psnr_db(with_past[:, 1:], video[:, 1:]) - psnr_db(alone[:, 1:], video[:, 1:])
        seen = self.seen_pixels(MaskedOutput(video, video, video, {}, hidden))
        pictures = {"half hidden": torch.where(torch.as_tensor(seen, device=video.device), video, 0.5)}
        return Diagnostics(scores, pictures | {"half decoded": half, "all decoded": self(video).reconstruction})

    def _reconstruct(self, video: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode and decode. video: (B, T, C, H, W) in [0, 1]; hidden: (B, T, patches) bool. Returns the same shape as video."""
        return self.decode(self.encoder(video, hidden)[0])

    def half_hidden(self, video: Tensor) -> Tensor:
        """A mask (B, T, patches) bool of half of each frame's patches, the same for every call. video: (B, T, C, H, W)."""
        num_patches = self.decoder.readouts.num_embeddings
        order = torch.rand(*video.shape[:2], num_patches, generator=torch.Generator().manual_seed(0)).argsort(dim=-1)
        return (order < num_patches // 2).to(video.device)


def no_indices(codes: Tensor) -> Tensor:
    """Empty indices (B, T, 0) int64, because the codes are not quantized."""
    return torch.zeros(*codes.shape[:2], 0, dtype=torch.int64, device=codes.device)
