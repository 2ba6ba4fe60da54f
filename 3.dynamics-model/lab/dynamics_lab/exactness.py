"""Is blockwise attention, and the ring of processes, the attention that it replaces? Differences from the dense result."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._attention import context_parallel_unshard

from dynamics_variants.ring.blockwise import Layout, blockwise_attention
from dynamics_variants.ring.ring import contiguous_part, ring_attention, striped_part
from video_tokenizer.models.st_transformer import attention

LAYOUTS = ("causal", "block-causal", "segments", "everything")
PARTS = {"contiguous": contiguous_part, "striped": striped_part}
FRAME = 16
"""tokens of a frame in the block-causal layout"""
BLOCK = 48
"""queries and keys per block: not a divisor of any length here, so that there are incomplete blocks as well"""


PATIENCE = timedelta(minutes=2)
"""how long a process waits for another one, which may have failed"""


class Tensors(NamedTuple):
    """(B, heads, S, d) each; upstream is the gradient of the output."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    upstream: Tensor


def random_tensors(num_tokens: int, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return Tensors(*torch.randn(4, 2, 4, num_tokens, 32, generator=generator))


def layout_of(name: str, num_tokens: int) -> Layout:
    """One of LAYOUTS for two sequences; in "segments" they are cut into examples at different places, and are causal inside."""
    numbers = torch.arange(num_tokens)
    if name == "causal":
        return Layout(numbers)
    if name == "block-causal":
        return Layout(numbers // FRAME)
    if name == "everything":
        return Layout(torch.zeros_like(numbers))
    cuts = torch.tensor([[0.2, 0.55, 0.9], [0.35, 0.4, 0.75]]) * num_tokens
    return Layout(numbers, (numbers >= cuts[..., None]).sum(dim=1))


def with_gradients(attend: Callable[[Tensor, Tensor, Tensor], Tensor], tensors: Tensors) -> dict[str, Tensor]:
    """Output and gradients of an attention."""
    queries, keys, values = (x.clone().requires_grad_() for x in tensors[:3])
    output = attend(queries, keys, values)
    gradients = torch.autograd.grad(output, (queries, keys, values), tensors.upstream)
    return {"output": output.detach(), **dict(zip(("queries", "keys", "values"), gradients, strict=True))}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, float]:
    """Of the outputs, and of the gradients."""
    differences = {name: (one[name] - other[name]).abs().max().item() for name in one}
    return differences.pop("output"), max(differences.values())


def compare_blockwise(layout_name: str, num_tokens: int) -> dict[str, Any]:
    """One process: dense attention against blockwise attention."""
    tensors, layout = random_tensors(num_tokens), layout_of(layout_name, num_tokens)
    dense = with_gradients(lambda q, k, v: attention(q, k, v, layout.mask()), tensors)
    began = time.perf_counter()
    blockwise = with_gradients(lambda q, k, v: blockwise_attention(q, k, v, layout, BLOCK), tensors)
    seconds = time.perf_counter() - began
    output, gradients = largest_difference(blockwise, dense)
    return {"processes": 1, "layout": layout_name, "parts": "-", "output": output, "gradients": gradients, "seconds": seconds}


def compare_ring(num_tokens: int) -> list[dict[str, Any]]:
    """Called in every process: dense attention over all tokens against the ring, of which each process holds a part."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    rows = []
    for name in LAYOUTS:
        tensors, layout = random_tensors(num_tokens), layout_of(name, num_tokens)
        mask = layout.mask()
        dense = with_gradients(lambda q, k, v, mask=mask: attention(q, k, v, mask), tensors)
        for parts, part_of in PARTS.items():
            part = part_of(num_tokens, rank, size)
            mine = Tensors(*(x[:, :, part] for x in tensors))
            distributed.barrier()
            began = time.perf_counter()
            ring = with_gradients(lambda q, k, v, own=layout[part]: ring_attention(q, k, v, own, size=BLOCK), mine)
            seconds = time.perf_counter() - began
            found = torch.tensor([*largest_difference(ring, {x: dense[x][:, :, part] for x in dense}), seconds])
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
            output, gradients, seconds = found.tolist()
            rows.append({"processes": size, "layout": name, "parts": parts, "output": output, "gradients": gradients,
                         "seconds": seconds})  # fmt: skip
    return rows


def try_context_parallel(num_tokens: int) -> dict[str, Any]:
    """Called in every process: PyTorch's own context parallelism, causal. What went wrong is in "error", None if nothing did."""
    tensors = random_tensors(num_tokens)
    row: dict[str, Any] = {"torch": torch.__version__, "processes": distributed.get_world_size(), "error": None}
    dense = F.scaled_dot_product_attention(tensors.queries, tensors.keys, tensors.values, is_causal=True)
    queries, keys, values = parts = [x.clone() for x in tensors[:3]]
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    try:
        with context_parallel(mesh, buffers=parts, buffer_seq_dims=[2, 2, 2], no_restore_buffers=set(parts)):
            output = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            (whole,) = context_parallel_unshard(mesh, [output], [2])
    except NotImplementedError as error:
        return row | {"error": str(error)}
    return row | {"output": (whole - dense).abs().max().item()}


def in_processes(count: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in `count` processes of one group (gloo). Returns what it returned in the first of them."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["torch", "torch.distributed.tensor.experimental", "dynamics_lab.exactness"])
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        given = [(rank, count, meeting, answers, work, arguments) for rank in range(count)]
        processes = [
            context.Process(  # type: ignore[attr-defined]
                target=_work_as, args=each
            )
            for each in given
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} processes failed; their errors are above")
    return answers.get()


def _work_as(rank: int, count: int, meeting: str, answers: Any, work: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=PATIENCE)
    answer = work(*arguments)
    if rank == 0:
        answers.put(answer)
    distributed.barrier()
    distributed.destroy_process_group()


def all_differences(num_tokens: int) -> dict[str, Any]:
    """Every layout, in one process and around rings of two and of four, and what PyTorch's own context parallelism does."""
    rows = [compare_blockwise(name, num_tokens) for name in LAYOUTS]
    for count in (2, 4):
        rows += in_processes(count, compare_ring, num_tokens)
    return {"num_tokens": num_tokens, "rows": rows, "context_parallel": in_processes(2, try_context_parallel, num_tokens)}
