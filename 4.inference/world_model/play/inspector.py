"""Looking into one dreamed frame: which tokens, how sure, and in which pass each of them was settled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dynamics_model.models.maskgit import DecodingPass
from video_tokenizer.data.clips import to_frames
from video_tokenizer.training.device import autocast
from world_model.world import WorldModel


@dataclass
class Inspection:
    """One frame's sampling steps, and the decoder's memory before it, which is what it takes to draw them."""

    trace: list[DecodingPass]
    decoder: Any

    def facts(self, grid_size: tuple[int, ...]) -> dict[str, Any]:
        """What the page shows: grid [rows, columns] and, in reading order, each token, its probability and its pass from 1 on."""
        settled = torch.stack([step.settled[0] for step in self.trace])  # (S, N)
        settled_in = settled.int().argmax(dim=0)  # (N,) the first pass that settled it
        probabilities = torch.stack([step.probability[0] for step in self.trace])  # (S, N)
        return {
            "grid": list(grid_size),
            "tokens": self.trace[-1].tokens[0].tolist(),
            "probability": probabilities.gather(0, settled_in[None])[0].float().cpu().numpy().round(3),
            "settled_in": (settled_in + 1).tolist(),
        }

    @torch.no_grad()
    def pictures(self, world: WorldModel) -> np.ndarray:
        """What each pass would draw if it were the last: (S, H, W, 3) uint8."""
        with autocast(world.device, world.precision):
            drawn = [world.tokenizer.decode_frame(step.tokens, self.decoder)[0] for step in self.trace]  # each (1, C, H, W)
        return to_frames(torch.stack(drawn, dim=1))[0]
