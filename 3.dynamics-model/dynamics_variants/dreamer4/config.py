"""The settings of Dreamer 4's dynamics model, and its published sizes."""

from dataclasses import dataclass
from typing import Any, Literal

from dynamics_model.config import NextFrameConfig
from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class Dreamer4Config(NextFrameConfig):
    """Train Dreamer 4's dynamics model (arXiv:2509.24527, section 3): shortcut forcing on latents."""

    # --- data ---
    num_frames: int = 10
    """frames per training clip (T); more than context_frames, to train with a full cache"""
    code_length: int = 8
    """numbers per latent (D); taken from the tokenizer"""

    # --- model ---
    model: Literal["dreamer4"] = "dreamer4"
    """dynamics model to train"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of 4 * num_heads"""
    num_heads: int = 4
    """attention heads"""
    key_value_heads: int | None = None
    """heads of keys and values, each shared by several attention heads (GQA); default: num_heads"""
    num_layers: int = 6
    """layers of the transformer"""
    time_every: int = 3
    """every n-th layer attends over time instead of inside the frame; 4 in the paper"""
    num_registers: int = 2
    """register tokens per frame, which no loss looks at"""
    soft_cap: float = 0.0
    """bounds attention scores by cap * tanh(score / cap); 0 turns this off"""

    # --- loss ---
    finest_steps: int = 16
    """steps from noise to a frame at the smallest step size, a power of two; 64 in the paper"""
    bootstrap_every: int = 4
    """one clip in this many also learns larger steps, from two of half the size; 1 is Dreamer 4, 0 is plain flow matching"""
    prediction: Literal["x", "v", "noise"] = "x"
    """what the network predicts: the clean latents (x), the velocity from noise to them (v), or the noise"""
    loss_space: Literal["x", "v"] = "x"
    """where the squared error is measured: on clean latents (x), or on velocities (v)"""
    ramp: bool = True
    """weight the loss by 0.9 * signal level + 0.1; else all levels count the same"""
    changed_weight: float = 1.0
    """loss weight of latents that differ from the previous frame more than the mean of their frame; 1 weights all equally"""

    def check(self) -> None:
        """Raise InputError, naming the numbers that clash."""
        super().check()
        if self.embed_dim % (4 * self.num_heads):
            raise InputError(
                f"embed_dim {self.embed_dim} is not a multiple of 4 * num_heads {self.num_heads}; change one of them"
            )
        if self.key_value_heads is not None and (self.key_value_heads < 1 or self.num_heads % self.key_value_heads):
            raise InputError(f"num_heads {self.num_heads} is not a multiple of key_value_heads {self.key_value_heads}")
        bounds = {"num_layers": (2, 512), "time_every": (2, 512), "num_registers": (0, 2**10), "code_length": (1, 2**14),
                  "finest_steps": (2, 2**10), "bootstrap_every": (0, 2**16), "soft_cap": (0, 1e9),
                  "changed_weight": (0, 1e9)}  # fmt: skip
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} {getattr(self, name)} must lie between {least} and {most:g}")
        if self.finest_steps.bit_count() != 1:
            raise InputError(f"finest_steps {self.finest_steps} is not a power of two; give 2, 4, 8, 16, 32 or 64")


# Minecraft, arXiv:2509.24527: context 192 at 20 frames per second, 1.6 billion parameters, 64 steps at the smallest size; width
# and depth are our choice. The paper alternates clips of 64 and of 256 frames. Only those of 256 are longer than the context.
PAPER: dict[str, Any] = dict(
    embed_dim=2048, num_heads=16, key_value_heads=4, num_layers=36, time_every=4, num_registers=4, num_frames=256,
    context_frames=192, finest_steps=64, bootstrap_every=1, batch_size=16, num_steps=300_000, learning_rate=3e-4,
    warmup_steps=10_000, optimizer="adamw", activation_checkpointing=True, shard=True, log_every=500, validate_every=5_000,
    save_every=5_000,
)  # fmt: skip
SMALL: dict[str, Any] = dict(  # for one GPU of 16 GB
    embed_dim=384, num_heads=6, num_layers=12, time_every=4, num_registers=4, num_frames=20, context_frames=16, finest_steps=32,
    batch_size=32, accumulate=4, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, log_every=200, validate_every=2_000,
    save_every=2_000,
)  # fmt: skip
