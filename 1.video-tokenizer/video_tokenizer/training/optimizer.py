"""AdamW with weight decay where it belongs, Muon for the matrices of the transformer, and the learning rate over time."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from video_tokenizer.training.device import number_format
from video_tokenizer.training.distributed import is_sharded, sharded_like, transformer_blocks


def build_optimizer(model: nn.Module, config: Any) -> "Optimizers":
    """The optimizer of every trainable parameter of `model`. config: optimizer, learning_rate, weight_decay, betas.

    "adamw": AdamW (arXiv:1711.05101) for everything. Matrices and convolution kernels decay; biases, norms and embeddings do not:
    pulling a norm's scale or a rarely seen embedding towards zero removes something without making the function simpler.
    "muon": the same, but the matrices of the transformer blocks are updated by Muon (arXiv:2502.16982). A few strong directions
    dominate the momentum of a matrix. Muon keeps the directions and makes them equally strong, so rare things (a ball between
    bricks) are learned as fast as common ones. Its steps are scaled to AdamW's size: one learning rate serves both.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    blocks = transformer_blocks(model) if config.optimizer == "muon" else []
    in_blocks = {id(module.weight) for block in blocks for module in block.modules() if isinstance(module, nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if id(parameter) in in_blocks]
    others = [parameter for parameter in parameters if id(parameter) not in in_blocks]
    decayed = [parameter for parameter in others if parameter.ndim >= 2 and id(parameter) not in embeddings]
    kept = [parameter for parameter in others if parameter.ndim < 2 or id(parameter) in embeddings]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    rate, decay = config.learning_rate, config.weight_decay
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=config.betas, fused=True)]
    if matrices:
        own = matrices[0].is_cuda or product_format(matrices[0].device) == torch.float32
        muon = BatchedMuon if own and not is_sharded(matrices[0]) else torch.optim.Muon
        optimizers.append(muon(matrices, lr=rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
    return Optimizers(optimizers)


class BatchedMuon(torch.optim.Muon):
    """Muon that makes the strengths equal of all matrices of one shape at once: on a GPU a few large products are faster than
    thousands of small ones. The updates are those of `torch.optim.Muon` up to rounding. That one always multiplies in bfloat16,
    which on a processor without such products takes fifteen times as long as float32; this one takes what is fast."""

    found_inf: Tensor | None = None
    """see `Optimizers.skip_if`; the fused AdamW has the same attribute"""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in by_shape.items():
                for matrix in matrices:
                    if "momentum_buffer" not in self.state[matrix]:
                        self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
                momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
                gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                updates = torch.stack(torch._foreach_lerp(gradients, momenta, group["momentum"]))  # Nesterov's momentum
                updates = orthogonalized(updates, group["ns_coefficients"], group["ns_steps"]).to(matrices[0].dtype)
                if self.found_inf is not None:
                    updates = updates.masked_fill(self.found_inf > 0, 0.0)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, updates.unbind(), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


def orthogonalized(matrices: Tensor, coefficients: tuple[float, float, float], num_steps: int) -> Tensor:
    """Nearly the same singular value, 1, for all directions of each matrix (B, rows, columns), by Newton-Schulz iterations."""
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).to(product_format(matrices.device))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def product_format(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    return torch.bfloat16 if number_format(device, "auto")[0] == "bfloat16" else torch.float32


class Optimizers:
    """Several optimizers with separate parameters, used like one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def skip_if(self, flag: Tensor) -> None:
        """Let the next `step` leave all weights as they are if the flag, a boolean on the GPU, is set. Nothing waits for it."""
        for optimizer in self.optimizers:
            optimizer.found_inf = flag.float()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, moments in optimizer.state.items():
                for name, value in moments.items():
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                        moments[name] = sharded_like(value, parameter)


def learning_rate_factor(
    step: int, num_steps: int, warmup_steps: int, decay_share: float, shape: str = "sqrt", final: float = 0.0
) -> float:
    """Warm-up, constant, decay ("WSD"): what the peak learning rate is multiplied with after `step` finished steps, in [0, 1].

    Linear rise over the first `warmup_steps`, then 1, then down to `final` over the last `decay_share` of all steps along
    1 - sqrt(progress), or, as in Genie, along a half cosine. With 100 steps, 10 of warm-up and a decay share of 0.2:
    step 4 -> 0.5, step 50 -> 1, step 85 -> 0.5, step 90 with "cosine" -> 0.5 as well.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_steps = max(1, round(num_steps * decay_share))
    progress = (step - (num_steps - decay_steps)) / decay_steps
    if progress <= 0:
        return 1.0
    progress = min(1.0, progress)
    left = 1.0 - math.sqrt(progress) if shape == "sqrt" else (1.0 + math.cos(math.pi * progress)) / 2
    return final + (1.0 - final) * left


def set_learning_rate(optimizer: Optimizers, step: int, num_steps: int, config: Any) -> float:
    """Set the learning rate of a step, counted from 1, in every parameter group. Returns it."""
    peak = config.learning_rate * config.rate_factor
    schedule = (config.warmup_steps, config.decay_share, config.decay_shape, config.final_rate)
    rate = peak * learning_rate_factor(step - 1, num_steps, *schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
