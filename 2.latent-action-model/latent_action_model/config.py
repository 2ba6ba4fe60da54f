"""All settings of chapter 2."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import check_sizes
from video_tokenizer.training.command_line import InputError

PRESETS: dict[str, dict] = {
    "tiny": {},
    "small": dict(
        conv_width=128, embed_dim=256, encoder_blocks=4, decoder_blocks=4, num_heads=8, num_frames=16, context_frames=16,
        batch_size=32, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, noisy_steps=2_000, validate_every=2_000,
        save_every=2_000, log_every=200,
    ),
    # Genie, Appendix F: 8 + 8 layers, width 512, 8 heads, 6 codes of 32, batch 36 of 16 frames, 200k steps
    "paper": dict(
        conv_width=256, embed_dim=512, encoder_blocks=8, decoder_blocks=8, num_heads=8, num_frames=16, context_frames=16,
        batch_size=36, num_steps=200_000, learning_rate=3e-5, warmup_steps=5_000, num_actions=6,
        noisy_steps=10_000, validate_every=5_000, save_every=5_000, log_every=500,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LatentActionConfig:
    """Train the latent action model of chapter 2."""

    # --- data ---
    data_path: str | None = None
    """clip store made by record.py, folder of videos, folder of images, or .h5 file"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    use_dummy_data: bool = False
    """train on a synthetic moving square instead of data_path"""
    frame_size: int | None = None
    """side of the square frames, in pixels; default: the clip store's own; a multiple of 8"""
    num_frames: int = 4
    """frames per training clip (T); T - 1 transitions"""
    frame_stride: int = 1
    """videos, images and .h5: keep every n-th frame; larger where little changes from frame to frame"""
    filter_dull: bool = False
    """videos, images and .h5: leave out black, static and repeated stretches, and say how much that was"""
    validation_share: float = 0.1
    """share of the episodes kept for validation"""
    num_workers: int = 0
    """processes that load clips"""

    # --- model ---
    quantizer: Literal["vq", "fsq"] = "vq"
    """how a latent becomes one of num_actions codes: learned codebook (vq) or sign bits (fsq)"""
    num_actions: int = 8
    """number of latent actions; a power of 2 for fsq"""
    code_dim: int = 32
    """length of a code of the learned codebook (A)"""
    conv_width: int = 64
    """channels of the convolutional stem"""
    embed_dim: int = 128
    """width of the space-time transformer (E)"""
    pooling: Literal["change", "flatten"] = "change"
    """how the encoder's cells become one vector: their mean weighted by change, or all of them, each in its place"""
    encoder_blocks: int = 0
    """space-time blocks of the encoder after the stem; 0: the stem alone"""
    decoder_blocks: int = 0
    """space-time blocks of the decoder after the stem; 0: the stem alone"""
    num_heads: int = 4
    """attention heads"""
    context_frames: int = 4
    """how many frames attention over time looks back"""

    # --- loss ---
    reconstruction_loss: Literal["mse", "bce"] = "mse"
    """mean squared error, or binary cross-entropy on pixels in [0, 1]"""
    reconstruction_weight: float = 100.0
    """factor of the mean squared error, so that it and the commitment loss have the same size"""
    commitment_weight: float = 0.25
    """vq: how strongly latents are pulled to their code"""
    noisy_steps: int = 150
    """vq: first steps in which latents are not rounded but get noise; then the codes are placed among them; 0 skips this phase"""
    restart_after: int = 50
    """vq: steps over which usage is averaged before an idle code is restarted"""
    balance_weight: float = 1.0
    """fsq: pressure to use both values of every bit"""

    # --- optimisation ---
    batch_size: int = 24
    """clips per step, over all processes"""
    num_steps: int = 600
    """optimizer steps"""
    num_epochs: float | None = None
    """passes over the training clips; when given it replaces num_steps"""
    learning_rate: float = 1e-3
    """peak learning rate of AdamW"""
    rate_factor: float = 1.0
    """times learning_rate; may be changed when a stopped run goes on, 0.5 after a loss that was not finite"""
    warmup_steps: int = 100
    """steps until the peak is reached"""
    decay_share: float = 0.3
    """last share of the steps over which the rate falls to zero"""
    weight_decay: float = 0.01
    """AdamW weight decay, on matrices only"""
    gradient_clip: float = 1.0
    """largest norm of the gradient"""
    accumulate: int = 1
    """backward passes per optimizer step"""
    ema_decay: float = 0.99
    """decay of the averaged weights that are saved; 0 saves the last weights"""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """number format of the matrix products; the quantizer always stays in float32"""
    compile: bool = False
    """torch.compile: the first step takes a minute, later ones less than before; on CPU it needs a C++ compiler"""

    # --- run ---
    checkpoint_dir: str | None = None
    """run folder; default: checkpoints/ inside the chapter"""
    log_every: int = 50
    """steps between log lines"""
    validate_every: int = 200
    """steps between validations"""
    save_every: int = 200
    """steps between writes of resume.pt, from which a stopped run goes on"""
    validation_batches: int = 16
    """batches per validation"""
    seed: int = 0
    """seeds the weights, the order of the clips and the split"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    preset: Literal["tiny", "small", "paper"] = "tiny"
    """sizes: tiny (CPU, minutes), small (one GPU), paper (Genie's Appendix F)"""
    config: str | None = None
    """config.json of an earlier run whose settings to start from"""

    @property
    def frame_height_width(self) -> tuple[int, int]:
        """(H, W) in pixels. Raises InputError while frame_size is not known."""
        if self.frame_size is None:
            raise InputError("frame_size is not known; give --frame-size or a data path it can be read from")
        return self.frame_size, self.frame_size

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        height, _ = self.frame_height_width
        if height % 8 or height < 8:
            raise InputError(
                f"frame_size {height} is not a multiple of 8, the latent action model's cell; record with --frame-size 64"
            )
        check_sizes(self)
        if self.num_frames < 2:
            raise InputError(f"num_frames {self.num_frames} holds no transition; give at least 2")
        if self.conv_width < 4 or self.conv_width % 4:
            raise InputError(f"conv_width {self.conv_width} must be a multiple of 4, the groups that are normalised together")
        if self.code_dim < 1 or self.encoder_blocks < 0 or self.decoder_blocks < 0:
            raise InputError(
                f"code_dim {self.code_dim} must be at least 1, encoder_blocks {self.encoder_blocks} and decoder_blocks "
                f"{self.decoder_blocks} at least 0"
            )
        if self.num_actions < 2:
            raise InputError(f"num_actions {self.num_actions} leaves nothing to choose; give at least 2")
        if self.quantizer == "fsq" and self.num_actions & (self.num_actions - 1):
            raise InputError(
                f"--quantizer fsq makes 2, 4, 8, 16, ... codes, not num_actions {self.num_actions}; use 8 or --quantizer vq"
            )
