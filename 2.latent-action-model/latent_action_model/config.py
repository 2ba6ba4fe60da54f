"""What chapter 2 adds to the shared settings, or changes of them."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.errors import InputError
from video_tokenizer.global_batch import rank_and_size
from video_tokenizer.training.config import GENIE_ADAMW, SKELETON, TrainingConfig

PRESETS: dict[str, dict] = {
    "tiny": {},
    "small": dict(
        conv_width=128, embed_dim=256, encoder_blocks=4, decoder_blocks=4, num_heads=8, num_frames=16, context_frames=16,
        batch_size=32, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, noisy_steps=2_000, validate_every=2_000,
        save_every=2_000, log_every=200,
    ),
    # Genie scaled to a GPU of 16 GB, see chapter 1's SKELETON.md
    "skeleton": SKELETON | dict(
        patch_size=16, embed_dim=512, encoder_blocks=8, decoder_blocks=8, num_heads=8, num_actions=8, code_dim=32,
        reconstruction_loss="bce", num_steps=10_000, learning_rate=3e-5, warmup_steps=1_000, noisy_steps=1_000, decay_share=0.9,
        decay_shape="cosine", final_rate=0.1, validate_every=1_000, save_every=1_000,
    ),
    # Genie, Appendix F: 8 + 8 layers, width 512, 8 heads, 6 codes of 32, batch 36 of 16 frames, 200k steps
    "paper": GENIE_ADAMW | dict(
        conv_width=256, embed_dim=512, encoder_blocks=8, decoder_blocks=8, num_heads=8, num_frames=16, context_frames=16,
        batch_size=36, num_steps=200_000, learning_rate=3e-5, warmup_steps=5_000, decay_share=0.975, decay_shape="cosine",
        final_rate=0.1, num_actions=6, noisy_steps=10_000, validate_every=5_000, save_every=5_000, log_every=500,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LatentActionConfig(TrainingConfig):
    """Train the latent action model of chapter 2."""

    # --- model ---
    quantizer: Literal["vq", "fsq"] = "vq"
    """quantizer that maps a latent to one of num_actions codes: a learned codebook (vq) or sign bits (fsq)"""
    num_actions: int = 8
    """number of latent actions; a power of 2 for fsq"""
    code_dim: int = 32
    """length of a code of the learned codebook (A)"""
    conv_width: int = 64
    """channels of the convolutional stem"""
    embed_dim: int = 128
    """width of the space-time transformer (E); a multiple of num_heads"""
    pooling: Literal["change", "flatten"] = "change"
    """how the encoder's cells become one vector: change averages them, weighted by change; flatten concatenates them"""
    place_power: float = 0.0
    """how strongly a pixel counts by how much its place changes in the recording (that change to this power); 0: all pixels count
    alike; try 1 where much moves and the player keeps to few places, as in Freeway"""
    encoder_blocks: int = 0
    """space-time blocks of the encoder after the stem; 0 uses the stem alone"""
    decoder_blocks: int = 0
    """space-time blocks of the decoder after the stem; 0 uses the stem alone"""
    patch_size: int = 8
    """side in pixels of what becomes one token of these blocks, a multiple of 4; frames that it does not divide are padded"""
    num_heads: int = 4
    """attention heads"""
    context_frames: int = 4
    """frames that attention over time covers, the present one included"""

    # --- loss ---
    reconstruction_loss: Literal["mse", "bce"] = "mse"
    """mean squared error, or binary cross-entropy on pixels in [0, 1]"""
    reconstruction_weight: float = 100.0
    """weight of the mean squared error, which brings it to the size of the commitment loss"""
    commitment_weight: float = 0.25
    """vq: weight of the commitment loss, which pulls latents toward their codes"""
    noisy_steps: int = 150
    """vq: first steps, in which noise replaces quantization; k-means then places the codes; 0 skips this phase"""
    restart_after: int = 50
    """vq: steps over which usage is averaged before an idle code is restarted"""
    balance_weight: float = 1.0
    """fsq: weight of the loss that makes every bit use both of its values"""
    label_share: float = 0.0
    """share of the recorded transitions whose key training may see, such as 0.02 where the codes miss the player; 0: none"""

    # --- optimization ---
    batch_size: int = 24
    """clips per step, over all processes"""
    num_steps: int = 600
    """optimizer steps"""
    learning_rate: float = 1e-3
    """peak learning rate"""
    warmup_steps: int = 100
    """steps until the learning rate reaches its peak"""
    decay_share: float = 0.3
    """last share of the steps, over which the learning rate falls to zero"""
    ema_decay: float = 0.99
    """decay of the averaged weights that are saved; 0 saves the last weights"""
    log_every: int = 50
    """steps between log lines"""
    validate_every: int = 200
    """steps between validations; the best weights are kept in best_model.pt"""
    save_every: int = 200
    """steps between writes of resume.pt, from which a stopped run resumes"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        self.check_grid(8, "the cell side")
        super().check()
        if self.num_frames < 2:
            raise InputError(f"num_frames {self.num_frames} holds no transition; give at least 2")
        if self.quantizer == "vq" and self.batch_size // self.accumulate * (self.num_frames - 1) < 2:
            given = f"batch_size {self.batch_size} in {self.accumulate} parts, num_frames {self.num_frames}"
            raise InputError(f"{given}: one transition at a time, but the codebook compares at least 2; raise --batch-size")
        if self.shard and rank_and_size()[1] > 1:  # codes are placed in the forward pass, which sharding would undo
            raise InputError("--shard does not work with a learned codebook; leave it out, the model fits on every GPU")
        for name, why in (("patch_size", "the side of the stem's cells"), ("conv_width", "the number of groups in GroupNorm")):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise InputError(f"{name} {getattr(self, name)} must be a multiple of 4, {why}; give {getattr(type(self), name)}")
        if self.code_dim < 1 or min(self.encoder_blocks, self.decoder_blocks) < 0:
            sizes = f"code_dim {self.code_dim}, encoder_blocks {self.encoder_blocks}, decoder_blocks {self.decoder_blocks}"
            raise InputError(f"{sizes} must be at least 1, 0 and 0")
        if self.num_actions < 2:
            raise InputError(f"num_actions {self.num_actions} leaves nothing to choose; give at least 2")
        if self.quantizer == "fsq" and self.num_actions & (self.num_actions - 1):
            raise InputError(f"num_actions {self.num_actions} must be a power of 2 for fsq; give 8, or use --quantizer vq")
