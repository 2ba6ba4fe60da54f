"""The settings of MAGVIT-2, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from tokenizer_variants.magvit2.causal_convolutions import TimePadding, num_groups
from tokenizer_variants.magvit2.discriminator import LossName
from tokenizer_variants.perceptual import PerceptualName
from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class Magvit2Config(ReconstructionConfig):
    """Train MAGVIT-2 with FSQ (arXiv:2310.05737, section 3.2)."""

    model: Literal["magvit2"] = "magvit2"
    """tokenizer to train"""

    # --- model ---
    channels: tuple[int, ...] = (16, 32, 64, 96)
    """width at each resolution; each next one halves rows and columns, so 64 pixels and four widths give 8x8 tokens"""
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    """residual blocks at each resolution, in the encoder and again in the decoder"""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ levels per latent dimension; their product is the codebook size (8*5*5*5 = 1000)"""
    time_stride: int = 1
    """frames per step of tokens: 1, 2 or 4; a clip has 1 + n * time_stride frames"""
    time_kernel: int = 2
    """frames that a convolution covers, the present one included"""
    time_dilation: int = 2
    """dilation in time of the second convolution of a residual block, in frames"""
    time_padding: TimePadding = "replicate"
    """padding before the first frame: copies of it, or zeros"""
    causal: bool = True
    """no frame depends on a later one; otherwise the padding is split evenly (time_kernel must be odd), and streams cannot be
    encoded"""

    # --- loss ---
    reconstruction_weight: float = 1.0
    """weight of the squared error"""
    stability_weight: float = 0.1
    """weight of the temporal consistency loss, as in the main line; not in the paper; 0 turns it off"""
    perceptual_weight: float = 0.0
    """weight of the perceptual loss; 0 turns it off"""
    perceptual: PerceptualName = "auto"
    """lpips needs installed AlexNet weights; frame-gap trains a small network; auto is lpips if installed, else frame-gap"""
    perceptual_share: float = 0.1
    """share of the steps, at the start, in which the frame-gap network is trained; afterwards it is frozen and used"""
    adversarial_weight: float = 0.0
    """weight of the adversarial loss; 0 trains without a discriminator"""
    adversarial_loss: LossName = "hinge"
    """hinge, or non-saturating as in the paper"""
    adversarial_start: float = 0.4
    """share of the steps before the discriminator trains; earlier reconstructions are too easy to recognize"""
    adversarial_lead: float = 0.2
    """share of the steps, from adversarial_start on, in which only the discriminator uses the adversarial loss"""
    discriminator_channels: tuple[int, ...] = (16, 32, 64)
    """widths of the discriminator's blocks; each block halves time, rows and columns"""
    discriminator_rate: float = 1e-3
    """learning rate of the discriminator"""
    discriminator_betas: tuple[float, float] = (0.9, 0.99)
    """betas of the discriminator's Adam; with the paper's first beta of 0 it learns nothing in small batches"""
    blur_pool: bool = True
    """the discriminator downsamples by blur pooling; otherwise by convolutions with stride 2"""
    r1_weight: float = 0.0
    """weight of R1, a penalty on the gradient of a clip's mean score, which makes a small discriminator too flat; 0 is off"""
    r1_every: int = 16
    """steps between R1 penalties, which are multiplied by this number"""
    lecam_weight: float = 0.001
    """weight of LeCAM, which pulls the scores of real and reconstructed clips together; 0 turns it off"""

    # --- optimization ---
    optimizer: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    """adamw; muon is made for matrices"""
    betas: tuple[float, float] = (0.9, 0.95)
    """betas of AdamW; the paper's (0, 0.99) suits a discriminator that trains from the first step"""

    @property
    def time_strides(self) -> tuple[int, ...]:
        """Stride in time of each downsampling. Time is downsampled last: with four levels, 2 is (1, 1, 2) and 4 is (1, 2, 2)."""
        halvings = self.time_stride.bit_length() - 1
        return (1,) * (len(self.channels) - 1 - halvings) + (2,) * halvings

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        self._check_levels()
        factor = 2 ** (len(self.channels) - 1)
        self.check_grid(factor, f"the cell side of {len(self.channels)} channels,")
        if self.time_stride not in (1, 2, 4) or self.time_stride > factor:
            raise InputError(f"time_stride {self.time_stride} must be 1, 2 or 4, and at most {factor} with these channels")
        if (self.num_frames - 1) % self.time_stride:
            nearest = 1 + self.time_stride * max(1, self.num_frames // self.time_stride)
            raise InputError(
                f"num_frames {self.num_frames} must be 1 + a multiple of time_stride {self.time_stride}; try {nearest}"
            )
        if self.time_kernel < 2 or self.time_dilation < 1:
            raise InputError(f"time_kernel {self.time_kernel} must be at least 2, time_dilation {self.time_dilation} at least 1")
        if not self.causal and self.time_kernel % 2 == 0:
            raise InputError(f"time_kernel {self.time_kernel} has no middle, as --no-causal needs; give --time-kernel 3")
        for name in ("adversarial_start", "adversarial_lead", "perceptual_share"):
            if not 0 <= getattr(self, name) <= 1 or (name == "perceptual_share" and not self.perceptual_share):
                raise InputError(f"{name} {getattr(self, name)} must be a share of the steps, between 0 and 1")

    def _check_levels(self) -> None:
        for name, least in (("channels", 1), ("discriminator_channels", 1), ("blocks", 0), ("levels", 2)):
            value = getattr(self, name)
            if not 1 <= len(value) <= 8 or min(value) < least or max(value) > 4_096:
                raise InputError(f"{name} {value} must be 1 to 8 numbers between {least} and 4096")
        if len(self.blocks) != len(self.channels):
            raise InputError(f"blocks {self.blocks} and channels {self.channels} must have one number per resolution each")
        if any(width % 8 or width % num_groups(width) for width in self.channels):
            raise InputError(f"channels {self.channels} must be multiples of 8, and above 256 multiples of 32, for GroupNorm")


SMALL = dict(  # one GPU of 16 GB; MAGVIT's widths for 64x64 (arXiv:2212.05199), and tokens for every frame, as chapter 3 requires
    channels=(64, 128, 256), blocks=(2, 2, 2), num_frames=17, time_kernel=3, batch_size=32, accumulate=4, num_steps=60_000,
    learning_rate=1e-4, warmup_steps=1_000, perceptual_weight=0.1, adversarial_weight=0.1, reconstruction_weight=5.0,
    discriminator_channels=(64, 128, 256), discriminator_rate=1e-4, adversarial_start=0.5, adversarial_lead=0.0, r1_weight=10.0,
)  # fmt: skip
PAPER = dict(  # 17 frames of 128x128 to 5x16x16 tokens; 64,000 codes instead of the paper's 2^18, and no cosine for the rate
    frame_size=128, num_frames=17, time_stride=4, channels=(128, 256, 256, 512), blocks=(4, 4, 4, 4), levels=(8, 8, 8, 5, 5, 5),
    batch_size=256, num_steps=300_000, learning_rate=1e-4, warmup_steps=10_000, decay_share=1.0, betas=(0.0, 0.99),
    foreground_weight=0.0, moving_weight=0.0, stability_weight=0.0,
    reconstruction_weight=5.0, perceptual_weight=0.1, adversarial_weight=0.1,
    adversarial_loss="non-saturating", adversarial_start=0.0, adversarial_lead=0.0,
    discriminator_channels=(256, 512, 512, 512, 512), discriminator_rate=1e-4, discriminator_betas=(0.0, 0.99),
    r1_weight=10.0, r1_every=1, time_padding="zeros", time_dilation=1, time_kernel=3,
)  # fmt: skip
