"""All settings of chapter 3."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.config import check_sizes
from video_tokenizer.training.command_line import InputError

PRESETS: dict[str, dict] = {
    "tiny": {},
    "small": dict(
        embed_dim=384, num_blocks=8, num_heads=12, num_frames=16, context_frames=16, batch_size=32, num_steps=60_000,
        learning_rate=5e-4, warmup_steps=1_000, log_every=200, validate_every=2_000, save_every=2_000,
    ),
    # Genie, Appendix F: 12 layers, width 512, 8 heads, batch 36 of 16 frames, 200k steps, 25 sampling steps
    "paper": dict(
        embed_dim=512, num_blocks=12, num_heads=8, num_frames=16, context_frames=16, batch_size=36, num_steps=200_000,
        learning_rate=3e-5, warmup_steps=5_000, activation_checkpointing=True, shard=True, optimizer="adamw", log_every=500,
        validate_every=5_000, save_every=5_000,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DynamicsConfig:
    """Train the dynamics model of chapter 3."""

    # --- data ---
    data_path: str | None = None
    """clip store made by record.py, folder of videos, folder of images, or .h5 file"""
    data_type: Literal["auto", "store", "folder", "images", "h5"] = "auto"
    """what data_path is; auto looks at it"""
    use_dummy_data: bool = False
    """train on a synthetic moving square instead of data_path"""
    frame_size: int | None = None
    """side of the square frames, in pixels; default: the clip store's own"""
    num_frames: int = 8
    """frames per training clip (T)"""
    frame_stride: int = 1
    """videos, images and .h5: keep every n-th frame; larger where little changes from frame to frame"""
    filter_dull: bool = False
    """videos, images and .h5: leave out black, static and repeated stretches, and say how much that was"""
    validation_share: float = 0.1
    """share of the episodes kept for validation"""
    num_workers: int = 0
    """processes that load clips"""
    tokenizer_checkpoint: str | None = None
    """chapter 1's checkpoint; default: its checkpoints/best_model.pt, else the reference world's"""
    latent_action_checkpoint: str | None = None
    """chapter 2's checkpoint, for --actions latent; default as above"""

    # --- model ---
    model: Literal["maskgit"] = "maskgit"
    """dynamics model to train"""
    actions: Literal["latent", "true", "none"] = "latent"
    """what steers the dream: chapter 2's latent actions, the recorded true ones, or nothing"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of num_heads"""
    num_blocks: int = 3
    """space-time blocks"""
    num_heads: int = 4
    """attention heads"""
    context_frames: int = 8
    """how many frames attention over time looks back, the present one included"""
    codebook_size: int = 1000
    """number of tokens (K); taken from the tokenizer"""
    grid_size: tuple[int, int] = (8, 8)
    """rows and columns of tokens per frame; taken from the tokenizer"""
    num_actions: int = 8
    """number of actions; taken from the latent action model or the recording"""

    # --- loss ---
    smallest_mask_rate: float = 0.5
    """each clip's share of masked tokens is drawn between this and 1"""
    clean_context_share: float = 0.75
    """share of the clips whose past is shown unmasked, as it is while dreaming; the others see a masked past, as in Genie"""
    context_corruption: float = 0.1
    """up to this share of the past's tokens is replaced by random ones, so that the dream survives its own mistakes"""
    action_dropout: float = 0.1
    """share of the actions hidden from the model, so that it also works where an action is unknown"""
    changed_weight: float = 6.0
    """weight of a token that differs from the frame before; 1 treats all alike"""

    # --- optimisation ---
    batch_size: int = 8
    """clips per step, over all processes"""
    num_steps: int = 1_500
    """optimizer steps"""
    num_epochs: float | None = None
    """passes over the training clips; when given it replaces num_steps"""
    prior_steps: int = 1_500
    """optimizer steps of the action prior, which latent actions have beside the model, before those of the model"""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw for everything, or muon for the matrices of the space-time blocks and adamw for the rest"""
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
    """backward passes per optimizer step"""
    ema_decay: float = 0.999
    """decay of the averaged weights that are saved; 0 saves the last weights"""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """number format of the matrix products"""
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
    log_every: int = 100
    """steps between log lines"""
    validate_every: int = 500
    """steps between validations; the best weights are kept in best_model.pt"""
    save_every: int = 500
    """steps between writes of resume.pt, from which a stopped run goes on"""
    validation_batches: int = 16
    """batches per validation"""
    seed: int = 0
    """seeds the weights, the order of the clips, the masks and the split"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    preset: Literal["tiny", "small", "paper"] = "tiny"
    """sizes: tiny (CPU, minutes), small (one GPU), paper (Genie's Appendix F)"""
    config: str | None = None
    """config.json of an earlier run whose settings to start from"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        check_sizes(self)
        if self.num_frames < 2:
            raise InputError(f"num_frames {self.num_frames} leaves nothing to predict; give at least 2")
        if min(self.grid_size) < 1:
            raise InputError(f"grid_size {self.grid_size} holds no token; the tokenizer of chapter 1 says how large it is")
        for name, least in (("codebook_size", 2), ("num_actions", 0 if self.actions == "none" else 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)} must be at least {least}")
        if self.prior_steps < 1:
            raise InputError(f"prior_steps {self.prior_steps} leaves the action prior untrained; give at least 1")
        for name in ("smallest_mask_rate", "clean_context_share", "context_corruption", "action_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)} must lie between 0 and 1")
