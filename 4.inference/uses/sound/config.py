"""The settings of the sound of a world."""

from dataclasses import dataclass
from typing import Literal

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest
from video_tokenizer.training.config import TrainingConfig

MOST_GAMES = 2_000
"""games of one seed: those of the training begin 8,000 after those of the test, and the next seed's 10,000 after them"""


def check_num_games(num_games: int) -> None:
    """Raise InputError for so many games that some of the training would be some of the test."""
    if num_games > MOST_GAMES:
        raise InputError(f"--num-games {num_games} may be {MOST_GAMES} at most, so that no game of the training is in the test")


@dataclass(frozen=True)
class SoundConfig(TrainingConfig):
    """Train a tokenizer of sound and a network that predicts its tokens from a world's frames.

    Without --data-path the world's own game is played for it. A clip store that is given must have been recorded with
    record.py --sound.
    """

    # --- data ---
    world: str = "assets/worlds/breakout"
    """folder of the world that learns to sound"""
    num_games: int = 100
    """games that are played for training and validation"""
    game_frames: int = 300
    """longest game, in frames"""
    num_frames: int = 8
    """frames per training clip"""

    # --- model ---
    model: Literal["sound"] = "sound"
    """network to train"""
    levels: tuple[int, ...] = (4, 4, 4, 4)
    """FSQ levels of the sound's tokens: 4 4 4 4 are 256 tokens"""
    width: int = 64
    """channels of the sound tokenizer"""
    embed_dim: int = 96
    """numbers in which the predictor holds what it has seen and heard"""
    seen_frames: int = 3
    """frames that the predictor looks at, the newest included: a ball has turned around when two movements differ"""
    heard_tokens: int = 3
    """tokens of the sound so far that the predictor listens to"""
    grid_size: tuple[int, int] = (8, 8)
    """rows and columns of tokens per frame; taken from the world"""
    code_length: int = 4
    """numbers per token of a frame; taken from the world"""
    chunks: int = 4
    """tokens of sound per frame; taken from the recording, one for each emulator frame"""

    # --- loss ---
    wrong_past: float = 0.3
    """share of the predictions that are trained with a wrong past, half of them with silence and half with another sound"""

    # --- optimization ---
    tokenizer_steps: int = 2_000
    """steps in which the tokenizer learns, before the predictor begins"""
    validate_every: int = 1_000
    """steps between validations; the best weights are kept in best_model.pt"""
    num_steps: int = 6_000
    """optimizer steps, the tokenizer's included"""
    batch_size: int = 32
    """clips per step"""
    learning_rate: float = 3e-3
    """peak learning rate"""
    ema_decay: float = 0.99
    """decay of the averaged weights that are saved"""

    precision: Literal["auto", "bfloat16", "float32"] = "float32"
    """number format of the matrix products; on a processor, bfloat16 makes a convolution over chunks ten times slower"""

    def check_processes(self, processes: int) -> None:
        """Raise InputError for more than one: the network is so small that they would wait for each other most of the time."""
        if processes > 1:
            raise InputError(f"the sound of a world is trained by one process, not {processes}; leave torchrun out")

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        super().check()
        check_smallest(self, {"num_games": 4, "game_frames": 2, "width": 1, "tokenizer_steps": 1, "seen_frames": 1,
                              "heard_tokens": 1, "chunks": 1, "code_length": 1})  # fmt: skip
        if max(self.width, self.heard_tokens, self.seen_frames, self.chunks, self.code_length, *self.grid_size) > 4_096:
            raise InputError("width, heard_tokens, seen_frames, chunks, code_length and grid_size may be 4096 at most")
        if not self.levels or min(self.levels) < 2 or max(self.levels) > 64 or len(self.levels) > 8:
            raise InputError(f"levels {self.levels} are impossible; give one to eight numbers from 2 to 64, such as 4 4 4 4")
        if not 0 <= self.wrong_past < 1:
            raise InputError(f"wrong_past {self.wrong_past} must be at least 0 and less than 1")
        if self.num_frames < self.seen_frames:
            raise InputError(f"num_frames {self.num_frames} is less than seen_frames {self.seen_frames}; raise it")
        check_num_games(self.num_games)
        if self.num_epochs is not None:
            raise InputError(f"--num-epochs {self.num_epochs:g} does not say how long each half learns; give --num-steps instead")
        if self.tokenizer_steps >= self.num_steps:
            raise InputError(
                f"tokenizer_steps {self.tokenizer_steps} leave none of num_steps {self.num_steps} for the predictor; lower them"
            )
