"""What chapter 3 adds to the shared settings, or changes of them."""

from dataclasses import dataclass
from typing import Literal

from dynamics_model.models.action_prior import GUIDANCE, KEY_SMOOTHING
from video_tokenizer.errors import InputError
from video_tokenizer.training.config import GENIE_ADAMW, SKELETON, TrainingConfig

PRESETS: dict[str, dict] = {
    "tiny": {},
    "small": dict(
        embed_dim=384, num_blocks=8, num_heads=12, num_frames=16, context_frames=16, batch_size=32, accumulate=4,
        num_steps=60_000, learning_rate=5e-4, warmup_steps=1_000, log_every=200, validate_every=2_000, save_every=2_000,
        patch_share=1.0,
    ),
    # Genie scaled to a GPU of 16 GB, see chapter 1's SKELETON.md
    "skeleton": SKELETON | dict(
        embed_dim=768, num_blocks=12, num_heads=12, head_dim=128, smallest_mask_rate=0.5, clean_context_share=0.0,
        context_corruption=0.0, changed_weight=1.0, num_steps=10_000, learning_rate=3e-5, warmup_steps=1_000, decay_share=0.9,
        decay_shape="cosine", final_rate=0.1, patch_share=1.0,
    ),
    # Genie, Appendix F: 12 layers, width 512, 8 heads, batch 36 of 16 frames, 200k steps, 25 sampling steps
    "paper": GENIE_ADAMW | dict(
        embed_dim=512, num_blocks=12, num_heads=8, num_frames=16, context_frames=16, batch_size=36, num_steps=200_000,
        learning_rate=3e-5, warmup_steps=5_000, decay_share=0.975, decay_shape="cosine", final_rate=0.1,
        activation_checkpointing=True, shard=True, log_every=500, validate_every=5_000, save_every=5_000, patch_share=1.0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class NextFrameConfig(TrainingConfig):
    """What every dynamics model is told, the main line's and the variants'."""

    # --- data ---
    num_frames: int = 8
    """frames per training clip (T)"""
    tokenizer_checkpoint: str | None = None
    """checkpoint of chapter 1; default: checkpoints/best_model.pt of that chapter, else the reference world's"""
    latent_action_checkpoint: str | None = None
    """checkpoint of chapter 2, for --actions latent; default: checkpoints/best_model.pt of that chapter, else the world's"""

    # --- model ---
    model: str = ""
    """dynamics model to train"""
    actions: Literal["latent", "true", "none"] = "latent"
    """conditioning of the model: the latent actions of chapter 2, the recorded true actions, or none"""
    context_frames: int = 8
    """frames that attention over time covers, the present one included"""
    codebook_size: int = 1000
    """number of tokens (K); taken from the tokenizer"""
    grid_size: tuple[int, int] = (8, 8)
    """rows and columns of tokens per frame; taken from the tokenizer"""
    num_actions: int = 8
    """number of actions; taken from the latent action model or the recording"""

    # --- loss ---
    action_dropout: float = 0.1
    """share of the actions that are dropped, so that the model also works without an action"""
    changed_weight: float = 6.0
    """loss weight of tokens that differ from the previous frame; 1 weights all tokens equally"""

    # --- keys of latent actions ---
    key_guidance: float = GUIDANCE
    """power of P(key | latent action) in steering: 1 is Bayes' rule, and above 1 the key counts for more than the habits in the
    recording"""
    key_smoothing: float = KEY_SMOOTHING
    """imaginary labels that each latent action gets in P(key | latent action), spread over the keys as all 200 labels are; more
    of them trust an action less that is rare among the labels"""

    # --- optimization ---
    batch_size: int = 16
    """clips per step, over all processes"""
    learning_rate: float = 4e-3
    """peak learning rate"""
    num_steps: int = 1_000
    """optimizer steps"""
    prior_steps: int = 1_500
    """optimizer steps of the action prior, which is trained before the model if the actions are latent"""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw for everything, or muon for the matrices of the transformer blocks and adamw for the rest"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        if self.num_frames < 2:
            raise InputError(f"num_frames {self.num_frames} leaves nothing to predict; give at least 2")
        if min(self.grid_size) < 1:
            raise InputError(f"grid_size {self.grid_size} holds no token; give the grid of the tokenizer of chapter 1")
        for name, least in (("codebook_size", 2), ("num_actions", 0 if self.actions == "none" else 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)} must be at least {least}")
        if self.prior_steps < 1:
            raise InputError(f"prior_steps {self.prior_steps} leaves the action prior untrained; give at least 1")
        self.check_shares("action_dropout")

    def check_shares(self, *names: str) -> None:
        """Raise InputError for a field that must lie between 0 and 1 and does not."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)} must lie between 0 and 1")


@dataclass(frozen=True)
class DynamicsConfig(NextFrameConfig):
    """Train the dynamics model of chapter 3."""

    # --- model ---
    model: Literal["maskgit"] = "maskgit"
    """dynamics model to train"""
    embed_dim: int = 128
    """width of the transformer (E); a multiple of num_heads"""
    num_blocks: int = 3
    """space-time blocks"""
    num_heads: int = 4
    """attention heads"""
    head_dim: int | None = None
    """length of a head's queries, keys and values; default: embed_dim / num_heads"""

    # --- loss ---
    patch_share: float = 0.25
    """share of a clip's patches that a step works on, those whose token changes first; the last tenth of the steps takes all.
    1: always, for games such as Freeway, in which the tokens of more patches change"""
    smallest_mask_rate: float = 0.5
    """the mask rate of each clip is sampled uniformly between this and 1"""
    clean_context_share: float = 0.75
    """share of the clips whose past is unmasked, as in a rollout; the others have a masked past, as in Genie"""
    context_corruption: float = 0.1
    """up to this share of the past tokens is replaced by random ones, to make rollouts robust to their own errors"""

    def check(self) -> None:
        """Raise InputError, naming the two numbers that clash, for sizes that cannot work together."""
        super().check()
        self.check_shares("smallest_mask_rate", "clean_context_share", "context_corruption")
