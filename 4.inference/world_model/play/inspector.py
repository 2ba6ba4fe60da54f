"""A look into one dreamed frame: its tokens, their probabilities, and the decoding pass that unmasked each of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamics_model.models.base import DecodingPass
from video_tokenizer.training.device import autocast
from world_model.world import WorldModel


@dataclass
class Inspection:
    """The decoding passes of one frame, and the tokenizer's decoder state before it, which is what it takes to draw them."""

    trace: list[DecodingPass]
    decoder: Any

    @property
    def unmasked(self) -> Tensor:
        """(S, N) bool: which tokens are unmasked after each of the S passes."""
        return torch.stack([step.unmasked[0] for step in self.trace])

    def facts(self, grid_size: tuple[int, ...]) -> dict[str, Any]:
        """For the page: grid [rows, columns] and, in reading order, each token, its probability and its pass from 1 on."""
        unmasked_in = self.unmasked.int().argmax(dim=0)  # (N,) the first pass after which the token is unmasked
        probabilities = torch.stack([step.probability[0] for step in self.trace])  # (S, N)
        return {
            "grid": list(grid_size),
            "tokens": self.trace[-1].tokens[0].tolist(),
            "probability": probabilities.gather(0, unmasked_in[None])[0].float().cpu().numpy().round(3),
            "unmasked_in": (unmasked_in + 1).tolist(),
        }

    @torch.no_grad()
    def pictures(self, world: WorldModel) -> np.ndarray:
        """The frame as it would look if each pass were the last: (S, H, W, 3) uint8."""
        with autocast(world.device, world.precision):
            return np.concatenate([world.decode(step.tokens, self.decoder)[0] for step in self.trace])
