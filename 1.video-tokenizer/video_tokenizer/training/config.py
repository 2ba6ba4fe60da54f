"""The settings that every training has, whatever it trains: data, optimization, run folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest


@dataclass(frozen=True)
class SourceFlags:
    """Where frames come from, and how videos and images become frames of a clip store."""

    data_path: str | None = None
    """clip store made by record.py, folder of videos, folder of images, or .h5 file"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    frame_size: int | tuple[int, int] | None = None
    """side of square frames in pixels, or height and width, as in 72 128; default: as recorded; videos, images and .h5: their
    own shape, the longer side at most 128; dummy data 64"""
    frames_key: str | None = None
    """.h5: the array that holds the frames, such as observations/images/cam_high or agentview_image; default: frames, video,
    videos, observations or images, else the first array of RGB frames in the file; actions lie under actions or action"""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """videos, images and .h5 of another shape than frame_size: cut off what is too much (crop), add black bars (pad), or distort
    (stretch)"""
    frame_stride: int = 1
    """videos, images and .h5: keep every n-th frame; raise it where little changes between frames"""
    filter_dull: bool = False
    """videos, images and .h5: skip black, static and repeated stretches, and report how much that was"""


@dataclass(frozen=True)
class TrainingConfig(SourceFlags):
    """Each chapter's config adds its own fields; every field is a flag, and the text below it is the flag's help."""

    # --- data ---
    use_dummy_data: bool = False
    """train on a synthetic moving square instead of data_path (a sanity check of one minute)"""
    num_frames: int = 4
    """frames per training clip (T)"""
    validation_share: float = 0.1
    """share of the episodes kept for validation"""
    num_workers: int = 0
    """processes that load clips; 0 loads in the training process, which is enough until the log line shows much loading"""

    # --- optimization ---
    init_from: str | None = None
    """checkpoint to start from instead of fresh weights; same model, same sizes"""
    batch_size: int = 8
    """clips per step, over all processes"""
    num_steps: int = 2_000
    """optimizer steps"""
    num_epochs: float | None = None
    """passes over the training clips; overrides num_steps"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for everything, or muon for the matrices of the transformer blocks and adamw for the rest"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    rate_factor: float = 1.0
    """multiplies learning_rate; may be changed when a run resumes, such as 0.5 after a loss that was not finite"""
    warmup_steps: int = 200
    """steps until the peak is reached"""
    decay_share: float = 0.4
    """last share of the steps, over which the learning rate falls to final_rate; 0 keeps it at its peak"""
    decay_shape: Literal["sqrt", "cosine"] = "sqrt"
    """how it falls: along 1 - sqrt(progress), or along a half cosine"""
    final_rate: float = 0.0
    """learning rate at the end, as a share of the peak"""
    weight_decay: float = 0.01
    """weight decay, on matrices only"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the running mean of the gradient, and of its square"""
    gradient_clip: float = 1.0
    """largest norm of the gradient"""
    accumulate: int = 1
    """backward passes per optimizer step; the batch is split into this many parts"""
    ema_decay: float = 0.999
    """decay of the averaged weights that are saved; 0 saves the last weights"""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """number format of the matrix products; quantizers always run in float32"""
    activation_checkpointing: bool = False
    """recompute the activations of transformer blocks in the backward pass: less memory, about a third more time"""
    shard: bool = False
    """under torchrun, shard weights, gradients and moments over the processes (FSDP2), for trainings too large for one GPU; each
    still keeps one whole copy of the weights, which is validated"""
    compile: bool = False
    """torch.compile: the first step takes a minute, later ones less than before; on CPU it needs a C++ compiler"""

    # --- run ---
    checkpoint_dir: str | None = None
    """run folder; default: checkpoints/ inside the chapter, for a variant checkpoints/NAME"""
    log_every: int = 100
    """steps between log lines"""
    tensorboard: bool = False
    """also write curves, scores and pictures for TensorBoard into the run folder; needs pip install -e ".[tensorboard]" once"""
    validate_every: int = 500
    """steps between validations; the best weights are kept in best_model.pt"""
    save_every: int = 500
    """steps between writes of resume.pt, from which a stopped run resumes"""
    validation_batches: int = 16
    """batches per validation"""
    seed: int = 0
    """seeds the weights, the order of the clips, the split, and every random choice of the training"""
    device: str = "auto"
    """auto (CUDA; Apple's mps only for presets above tiny, which is unmeasured; else cpu), cpu, cuda, cuda:1, mps"""
    preset: Literal["tiny", "small", "skeleton", "paper"] = "tiny"
    """sizes: tiny (CPU, minutes), small (one GPU), skeleton (Genie as published, scaled to a GPU of 16 GB), paper (Genie's
    Appendix F)"""
    config: str | None = None
    """config.json of an earlier run to take the settings from"""

    @property
    def frame_height_width(self) -> tuple[int, int]:
        """(H, W) in pixels. Raises InputError while frame_size is not known."""
        if self.frame_size is None:
            raise InputError("frame_size is not known; give --frame-size or a data path it can be read from")
        return height_and_width(self.frame_size)

    def check_grid(self, side: int, name: str) -> None:
        """Raise InputError where cells of `side` pixels do not fill the frames exactly. name: what has this side."""
        height, width = self.frame_height_width
        size = size_text((height, width))
        if side < 1 or min(height, width) < side:
            raise InputError(f"frame_size {size} is smaller than {name} {side}; change one of them")
        if height % side or width % side:
            raise InputError(f"frame_size {size} is not a multiple of {name} {side}; change one of them")

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for settings that cannot work together."""
        for name in ("num_frames", "context_frames", "num_heads", "batch_size", "num_steps", "accumulate", "log_every",
                     "validate_every", "save_every", "validation_batches", "num_blocks", "head_dim"):  # fmt: skip
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise InputError(f"{name} {value} must be at least 1")
        for name, largest in LARGEST.items():
            value = getattr(self, name, 0)
            if max(value) > largest if isinstance(value, tuple) else (value or 0) > largest:
                raise InputError(f"{name} {value} is too large; give at most {largest}")
        if (width := getattr(self, "embed_dim", None)) is not None:
            check_width(width, getattr(self, "num_heads", 1))
        check_ranges(vars(self))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas {self.betas} must be at least 0 and less than 1; 0.9 0.95 is the default")
        if not 0 < self.validation_share < 1:
            raise InputError(f"validation_share {self.validation_share} must lie between 0 and 1; 0.1 keeps a tenth")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}; change one of them"
            )

    def check_processes(self, processes: int) -> None:
        """Raise InputError for a batch that cannot be split evenly over the processes and the parts of each."""
        parts = processes * max(1, self.accumulate)
        if processes > 1 and self.batch_size % parts:
            nearest = parts * max(1, round(self.batch_size / parts))
            raise InputError(
                f"batch_size {self.batch_size} cannot be split over {processes} processes with accumulate {self.accumulate}; "
                f"give a multiple of {parts}, such as --batch-size {nearest}"
            )


GENIE_ADAMW: dict[str, Any] = dict(optimizer="adamw", betas=(0.9, 0.9), weight_decay=1e-4)
"""Genie's optimizer, of all three models (arXiv:2402.15391, appendix C): presets `skeleton` and `paper`"""
SKELETON: dict[str, Any] = GENIE_ADAMW | dict(
    frame_size=(72, 128), num_frames=16, context_frames=16, batch_size=4, activation_checkpointing=True
)
"""what the chapters' presets `skeleton` share: Genie scaled to a GPU of 16 GB, see 1.video-tokenizer/SKELETON.md"""
RANGES = {"num_epochs": (1e-9, 1e9), "learning_rate": (1e-12, 1e37), "rate_factor": (1e-12, 1e3), "gradient_clip": (1e-12, 1e12),
          "weight_decay": (0, 1e3), "ema_decay": (0, 1), "decay_share": (0, 1), "final_rate": (0, 1), "warmup_steps": (0, 2**40),
          "crop_augmentation": (0, 0.9), "patch_share": (1e-6, 1), "patch_weight": (0, 1e6), "patch_weight_from": (0, 1),
          "stability_from": (0, 1), "label_share": (0, 1), "place_power": (0, 4), "num_workers": (0, 1_024),
          "key_guidance": (0.1, 100), "key_smoothing": (0, 1_000), "seed": (0, 2**62)}  # fmt: skip
"""smallest and largest value that a setting can have"""
LARGEST = {"embed_dim": 16_384, "num_blocks": 256, "num_heads": 1_024, "num_frames": 4_096, "context_frames": 4_096,
           "frame_size": 4_096, "patch_size": 1_024, "channels": 16_384, "batch_size": 2**16, "num_actions": 2**16,
           "decoder_embed_dim": 16_384, "decoder_blocks": 256, "decoder_heads": 1_024, "head_dim": 1_024}  # fmt: skip
"""far above every published model: larger values are typing errors, or a checkpoint made to exhaust the memory"""


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise InputError for a setting outside its range in `RANGES`; None is no value, and other settings pass."""
    for name, (least, most) in RANGES.items():
        value = settings.get(name)
        if value is not None and not least <= value <= most:  # also refuses NaN
            here, there = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (least, most))
            raise InputError(f"{name} {value} must lie between {here} and {there}")


def height_and_width(frame_size: int | tuple[int, int]) -> tuple[int, int]:
    """What --frame-size means: 64 -> (64, 64), (72, 128) as it is."""
    return frame_size if isinstance(frame_size, tuple) else (frame_size, frame_size)


def size_text(frame_size: tuple[int, int]) -> str:
    """(height, width) as --frame-size takes it: "64" for square frames, "72 128" for others."""
    height, width = frame_size
    return str(height) if height == width else f"{height} {width}"


def check_width(embed_dim: int, num_heads: int) -> None:
    """Raise InputError for a transformer's width that its heads cannot share or its positions cannot fill."""
    if embed_dim % num_heads:
        raise InputError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}; change one of them")
    if embed_dim % 2 or embed_dim < 6:
        raise InputError(f"embed_dim {embed_dim} must be even and at least 6; 128 is the default")


@dataclass(frozen=True)
class ValidationConfig:
    """The settings of every validate.py; each chapter adds its own fields."""

    checkpoint: str | None = None
    """checkpoint to score; default: checkpoints/best_model.pt of the chapter, else the reference world's"""
    data_path: str | None = None
    """clip store, folder of videos, folder of images or .h5 file; default: what the checkpoint was trained on"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    use_dummy_data: bool = False
    """score on the synthetic moving square"""
    trained_on: str | None = None
    """with another data_path: clip store of the training, whose frames are not scored; default: as the checkpoint says"""
    num_batches: int | None = None
    """batches to score, spread evenly over the validation clips; default: all clips"""
    batch_size: int = 16
    """clips per batch"""
    save_images: bool = False
    """also write the pictures"""
    num_samples: int = 5
    """clips shown in the pictures, the same ones every time"""
    output: str | None = None
    """folder for pictures and numbers; default: validation/ beside the checkpoint"""
    json: str | None = None
    """file for the numbers; default: validation.json in the output folder"""
    seed: int = 0
    """seeds every random choice of the scores"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self, **smallest: float) -> None:
        """Raise InputError for a count that leaves nothing to score. smallest: further fields and their smallest values."""
        check_smallest(self, {"num_batches": 1, "batch_size": 1, "num_samples": 1} | smallest)
