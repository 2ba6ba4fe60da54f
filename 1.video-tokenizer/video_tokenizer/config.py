"""The settings of chapter 1: the command line, the checkpoint and the model read this dataclass."""

from dataclasses import dataclass
from typing import Any, Literal

from video_tokenizer.errors import InputError
from video_tokenizer.training.config import GENIE_ADAMW, SKELETON, TrainingConfig, check_width

WHOLE_FRAMES: dict[str, Any] = dict(background="grey", patch_share=1.0, patch_weight=0.0, stability_from=0.0)  # as Genie
PRESETS: dict[str, dict] = {
    # 64x64 game frames, minutes on two CPU cores
    "tiny": {},
    # one GPU of 16 GB: patch 4 keeps single pixels, 16 frames of context
    "small": dict(
        patch_size=4, num_frames=16, context_frames=16, embed_dim=256, num_blocks=6, num_heads=8, batch_size=32,
        accumulate=4, num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, patch_share=1.0,
    ),
    # Genie scaled to a GPU of 16 GB, see SKELETON.md
    "skeleton": SKELETON | WHOLE_FRAMES | dict(
        patch_size=4, embed_dim=384, num_blocks=6, num_heads=6, decoder_embed_dim=512, decoder_blocks=10, decoder_heads=8,
        levels=(4, 4, 4, 4, 4), stem="linear", stability_weight=0.0, foreground_weight=0.0, moving_weight=0.0, num_steps=30_000,
        learning_rate=3e-4, warmup_steps=2_000, decay_share=0.0,
    ),
    # Genie, Appendix F (CoinRun): 8 layers, width 512, 8 heads, patch 4, batch 48 of 16 frames, 300k steps
    "paper": GENIE_ADAMW | WHOLE_FRAMES | dict(
        patch_size=4, num_frames=16, context_frames=16, embed_dim=512, num_blocks=8, num_heads=8, batch_size=48,
        num_steps=300_000, learning_rate=3e-4, warmup_steps=10_000, decay_share=0.0, activation_checkpointing=True, shard=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ReconstructionConfig(TrainingConfig):
    """What every tokenizer is told, the main line's and the variants'."""

    model: str = ""
    """tokenizer to train"""
    num_steps: int = 2_200
    """optimizer steps"""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw for everything, or muon for the matrices of the transformer blocks and adamw for the rest"""
    log_every: int = 200
    """steps between log lines"""
    validate_every: int = 1_000
    """steps between validations; the best weights are kept in best_model.pt"""
    save_every: int = 1_000
    """steps between writes of resume.pt, from which a stopped run resumes"""
    crop_augmentation: float = 0.0
    """crop up to this share of each side at random, then resize back; 0 is off"""
    flip_augmentation: bool = False
    """mirror half of the clips; off, because a mirrored clip swaps left and right for the chapters that follow"""
    foreground_weight: float = 10.0
    """extra weight of pixels that differ from the background"""
    moving_weight: float = 40.0
    """extra weight of pixels that change between frames; with this and foreground_weight at 0: plain mean squared error"""


@dataclass(frozen=True)
class SpaceTimeConfig(ReconstructionConfig):
    """The sizes of patches and space-time blocks, whatever the quantizer between them."""

    patch_size: int = 8
    """side of a square patch, in pixels (P); divides the height and width of a frame"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of num_heads"""
    num_blocks: int = 2
    """space-time blocks of the encoder"""
    num_heads: int = 4
    """attention heads"""
    decoder_embed_dim: int | None = None
    """width of the decoder's transformer; default: as in the encoder"""
    decoder_blocks: int | None = None
    """space-time blocks of the decoder; default: as in the encoder"""
    decoder_heads: int | None = None
    """attention heads of the decoder; default: as in the encoder"""
    context_frames: int = 4
    """frames that attention over time sees, the present one included"""
    stem: Literal["linear", "conv"] = "conv"
    """how pixels become patch vectors: one linear map, or two 3x3 convolutions and then the linear map"""
    stability_weight: float = 0.1
    """weight of the temporal consistency loss, which keeps the tokens of static patches; 0 is off"""
    background: Literal["grey", "median"] = "median"
    """what is subtracted from frames, and added to their reconstructions: grey, or the median frame of the recording"""

    @property
    def decoder_size(self) -> tuple[int, int, int]:
        """(width, heads, blocks)"""
        width, heads = self.decoder_embed_dim or self.embed_dim, self.decoder_heads or self.num_heads
        return width, heads, self.decoder_blocks or self.num_blocks

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for settings that cannot work together."""
        self.check_grid(self.patch_size, "patch_size")
        if self.stem == "conv" and self.patch_size % 2:
            raise InputError(f"--stem conv halves the frame first, so patch_size {self.patch_size} must be even")
        super().check()
        if min(self.decoder_size) < 1:
            raise InputError(f"the decoder's width, heads and blocks {self.decoder_size} must be at least 1")
        check_width(*self.decoder_size[:2])


@dataclass(frozen=True)
class TokenizerConfig(SpaceTimeConfig):
    """Train the video tokenizer of chapter 1."""

    model: Literal["st-fsq"] = "st-fsq"
    """space-time transformer with finite scalar quantization; tokenizer_variants/train.py trains the other tokenizers"""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ levels per latent dimension; their product is the codebook size (8*5*5*5 = 1000)"""
    patch_share: float = 0.25
    """share of a clip's patches that a step works on, those that move first; in the last fifth of the steps all; 1 is always"""
    patch_weight: float = 3.0
    """extra weight of all pixels of patches in which something moves, after the share patch_weight_from of the steps"""
    patch_weight_from: float = 0.6
    """share of the steps without patch_weight; 0, for a training that starts from trained weights: none"""
    stability_from: float = 0.5
    """share of the steps after which the temporal consistency loss sets in; 0 is from the start"""

    # --- optimization ---
    batch_size: int = 16
    """clips per step, over all processes"""
    num_steps: int = 1_000
    """optimizer steps"""
    learning_rate: float = 6e-3
    """peak learning rate"""
    warmup_steps: int = 100
    """steps until the learning rate reaches its peak"""

    def phase(self, progress: float) -> tuple[float, float, float]:
        """(patch_share, patch_weight, stability_weight) at this point of the training, from 0 (its start) to 1 (its end)."""
        late = progress > self.patch_weight_from, progress > self.stability_from
        return self.patch_share if progress <= 0.8 else 1.0, self.patch_weight * late[0], self.stability_weight * late[1]

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for settings that cannot work together."""
        super().check()
        if min(self.levels, default=0) < 2:
            raise InputError(f"levels {self.levels} must all be at least 2; the default is 8 5 5 5")
