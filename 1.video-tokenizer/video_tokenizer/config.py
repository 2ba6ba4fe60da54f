"""All settings of chapter 1 in one place: the command line, the checkpoint and the model read this dataclass."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.training.command_line import InputError

ModelName = Literal["st-fsq", "st-vq", "videogpt", "magvit2", "dreamer4", "elastictok"]
"""the main line, then the variants in the order of the chapter"""

PRESETS: dict[str, dict] = {
    # 64x64 game frames, minutes on two CPU cores
    "tiny": {},
    # one GPU: patch 4 keeps single pixels, 16 frames of memory
    "small": dict(
        patch_size=4, num_frames=16, context_frames=16, embed_dim=256, num_blocks=6, num_heads=8, batch_size=32,
        num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000,
    ),
    # Genie, Appendix F (CoinRun): 8 layers, width 512, 8 heads, patch 4, batch 48 of 16 frames, 300k steps
    "paper": dict(
        patch_size=4, num_frames=16, context_frames=16, embed_dim=512, num_blocks=8, num_heads=8, batch_size=48,
        num_steps=300_000, learning_rate=3e-4, warmup_steps=10_000, activation_checkpointing=True, shard=True, optimizer="adamw",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """What every tokenizer is told: which data, how its error is weighed, how it is trained. Each adds the fields of its own."""

    model: ModelName = "st-fsq"
    """tokenizer to train; --help after it shows the flags of that one"""

    # --- data ---
    data_path: str | None = None
    """clip store made by record.py, folder of videos, folder of images, or .h5 file"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    use_dummy_data: bool = False
    """train on a synthetic moving square instead of data_path (a sanity check of one minute)"""
    frame_size: int | None = None
    """side of the square frames, in pixels; default: as recorded; videos 128, or their own size where smaller; dummy data 64"""
    num_frames: int = 4
    """frames per training clip (T)"""
    crop_augmentation: float = 0.0
    """crop up to this share of each side at random, then resize back; 0 is off"""
    flip_augmentation: bool = False
    """mirror half of the clips; off, because a mirrored clip swaps left and right for the chapters that follow"""
    frame_stride: int = 1
    """videos, images and .h5: keep every n-th frame; larger where little changes from frame to frame"""
    filter_dull: bool = False
    """videos, images and .h5: leave out black, static and repeated stretches, and say how much that was"""
    validation_share: float = 0.1
    """share of the episodes kept for validation"""
    num_workers: int = 0
    """processes that load clips; 0 loads in the training process, which is enough for a clip store"""

    # --- loss ---
    foreground_weight: float = 10.0
    """extra weight of pixels that differ from the background"""
    moving_weight: float = 40.0
    """extra weight of pixels that change from frame to frame; with foreground_weight 0 and this 0: plain mean squared error"""

    # --- optimisation ---
    init_from: str | None = None
    """checkpoint whose weights to start from instead of fresh ones; of the same model, with all sizes that make weights"""
    batch_size: int = 8
    """clips per step, over all processes"""
    num_steps: int = 2_200
    """optimizer steps"""
    num_epochs: float | None = None
    """passes over the training clips; when given it replaces num_steps"""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw for everything, or muon for the matrices of the transformer's blocks and adamw for the rest"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    rate_factor: float = 1.0
    """times learning_rate; may be changed when a stopped run goes on, 0.5 after a loss that was not finite"""
    warmup_steps: int = 200
    """steps until the peak is reached"""
    decay_share: float = 0.4
    """last share of the steps over which the rate falls to zero"""
    weight_decay: float = 0.01
    """AdamW weight decay, on matrices only"""
    gradient_clip: float = 1.0
    """largest norm of the gradient"""
    accumulate: int = 1
    """backward passes per optimizer step; the batch is cut into this many parts"""
    ema_decay: float = 0.999
    """decay of the averaged weights that are saved; 0 saves the last weights"""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """number format of the matrix products; the quantizer always stays in float32"""
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, about a third more time"""
    shard: bool = False
    """under torchrun, let every process keep only its share of weights, gradients and moments (FSDP2), for models that fit on no
    single GPU"""
    compile: bool = False
    """torch.compile: the first step takes a minute, later ones less than before; on CPU it needs a C++ compiler"""

    # --- run ---
    checkpoint_dir: str | None = None
    """run folder; default: checkpoints/ inside the chapter"""
    log_every: int = 200
    """steps between log lines"""
    validate_every: int = 1_000
    """steps between validations; the best weights are kept in best_model.pt"""
    save_every: int = 1_000
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
        check_sizes(self)


@dataclass(frozen=True)
class SpaceTimeConfig(TrainingConfig):
    """The sizes of patches and space-time blocks, whatever the quantizer between them."""

    # --- model ---
    patch_size: int = 8
    """side of a square patch, in pixels (P); divides frame_size"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of num_heads"""
    num_blocks: int = 2
    """space-time blocks in the encoder, and again in the decoder"""
    num_heads: int = 4
    """attention heads"""
    context_frames: int = 4
    """how many frames attention over time looks back, the present one included"""
    stem: Literal["linear", "conv"] = "conv"
    """how pixels become patch vectors: one linear map, or two 3x3 convolutions and then the linear map"""
    stability_weight: float = 0.1
    """pressure on patches at rest to keep their token; 0 is off"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        height, _ = self.frame_height_width
        if self.patch_size < 1 or height < self.patch_size:
            raise InputError(f"frame_size {height} is smaller than patch_size {self.patch_size}; give a smaller --patch-size")
        if height % self.patch_size:
            raise InputError(f"frame_size {height} is not a multiple of patch_size {self.patch_size}; change one of them")
        if self.stem == "conv" and self.patch_size % 2:
            raise InputError(f"--stem conv halves the frame first, so patch_size {self.patch_size} must be even")
        check_sizes(self)


@dataclass(frozen=True)
class TokenizerConfig(SpaceTimeConfig):
    """Train the video tokenizer of chapter 1."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ levels per latent dimension; their product is the codebook size (8*5*5*5 = 1000)"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        if min(self.levels, default=0) < 2:
            raise InputError(f"levels {self.levels} must all be at least 2; the default is 8 5 5 5")


LARGEST = {"embed_dim": 16_384, "num_blocks": 256, "num_heads": 1_024, "num_frames": 4_096, "context_frames": 4_096,
           "frame_size": 4_096, "patch_size": 1_024, "channels": 16_384, "batch_size": 2**16, "num_actions": 2**16}  # fmt: skip
"""more than any published model uses: beyond it lies a slip of the finger, or a checkpoint made to fill somebody's memory"""


def check_sizes(config) -> None:
    """The checks that all chapters share: width and heads, counts, shares and rates. Raises InputError."""
    for name in ("num_frames", "context_frames", "num_heads", "batch_size", "num_steps", "accumulate", "log_every",
                 "validate_every", "save_every", "validation_batches", "num_blocks"):  # fmt: skip
        if getattr(config, name, 1) < 1:
            raise InputError(f"{name} {getattr(config, name)} must be at least 1")
    for name, largest in LARGEST.items():
        value = getattr(config, name, 0)
        if max(value) > largest if isinstance(value, tuple) else (value or 0) > largest:
            raise InputError(f"{name} {value} is too large; give at most {largest}")
    if hasattr(config, "embed_dim"):
        check_width(config.embed_dim, config.num_heads)
    if config.num_epochs is not None and config.num_epochs <= 0:
        raise InputError(f"num_epochs {config.num_epochs} must be above 0")
    if config.batch_size % config.accumulate:
        raise InputError(
            f"batch_size {config.batch_size} is not a multiple of accumulate {config.accumulate}; change one of them"
        )
    if not 0 < config.validation_share < 1:
        raise InputError(f"validation_share {config.validation_share} must lie between 0 and 1; 0.1 keeps a tenth")
    if config.learning_rate <= 0:
        raise InputError(f"learning_rate {config.learning_rate} must be above 0")
    if config.rate_factor <= 0:
        raise InputError(f"rate_factor {config.rate_factor} must be above 0; 1 leaves the learning rate as it is")


def check_width(embed_dim: int, num_heads: int) -> None:
    """Raise InputError for a transformer's width that its heads cannot share or its positions cannot fill."""
    if embed_dim % num_heads:
        raise InputError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}; change one of them")
    if embed_dim % 2 or embed_dim < 6:
        raise InputError(f"embed_dim {embed_dim} must be even and at least 6; 128 is the default")
