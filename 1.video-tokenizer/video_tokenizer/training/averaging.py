"""An exponential moving average of the weights: smoother than the last step's, and what checkpoints hold."""

import torch
from torch import nn

from video_tokenizer.training.distributed import gather_full, sharded_like


class ExponentialMovingAverage:
    """A running average of a model's weights.

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so short runs forget their start. A module that
    moves its parameters by jumps, such as a codebook that restarts idle codes, has `moves_parameters`; they are copied.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay = decay
        self.num_updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        jumping = {
            name
            for prefix, module in model.named_modules()
            if getattr(module, "moves_parameters", False)
            for name, _ in module.named_parameters(prefix)
        }
        self.averaged_names = {name for name, _ in model.named_parameters()} - jumping

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights; buffers, integers and parameters that jump are copied."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, values = [], []
        for name, tensor in model.state_dict().items():
            if name in self.averaged_names:
                averages.append(self.weights[name])
                values.append(tensor.detach())
            else:
                self.weights[name].copy_(tensor)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    def copy_to(self, averaged: nn.Module) -> None:
        """Load the average into a model of the same sizes. Every process must call it."""
        averaged.load_state_dict(gather_full(self.weights))

    def state_dict(self) -> dict:
        return {"num_updates": self.num_updates, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.num_updates = state["num_updates"]
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(sharded_like(tensor, self.weights[name]))
