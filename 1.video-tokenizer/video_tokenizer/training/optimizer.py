"""AdamW with weight decay where it belongs, and Muon for the matrices inside the transformer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from video_tokenizer.models.st_transformer import TransformerBlock
from video_tokenizer.training.distributed import sharded_like


def build_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    kind: str = "adamw",
) -> "Optimizers":
    """The optimizer of every trainable parameter of `model`.

    kind "adamw": AdamW (arXiv:1711.05101) for everything. Matrices and convolution kernels decay; biases, norms and embeddings
    do not: pulling a norm's scale or a rarely seen embedding towards zero removes something without making the function simpler.
    kind "muon": the same, but the matrices of the transformer's blocks move by Muon (arXiv:2502.16982). Of a matrix's momentum,
    which a few strong directions dominate, it keeps the directions and makes them equally strong, so that rare things (a ball
    between bricks) are learnt at the speed of common ones. Steps are scaled to the size of AdamW's: one learning rate for both.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)] if kind == "muon" else []
    in_blocks = {id(module.weight) for block in blocks for module in block.modules() if isinstance(module, nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hidden = [parameter for parameter in parameters if id(parameter) in in_blocks]
    others = [parameter for parameter in parameters if id(parameter) not in in_blocks]
    decayed = [parameter for parameter in others if parameter.ndim >= 2 and id(parameter) not in embeddings]
    kept = [parameter for parameter in others if parameter.ndim < 2 or id(parameter) in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
    if hidden:
        muon = torch.optim.Muon(
            hidden, lr=learning_rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    return Optimizers(optimizers)


class Optimizers:
    """Several optimizers, each with parameters of its own, used like one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all of them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Move every parameter once."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What resume.pt keeps of them."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, moments in optimizer.state.items():
                for name, value in moments.items():
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                        moments[name] = sharded_like(value, parameter)


def set_learning_rate(optimizer: Optimizers, learning_rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
