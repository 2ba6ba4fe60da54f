"""What a benchmark measures: seconds, floating-point operations, memory, and the machine's own limits in the same minutes."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX = 2048
"""side of the square matrices whose product gives the peak"""


def wait_for(device: torch.device) -> None:
    """CUDA works on while Python goes on; a clock must wait for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(call: Callable[[], Any], device: torch.device, seconds: float, fewest: int = 5) -> list[float]:
    """How long each call took, called again and again for `seconds`, at least `fewest` times, after two calls of warming up."""
    for _ in range(2):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or time.perf_counter() < end:
        wait_for(device)
        begun = time.perf_counter()
        call()
        wait_for(device)
        taken.append(time.perf_counter() - begun)
    return taken


def floating_point_operations(call: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions of one call; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak_gflops(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Fastest matrix product of two 2048 x 2048 matrices, in GFLOP/s: what a training step is held against."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / min(seconds_per_call(lambda: a @ b, device, seconds)) / 1e9


def gigabytes_per_second(device: torch.device, seconds: float) -> float:
    """Memory traffic of copying 256 MiB, read and written: the limit of everything that is no matrix product."""
    source = torch.zeros(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds_per_call(lambda: target.copy_(source), device, seconds)) / 1e9


class PeakMemory:
    """Largest memory of this process inside the block, in MiB: resident memory on the CPU, allocated memory on a GPU.

    Linux lets a process forget its peak; elsewhere `mebibytes` is the peak since the process began.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.mebibytes = float("nan")

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: Any) -> None:
        status = Path("/proc/self/status")
        if self.device.type == "cuda":
            self.mebibytes = torch.cuda.max_memory_allocated(self.device) / 2**20
        elif status.exists():
            self.mebibytes = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
        else:
            largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.mebibytes = largest / (2**20 if sys.platform == "darwin" else 2**10)


def row(
    call: Callable[[], Any],
    items: int,
    unit: str,
    device: torch.device,
    seconds: float,
    peak: float | None = None,
    plain: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """One row of the table.

    call: does `items` of something, counted in `unit` per second. peak: GFLOP/s of the machine, adds the share of it that is
    reached. plain: a call without any of the tricks that does equally much; the two are measured in turns, so that both meet the
    same weather, and `times_plain` is how many times faster the first is.
    """
    with PeakMemory(device) as memory:
        taken = seconds_per_call(call, device, seconds / 4)
    others: list[float] = []
    for _ in range(3 if plain is not None else 0):
        assert plain is not None
        taken += seconds_per_call(call, device, seconds / 4, fewest=3)
        others += seconds_per_call(plain, device, seconds / 4, fewest=2)
    median = statistics.median(taken)
    result = {
        "per_second": items / median,
        "unit": unit,
        "p50_ms": 1000 * median,
        "p95_ms": 1000 * float(np.quantile(taken, 0.95)),
        "memory_mib": memory.mebibytes,
    }
    if peak is not None:
        gflops = floating_point_operations(call) / median / 1e9
        result |= {"gflops": gflops, "share_of_peak": gflops / peak}
    if others:
        result |= {"plain_per_second": items / statistics.median(others), "times_plain": statistics.median(others) / median}
    return result
