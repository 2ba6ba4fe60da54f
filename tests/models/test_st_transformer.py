"""Claims about patches, positions and the space-time transformer, against naive references."""

import math

import pytest
import torch
import torch.nn.functional as F

from video_tokenizer.models.patch_embed import PatchEmbedding, PatchUnembedding
from video_tokenizer.models.positional_encoding import SpaceTimePositions, split_embedding
from video_tokenizer.models.st_transformer import (
    MultiHeadAttention,
    SpaceTimeBlock,
    SpaceTimeTransformer,
    attention,
    causal_mask,
)


def test_patch_embedding_is_unfold_and_a_matrix_product():
    torch.manual_seed(0)
    embed = PatchEmbedding(3, 10, patch_size=4)
    video = torch.rand(2, 3, 3, 8, 12)
    patches = F.unfold(video.flatten(0, 1), kernel_size=4, stride=4).transpose(1, 2)  # (B*T, N, 3*4*4)
    expected = patches @ embed.projection.weight.flatten(1).T + embed.projection.bias
    assert torch.allclose(embed(video), expected.view(2, 3, 6, 10), atol=1e-5)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_patch_embedding_gives_one_vector_per_patch(stem):
    assert PatchEmbedding(3, 16, patch_size=8, stem=stem)(torch.rand(2, 3, 3, 16, 24)).shape == (2, 3, 6, 16)


def test_a_patch_vector_becomes_its_own_patch_of_pixels():
    unembed = PatchUnembedding(16, 3, patch_size=4, grid_size=(2, 3))
    x = torch.zeros(1, 1, 6, 16)
    base = unembed(x)
    x[0, 0, 4] = 1.0  # row 1, column 1 of the 2x3 grid
    changed = (unembed(x) != base).any(dim=2)[0, 0]
    assert changed[4:8, 4:8].all() and changed.sum() == 16


@pytest.mark.parametrize("embed_dim", [32, 126, 128, 130])
def test_positions_split_the_embedding_exactly(embed_dim):
    parts = split_embedding(embed_dim)
    assert sum(parts) == embed_dim and all(part % 2 == 0 and part > 0 for part in parts)


def test_every_place_and_time_has_its_own_code_and_time_is_periodic():
    positions = SpaceTimePositions(48, (4, 6), period=16)
    codes = positions(torch.zeros(1, 32, 24, 48))[0]  # (T, N, E)
    one_period = codes[:16].reshape(-1, 48)
    distances = torch.cdist(one_period, one_period) + 9 * torch.eye(len(one_period))
    assert distances.min() > 0.1
    assert torch.allclose(codes[:16], codes[16:], atol=1e-4)
    assert torch.allclose(positions(torch.zeros(1, 1, 24, 48), start=5)[0, 0], codes[5], atol=1e-6)


def test_a_context_longer_than_the_clock_gets_a_longer_clock():
    codes = SpaceTimePositions(48, (1, 1), context_frames=80)(torch.zeros(1, 80, 1, 48))[0, :, 0]  # (T, E)
    assert (torch.cdist(codes, codes) + 9 * torch.eye(80)).min() > 0.01


def test_attention_equals_pytorch_and_a_loop():
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 4, 5, 8).unbind(0)
    mask = causal_mask(5, window=3)
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    assert torch.allclose(attention(queries, keys, values, mask), expected, atol=1e-6)
    scores = [queries[0, 0, 4] @ keys[0, 0, s] / math.sqrt(8) for s in (2, 3, 4)]  # frame 4 sees frames 2, 3, 4
    weights = torch.stack(scores).softmax(0)
    assert torch.allclose(expected[0, 0, 4], weights @ values[0, 0, 2:5], atol=1e-6)


def test_causal_mask_of_the_docstring():
    assert causal_mask(3, window=2).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert causal_mask(1, window=3, num_past=2).int().tolist() == [[1, 1, 1]]


def naive_attention(module: MultiHeadAttention, sequence: torch.Tensor, allowed) -> torch.Tensor:
    """One sequence (S, E), one head and one query at a time."""
    size, width = sequence.shape
    queries, keys, values = (module.to_qkv.weight @ sequence.T).T.split(width, dim=1)
    head_dim = width // module.num_heads
    mixed = torch.zeros(size, width)
    for head in range(module.num_heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        for s in range(size):
            seen = [r for r in range(size) if allowed(s, r)]
            weights = torch.stack([queries[s, part] @ keys[r, part] / math.sqrt(head_dim) for r in seen]).softmax(0)
            mixed[s, part] = sum(w * values[r, part] for w, r in zip(weights, seen, strict=True))
    return mixed @ module.output.weight.T


@torch.no_grad()
def test_a_block_equals_a_reference_written_with_loops():
    torch.manual_seed(0)
    block = SpaceTimeBlock(16, num_heads=2)
    x = torch.randn(1, 4, 3, 16)  # (B, T, N, E)
    expected = x[0].clone()
    for t in range(4):
        expected[t] += naive_attention(block.space_attention, block.space_norm(expected[t]), lambda s, r: True)
    for n in range(3):
        update = naive_attention(block.time_attention, block.time_norm(expected[:, n]), lambda s, r: s - 2 < r <= s)
        expected[:, n] += update
    expected = expected + block.feed_forward(block.feed_forward_norm(expected))
    output, _ = block(x, causal_mask(4, window=2))
    assert torch.allclose(output[0], expected, atol=1e-5)


@torch.no_grad()
def test_frames_one_by_one_equal_all_at_once_and_the_cache_stays_small():
    torch.manual_seed(0)
    transformer = SpaceTimeTransformer(16, 2, num_blocks=2, window=3)
    x = torch.randn(2, 9, 4, 16)
    together = transformer(x)
    cache, outputs = None, []
    for t in range(9):
        output, cache = transformer.step(x[:, t : t + 1], cache)
        outputs.append(output)
        assert cache.num_kept == min(t + 1, 2) and cache.position == t + 1
    assert torch.allclose(torch.cat(outputs, dim=1), together, atol=1e-5)


def test_a_window_of_one_frame_looks_at_no_other():
    transformer = SpaceTimeTransformer(16, 2, num_blocks=2, window=1)
    x = torch.randn(1, 3, 4, 16)
    alone, cache = transformer.step(x[:, 2:], transformer.step(x[:, :2], None)[1])
    assert cache.num_kept == 0 and torch.allclose(transformer(x)[:, 2:], alone, atol=1e-5)


def test_remembering_gives_the_keys_and_values_of_the_whole_run():
    torch.manual_seed(0)
    transformer = SpaceTimeTransformer(16, 2, num_blocks=2, window=3)
    x = torch.randn(1, 4, 4, 16)
    whole, short = transformer.run(x, causal_mask(4, 3))[1], transformer.prefill_kv(x)
    assert all(torch.equal(a, b) for own, same in zip(whole, short, strict=True) for a, b in zip(own, same, strict=True))
