"""Data-parallel training under torchrun that reproduces the single-process result.

    torchrun --nproc-per-node 2 1.video-tokenizer/train.py

Two measures make the result match a single-process run up to rounding. Random numbers are drawn for the global batch in every
process, which keeps its own rows (`global_batch_size`, `local_shard`). Where a loss divides by something counted in the batch,
it is counted over all processes (`mean_over_processes`, `gather_rows`). Sums are taken in another order; that is the rounding.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from video_tokenizer.models.st_transformer import TransformerBlock


def start_processes(device: torch.device) -> tuple[int, int]:
    """(rank, number of processes): (0, 1) for plain python; under torchrun the process group is started."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank_and_size()


def stop_processes() -> None:
    """The training is over: from here on every process is on its own."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def global_batch_size(num_rows: int) -> int:
    """Rows of the batch in all processes together, where each has num_rows."""
    return num_rows * rank_and_size()[1]


def local_shard(everywhere: Tensor) -> Tensor:
    """This process's rows of a tensor (global_batch_size, ...) that is the same in every process."""
    rank, world_size = rank_and_size()
    return everywhere if world_size == 1 else everywhere.tensor_split(world_size)[rank]


def gather_rows(own: Tensor) -> Tensor:
    """Concatenate the rows of all processes, (rows, ...) -> (global rows, ...); gradients flow back to each row's process."""
    if rank_and_size()[1] == 1:
        return own
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(own.contiguous()))


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a number over all processes, without gradient."""
    world_size = rank_and_size()[1]
    if world_size == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / world_size


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean gradient over all processes; does nothing when there is one process."""
    world_size = rank_and_size()[1]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None] if world_size > 1 else []
    gradients = [gradient for gradient in gradients if not is_sharded(gradient)]  # sharded ones are averaged already
    if gradients:
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of a hundred
        distributed.all_reduce(together)
        together /= world_size
        for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def shard(model: nn.Module) -> None:
    """Let every process keep only its share of weights, gradients and the optimizer's moments (FSDP2, arXiv:2304.11277).

    A block's weights are gathered when it runs and forgotten afterwards. Does nothing when there is one process. What
    is saved goes through `gather_full`, so that neither a checkpoint nor a stopped run knows how many processes wrote it.
    """
    if rank_and_size()[1] == 1:
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # takes two seconds, so only where it is used

    for block in [module for module in model.modules() if isinstance(module, TransformerBlock)]:
        fully_shard(block)
        if hasattr(block, "prefill_kv"):
            register_fsdp_forward_method(block, "prefill_kv")  # it is called as well, not `forward` alone
    fully_shard(model)


def is_sharded(value: Any) -> bool:
    """Whether this is a tensor of which every process has a part; never, where sharding was not even imported."""
    sharding = sys.modules.get("torch.distributed.tensor")
    return sharding is not None and isinstance(value, sharding.DTensor)


@torch.no_grad()
def load_full_state_dict(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """`load_state_dict` of whole weights, also for a sharded model."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        model.load_state_dict(weights)
        return
    for name, tensor in model.state_dict().items():
        tensor.copy_(sharded_like(weights[name], tensor))


def gather_full(value: Any) -> Any:
    """The same dictionary, list or tensor with sharded tensors put together; every process must call it."""
    if is_sharded(value):
        return value.full_tensor().detach()
    if isinstance(value, dict):
        return {name: gather_full(entry) for name, entry in value.items()}
    return [gather_full(entry) for entry in value] if isinstance(value, list) else value


def sharded_like(value: Tensor, example: Any) -> Tensor:
    """A whole tensor cut as `example` is; the tensor itself where that is whole."""
    if not is_sharded(example):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, example.device_mesh, example.placements)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process: all must stop at the same step, or one waits for the others for ever."""
    if rank_and_size()[1] == 1:
        return flag
    votes = torch.tensor(float(flag))
    if distributed.get_backend() == "nccl":
        votes = votes.cuda()
    distributed.all_reduce(votes)
    return bool(votes > 0)


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process runs the block while the others wait; they find what it has left on the disk."""
    rank, world_size = rank_and_size()
    if world_size > 1 and rank > 0:
        distributed.barrier()
    yield
    if world_size > 1 and rank == 0:
        distributed.barrier()
