"""Data-parallel training under torchrun that reproduces the single-process result.

    torchrun --nproc-per-node 2 1.video-tokenizer/train.py

Gradients are averaged over the processes, or, with --shard, weights, gradients and moments are sharded (FSDP2). What the models
and losses need for the result to match a single process is in global_batch.py.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from video_tokenizer.global_batch import rank_and_size

Model = TypeVar("Model", bound=nn.Module)


def start_processes(device: torch.device) -> None:
    """Join the process group under torchrun; nothing in plain Python."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop_processes() -> None:
    """Leave the process group at the end of the training."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's transformers: Muon updates their matrices, and sharding gathers the weights of one at a time."""
    return [module for module in model.modules() if getattr(module, "is_transformer_block", False)]


def prepare_model(model: Model, config: Any) -> Model:
    """Shard the model (--shard, under torchrun) and compile it (--compile). Call it before the optimizer is built."""
    if config.shard:
        shard(model)
    if config.compile:
        model.compile()
    return model


def shard(model: nn.Module) -> None:
    """Keep only a share of weights, gradients and moments in every process (FSDP2, arXiv:2304.11277).

    A block's weights are gathered when it runs and freed afterwards. Nothing happens in a single process. Whatever is saved goes
    through `gather_full`, so neither a checkpoint nor resume.pt depends on the number of processes that wrote it.
    """
    if rank_and_size()[1] == 1:
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # importing it takes two seconds

    for block in transformer_blocks(model):
        fully_shard(block)
        if hasattr(block, "prefill_kv"):
            register_fsdp_forward_method(block, "prefill_kv")  # called besides `forward`
    fully_shard(model)


def clip_gradients(model: nn.Module, largest_norm: float) -> Tensor:
    """Average the gradients over the processes and clip their norm. Returns the norm before clipping."""
    average_gradients(model.parameters())
    return gather_full(torch.nn.utils.clip_grad_norm_(model.parameters(), largest_norm))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean gradient over all processes, in one message. Sharded gradients are averaged already."""
    world_size = rank_and_size()[1]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None] if world_size > 1 else []
    gradients = [gradient for gradient in gradients if not is_sharded(gradient)]
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


def gather_full(value: Any) -> Any:
    """The same dictionary, list or tensor with sharded tensors put together. Every process must call it."""
    if is_sharded(value):
        return value.full_tensor().detach()
    if isinstance(value, dict):
        return {name: gather_full(entry) for name, entry in value.items()}
    return [gather_full(entry) for entry in value] if isinstance(value, list) else value


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
    votes = torch.tensor(float(flag))
    if distributed.get_backend() == "nccl":
        votes = votes.cuda()
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
