"""The settings of ElasticTok, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class ElasticConfig(ReconstructionConfig):
    """Train ElasticTok (EECS-2024-193, chapter 4)."""

    model: Literal["elastictok"] = "elastictok"
    """tokenizer to train; use --model NAME --help to see the flags of another"""
    # --- model ---
    patch_size: int = 8
    """side of a square patch, in pixels (P); divides frame_size"""
    embed_dim: int = 128
    """width of the transformers (E); a multiple of num_heads"""
    hidden_dim: int = 256
    """hidden width of the feed-forward networks"""
    num_layers: int = 3
    """transformer layers in the encoder, and again in the decoder"""
    num_heads: int = 4
    """attention heads"""
    block_frames: int = 1
    """frames per block; tokens are dropped per block; above 1, a frame depends on later frames of its block"""
    context_blocks: int = 4
    """blocks that attention covers, the present one included; 1 encodes every block independently"""
    rotary_base: float = 10_000.0
    """the slowest rotary pair turns by about 1 / rotary_base radians per token"""
    block_positions: bool = True
    """add a learned embedding of the position in the block, in encoder and decoder; the paper uses only the rotary one"""
    stem: Literal["linear", "conv"] = "linear"
    """how pixels become patch vectors: one linear map, or two 3x3 convolutions and then the linear map"""
    # --- tokens ---
    bottleneck: Literal["fsq", "vae"] = "fsq"
    """fsq rounds the codes; vae samples them from a normal distribution, without a codebook"""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """fsq: levels per latent dimension; their product is the codebook size"""
    latent_dim: int = 8
    """vae: length of a code"""
    kl_weight: float = 1e-8
    """vae: weight of the KL divergence of kept tokens"""
    min_tokens: int = 4
    """smallest number of tokens kept per block in training; very small values make training unstable"""
    kept_tokens: int | None = None
    """always keep exactly this many tokens per block, the fixed-length baseline"""

    @property
    def block_tokens(self) -> int:
        """tokens per block, of which a prefix is kept"""
        height, width = self.frame_height_width
        return self.block_frames * (height // self.patch_size) * (width // self.patch_size)

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        self.check_grid(self.patch_size, "patch_size")
        if self.stem == "conv" and self.patch_size % 2:
            raise InputError(f"patch_size {self.patch_size} must be even for --stem conv, which first halves the frame")
        super().check()
        for name in ("num_layers", "hidden_dim", "block_frames", "context_blocks", "latent_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if self.embed_dim // self.num_heads % 2:
            raise InputError(
                f"embed_dim / num_heads = {self.embed_dim // self.num_heads} must be even for rotary positions; change either"
            )
        if self.rotary_base <= 1:
            raise InputError(f"rotary_base {self.rotary_base} must be above 1; 10000 is the default")
        if min(self.levels, default=0) < 2:
            raise InputError(f"levels {self.levels} must all be at least 2; the default is 8 5 5 5")
        for name in ("min_tokens", "kept_tokens"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= self.block_tokens:
                raise InputError(f"{name} {number} must lie between 1 and the {self.block_tokens} tokens of a block")


PAPER = dict(  # EECS-2024-193, appendix C, FSQ: 210 million parameters, blocks of 4 frames of 256x256, 4,096 tokens per block
    frame_size=256, embed_dim=1_024, hidden_dim=2_048, num_layers=10, num_heads=8, block_frames=4, num_frames=4, context_blocks=1,
    levels=(8, 8, 8, 5, 5, 5), min_tokens=256, rotary_base=5e7, block_positions=False, batch_size=256, num_steps=200_000,
    learning_rate=2e-4, warmup_steps=10_000, weight_decay=1e-4, foreground_weight=0.0, moving_weight=0.0, optimizer="adamw",
    activation_checkpointing=True, shard=True,
)  # fmt: skip
SMALL = dict(  # one GPU: 256 tokens per frame; at least a sixteenth is kept, as in the paper
    patch_size=4, embed_dim=256, hidden_dim=512, num_layers=6, num_heads=8, num_frames=8, context_blocks=8, min_tokens=16,
    batch_size=32, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000,
)  # fmt: skip
