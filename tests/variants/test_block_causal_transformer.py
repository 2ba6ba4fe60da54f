"""The block-causal transformer of Dreamer 4: one architecture for the tokenizer and for the dynamics model, and its parts."""

import pytest
import torch
from tiny_tokenizers import built

from tokenizer_variants.dreamer4.block_causal_transformer import (
    BlockCausalSizes,
    BlockCausalTransformer,
    angles,
    rotate,
    step_mask,
)

ENCODER = BlockCausalSizes(embed_dim=32, num_heads=2, num_layers=4, window=3)
DYNAMICS = BlockCausalSizes(embed_dim=48, num_heads=4, num_layers=4, window=5, key_value_heads=2, soft_cap=50.0)
LAYOUTS = {  # (sizes of all numbers, groups of tokens in a step, who looks at whom)
    "tokenizer": (ENCODER, [4, 6], [[1, 1], [0, 1]]),  # latents, patches
    "dynamics": (DYNAMICS, [1, 1, 4, 2], [[1] * 4] * 4),  # action, signal level and step size, latents, registers
}


def transformer_of(name: str) -> BlockCausalTransformer:
    torch.manual_seed(0)
    sizes, groups, looks_at = LAYOUTS[name]
    return BlockCausalTransformer(sizes, step_mask(groups, looks_at), torch.zeros(sum(groups), 2)).eval()


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_one_class_is_both_models_and_both_are_causal(name):
    transformer = transformer_of(name)
    tokens = torch.randn(2, 9, len(transformer.step_mask), transformer.sizes.embed_dim)
    changed = tokens.clone()
    changed[:, 6:] = 0.0
    before, after = transformer(tokens), transformer(changed)
    assert torch.equal(before[:, :6], after[:, :6]) and not torch.equal(before[:, 6], after[:, 6])
    changed = tokens.clone()
    changed[:, 0] = 0.0
    reach = transformer.sizes.window  # one time layer, so that nothing further back is seen
    after = transformer(changed)
    assert torch.equal(before[:, reach:], after[:, reach:]) and not torch.equal(before[:, reach - 1], after[:, reach - 1])
    first, cache = transformer.step(tokens[:, :4])
    second, _ = transformer.step(tokens[:, 4:], cache)
    assert torch.allclose(torch.cat([first, second], dim=1), before, atol=1e-5)


def test_the_parameters_of_both_have_the_same_names_and_one_layer_in_four_looks_back():
    names = [{name for name, _ in transformer_of(layout).named_parameters()} for layout in LAYOUTS]
    assert names[0] == names[1]
    tokenizer = built()
    assert {name for name, _ in tokenizer.encoder.transformer.named_parameters()} <= names[0]
    assert type(tokenizer.encoder.transformer) is type(tokenizer.decoder.transformer) is BlockCausalTransformer
    deep = BlockCausalTransformer(BlockCausalSizes(32, 2, 12, 3), torch.ones(2, 2).bool(), torch.zeros(2, 2))
    assert [number for number, layer in enumerate(deep.layers) if layer.looks_back] == [1, 5, 9]


def test_rotated_vectors_meet_at_their_distance_whatever_their_places():
    """A quarter turn a place: what is one place back looks the same from place 5 as from place 1."""
    x = torch.tensor([[1.0, 0.0]])
    turns = torch.tensor([[torch.pi / 2]])
    assert torch.allclose(rotate(x, turns), torch.tensor([[0.0, 1.0]]), atol=1e-6)
    near = (rotate(x, 1 * turns) * rotate(x, 0 * turns)).sum()
    far = (rotate(x, 5 * turns) * rotate(x, 4 * turns)).sum()
    assert torch.allclose(near, far, atol=1e-5)
    turns = angles(torch.arange(12), num_pairs=2, base=100.0)
    assert torch.allclose(turns[1], torch.tensor([1.0, 0.1]))  # one radian a place, then a tenth
    query, key = torch.randn(4), torch.randn(4)
    queries, keys = (rotate(vector.expand(12, 4), turns) for vector in (query, key))
    meetings = queries @ keys.T  # (12, 12)
    assert torch.allclose(meetings[5, 2], meetings[9, 6], atol=1e-5) and not torch.allclose(meetings[5, 2], meetings[2, 5])
    assert torch.allclose(queries.norm(dim=1), query.norm().expand(12), atol=1e-5)


def test_the_soft_cap_bounds_what_attention_can_want():
    """Queries and keys as long as they get: 32 numbers of size 50 give a score of 50 * 50 * sqrt(32); capped at 1 all is near."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 1, 10, 32)
    sizes = [BlockCausalSizes(32, 1, 1, 1, soft_cap=cap) for cap in (0.0, 1e-6)]
    free, capped = (BlockCausalTransformer(size, torch.ones(10, 10).bool(), torch.zeros(10, 2)).layers[0] for size in sizes)
    turns = torch.zeros(10, 16)
    values = free.attention.to_qkv(tokens[0]).chunk(3, dim=-1)[2]
    capped.load_state_dict(free.state_dict())
    even = free.attention.output(values.mean(dim=1, keepdim=True).expand_as(values))  # no score at all: everyone alike
    assert torch.allclose(capped.attention(tokens[0], torch.ones(10, 10).bool(), turns)[0], even, atol=1e-4)
    assert not torch.allclose(free.attention(tokens[0], torch.ones(10, 10).bool(), turns)[0], even, atol=1e-2)
