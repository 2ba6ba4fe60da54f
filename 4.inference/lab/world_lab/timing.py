"""Seconds, operations and memory of a call, and the limits of the machine it runs on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX = 2048
"""side of the square matrices whose product gives the peak"""


def measure(call: Callable[[], Any], device: torch.device, seconds: float, fewest: int = 5) -> tuple[list[float], float]:
    """Call again and again for `seconds`, at least `fewest` times, after two calls of warming up.

    Returns the seconds of each call and the largest memory meanwhile in MiB: allocated on a CUDA GPU, what the driver
    holds on Apple's, resident on Linux, else NaN.
    """
    reset_peak, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif reset_peak.exists():
        reset_peak.write_text("5")
    for _ in range(2):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or time.perf_counter() < end:
        synchronize(device)
        begun = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - begun)
    if device.type == "cuda":
        return taken, torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":
        return taken, torch.mps.driver_allocated_memory() / 2**20
    if status.exists():
        return taken, int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return taken, float("nan")


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, which computes while Python continues."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def floating_point_operations(call: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions of one call; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak_gflops(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Fastest product of two 2048 x 2048 matrices, in GFLOP/s."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / min(measure(lambda: a @ b, device, seconds)[0]) / 1e9


def gigabytes_per_second(device: torch.device, seconds: float) -> float:
    """Memory traffic of copying 256 MiB, read and written: the limit of everything that is not a matrix product."""
    source = torch.zeros(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(measure(lambda: target.copy_(source), device, seconds)[0]) / 1e9
