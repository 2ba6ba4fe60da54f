"""Ring attention: each process holds a part of the sequence, and keys and values travel once around (arXiv:2310.01889).

P processes hold S / P tokens each. A process attends to its own keys and values, passes them to its right neighbor while it
computes, and goes on with those that arrive from the left. After P rounds, every query has met every key, no process has ever
held more than two parts, and the result is exact. In the backward pass the gradients of keys and values travel with them, and
after P rounds they are back where they belong.

The processes are those of torch.distributed; `torchrun` starts them.
"""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.autograd.function import once_differentiable

from dynamics_variants.ring.blockwise import BLOCK_SIZE, Gradients, Layout, RunningSoftmax, add_gradients, needed_blocks

Group = distributed.ProcessGroup | None


class Message:
    """Tensors on their way to the right neighbor, while others arrive from the left."""

    def __init__(self, tensors: list[Tensor], group: Group):
        rank, size = distributed.get_rank(group), distributed.get_world_size(group)
        self.sent = tensors = [tensor.contiguous() for tensor in tensors]
        self.received = [torch.empty_like(tensor) for tensor in tensors]
        self.work = []
        if size == 1:
            self.received = tensors
            return
        operations = []
        for tag, (tensor, empty) in enumerate(zip(tensors, self.received, strict=True)):
            operations.append(distributed.P2POp(distributed.isend, tensor, group=group, tag=tag, group_peer=(rank + 1) % size))
            operations.append(distributed.P2POp(distributed.irecv, empty, group=group, tag=tag, group_peer=(rank - 1) % size))
        self.work = distributed.batch_isend_irecv(operations)

    def wait(self) -> list[Tensor]:
        for work in self.work:
            work.wait()
        return self.received


class Traveller:
    """Keys, values and their layout: the ones at hand, and the next ones, which are already under way."""

    def __init__(self, keys: Tensor, values: Tensor, layout: Layout, group: Group):
        self.keys, self.values, self.layout, self.group = keys, values, layout, group

    def depart(self) -> None:
        examples = [] if self.layout.examples is None else [self.layout.examples]
        self.message = Message([self.keys, self.values, self.layout.times, *examples], self.group)

    def arrive(self) -> None:
        self.keys, self.values, times, *examples = self.message.wait()
        self.layout = Layout(times, *examples)


class RingAttention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(d)) V over a sequence that no process holds."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, group: Group, size: int) -> Tensor:
        running = RunningSoftmax(queries)
        traveller = Traveller(keys, values, layout, group)
        rounds = distributed.get_world_size(group)
        for number in range(rounds):  # the first round is a process's own keys
            if number < rounds - 1:
                traveller.depart()
            with torch.autocast(queries.device.type, enabled=False):
                running.add(queries, traveller.keys, traveller.values, needed_blocks(layout, traveller.layout, size))
            if number < rounds - 1:
                traveller.arrive()
        output, log_sum = running.finish(queries.dtype)
        ctx.save_for_backward(queries, keys, values, output, log_sum)
        ctx.layout, ctx.group, ctx.size = layout, group, size
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, output, log_sum = ctx.saved_tensors
        own, *travelling = (torch.zeros_like(x, dtype=torch.float32) for x in (queries, keys, values))
        mean = (upstream.float() * output.float()).sum(dim=-1)  # (B, heads, S)
        upstream = upstream.to(queries.dtype)
        traveller = Traveller(keys, values, ctx.layout, ctx.group)
        rounds = distributed.get_world_size(ctx.group)
        for number in range(rounds):
            if number < rounds - 1:
                traveller.depart()
            blocks = needed_blocks(ctx.layout, traveller.layout, ctx.size)
            with torch.autocast(queries.device.type, enabled=False):
                gradients = Gradients(own, *travelling)
                add_gradients(gradients, queries, traveller.keys, traveller.values, upstream, mean, log_sum, blocks)
            if number < rounds - 1:
                traveller.arrive()
            # what this process found out about these keys goes on with them, in the last round to the process they belong to
            travelling = Message(travelling, ctx.group).wait()
        return *(gradient.to(queries.dtype) for gradient in (own, *travelling)), None, None, None


def ring_attention(
    queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, group: Group = None, size: int = BLOCK_SIZE
) -> Tensor:
    """Attention over the parts of all processes, which call this together, each with its own part.

    queries, keys, values: (B, heads, S / P, d), the same number of tokens in each process. layout: of this part, with the times
    that its tokens have in the whole sequence. group: the processes, None for all. Returns (B, heads, S / P, d).
    """
    return RingAttention.apply(queries, keys, values, layout, group, size)  # type: ignore[return-value]


def contiguous_part(num_tokens: int, rank: int, num_parts: int) -> slice:
    """The tokens of process `rank`, all in a row: 0 1 2 3 | 4 5 6 7."""
    length = _part_length(num_tokens, num_parts)
    return slice(rank * length, (rank + 1) * length)


def striped_part(num_tokens: int, rank: int, num_parts: int) -> slice:
    """Every P-th token (arXiv:2311.09431): 0 2 4 6 | 1 3 5 7. In causal attention, all processes then have equally much to do."""
    _part_length(num_tokens, num_parts)
    return slice(rank, num_tokens, num_parts)


def _part_length(num_tokens: int, num_parts: int) -> int:
    if num_tokens % num_parts:
        raise ValueError(f"{num_tokens} tokens are not a multiple of {num_parts} processes; all parts have the same length")
    return num_tokens // num_parts
