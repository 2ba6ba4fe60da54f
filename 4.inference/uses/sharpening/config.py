"""The settings of the sharpening network."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest
from video_tokenizer.training.config import TrainingConfig


@dataclass(frozen=True)
class SharpeningConfig(TrainingConfig):
    """Train a network that enlarges a world's frames and removes what its tokenizer did to them.

    Without --data-path the world's own game is played for it. A store or a video that is given must have larger frames than the
    world, such as record.py --frame-size 210 160.
    """

    # --- data ---
    world: str = "assets/worlds/breakout"
    """folder of the world whose frames are sharpened"""
    num_games: int = 40
    """games that are played for training and validation"""
    game_frames: int = 200
    """longest game, in frames"""
    train_on: Literal["decoded", "clean"] = "decoded"
    """frames that are enlarged in training: as the tokenizer decodes them, or as they were recorded, without its crumbs"""
    crop_size: int = 32
    """side of the squares that are cut out of the world's frames for training, in pixels"""

    # --- model ---
    model: Literal["sub-pixel"] = "sub-pixel"
    """network to train"""
    scale: Literal[2, 4] = 2
    """enlargement: 2 makes 128 pixels of 64, 4 makes 256"""
    width: int = 32
    """channels of the convolutions"""
    num_blocks: int = 4
    """residual blocks of two convolutions each"""

    # --- loss ---
    foreground_weight: float = 10.0
    """extra weight of pixels that differ from the background"""
    moving_weight: float = 40.0
    """extra weight of pixels that change between frames; with this and foreground_weight at 0, all pixels count alike"""

    # --- optimization ---
    num_steps: int = 3_000
    """optimizer steps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        super().check()
        check_smallest(self, {"num_games": 4, "game_frames": 2, "crop_size": 4, "width": 1})
        if self.width > 4_096:
            raise InputError(f"width {self.width} is too large; give at most 4096")
