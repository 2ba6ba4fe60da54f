"""Device, number format and processes: the three things that differ between a laptop and a GPU machine."""

import contextlib
import os
from collections.abc import Iterable

import torch
import torch.distributed as distributed
from torch import nn

from video_tokenizer.command_line import InputError


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA, then Apple's MPS, then the CPU; any other name is taken as written. Raises InputError if absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name} is not usable on this machine; use auto, cpu or cuda") from None
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 matrix products inside the block, where they pay; weights, quantizers and losses stay in float32.

    precision: "bfloat16", "float32", or "auto": bfloat16 on CUDA cards and CPUs that have it in hardware.
    """
    if precision == "auto":
        if device.type == "cuda":
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        else:
            # the two instruction sets that multiply bfloat16 in hardware; elsewhere it is emulated and slower
            has_bfloat16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
            precision = "bfloat16" if has_bfloat16 else "float32"
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def start_processes(device: torch.device) -> tuple[int, int]:
    """(rank, number of processes): (0, 1) for plain python; under torchrun the process group is started."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), world_size


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean gradient over all processes; does nothing when there is one process."""
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()
