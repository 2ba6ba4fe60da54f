"""The settings of the autoregressive dynamics model, and VideoGPT's published sizes."""

from dataclasses import dataclass
from typing import Literal

from dynamics_model.config import NextFrameConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class GPTConfig(NextFrameConfig):
    """Train VideoGPT's prior (arXiv:2104.10157, section 3.2) as a dynamics model."""

    # --- model ---
    model: Literal["gpt"] = "gpt"
    """dynamics model to train; use --model NAME --help to see the flags of another"""
    code_length: int = 4
    """numbers per code of the codebook (D); taken from the tokenizer"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of num_heads"""
    num_blocks: int = 3
    """transformer blocks"""
    num_heads: int = 4
    """attention heads"""
    positions: Literal["learned", "rope", "alibi"] = "learned"
    """how a token knows its frame: a learned table, queries and keys that rotate with time, or a penalty on distance. Rows and
    columns have learned tables in all three"""
    rope_base: float = 100.0
    """rope: the slowest pair of numbers turns once in about 2 pi * rope_base frames; 10,000, made for texts, would leave most of
    them standing still. A context that grows takes a larger one: --init-from, and more --num-frames and --context-frames"""
    attention: Literal["dense", "blockwise"] = "dense"
    """how training attends: with a matrix of all scores, or with one block of them at a time, for clips of thousands of tokens"""
    time_rows: int = 16
    """learned positions: rows of the table of frames, at least context_frames; frame t takes row t modulo time_rows"""
    random_start: bool = True
    """learned positions: each training clip begins at a random row. Without it clips begin at row 0, as published, and the rows
    from num_frames on are never trained"""
    condition_frames: int = 1
    """previous frames that a small ResNet reads as a whole, for every block to attend to; 0: none"""
    resnet_blocks: int = 2
    """residual blocks of that ResNet"""
    dropout: float = 0.0
    """share of the activations that are dropped after the input and after each attention and feed-forward network"""

    # --- loss ---
    context_corruption: float = 0.1
    """up to this share of the input tokens is replaced by random ones, to make rollouts robust to their own errors"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        self.check_shares("context_corruption")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} must be at least 0 and less than 1")
        for name, least in (("code_length", 1), ("condition_frames", 0), ("resnet_blocks", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)} must be at least {least}")
        if self.positions == "learned" and self.time_rows < self.context_frames:
            raise InputError(
                f"time_rows {self.time_rows} is less than context_frames {self.context_frames}: two frames that see each other "
                "would share a row"
            )
        if self.rope_base < 1:
            raise InputError(f"rope_base {self.rope_base} must be at least 1")
        if self.attention == "blockwise" and self.positions == "alibi":
            raise InputError("attention blockwise knows no penalty on distance; with positions alibi it has to be dense")
        if self.attention == "blockwise" and self.num_frames > self.context_frames:
            raise InputError(
                f"attention blockwise sees the whole clip, but num_frames {self.num_frames} is more than context_frames "
                f"{self.context_frames}; give --context-frames {self.num_frames}"
            )
        if self.positions == "rope" and self.embed_dim // self.num_heads % 2:
            raise InputError(
                f"positions rope turns pairs of numbers, and embed_dim {self.embed_dim} over num_heads {self.num_heads} is odd"
            )


SMALL = dict(  # for one GPU of 16 GB
    embed_dim=384, num_blocks=8, num_heads=12, num_frames=16, context_frames=16, time_rows=32, batch_size=32, accumulate=4,
    num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, log_every=200, validate_every=2_000, save_every=2_000,
)  # fmt: skip
PAPER = dict(  # arXiv:2104.10157, table A.2, BAIR: 16 layers, width 512, 4 heads, dropout 0.2, batch 32, 150k steps at 3e-4
    embed_dim=512, num_blocks=16, num_heads=4, num_frames=16, context_frames=16, time_rows=32, resnet_blocks=16, dropout=0.2,
    batch_size=32, num_steps=150_000, learning_rate=3e-4, warmup_steps=1_000, optimizer="adamw", context_corruption=0.0,
    changed_weight=1.0, activation_checkpointing=True, shard=True, log_every=500, validate_every=5_000, save_every=5_000,
)  # fmt: skip
