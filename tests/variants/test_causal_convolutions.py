"""Convolutions that never look ahead, on videos of one pixel, and the layers built from them."""

import pytest
import torch
from tiny_tokenizers import stirred
from torch import nn

from tokenizer_variants.magvit2.causal_convolutions import (
    AdaptiveNorm,
    CausalConv3d,
    CausalResidualBlock,
    Downsample,
    FrameCache,
    TimeSettings,
    Upsample,
    depth_to_space,
    frame_norm,
    space_to_depth,
)
from tokenizer_variants.magvit2.networks import Decoder, Encoder

TIMES = [TimeSettings(kernel, dilation, padding) for kernel, dilation, padding in ((2, 1, "replicate"), (3, 2, "zeros"))]
every_time = pytest.mark.parametrize("time", TIMES, ids=lambda time: f"kernel {time.kernel}, {time.padding}")


def ones(convolution: CausalConv3d) -> CausalConv3d:
    """Let a convolution add up what it sees: its middle column in space, all its frames in time."""
    nn.init.zeros_(convolution.convolution.weight)
    nn.init.zeros_(convolution.convolution.bias)
    convolution.convolution.weight.data[:, :, :, 1, 1] = 1.0
    return convolution


def line(*values: float) -> torch.Tensor:
    """A video (1, 1, T, 1, 1) of one pixel."""
    return torch.tensor(values, dtype=torch.float32)[None, None, :, None, None]


@torch.no_grad()
def test_a_causal_kernel_adds_up_the_present_and_what_came_before():
    zeros = ones(CausalConv3d(1, 1, TimeSettings(kernel=3, padding="zeros")))
    assert zeros(line(1, 10, 100, 1000)).flatten().tolist() == [1, 11, 111, 1110]
    copies = ones(CausalConv3d(1, 1, TimeSettings(kernel=3)))
    assert copies(line(1, 10, 100, 1000)).flatten().tolist() == [3, 12, 111, 1110]


@torch.no_grad()
def test_a_dilated_kernel_leaves_frames_out_and_reaches_further():
    dilated = ones(CausalConv3d(1, 1, TimeSettings(kernel=3, padding="zeros"), dilation=2))
    assert dilated.reach == 4  # (3 - 1) * 2 frames are padded
    assert dilated(line(1, 10, 100, 1000, 10_000)).flatten().tolist() == [1, 10, 101, 1010, 10_101]


@torch.no_grad()
def test_with_a_stride_an_output_ends_at_its_own_frame():
    strided = ones(CausalConv3d(1, 1, TimeSettings(kernel=3, padding="zeros"), stride=(2, 1)))
    assert strided(line(1, 10, 100, 1000, 10_000)).flatten().tolist() == [1, 111, 11_100]
    with pytest.raises(ValueError, match="spans 2 frames would skip some with a stride of 4"):
        CausalConv3d(1, 1, TimeSettings(kernel=2), stride=(4, 1))


@torch.no_grad()
def test_without_causality_the_padding_lies_on_both_sides():
    both = ones(CausalConv3d(1, 1, TimeSettings(kernel=3, padding="zeros", causal=False)))
    assert both(line(1, 10, 100, 1000)).flatten().tolist() == [11, 111, 1110, 1100]


def stacks(time: TimeSettings):
    """Every stack of convolutions that a tokenizer is made of."""
    return {
        "convolution": CausalConv3d(8, 8, time),
        "dilated": CausalConv3d(8, 8, time, dilation=3),
        "residual block": CausalResidualBlock(8, time),
        "downsample": Downsample(8, 8, time),
        "upsample": Upsample(8, 8, time),
        "encoder": Encoder((8, 16), (1, 1), 4, time, (1,)),
        "decoder": Decoder((8, 16), (1, 1), 8, time, (1,)),
    }


@every_time
@pytest.mark.parametrize("name", stacks(TIMES[0]))
@torch.no_grad()
def test_no_stack_lets_a_later_frame_through(name, time):
    stack = stirred(stacks(time)[name])
    x = torch.randn(1, 3 if name == "encoder" else 8, 5, 8, 8)
    changed = x.clone()
    changed[:, :, 3:] += 1.0
    before, after = stack(x), stack(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3], after[:, :, 3])


@pytest.mark.parametrize(("causal", "seen"), [(True, [0, 0, 1]), (False, [0, 1, 0])])
@torch.no_grad()
def test_a_fresh_kernel_sees_the_present_only_and_passes_on_as_much(causal, seen):
    torch.manual_seed(0)
    layer, plain = CausalConv3d(32, 32, TimeSettings(kernel=3, causal=causal)), nn.Conv3d(32, 32, (3, 3, 3), padding=(0, 1, 1))
    assert layer.convolution.weight.abs().amax(dim=(0, 1, 3, 4)).gt(0).int().tolist() == seen
    x = torch.randn(1, 32, 6, 16, 16)
    assert float(layer(x).std()) == pytest.approx(float(plain(x).std()), rel=0.05)
    changed = x.clone()
    changed[:, :, 3] += 1
    assert [bool(frame.any()) for frame in (layer(x) != layer(changed)).unbind(2)] == [False] * 3 + [True] + [False] * 2


def test_depth_to_space_is_the_way_back_from_space_to_depth():
    x = torch.arange(2 * 3 * 4 * 6 * 6.0).reshape(2, 3, 4, 6, 6)
    deep = space_to_depth(x, time=2, space=2)
    assert deep.shape == (2, 3 * 8, 2, 3, 3) and torch.equal(depth_to_space(deep, time=2, space=2), x)
    four = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, :, None, None, None]  # four channels of one place
    assert depth_to_space(four, time=1, space=2).squeeze().tolist() == [[1, 2], [3, 4]]
    assert depth_to_space(four[:, :2], time=2, space=1).squeeze().tolist() == [1, 2]  # two channels become two frames


@torch.no_grad()
def test_growing_back_drops_the_frames_before_the_start():
    upsample = stirred(Upsample(8, 8, TimeSettings(), stride=2))
    steps = torch.randn(1, 8, 3, 2, 2)
    frames = upsample(steps)
    assert frames.shape == (1, 8, 5, 4, 4)  # 3 steps are 6 frames, the first of which would be frame -1
    cache = FrameCache()
    upsample(steps[:, :, :1], cache)
    assert upsample(steps[:, :, 1:], FrameCache(cache)).shape == (1, 8, 4, 4, 4)


@torch.no_grad()
def test_the_norm_of_a_frame_does_not_know_the_other_frames():
    norm = frame_norm(16)
    x = torch.randn(2, 16, 3, 4, 4)
    brighter = x.clone()
    brighter[:, :, 1] *= 100
    assert torch.equal(norm(x)[:, :, ::2], norm(brighter)[:, :, ::2])
    assert torch.allclose(norm(x)[:, :, 1], norm(brighter)[:, :, 1], atol=1e-3)  # nor its own brightness


@torch.no_grad()
def test_the_decoders_norm_takes_its_scale_and_shift_from_the_codes_of_the_same_frame():
    norm = AdaptiveNorm(8, code_length=1)
    x, codes = torch.randn(1, 8, 2, 4, 4), torch.zeros(1, 1, 2, 2, 2)
    assert torch.equal(norm(x, codes), norm.norm(x))  # at first it is a plain norm
    norm.to_scale_and_shift.weight[:8, 0] = 1.0  # scale = mean of the codes
    norm.to_scale_and_shift.weight[8:, 0] = 2.0  # shift = twice that
    codes[:, :, 1] = 0.5
    expected = norm.norm(x)
    expected[:, :, 1] = expected[:, :, 1] * 1.5 + 1.0
    assert torch.allclose(norm(x, codes), expected, atol=1e-6)
