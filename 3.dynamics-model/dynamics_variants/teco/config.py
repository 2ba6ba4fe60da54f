"""The settings of TECO, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from dynamics_model.config import NextFrameConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class TECOConfig(NextFrameConfig):
    """Train TECO (arXiv:2210.02396) as a dynamics model."""

    # --- data ---
    num_frames: int = 16
    """frames per training clip (T); a memory is learned that reaches as far back"""

    # --- model ---
    model: Literal["teco"] = "teco"
    """dynamics model to train; use --model NAME --help to see the flags of another"""
    context_frames: int = 16
    """frames that attention over time covers, the present one included; give the same number as for num_frames"""
    code_length: int = 4
    """numbers per code of the tokenizer (D); taken from the tokenizer"""
    channels: int = 64
    """channels of encoder and decoder on the tokenizer's grid; twice as many on the grid of changes"""
    encoder_blocks: int = 1
    """residual blocks of the encoder on the grid of changes"""
    decoder_blocks: int = 1
    """residual blocks of the decoder on each of the two grids"""
    sees_previous: bool = True
    """the encoder sees the frame before as well; --no-sees-previous is the paper's comparison, which has to code whole frames"""
    change_downsample: int = 2
    """cells of the tokenizer's grid per cell of the grid of changes, along each side"""
    change_channels: int = 64
    """numbers per cell of a change, and of what the temporal transformer says about it"""
    change_codes: int = 256
    """codes of changes"""
    change_code_length: int = 16
    """numbers per code of changes"""
    commitment_weight: float = 0.25
    """how strongly a change is pulled to its code"""
    temporal_downsample: int | None = None
    """cells of the grid of changes per token of the temporal transformer, along each side; default: one token for the frame"""
    action_dim: int = 16
    """length of an action's embedding"""
    both_actions: bool = False
    """the temporal transformer reads a change beside the action that led to it as well, not only beside the next one as in TECO;
    one layer can then look up what an action has led to, which otherwise takes two"""
    embed_dim: int = 256
    """width of the temporal transformer (E); a multiple of num_heads"""
    num_blocks: int = 4
    """blocks of the temporal transformer"""
    num_heads: int = 8
    """attention heads of the temporal transformer"""
    prior_dim: int = 128
    """width of the prior over changes; a multiple of prior_heads"""
    prior_blocks: int = 2
    """blocks of the prior"""
    prior_heads: int = 4
    """attention heads of the prior"""

    # --- loss ---
    drop_rate: float = 0.5
    """share of the frames that prior and decoder skip in a training step (DropLoss); 0: none. TECO uses 0.9 on clips of 300"""
    action_dropout: float = 0.1
    """share of the clips without any action, so that the model also works without actions"""

    @property
    def change_grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of changes."""
        return self.grid_size[0] // self.change_downsample, self.grid_size[1] // self.change_downsample

    @property
    def temporal_stride(self) -> tuple[int, int]:
        """Rows and columns of the grid of changes that become one token of the temporal transformer."""
        side = self.temporal_downsample
        return self.change_grid if side is None else (side, side)

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        counts = ("code_length", "channels", "change_downsample", "change_channels", "change_code_length", "action_dim",
                  "prior_dim", "prior_blocks", "prior_heads")  # fmt: skip
        least = dict.fromkeys(counts, 1) | {"context_frames": 2, "change_codes": 2, "encoder_blocks": 0, "decoder_blocks": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} {getattr(self, name)} must be at least {smallest}")
        if not 0 <= self.drop_rate < 1:
            raise InputError(f"drop_rate {self.drop_rate} must be at least 0 and less than 1, or no frame is left to learn from")
        if self.prior_dim % self.prior_heads:
            raise InputError(
                f"prior_dim {self.prior_dim} is not a multiple of prior_heads {self.prior_heads}; change one of them"
            )
        self._check_divides("grid_size", self.grid_size, "change_downsample", self.change_downsample)
        if self.temporal_downsample is not None:
            if self.temporal_downsample < 1:
                raise InputError(f"temporal_downsample {self.temporal_downsample} must be at least 1")
            self._check_divides("the grid of changes", self.change_grid, "temporal_downsample", self.temporal_downsample)

    def _check_divides(self, grid_name: str, grid: tuple[int, int], name: str, side: int) -> None:
        if grid[0] % side or grid[1] % side:
            raise InputError(
                f"{grid_name} {tuple(grid)} cannot be cut into squares of {name} {side}; change --{name.replace('_', '-')}"
            )


SMALL = dict(  # for one GPU of 16 GB
    channels=128, encoder_blocks=2, decoder_blocks=2, change_codes=1024, change_code_length=32, embed_dim=512, num_blocks=8,
    num_heads=8, prior_dim=256, prior_blocks=4, prior_heads=8, num_frames=64, context_frames=64, drop_rate=0.8, batch_size=32,
    accumulate=2, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, log_every=200, validate_every=2_000, save_every=2_000,
)  # fmt: skip
PAPER = dict(  # arXiv:2210.02396, appendix, DMLab: clips of 300 frames, one token a frame, 1M steps of 32 clips at 1e-4
    channels=256, encoder_blocks=2, decoder_blocks=4, change_codes=1024, change_code_length=32, embed_dim=1024, num_blocks=8,
    num_heads=16, prior_dim=512, prior_blocks=8, prior_heads=8, num_frames=300, context_frames=300, drop_rate=0.9,
    action_dropout=0.5, changed_weight=1.0, batch_size=32, num_steps=1_000_000, learning_rate=1e-4, warmup_steps=10_000,
    decay_share=0.99, decay_shape="cosine", optimizer="adamw", activation_checkpointing=True, shard=True, log_every=500,
    validate_every=5_000, save_every=5_000,
)  # fmt: skip
