"""Learning rate over time, and an average of the weights."""

import math

import torch
from torch import nn

from video_tokenizer.training.distributed import sharded_like


def learning_rate_factor(step: int, num_steps: int, warmup_steps: int, decay_share: float) -> float:
    """Warm-up, constant, decay ("WSD"): what the peak learning rate is multiplied with at this step, in [0, 1].

    Linear rise over the first `warmup_steps`, then 1, then down to 0 over the last `decay_share` of all steps along
    1 - sqrt(progress). With 100 steps, 10 of warm-up and a decay share of 0.2: step 4 -> 0.5, step 50 -> 1, step 85 -> 0.5.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_steps = max(1, round(num_steps * decay_share))
    progress = (step - (num_steps - decay_steps)) / decay_steps
    return 1.0 if progress <= 0 else max(0.0, 1.0 - math.sqrt(min(1.0, progress)))


class ExponentialMovingAverage:
    """A running average of a model's weights: smoother than the last step's, and what checkpoints hold.

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that short runs forget their start.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay = decay
        self.num_updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a little towards the model's present weights; buffers and integers are copied."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        parameters = {name for name, _ in model.named_parameters()}
        averages, values = [], []
        for name, tensor in model.state_dict().items():
            if name in parameters:
                averages.append(self.weights[name])
                values.append(tensor.detach())
            else:
                self.weights[name].copy_(tensor)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    def state_dict(self) -> dict:
        """What resume.pt keeps of the average."""
        return {"num_updates": self.num_updates, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` returned."""
        self.num_updates = state["num_updates"]
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(sharded_like(tensor, self.weights[name]))
