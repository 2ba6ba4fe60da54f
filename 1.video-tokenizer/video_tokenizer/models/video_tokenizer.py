"""The video tokenizer: frames to tokens to frames."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from video_tokenizer.config import PRESETS, SpaceTimeConfig, TokenizerConfig
from video_tokenizer.losses import background_of, choose_patches, patch_interest, pixels_of, temporal_consistency_loss
from video_tokenizer.models.base import Encoded, Tokenizer, TokenizerOutput, centered
from video_tokenizer.models.fsq import FiniteScalarQuantizer
from video_tokenizer.models.patch_embed import PatchEmbedding, PatchUnembedding
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import KVCache, SpaceTimeTransformer


class VideoTokenizer(Tokenizer):
    """Genie's ST-ViViT tokenizer (arXiv:2402.15391, section 2.1) with FSQ instead of a learned codebook.

    Encoder and decoder are space-time transformers, causal in time. A token depends on the present and the past only, so frames
    can be encoded and decoded one by one, with the same result as all at once.
    """

    config_class: ClassVar[type[SpaceTimeConfig]] = TokenizerConfig
    presets = PRESETS
    config: SpaceTimeConfig
    quantizer: Any
    background: Tensor

    def __init__(self, config: SpaceTimeConfig):
        super().__init__()
        self.config = config
        self.frame_size = config.frame_height_width
        self.grid_size = (self.frame_size[0] // config.patch_size, self.frame_size[1] // config.patch_size)
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        width, heads, window = config.embed_dim, config.num_heads, config.context_frames

        # what is subtracted from every frame and added again at the end
        self.register_buffer("background", torch.full((3, *self.frame_size), 0.5), persistent=config.background == "median")
        self.patch_embedding = PatchEmbedding(3, width, config.patch_size, config.stem)
        self.positions = SpaceTimePositions(width, self.grid_size, config.context_frames)
        self.encoder = SpaceTimeTransformer(width, heads, config.num_blocks, window, config.activation_checkpointing)
        self.quantizer = self.make_quantizer(config)
        self.to_latents = nn.Linear(width, self.quantizer.latent_dim)
        self.codebook_size, self.code_length = self.quantizer.codebook_size, self.quantizer.latent_dim

        width, heads, num_blocks = config.decoder_size
        self.from_codes = nn.Linear(self.quantizer.latent_dim, width)
        self.decoder_positions = SpaceTimePositions(width, self.grid_size, config.context_frames)
        self.decoder = SpaceTimeTransformer(width, heads, num_blocks, window, config.activation_checkpointing)
        self.patch_unembedding = PatchUnembedding(width, 3, config.patch_size, self.grid_size)

    def make_quantizer(self, config: Any) -> Any:
        """To try another quantizer, return it here: a module with `latent_dim` and `codebook_size` that turns latents
        (..., latent_dim) into `Quantized` and, as `indices_to_codes`, indices (...) into codes (..., latent_dim)."""
        return FiniteScalarQuantizer(config.levels)

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1]. Returns indices (B, T, N) and codes (B, T, N, D)."""
        quantized = self.quantizer(self._latents(video, start=0))
        return Encoded(quantized.indices, quantized.codes)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        return self._decode(codes, start=0).float().clamp(0, 1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns the codes (..., N, D) they stand for."""
        return self.quantizer.indices_to_codes(indices)

    def fit_statistics(self, frames: np.ndarray) -> None:
        if self.config.background == "median":
            self.background.copy_(background_of(frames))

    def forward(self, video: Tensor, patch_share: float = 1.0, stability_weight: float | None = None) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1]. In training each clip starts at a random position in time.

        patch_share: share of the patches to work on, see `choose_patches`. stability_weight: default: as in the config.
        """
        start: Tensor | int = self.positions.random_start(video.shape[0], video.device) if self.training else 0
        patches = None
        if patch_share < 1:
            patches = choose_patches(patch_interest(video, self.background, self.config.patch_size), patch_share)  # (B, K)
        latents = self._latents(video, start, patches)  # (B, T, K, D)
        codes, indices, losses = self.quantizer(latents)
        reconstruction = self._decode(codes, start, patches).float()
        if patches is not None:
            reconstruction = torch.where(pixels_of(patches, self.frame_size, self.config.patch_size), reconstruction, video)
        weight = self.config.stability_weight if stability_weight is None else stability_weight
        if weight and video.shape[1] > 1:
            losses["stability"] = weight * temporal_consistency_loss(latents, video, self.config.patch_size, patches)
        return TokenizerOutput(
            reconstruction if self.training else reconstruction.clamp(0, 1), indices, codes, losses, patches=patches
        )

    def encode_next(self, video: Tensor, cache: KVCache | None = None) -> tuple[Encoded, KVCache]:
        """The next frames of a stream. video: (B, T, C, H, W) in [0, 1]. Returns what `encode` gives for them, and the cache."""
        x = self.patch_embedding(centered(video, self.background))
        x, cache = self.encoder.step(self.positions(x, cache.position if cache else 0), cache)
        quantized = self.quantizer(self.to_latents(x))
        return Encoded(quantized.indices, quantized.codes), cache

    def decode_next(self, codes: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """The next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1], and the cache."""
        x = self.decoder_positions(self.from_codes(codes), cache.position if cache else 0)
        x, cache = self.decoder.step(x, cache)
        return self.patch_unembedding(x).float().add(self.background).clamp(0, 1), cache

    def _latents(self, video: Tensor, start: Tensor | int, patches: Tensor | None = None) -> Tensor:
        x = self.patch_embedding(centered(video, self.background))  # (B, T, N, E)
        if patches is not None:
            x = x.take_along_dim(patches[:, None, :, None], dim=2)  # (B, T, K, E)
        return self.to_latents(self.encoder(self.positions(x, start, patches)))  # (B, T, K, D)

    def _decode(self, codes: Tensor, start: Tensor | int, patches: Tensor | None = None) -> Tensor:
        x = self.decoder(self.decoder_positions(self.from_codes(codes), start, patches))  # (B, T, K, E)
        if patches is not None:
            empty = x.new_zeros(*x.shape[:2], self.tokens_per_frame, x.shape[3])
            x = empty.scatter(2, patches[:, None, :, None].expand_as(x), x)  # (B, T, N, E)
        return self.patch_unembedding(x) + self.background  # (B, T, C, H, W)
