"""How much memory attention takes as the sequence grows, alone and in a training, each point in a process of its own."""

import multiprocessing
import time
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamics_model.registry import build_dynamics
from dynamics_variants.gpt.config import GPTConfig
from dynamics_variants.ring.blockwise import blockwise_attention
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import attention
from video_tokenizer.training.device import autocast
from video_tokenizer.training.optimizer import build_optimizer
from video_tokenizer.training.run import peak_memory_gib

BACKENDS = {
    "dense": lambda q, k, v: attention(q, k, v, "causal"),
    "blockwise": lambda q, k, v: blockwise_attention(q, k, v, "causal"),
    "pytorch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
}
"""the lines of the course, those of the variant, and PyTorch's own kernel, which is blockwise as well"""
HEADS, HEAD_DIM = 4, 32
FRAME = 64
"""tokens of a frame of `gpt`, the grid of chapter 1"""
TIMED_STEPS = 5


def measure_point(backend: str, num_tokens: int) -> dict[str, Any]:
    """Forward and backward pass of causal attention, 4 heads of 32, float32, one thread. Called in a new process.

    Memory is the peak of the process, less the peak before the tensors were made: what is added by inputs, gradients and scores.
    """
    torch.set_num_threads(1)
    _forward_and_backward(backend, 64)  # what PyTorch loads at the first call does not count
    before = _peak_mib()
    began = time.perf_counter()
    _forward_and_backward(backend, num_tokens)
    seconds = time.perf_counter() - began
    return {"backend": backend, "tokens": num_tokens, "mib": round(_peak_mib() - before), "seconds": seconds}


def _peak_mib() -> float:
    peak = peak_memory_gib()
    if peak is None:
        raise InputError("this system does not tell how much memory a process has had; measure on Linux or macOS")
    return 1024 * peak


def _forward_and_backward(backend: str, num_tokens: int) -> None:
    queries, keys, values = torch.randn(3, 1, HEADS, num_tokens, HEAD_DIM, requires_grad=True)
    output: Tensor = BACKENDS[backend](queries, keys, values)
    output.sum().backward()


def measure_training(backend: Literal["dense", "blockwise"], num_tokens: int) -> dict[str, Any]:
    """Steps of training `gpt` at its default sizes on one clip of random tokens, one thread. Called in a new process.

    Memory is the peak of the whole process, PyTorch included; seconds are the median of the steps' processor time.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = num_tokens // FRAME
    config = GPTConfig(attention=backend, positions="rope", num_frames=frames, context_frames=frames, actions="true")
    model, device = build_dynamics(config).train(), torch.device("cpu")
    optimizer, seconds = build_optimizer(model, config), []
    for _ in range(TIMED_STEPS):
        began = time.process_time()
        tokens, actions = torch.randint(config.codebook_size, (1, frames, FRAME)), torch.randint(config.num_actions, (1, frames))
        with autocast(device, config.precision):
            loss = model.loss(tokens, actions)["cross_entropy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - began)
    return {"backend": backend, "tokens": num_tokens, "mib": round(_peak_mib()), "seconds": median(seconds)}


def memory_of_training(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """`gpt` with dense and with blockwise attention at every length."""
    return [in_a_process(measure_training, backend, length) for backend in ("dense", "blockwise") for length in lengths]


def memory_of_attention(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every backend at every length."""
    return [in_a_process(measure_point, backend, length) for backend in BACKENDS for length in lengths]


def in_a_process(work: Any, *arguments: Any) -> Any:
    """Call a function of a module in a new process and return what it returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)
