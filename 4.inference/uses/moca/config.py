"""The settings of MoCA."""

from dataclasses import dataclass

from video_tokenizer.training.command_line import check_smallest
from video_tokenizer.training.config import TrainingConfig
from world_model.evaluation.games import check_seed

OPTIMIZER = TrainingConfig(optimizer="muon", learning_rate=1.5e-3, warmup_steps=100)
"""how all models of this use are trained: as in chapter 1, by Muon in the blocks of transformers and AdamW elsewhere"""
ANIMATOR_RATE = 4e-3
"""the animator's learning rate: after 200 steps its loss is a tenth lower than with that of the others"""


@dataclass(frozen=True)
class EditConfig:
    """What both editors have in common."""

    output: str = "data/moca"
    """folder of the models and pictures; what is there already, made with the same flags, is used again"""
    vae_steps: int = 2_000
    """optimizer steps of the autoencoder"""
    num_steps: int = 4_000
    """optimizer steps of the animator"""
    num_films: int = 8_000
    """films that the animator learns from; they are made and encoded once"""
    batch_size: int = 16
    """clips per step"""
    num_clips: int = 50
    """clips that are edited in each test"""
    denoising_steps: int = 16
    """steps from pure noise to a clip, with up to four calls of the network each"""
    image_scale: float = 1.5
    """guidance towards the first frame"""
    text_scale: float = 2.0
    """guidance towards the caption"""
    motion_scale: float = 1.5
    """guidance towards the flow of the source"""
    seed: int = 0
    """seeds trainings, clips and edits"""
    json: str | None = None
    """file for the numbers"""
    picture: str | None = None
    """file for the film strips, a .png"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    of_vae = ("vae_steps",)
    """flags on which the autoencoder depends"""

    def check(self) -> None:
        """Raise InputError for numbers out of range, before anything is trained."""
        least = {"vae_steps": 1, "num_steps": 1, "num_films": 2, "batch_size": 2, "num_clips": 8, "denoising_steps": 1}
        check_smallest(self, least | {"image_scale": 0, "text_scale": 0, "motion_scale": 0})
        check_seed(self.seed)

    @property
    def scales(self) -> tuple[float, float, float]:
        """Guidance of image, text and motion."""
        return self.image_scale, self.text_scale, self.motion_scale


@dataclass(frozen=True)
class MocaConfig(EditConfig):
    """Train an editor of clips on moving digits, edit clips with it, and measure what became of picture and motion."""

    judge_steps: int = 400
    """optimizer steps of the judge, which compares clips with captions"""
    without_magnitude: bool = False
    """also train the animator a quarter longer, once as before and once without telling it how fast the flow is, and compare"""

    def check(self) -> None:
        """Raise InputError for numbers out of range, before anything is trained."""
        super().check()
        check_smallest(self, {"judge_steps": 1})


@dataclass(frozen=True)
class PongConfig(EditConfig):
    """Train an editor of clips on a recording of Pong in many colors, and edit clips of its unseen games with it."""

    data_path: str = "data/pong"
    """recording of ALE/Pong-v5 with frames of 64x64, see 1.video-tokenizer/record.py"""
    output: str = "data/moca-pong"
    """folder of the models and pictures; what is there already, made with the same flags, is used again"""
    num_steps: int = 2_000
    """optimizer steps of the animator"""
    num_clips: int = 100
    """clips that are edited in the test"""
    num_cuts: int = 2_000
    """clips that are cut out of the games of the training, to be seen in many colors"""

    of_vae = ("vae_steps", "num_cuts")

    def check(self) -> None:
        """Raise InputError for numbers out of range, before anything is trained."""
        super().check()
        check_smallest(self, {"num_cuts": 1})
