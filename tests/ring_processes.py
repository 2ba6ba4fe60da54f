"""What the processes of a ring do in tests; in a module of its own, because each process imports it."""

import torch
import torch.distributed as distributed
from einops import rearrange
from torch import nn

from dynamics_variants.ring.blockwise import blockwise_attention, causal_layout
from dynamics_variants.ring.feed_forward import chunked_feed_forward
from dynamics_variants.ring.ring import ring_attention, striped_part
from video_tokenizer.models.st_transformer import SwiGLU


def peers_of_messages() -> tuple[list[list[int]], list[list[int]]]:
    """To whom each process sends, and from whom it receives, in one forward and backward pass."""
    made, original = [], distributed.P2POp

    def remembered(operation, tensor, **options):
        made.append((operation is distributed.isend, options["group_peer"]))
        return original(operation, tensor, **options)

    distributed.P2POp = remembered  # type: ignore[assignment,misc]
    rank, size = distributed.get_rank(), distributed.get_world_size()
    part = striped_part(16, rank, size)
    queries, keys, values = torch.randn(3, 1, 1, 4, 8, requires_grad=True)
    ring_attention(queries, keys, values, causal_layout(16)[part]).sum().backward()
    distributed.P2POp = original  # type: ignore[misc]
    peers = [sorted({peer for sends, peer in made if sends is sending}) for sending in (True, False)]
    everyone: list = [None] * size
    distributed.all_gather_object(everyone, peers)
    return [sent for sent, _ in everyone], [received for _, received in everyone]


def layer_around_the_ring() -> dict[str, float]:
    """Attention and a feed-forward network over 32 tokens: how far loss and gradients are from those of a single process."""
    torch.manual_seed(0)
    to_qkv, feed_forward, x = nn.Linear(16, 48), SwiGLU(16), torch.randn(2, 32, 16)
    layout, part = causal_layout(32), striped_part(32, distributed.get_rank(), distributed.get_world_size())

    def loss_and_gradients(x, attend):
        queries, keys, values = rearrange(to_qkv(x), "b s (three h d) -> three b h s d", three=3, h=2)
        mixed = rearrange(attend(queries, keys, values), "b h s d -> b s (h d)")
        loss = chunked_feed_forward(feed_forward, x + mixed, 5).square().sum() / 1024
        attention, network = torch.autograd.grad(loss, [to_qkv.weight, feed_forward.gate_and_value.weight])
        return {"loss": loss.detach(), "to_qkv": attention, "gate_and_value": network}

    alone = loss_and_gradients(x, lambda q, k, v: blockwise_attention(q, k, v, layout, size=8))
    shared = loss_and_gradients(x[:, part], lambda q, k, v: ring_attention(q, k, v, layout[part], size=8))
    for tensor in shared.values():
        distributed.all_reduce(tensor)  # sums over the processes, as data-parallel training does
    return {name: (shared[name] - alone[name]).abs().max().item() for name in alone}
