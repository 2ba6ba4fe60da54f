"""The settings of Genie's tokenizer, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import PRESETS, WHOLE_FRAMES, SpaceTimeConfig
from video_tokenizer.errors import InputError
from video_tokenizer.global_batch import rank_and_size
from video_tokenizer.training.config import GENIE_ADAMW


@dataclass(frozen=True)
class VectorQuantizedConfig(SpaceTimeConfig):
    """Train Genie's tokenizer with a learned codebook (arXiv:2402.15391, section 2.1)."""

    model: Literal["st-vq"] = "st-vq"
    """tokenizer to train; use --model NAME --help to see the flags of another"""
    background: Literal["grey", "median"] = "grey"
    """what is subtracted from frames, and added to their reconstructions: grey, or the median frame of the recording"""
    num_codes: int = 1_024
    """vectors in the codebook (K)"""
    code_dim: int = 32
    """length of a code (D)"""
    commitment_weight: float = 0.25
    """weight of the commitment loss, which pulls latents toward their codes"""
    codebook_ema: float = 0.0
    """0 trains the codes by a loss; 0.99 makes each code the running mean of its latents, with this decay"""
    restart_below: float = 0.1
    """a code with fewer latents per step than this is moved onto a random latent; 0 turns this off"""
    data_start: bool = False
    """initialize the codes with latents of the first batch instead of around zero"""

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        if self.shard and rank_and_size()[1] > 1:  # codes are placed in the forward pass, which sharding would undo
            raise InputError("--shard does not work with a learned codebook; leave it out")
        if self.num_codes < 2 or self.code_dim < 1:
            raise InputError(f"num_codes {self.num_codes} and code_dim {self.code_dim} must be at least 2 and 1")
        if not 0 <= self.codebook_ema < 1:
            raise InputError(f"codebook_ema {self.codebook_ema} must lie between 0 and 1; 0.99 is VideoGPT's")


PAPER = GENIE_ADAMW | dict(  # arXiv:2402.15391, appendix A: 200 million parameters, it says; these sizes have 386 million
    patch_size=4, num_frames=16, context_frames=16, embed_dim=512, num_blocks=12, num_heads=8, decoder_embed_dim=1024,
    decoder_blocks=20, decoder_heads=16, batch_size=64, num_steps=300_000, learning_rate=3e-4, warmup_steps=10_000,
    decay_share=0.0, stem="linear", foreground_weight=0.0, moving_weight=0.0, stability_weight=0.0, activation_checkpointing=True,
)  # fmt: skip
SMALL = dict(  # for one GPU of 16 GB
    patch_size=4, num_frames=16, context_frames=16, embed_dim=384, num_blocks=6, num_heads=6, decoder_embed_dim=512,
    decoder_blocks=10, decoder_heads=8, batch_size=8, accumulate=2, num_steps=30_000, learning_rate=3e-4, warmup_steps=2_000,
)  # fmt: skip
SKELETON = {name: PRESETS["skeleton"][name] for name in PRESETS["skeleton"] if name not in ("levels", *WHOLE_FRAMES)}
