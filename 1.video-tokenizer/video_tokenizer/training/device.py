"""Device and number format, which differ between a laptop and a GPU machine."""

import contextlib
import os
from collections.abc import Iterator
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
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise InputError(f"--device {name} is not usable on this machine; use auto or cpu") from None
    return device


def number_format(device: torch.device, precision: str) -> tuple[str, str]:
    """("bfloat16" or "float32", why): the number format of matrix products that a precision means on a device.

    "auto" is bfloat16 where the hardware multiplies it. Where it is only emulated, float32 is faster: on CUDA cards older than
    Ampere (T4, V100, RTX 20), on most CPUs, and on Apple's GPUs nobody has measured it.
    """
    if precision != "auto":
        return precision, "as asked"
    if device.type == "cuda":
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        in_hardware = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return ("bfloat16", "in hardware") if in_hardware else ("float32", "bfloat16 would be emulated")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 matrix products inside the block, where they are faster; weights, quantizers and losses stay in float32.

    precision: "bfloat16", "float32", or "auto", see `number_format`.
    """
    if number_format(device, precision)[0] == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def tune(device: torch.device) -> None:
    """Let a CUDA card be fast where it costs no accuracy that matters: float32 products in TF32 (10 bits instead of 23), and the
    fastest convolution for the sizes at hand. Quantizers avoid such products; a score asks for `exact_products`."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Inside the block, float32 matrix products have all 23 bits on a CUDA card too."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def described(device: torch.device) -> str:
    """The device's name, and the memory of a GPU: "cuda:0, NVIDIA H100 80GB HBM3, 79 GiB"."""
    if device.type != "cuda":
        return str(device)
    gibibytes = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{device}, {torch.cuda.get_device_name(device)}, {gibibytes:.0f} GiB"


def device_generator(device: torch.device) -> Any:
    """The module with `get_rng_state` and `set_rng_state` of a GPU's own random numbers; None for the CPU."""
    return {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
