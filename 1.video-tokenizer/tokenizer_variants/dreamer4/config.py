"""The settings of Dreamer 4's tokenizer, and its published sizes."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import ReconstructionConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class Dreamer4Config(ReconstructionConfig):
    """Train Dreamer 4's tokenizer (arXiv:2509.24527, section 3)."""

    model: Literal["dreamer4"] = "dreamer4"
    """tokenizer to train; --help after another name shows that one's flags"""
    patch_size: int = 8
    """side of a square patch, in pixels (P); divides frame_size"""
    embed_dim: int = 128
    """width of the transformers (E); a multiple of 4 * num_heads"""
    num_heads: int = 4
    """attention heads"""
    num_layers: int = 3
    """layers of the encoder, and again of the decoder"""
    time_every: int = 4
    """one layer in so many looks back in time instead of around in the frame"""
    context_frames: int = 3
    """how many frames a look back in time sees, the present one included; fewer than num_frames, to learn to go on"""
    num_latents: int = 16
    """latent tokens of a frame (N of the other tokenizers)"""
    latent_channels: int = 8
    """numbers in a latent's code (D)"""
    num_registers: int = 2
    """further latents that are not passed on, in the encoder and in the decoder"""
    largest_hidden_share: float = 0.9
    """in training each frame hides a share of its patches, drawn evenly between 0 and this; 0 hides none"""
    perceptual: Literal["lpips", "ssim", "none"] = "none"
    """second term of the loss: LPIPS (needs torchvision and its AlexNet weights), 1 - SSIM, or none"""
    perceptual_weight: float = 0.2
    """its weight; that of the squared error is 1"""
    normalise_losses: bool = True
    """divide each term by the running root mean square of its values"""
    query_key_scale: float = 2.0
    """what normalised queries and keys are multiplied by at first; 1 makes the first looks means over everything"""
    normalise_frames: bool = True
    """subtract the recording's mean frame and divide by the size of what is left, before patches are made"""
    soft_cap: float = 0.0
    """bound of the attention scores, by cap * tanh(score / cap); 0 is off"""

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        height, _ = self.frame_height_width
        if self.patch_size < 1 or height % self.patch_size:
            raise InputError(f"frame_size {height} is not a multiple of patch_size {self.patch_size}; change one of them")
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
                raise InputError(f"{name} {getattr(self, name)} must not be below 0")


PAPER = dict(  # Minecraft, arXiv:2509.24527: 512 x 16 numbers, context 192, 400 million parameters, which fix no width and depth
    patch_size=16, num_frames=64, context_frames=192, embed_dim=1024, num_heads=16, num_layers=16, num_latents=512,
    latent_channels=16, num_registers=4, batch_size=64, num_steps=300_000, learning_rate=3e-4, warmup_steps=10_000,
    foreground_weight=0.0, moving_weight=0.0, perceptual="lpips", activation_checkpointing=True, shard=True, optimizer="adamw",
)  # fmt: skip
SMALL = dict(  # for one GPU of 16 GB
    num_frames=16, context_frames=12, embed_dim=384, num_heads=6, num_layers=8, num_latents=32, latent_channels=16,
    num_registers=4, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000,
)  # fmt: skip
