"""The settings of VideoGPT's tokenizer, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class VideoGPTConfig(ReconstructionConfig):
    """Train VideoGPT's tokenizer (arXiv:2104.10157, sections 2.2 to 2.4)."""

    model: Literal["videogpt"] = "videogpt"
    """tokenizer to train; use --model NAME --help to see the flags of another"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for everything; muon has no effect here, because it applies to transformer blocks only"""
    time_stride: int = 1
    """frames per step of tokens: 1, 2, 4, ...; divides num_frames; the dynamics model of chapter 3 needs 1"""
    space_stride: int = 8
    """side of the square that a token covers, in pixels: 2, 4, 8, ...; divides frame_size"""
    channels: int = 64
    """width of the convolutions (C); a multiple of num_heads"""
    inner_channels: int = 32
    """width inside a residual block"""
    num_blocks: int = 2
    """residual blocks in the encoder, and again in the decoder"""
    num_heads: int = 2
    """attention heads along each axis"""
    axial_attention: Literal["on", "off"] = "on"
    """off replaces attention by more residual blocks, with the same number of parameters within 5%"""
    num_codes: int = 512
    """vectors in the codebook (K)"""
    code_dim: int = 64
    """length of a code (D)"""
    commitment_weight: float = 0.25
    """weight of the commitment loss, which pulls latents toward their codes"""
    codebook_ema: float = 0.99
    """a code is the running mean of its latents, with this decay"""
    restart_below: float = 1.0
    """a code with fewer latents per step than this is moved onto a random latent; 0 turns this off"""
    data_start: bool = True
    """initialize the codes with latents of the first batch"""
    normalise_loss: bool = True
    """divide the reconstruction error by the variance of the data, so that commitment_weight suits every data set"""

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        """(steps, rows, columns) of a training clip's latents."""
        height, width = self.frame_height_width
        return self.num_frames // self.time_stride, height // self.space_stride, width // self.space_stride

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        height, width = self.frame_height_width
        for name, stride, whole, length in (
            ("time_stride", self.time_stride, "num_frames", self.num_frames),
            ("space_stride", self.space_stride, "frame_size", height),
            ("space_stride", self.space_stride, "frame_size", width),
        ):
            if stride < 1 or stride & (stride - 1) or length < stride or length % stride:
                raise InputError(f"{name} {stride} must be a power of 2 that divides {whole} {length}")
        if self.space_stride < 2:
            raise InputError(f"space_stride {self.space_stride} must be at least 2; 8 is the default")
        if self.channels < 1 or self.inner_channels < 1 or self.channels % self.num_heads:
            raise InputError(f"channels {self.channels} must be a multiple of num_heads {self.num_heads}; change one of them")
        if self.num_codes < 2 or self.code_dim < 1:
            raise InputError(f"num_codes {self.num_codes} and code_dim {self.code_dim} must be at least 2 and 1")
        if not 0 < self.codebook_ema < 1:
            raise InputError(f"codebook_ema {self.codebook_ema} must lie between 0 and 1; 0.99 is VideoGPT's")
        self._check_restarts()

    def _check_restarts(self) -> None:
        """Raise InputError if restart_below is close to the usage of an evenly used code, which is latents per step / K."""
        steps, rows, columns = self.latent_grid
        latents = self.batch_size // self.accumulate * steps * rows * columns
        highest = latents / (4 * self.num_codes)
        if self.restart_below > highest:
            raise InputError(
                f"restart_below {self.restart_below} is too high for {latents} latents a step and num_codes {self.num_codes}, "
                f"so codes in use would restart; give --restart-below {highest:.2g} or less, fewer codes or larger batches"
            )


PAPER = dict(  # arXiv:2104.10157, table A.1, BAIR: 16 x 64 x 64 pixels to 8 x 32 x 32 codes
    num_frames=16, time_stride=2, space_stride=2, channels=240, inner_channels=128, num_blocks=4, num_codes=1_024, code_dim=256,
    batch_size=32, num_steps=100_000, learning_rate=7e-4, warmup_steps=1_000, foreground_weight=0.0, moving_weight=0.0,
    activation_checkpointing=True,
)  # fmt: skip
SMALL = dict(  # for one GPU of 16 GB: 16 x 64 x 64 pixels to 8 x 16 x 16 codes
    num_frames=16, time_stride=2, space_stride=4, channels=128, inner_channels=64, num_blocks=4, num_codes=1_024, code_dim=64,
    batch_size=8, num_steps=30_000, learning_rate=7e-4, warmup_steps=1_000,
)  # fmt: skip
