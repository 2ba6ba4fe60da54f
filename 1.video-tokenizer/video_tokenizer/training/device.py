"""Device and number format, which differ between a laptop and a GPU machine."""

import contextlib
import os

import torch

from video_tokenizer.errors import InputError


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA, then Apple's MPS, then the CPU; any other name is taken as written. Raises InputError if absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
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
