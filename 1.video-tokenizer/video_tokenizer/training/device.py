"""Device and number format, which differ between a laptop and a GPU machine."""

import contextlib
import os
from typing import Any

import torch

from video_tokenizer.errors import InputError


def choose_device(name: str, large: bool = False) -> torch.device:
    """ "auto" takes CUDA, else the CPU; any other name is taken as written. Raises InputError if absent.

    large: whether to take Apple's GPU before the CPU. Nobody has measured it yet: small models, and dreams of one frame at a
    time, are thousands of small operations, which most likely start more slowly there than a CPU carries them out.
    "cuda" without a number is the first GPU, and under torchrun the one of this process.
    """
    if name == "auto":
        mps = large and torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"--device {name} is not usable on this machine; use auto or cpu") from None
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 matrix products inside the block, where they are faster; weights, quantizers and losses stay in float32.

    precision: "bfloat16", "float32", or "auto": bfloat16 on CUDA cards and CPUs that have it in hardware.
    """
    if precision == "auto":
        if device.type == "cuda":
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        else:
            # elsewhere bfloat16 is emulated, and slower than float32
            has_bfloat16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
            precision = "bfloat16" if has_bfloat16 else "float32"
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def device_generator(device: torch.device) -> Any:
    """The module with `get_rng_state` and `set_rng_state` of a GPU's own random numbers; None for the CPU."""
    return {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
