"""How the tokens of a frame are drawn: the settings that a player may change while a dream goes on."""

from dataclasses import dataclass

from video_tokenizer.training.command_line import InputError

ORDERS = ("confidence", "random")
NUM_STEPS = 4
"""sampling steps per frame, unless told otherwise"""
TEMPERATURE = 1.0
"""of the token draws, unless told otherwise"""
TOP_P = 0.9
"""share of the likeliest tokens that may be drawn, unless told otherwise"""


@dataclass(frozen=True)
class Sampling:
    """Settings of `DynamicsModel.generate_next`. Raises InputError for values nobody can sample with."""

    num_steps: int = NUM_STEPS
    """sampling steps per frame, at least 1"""
    temperature: float = TEMPERATURE
    """divides the logits; 0 takes the likeliest token"""
    top_k: int | None = None
    """draw among the k likeliest tokens only; None: among all"""
    top_p: float = TOP_P
    """draw among the likeliest tokens that together have this share only; 1: among all"""
    order: str = "confidence"
    """which tokens are settled first: the most confident ones, or random ones"""

    def __post_init__(self):
        wrong_k = self.top_k is not None and self.top_k < 1
        wrong_p = not 0 < self.top_p <= 1
        if self.num_steps < 1 or not self.temperature >= 0 or wrong_k or wrong_p or self.order not in ORDERS:
            raise InputError(
                f"num_steps {self.num_steps}, temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}, order "
                f"{self.order!r} cannot be sampled with; give at least 1, at least 0, at least 1, a share above 0, and "
                "confidence or random"
            )
