"""Data-parallel training under torchrun that reproduces the single-process result.

    torchrun --nproc-per-node 2 1.video-tokenizer/train.py

Gradients are averaged over the processes by PyTorch's DistributedDataParallel, or, with --shard, weights, gradients and moments
are sharded (FSDP2). What the models and losses need for the result to match a single process is in global_batch.py.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from video_tokenizer.global_batch import rank_and_size

Part = TypeVar("Part")
PATIENCE = timedelta(hours=2)
"""how long the processes wait for each other: the first one may be encoding a large store"""


def start_processes(device: torch.device) -> None:
    """Join the process group under torchrun; nothing in plain Python. GPUs exchange tensors by NCCL, CPUs by gloo."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # from here on "cuda" is this process's own GPU, for PyTorch, NCCL and FSDP2 alike
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        on_gpu = device.type == "cuda"
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE, device_id=device if on_gpu else None)


def wait_for_processes() -> None:
    """Continue once all processes have come here."""
    if distributed.is_initialized():
        distributed.barrier()


def stop_processes() -> None:
    """Leave the process group at the end of the training."""
    wait_for_processes()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's transformers: Muon updates their matrices, and sharding gathers the weights of one at a time."""
    return [module for module in model.modules() if getattr(module, "is_transformer_block", False)]


def prepare_model(model: nn.Module, config: Any) -> nn.Module:
    """What the loop calls in the model's place: compiled (--compile), and under torchrun spread over the processes.

    Call it before the optimizer is built. DistributedDataParallel (arXiv:2006.15704) averages gradients over the processes while
    the backward pass is still running; --shard shards the model itself.
    """
    if config.shard:
        shard(model)
    if config.compile:
        model.compile()
    if rank_and_size()[1] == 1 or config.shard:
        return model
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def sync_on_last(model: nn.Module, parts: Sequence[Part]) -> Iterator[Part]:
    """The parts of a batch, for one backward pass each. Processes exchange their gradients only in the last one.

    model: what `prepare_model` returned. A sharded model exchanges them every time, because no process could hold all.
    """
    for part in parts[:-1]:
        with model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext():
            yield part
    yield parts[-1]


def shard(model: nn.Module) -> None:
    """Keep only a share of weights, gradients and moments in every process (FSDP2, arXiv:2304.11277).

    A block's weights are gathered when it runs and freed afterwards. Nothing happens in a single process. Whatever is saved goes
    through `gather_full`, so neither a checkpoint nor resume.pt depends on the number of processes that wrote it.
    """
    if rank_and_size()[1] == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # importing it takes two seconds

    mesh = init_device_mesh(next(model.parameters()).device.type, (rank_and_size()[1],))
    for block in transformer_blocks(model):
        fully_shard(block, mesh=mesh)
        if hasattr(block, "prefill_kv"):
            register_fsdp_forward_method(block, "prefill_kv")  # called besides `forward`
    fully_shard(model, mesh=mesh)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of a small network beside the model over the processes, in one message.

    Such a network is frozen most of the time and may be differentiated twice, which DistributedDataParallel does not support.
    """
    world_size = rank_and_size()[1]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None] if world_size > 1 else []
    if gradients:
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        together /= world_size
        for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def is_sharded(value: Any) -> bool:
    """Whether this is a tensor of which every process holds a part; never, where sharding was not even imported."""
    sharding = sys.modules.get("torch.distributed.tensor")
    return sharding is not None and isinstance(value, sharding.DTensor)


@torch.no_grad()
def load_full_state_dict(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """`load_state_dict` of full weights, also into a sharded model."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        model.load_state_dict(weights)
        return
    for name, tensor in model.state_dict().items():
        tensor.copy_(sharded_like(weights[name], tensor))


def gather_full(value: Any, saving: bool = False) -> Any:
    """The same dictionary, list or tensor with sharded tensors put together. Every process must call it.

    saving: only the first process keeps them, on the CPU, because no GPU may have room for all of them at once.
    """
    if is_sharded(value):
        full = value.full_tensor().detach()
        return full if not saving else full.cpu() if rank_and_size()[0] == 0 else None
    if isinstance(value, dict):
        return {name: gather_full(entry, saving) for name, entry in value.items()}
    return [gather_full(entry, saving) for entry in value] if isinstance(value, list) else value


def sharded_like(value: Tensor, example: Any) -> Tensor:
    """A full tensor sharded as `example` is; the tensor itself where `example` is not sharded."""
    if not is_sharded(example):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, example.device_mesh, example.placements)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process: all must stop at the same step, or one would wait for the others forever."""
    if rank_and_size()[1] == 1:
        return flag
    votes = torch.tensor(float(flag))  # on the CPU: no GPU has to be waited for
    distributed.all_reduce(votes)
    return bool(votes > 0)


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process runs the block while the others wait; then they run it, and find what it left on the disk."""
    rank, world_size = rank_and_size()
    if world_size > 1 and rank > 0:
        distributed.barrier()
    yield
    if world_size > 1 and rank == 0:
        distributed.barrier()
