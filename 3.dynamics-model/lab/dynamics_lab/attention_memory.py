"""How much memory attention takes as the sequence grows, each point in a process of its own."""

import multiprocessing
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamics_variants.ring.blockwise import blockwise_attention
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import attention
from video_tokenizer.training.run import peak_memory_gib

BACKENDS = {
    "dense": lambda q, k, v: attention(q, k, v, "causal"),
    "blockwise": lambda q, k, v: blockwise_attention(q, k, v, "causal"),
    "pytorch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
}
"""the lines of the course, those of the variant, and PyTorch's own kernel, which is blockwise as well"""
HEADS, HEAD_DIM = 4, 32


def measure_point(backend: str, num_tokens: int) -> dict[str, Any]:
    """Forward and backward pass of causal attention, 4 heads of 32, float32, one thread. Called in a new process.

    Memory is the peak of the process, less the peak before the tensors were made: what is added by inputs, gradients and scores.
    """
    torch.set_num_threads(1)
    _forward_and_backward(backend, 64)  # what PyTorch loads at the first call does not count
    before = peak_memory_gib() or 0.0
    began = time.perf_counter()
    _forward_and_backward(backend, num_tokens)
    seconds = time.perf_counter() - began
    after = peak_memory_gib()
    if after is None:
        raise InputError("this system does not tell how much memory a process has had; measure on Linux or macOS")
    return {"backend": backend, "tokens": num_tokens, "mib": round((after - before) * 1024), "seconds": seconds}


def _forward_and_backward(backend: str, num_tokens: int) -> None:
    queries, keys, values = torch.randn(3, 1, HEADS, num_tokens, HEAD_DIM, requires_grad=True)
    output: Tensor = BACKENDS[backend](queries, keys, values)
    output.sum().backward()


def memory_of_attention(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every backend at every length."""
    return [in_a_process(measure_point, backend, length) for backend in BACKENDS for length in lengths]


def in_a_process(work: Any, *arguments: Any) -> Any:
    """Call a function of a module in a new process and return what it returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)
