"""Terms of a loss that keep their weight: each is divided by how large it has been."""

import torch
from torch import Tensor, nn

from video_tokenizer.training.distributed import mean_over_processes


class RunningScale(nn.Module):
    """Divide a loss by the running root mean square of what it was: 0.003 or 0.3, it becomes about 1, and its weight its share.

    The estimate is the plain mean of the squares at first, then an exponential one. It follows no gradient, so each term's
    gradient keeps its direction; it is a buffer, so a stopped training goes on with it.
    """

    mean_square: Tensor
    num_updates: Tensor

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.latest: float | None = None
        self.register_buffer("mean_square", torch.ones(()))
        self.register_buffer("num_updates", torch.zeros(()))

    def forward(self, loss: Tensor) -> Tensor:
        """loss: a number above 0. In training the estimate is updated with it first. Returns it divided by the estimate."""
        if self.training:
            with torch.no_grad():
                value = mean_over_processes(loss.float())
                kept = torch.clamp(self.num_updates / (self.num_updates + 1), max=self.decay)
                self.mean_square.copy_(kept * self.mean_square + (1 - kept) * value.square())
                self.num_updates += 1
                self.latest = value.item()
        return loss / self.mean_square.sqrt().clamp(min=1e-8)
