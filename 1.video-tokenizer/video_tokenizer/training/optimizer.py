"""AdamW with weight decay where it belongs."""

import torch
from torch import nn


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)):
    """AdamW (arXiv:1711.05101) over every trainable parameter of `model`, fused into one kernel.

    Matrices and convolution kernels decay; biases, norms and embeddings do not: pulling a norm's scale or a rarely seen
    embedding towards zero removes something without making the function simpler.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2 and id(parameter) not in embeddings]
    kept = [parameter for parameter in parameters if parameter.ndim < 2 or id(parameter) in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
