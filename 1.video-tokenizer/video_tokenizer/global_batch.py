"""A batch that is spread over several processes: random rows and means of the global batch, whatever the number of processes.

Every process draws random numbers for the global batch and keeps its own rows, and whatever a loss divides by is counted over all
processes. So a run on two GPUs equals a run on one up to rounding. In a single process all of this does nothing.
"""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def global_batch_size(num_rows: int) -> int:
    """Rows of the global batch, where each process has num_rows."""
    return num_rows * rank_and_size()[1]


def local_shard(rows: Tensor) -> Tensor:
    """This process's rows of a tensor (global batch, ...) that is the same in every process."""
    rank, world_size = rank_and_size()
    return rows if world_size == 1 else rows.tensor_split(world_size)[rank]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes, (rows, ...) -> (global batch, ...). Gradients flow back to each row's process."""
    return rows if rank_and_size()[1] == 1 else _GatherRows.apply(rows.contiguous())


class _GatherRows(torch.autograd.Function):
    """`gather_rows` among several processes. PyTorch's own such function is deprecated, and its successor is not in 2.6."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        everywhere = [torch.empty_like(rows) for _ in range(rank_and_size()[1])]
        distributed.all_gather(everywhere, rows)
        return torch.cat(everywhere)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        distributed.all_reduce(total)
        return local_shard(total)


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a number over all processes, without gradient."""
    world_size = rank_and_size()[1]
    if world_size == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / world_size
