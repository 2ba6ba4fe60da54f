"""ElasticTok: one model that encodes a frame with as many tokens as it needs.

    python 1.video-tokenizer/tokenizer_variants/train.py --model elastictok --data-path data/breakout

In training, a random number of the first tokens of each block of frames is kept, and the rest become zero. The model therefore
stores what matters most in the first tokens. Afterwards any number of tokens can be kept, or a search finds the smallest number
that reaches a given quality.

What changes: tokens are dropped, and the encoder is conditioned on which; one flat sequence of tokens replaces rows and columns;
the output is bounded by tanh.
What stays: patches, FSQ, streams with a cache of fixed size.
Source: Wilson Yan, "Learning About The World Through Video Generation", EECS-2024-193, chapter 4 and appendix C. Differences: no
LPIPS loss, patches of one frame, and extra loss weights for foreground and moving pixels, as in this chapter's other tokenizers.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from tokenizer_variants.elastictok.blocks import BlockwiseTransformer
from tokenizer_variants.elastictok.bottlenecks import FiniteScalarBottleneck, GaussianBottleneck
from tokenizer_variants.elastictok.config import PAPER, SMALL, ElasticConfig
from tokenizer_variants.elastictok.length_search import (
    Elastic,
    Search,
    Target,
    binary_search,
    encode_to_threshold,
    mean_squared_error,
)
from video_tokenizer.global_batch import global_batch_size, local_shard
from video_tokenizer.models.base import Diagnostics, Encoded, Tokenizer, TokenizerOutput, centered
from video_tokenizer.models.fsq import Quantized
from video_tokenizer.models.patch_embed import PatchEmbedding, PatchUnembedding
from video_tokenizer.models.st_transformer import KeysValues

Cache = list[KeysValues]


class ElasticTokenizer(Tokenizer):
    """Variable-length tokens by dropping the tail of every block (EECS-2024-193, chapter 4)."""

    config_class: ClassVar = ElasticConfig
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    config: ElasticConfig

    def __init__(self, config: ElasticConfig):
        super().__init__()
        self.config = config
        self.frame_size = config.frame_height_width
        self.grid_size = (self.frame_size[0] // config.patch_size, self.frame_size[1] // config.patch_size)
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        self.block_tokens = config.block_tokens
        self.is_causal = config.block_frames == 1

        width = config.embed_dim
        self.patch_embedding = PatchEmbedding(3, width, config.patch_size, config.stem)
        self.dropped_or_kept = nn.Embedding(2, width)  # conditions the encoder on which tokens are kept
        if config.block_positions:
            self.positions = nn.Embedding(self.block_tokens, width)
            nn.init.normal_(self.positions.weight, std=0.5)
        self.encoder = self._transformer()
        self.bottleneck = self._bottleneck()
        self.codebook_size, self.code_length = self.bottleneck.codebook_size, self.bottleneck.code_length
        self.from_codes = nn.Linear(self.code_length, width)
        self.decoder = self._transformer()
        self.patch_unembedding = PatchUnembedding(width, 3, config.patch_size, self.grid_size)

    def _transformer(self) -> BlockwiseTransformer:
        config = self.config
        sizes = (config.embed_dim, config.num_heads, config.num_layers, config.hidden_dim)
        blocks = (config.block_frames, config.context_blocks, config.rotary_base)
        return BlockwiseTransformer(*sizes, *blocks, activation_checkpointing=config.activation_checkpointing)

    def _bottleneck(self) -> FiniteScalarBottleneck | GaussianBottleneck:
        config = self.config
        if config.bottleneck == "vae":
            return GaussianBottleneck(config.embed_dim, config.latent_dim, config.kl_weight)
        return FiniteScalarBottleneck(config.embed_dim, config.levels)

    @property
    def bits_per_frame(self) -> float:
        """Capacity of the kept tokens of a frame: of all tokens, or of kept_tokens per block."""
        return super().bits_per_frame * self._default_length() / self.block_tokens

    def _default_length(self) -> int:
        """Tokens kept per block if no length is given."""
        return self.config.kept_tokens or self.block_tokens

    def sample_lengths(self, video: Tensor) -> Tensor | int:
        """How many tokens a training step keeps of each block of a video (B, T, ...).

        Returns (B, blocks), uniform over min_tokens .. block_tokens (inclusive), or kept_tokens for the fixed-length baseline.
        """
        if self.config.kept_tokens is not None:
            return self.config.kept_tokens
        fewest, most = self.config.min_tokens, self.block_tokens
        shape = (global_batch_size(len(video)), self._num_blocks(video))
        return local_shard(torch.randint(fewest, most + 1, shape, device=video.device))

    def _num_blocks(self, video: Tensor) -> int:
        return -(-video.shape[1] // self.config.block_frames)

    def kept_places(self, lengths: Tensor | int, video: Tensor) -> Tensor:
        """(B, T, N) bool, True for the first `lengths` tokens of every block of a video (B, T, ...).

        lengths: (B, blocks), or one number for all.

        Example: three blocks of four tokens with the lengths 1, 4 and 2 give   1 0 0 0   1 1 1 1   1 1 0 0
        """
        blocks = (len(video), self._num_blocks(video))
        lengths = torch.as_tensor(lengths, device=video.device).expand(blocks)  # (B, blocks)
        places = torch.arange(self.block_tokens, device=video.device)
        kept = places < lengths[..., None]  # (B, blocks, tokens of a block)
        kept = kept.reshape(len(video), -1, self.tokens_per_frame)  # (B, T, N)
        return kept[:, : video.shape[1]]  # the last block may be incomplete

    def encode(self, video: Tensor) -> Encoded:
        """video: (B, T, C, H, W) in [0, 1]. Returns indices (B, T, N) and codes (B, T, N, D), with all tokens kept."""
        return self.encode_to_length(video, self._default_length())

    def encode_to_length(self, video: Tensor, lengths: Tensor | int) -> Encoded:
        """`encode`, but keep only the first `lengths` tokens of each block. lengths: (B, blocks), or one number for all."""
        kept = self.kept_places(lengths, video)
        return self.encode_kept(video, kept)[0]

    def encode_to_threshold(
        self, video: Tensor, threshold: float, search: Search = binary_search, target: Target = mean_squared_error
    ) -> Elastic:
        """Encode each block with the smallest number of tokens for which `target`, an error, is at most `threshold`.

        video: (B, T, C, H, W) in [0, 1].
        """
        return encode_to_threshold(self, video, threshold, search, target)

    def encode_kept(self, video: Tensor, kept: Tensor, cache: Cache | None = None) -> tuple[Encoded, Cache]:
        """Encode the next blocks of a stream. video: (B, T, C, H, W) in [0, 1]; kept: (B, T, N) bool. Returns tokens, cache."""
        bottleneck, cache = self._encode(video, kept, cache)
        return Encoded(bottleneck.indices, bottleneck.codes), cache

    def decode(self, codes: Tensor) -> Tensor:
        """codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1]."""
        return self.decode_next(codes)[0]

    def decode_next(self, codes: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Decode the next blocks of a stream. codes: (B, T, N, D). Returns video (B, T, C, H, W) in [0, 1], and the cache."""
        x, new_cache = self.decoder(self._placed(self.from_codes(codes)), cache)
        pixels = self.patch_unembedding(x).float().tanh()  # (B, T, C, H, W) in [-1, 1]
        return (pixels + 1) / 2, new_cache

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (..., N) int64 in [0, K). Returns codes (..., N, D)."""
        if not isinstance(self.bottleneck, FiniteScalarBottleneck):
            return super().indices_to_codes(indices)
        return self.bottleneck.quantizer.indices_to_codes(indices)

    def forward(self, video: Tensor) -> TokenizerOutput:
        """video: (B, T, C, H, W) in [0, 1]. In training, the number of tokens that each block keeps is random."""
        lengths = self.sample_lengths(video) if self.training else self._default_length()
        bottleneck, _ = self._encode(video, self.kept_places(lengths, video))
        return TokenizerOutput(self.decode(bottleneck.codes), bottleneck.indices, bottleneck.codes, bottleneck.losses)

    def _placed(self, x: Tensor) -> Tensor:
        """Add the embedding of each token's position in its block. x: (B, T, N, E). Returns the same shape."""
        if not self.config.block_positions:
            return x
        places = self.positions.weight.view(self.config.block_frames, self.tokens_per_frame, -1)
        return x + places.repeat(self._num_blocks(x), 1, 1)[: x.shape[1]]

    def _encode(self, video: Tensor, kept: Tensor, cache: Cache | None = None) -> tuple[Quantized, Cache]:
        x = self.patch_embedding(2 * centered(video)) + self.dropped_or_kept(kept.long())  # (B, T, N, E)
        x, new_cache = self.encoder(self._placed(x), cache)
        return self.bottleneck(x, kept), new_cache

    def encode_next(self, video: Tensor, cache: Cache | None = None) -> tuple[Encoded, Cache]:
        """Encode the next complete blocks of a stream. video: (B, T, C, H, W) in [0, 1]. Returns tokens, and the cache."""
        if video.shape[1] % self.config.block_frames:
            return super().encode_next(video, cache)
        return self.encode_kept(video, self.kept_places(self._default_length(), video), cache)

    def diagnostics(self, video: Tensor) -> Diagnostics:
        """Pictures of the same frames, decoded from 1/16, 1/8, 1/4, 1/2 and all of their tokens."""
        lengths = [max(1, self.block_tokens >> halvings) for halvings in (4, 3, 2, 1, 0)]
        pictures = {f"{length} tokens": self.decode(self.encode_to_length(video, length).codes) for length in lengths}
        return Diagnostics({}, pictures)
