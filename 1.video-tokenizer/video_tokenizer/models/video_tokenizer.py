"""The video tokenizer: frames to tokens to frames."""

from typing import Any, ClassVar

from torch import Tensor, nn

from video_tokenizer.config import PRESETS, SpaceTimeConfig, TokenizerConfig
from video_tokenizer.losses import temporal_consistency_loss
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

    def __init__(self, config: SpaceTimeConfig):
        super().__init__()
        self.config = config
        self.frame_size = config.frame_height_width
        self.grid_size = (self.frame_size[0] // config.patch_size, self.frame_size[1] // config.patch_size)
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        width, heads, window = config.embed_dim, config.num_heads, config.context_frames

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

    def forward(self, video: Tensor) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1]. In training each clip starts at a random position in time."""
        start: Tensor | int = self.positions.random_start(video.shape[0], video.device) if self.training else 0
        latents = self._latents(video, start)  # (B, T, N, D)
        codes, indices, losses = self.quantizer(latents)
        reconstruction = self._decode(codes, start).float()
        if self.config.stability_weight and video.shape[1] > 1:
            losses["stability"] = self.config.stability_weight * temporal_consistency_loss(latents, video, self.config.patch_size)
        return TokenizerOutput(reconstruction if self.training else reconstruction.clamp(0, 1), indices, codes, losses)

    def encode_next(self, video: Tensor, cache: KVCache | None = None) -> tuple[Encoded, KVCache]:
        """The next frames of a stream. video: (B, T, C, H, W) in [0, 1]. Returns what `encode` gives for them, and the cache."""
        x = self.patch_embedding(centered(video))
        x, cache = self.encoder.step(self.positions(x, cache.position if cache else 0), cache)
        quantized = self.quantizer(self.to_latents(x))
        return Encoded(quantized.indices, quantized.codes), cache

    def decode_next(self, codes: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """The next frames of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1], and the cache."""
        x = self.decoder_positions(self.from_codes(codes), cache.position if cache else 0)
        x, cache = self.decoder.step(x, cache)
        return self.patch_unembedding(x).float().add(0.5).clamp(0, 1), cache

    def _latents(self, video: Tensor, start: Tensor | int) -> Tensor:
        x = self.positions(self.patch_embedding(centered(video)), start)  # (B, T, N, E)
        return self.to_latents(self.encoder(x))  # (B, T, N, D)

    def _decode(self, codes: Tensor, start: Tensor | int) -> Tensor:
        x = self.decoder_positions(self.from_codes(codes), start)  # (B, T, N, E)
        return self.patch_unembedding(self.decoder(x)) + 0.5  # (B, T, C, H, W)
