"""Where a training broke: the first value that is not a number any more."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


def is_finite(value: Any) -> bool:
    """Whether all floating-point tensors in a tensor, tuple, list, dictionary or dataclass are finite; True for anything else."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(is_finite(entry) for entry in value.values())
    if isinstance(value, list | tuple):
        return all(is_finite(entry) for entry in value)
    if is_dataclass(value):
        return all(is_finite(getattr(value, field.name)) for field in fields(value))
    return True


@torch.no_grad()
def first_not_finite(model: nn.Module, *inputs: Any) -> str:
    """Words for the first place at which a model is not finite: its inputs, its weights, in the order of the forward pass the
    output of a module, or in the order of the backward pass a gradient, which the parameters still hold."""
    if not is_finite(inputs):
        return "the input"
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"the weight {name}"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            if not found and not is_finite(output):
                found.append(f"the output of {name} ({type(module).__name__})")

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    for name, parameter in reversed(list(model.named_parameters())):
        if not is_finite(parameter.grad):
            return f"the gradient of {name}"
    return "the loss"
