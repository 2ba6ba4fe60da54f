"""Genie's tokenizer: the main line with a learned codebook instead of FSQ.

    python 1.video-tokenizer/tokenizer_variants/train.py --model st-vq --data-path data/breakout

What changes: a latent is a vector of 32 numbers instead of 4. Instead of rounding, it is replaced by the nearest of 1,024 learned
vectors, which requires two more losses. The decoder may be larger than the encoder, which helped Genie more than the reverse
(arXiv:2402.15391, appendix C).
What stays: patches, positions, space-time blocks, masks, caches.
"""

from typing import ClassVar

from tokenizer_variants.st_vq.config import PAPER, SKELETON, SMALL, VectorQuantizedConfig
from video_tokenizer.models.vector_quantizer import TrackingVectorQuantizer
from video_tokenizer.models.video_tokenizer import VideoTokenizer


class VectorQuantizedTokenizer(VideoTokenizer):
    """ST-ViViT with vector quantization (arXiv:2402.15391, section 2.1)."""

    config_class: ClassVar = VectorQuantizedConfig
    presets: ClassVar = {"tiny": {}, "small": SMALL, "skeleton": SKELETON, "paper": PAPER}
    config: VectorQuantizedConfig

    def make_quantizer(self, config: VectorQuantizedConfig) -> TrackingVectorQuantizer:
        settings = (config.commitment_weight, config.codebook_ema, config.data_start, config.restart_below)
        return TrackingVectorQuantizer(config.num_codes, config.code_dim, *settings)
