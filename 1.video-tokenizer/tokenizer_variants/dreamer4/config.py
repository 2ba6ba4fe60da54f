"""The settings of Dreamer 4's tokenizer, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class Dreamer4Config(ReconstructionConfig):
    """Train Dreamer 4's tokenizer (arXiv:2509.24527, section 3)."""

    model: Literal["dreamer4"] = "dreamer4"
    """tokenizer to train; use --model NAME --help to see the flags of another"""
    patch_size: int = 8
    """side of a square patch, in pixels (P); divides frame_size"""
    embed_dim: int = 128
    """width of the transformers (E); a multiple of 4 * num_heads"""
    num_heads: int = 4
    """attention heads"""
    num_layers: int = 3
    """layers in the encoder, and again in the decoder"""
    time_every: int = 4
    """every n-th layer attends over time instead of inside the frame"""
    context_frames: int = 3
    """frames that attention over time covers, the present one included; less than num_frames, to train with a full cache"""
    num_latents: int = 16
    """latent tokens per frame (N)"""
    latent_channels: int = 8
    """length of a latent's code (D)"""
    num_registers: int = 2
    """register tokens, in the encoder and in the decoder: extra latents that are not part of the code"""
    largest_hidden_share: float = 0.9
    """training masks a random share of each frame's patches, uniform between 0 and this; 0 masks none"""
    perceptual: Literal["lpips", "ssim", "none"] = "none"
    """perceptual loss: LPIPS (needs torchvision and its AlexNet weights), 1 - SSIM, or none"""
    perceptual_weight: float = 0.2
    """weight of the perceptual loss; the weight of the squared error is 1"""
    normalise_losses: bool = True
    """divide each term of the loss by the running root mean square of its values"""
    query_key_scale: float = 2.0
    """initial scale of normalized queries and keys; at 1, attention starts as nearly a mean over all tokens"""
    normalise_frames: bool = True
    """subtract the recording's mean frame and divide by the root mean square of the rest before making patches"""
    soft_cap: float = 0.0
    """bounds attention scores by cap * tanh(score / cap); 0 turns this off"""

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        self.check_grid(self.patch_size, "patch_size")
        if self.embed_dim % (4 * self.num_heads):
            raise InputError(
                f"embed_dim {self.embed_dim} is not a multiple of 4 * num_heads {self.num_heads}; change one of them"
            )
        bounds = {"num_layers": (1, 512), "time_every": (2, 512), "num_latents": (1, 2**14), "latent_channels": (1, 2**10),
                  "num_registers": (0, 2**10), "largest_hidden_share": (0, 0.99)}  # fmt: skip
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} {getattr(self, name)} must lie between {least} and {most}")
        for name in ("soft_cap", "perceptual_weight", "query_key_scale"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)} must be at least 0")


# Minecraft, arXiv:2509.24527: codes of 512 x 16 numbers, context 192, 400 million parameters; width and depth are our choice. The
# paper alternates clips of 64 and of 256 frames. Only those of 256 are longer than the context, so all are.
PAPER = dict(
    patch_size=16, num_frames=256, context_frames=192, embed_dim=1024, num_heads=16, num_layers=16, num_latents=512,
    latent_channels=16, num_registers=4, batch_size=16, num_steps=300_000, learning_rate=3e-4, warmup_steps=10_000,
    foreground_weight=0.0, moving_weight=0.0, perceptual="lpips", activation_checkpointing=True, shard=True, optimizer="adamw",
)  # fmt: skip
SMALL = dict(  # for one GPU of 16 GB
    num_frames=16, context_frames=12, embed_dim=384, num_heads=6, num_layers=8, num_latents=32, latent_channels=16,
    num_registers=4, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000,
)  # fmt: skip
