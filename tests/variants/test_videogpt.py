"""VideoGPT's tokenizer: what makes it that system and not another, box by box, with numbers small enough to check by hand."""

import json

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_tokenizers import flags, tiny_config
from torch import nn

from tokenizer_variants.videogpt.blocks import (
    AxialAttention,
    AxialPositions,
    AxialResidualBlock,
    Float32TwoFrameConv3d,
    blocks_without_attention,
    stage_strides,
)
from tokenizer_variants.videogpt.config import VideoGPTConfig
from tokenizer_variants.videogpt.model import VideoGPTTokenizer
from video_tokenizer import load_tokenizer
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import TokenizerOutput
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.command_line import parse_config

CHAPTER = REPOSITORY / "1.video-tokenizer"


def built(**changes):
    """A tiny tokenizer for clips of 4 frames of 16x16 that has seen a batch."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tiny_config("videogpt", **{"num_frames": 4} | changes)).train()
    tokenizer(torch.rand(2, 4, 3, 16, 16))
    assert isinstance(tokenizer, VideoGPTTokenizer)
    return tokenizer.eval()


# ---- VG1: 3D convolutions shorten time and space --------------------------------------------------------------------------


def test_strides_are_halvings_one_after_the_other():
    assert stage_strides(1, 8) == [(1, 2, 2)] * 3
    assert stage_strides(2, 8) == [(2, 2, 2), (1, 2, 2), (1, 2, 2)]
    assert stage_strides(4, 4) == [(2, 2, 2), (2, 2, 2)]
    assert stage_strides(4, 2) == [(2, 2, 2), (2, 1, 1)]


@pytest.mark.parametrize(("time", "space"), [(1, 4), (2, 4), (4, 4), (1, 8), (2, 2), (4, 2)])
@torch.no_grad()
def test_time_and_space_are_shortened_and_come_back(time, space):
    tokenizer = built(time_stride=time, space_stride=space, num_codes=8)
    steps, side = 4 // time, 16 // space
    encoded = tokenizer.encode(torch.rand(2, 4, 3, 16, 16))
    assert encoded.indices.shape == (2, steps, side**2) and encoded.codes.shape == (2, steps, side**2, 8)
    assert tokenizer.decode_indices(encoded.indices).shape == (2, 4, 3, 16, 16)
    assert (tokenizer.frames_per_step, tokenizer.grid_size) == (time, (side, side))
    assert tokenizer.bits_per_frame == side**2 * 3 / time  # log2(8) = 3 bits a token


def test_the_way_down_is_convolutions_and_the_way_up_transposed_ones():
    tokenizer = built(time_stride=2, num_codes=16)
    down = [one for one in tokenizer.encoder.shorten.modules() if isinstance(one, nn.Conv3d)]
    up = [one for one in tokenizer.decoder.lengthen.modules() if isinstance(one, nn.ConvTranspose3d)]
    assert [(one.kernel_size, one.stride) for one in down] == [
        ((4, 4, 4), (2, 2, 2)),
        ((3, 4, 4), (1, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ]
    assert [(one.kernel_size, one.stride) for one in up] == [((3, 4, 4), (1, 2, 2)), ((4, 4, 4), (2, 2, 2))]


@torch.no_grad()
def test_a_token_of_two_frames_depends_on_both_and_an_early_token_on_a_later_frame():
    """With time stride 2 the frames 0 and 1 make step 0; and nothing here is causal."""
    tokenizer = built(time_stride=2, num_codes=16)
    clip = torch.rand(1, 4, 3, 16, 16)
    latents = tokenizer._latents(clip)
    for frame in range(4):
        changed = clip.clone()
        changed[:, frame] = 0
        assert not torch.allclose(tokenizer._latents(changed)[:, 0], latents[:, 0], atol=1e-4), frame
    assert tokenizer.encode(clip).codes.shape[1] == 2 and not tokenizer.is_causal


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_kernels_learn_the_same_in_both_number_formats(steps):
    """With two steps PyTorch's bfloat16 gradient on CPUs is made of what lay in memory; the guard computes those in float32."""
    torch.manual_seed(0)
    for kind, channels in ((nn.Conv3d, (8, 16)), (nn.ConvTranspose3d, (16, 8))):
        layer = Float32TwoFrameConv3d(kind(*channels, (3, 4, 4), (1, 2, 2), padding=1))
        x, gradients = torch.randn(2, channels[0], steps, 8, 8), []
        for enabled in (False, True):
            layer.zero_grad()
            [torch.full((size,), float("nan")) for size in (2**10, 8 * 16 * 48)]  # is freed at once, so that NaN lies in memory
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                output = layer(x)
            output.float().square().sum().backward()
            assert layer.convolution.weight.grad is not None
            gradients.append(layer.convolution.weight.grad.clone())
        assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[0].norm()


def test_clips_that_do_not_fit_are_refused_with_their_numbers():
    with pytest.raises(InputError, match="clip of 3 frames is not a multiple of time_stride 2"):
        built(time_stride=2, num_codes=16).encode(torch.rand(1, 3, 3, 16, 16))
    with pytest.raises(InputError, match="clip of 8 frames is longer than the 4"):
        built().encode(torch.rand(1, 8, 3, 16, 16))
    for changes, words in (
        ({"time_stride": 3}, "time_stride 3 must be a power of 2 that divides num_frames 4"),
        ({"time_stride": 8}, "time_stride 8 must be"),
        ({"space_stride": 32}, "space_stride 32 must be a power of 2 that divides frame_size 16"),
        ({"space_stride": 1}, "space_stride 1 must be at least 2"),
        ({"channels": 15}, "channels 15 must be a multiple of num_heads 2"),
        ({"num_codes": 1}, "num_codes 1"),
        ({"codebook_ema": 0.0}, "codebook_ema 0.0"),
    ):
        with pytest.raises(InputError, match=words):
            built(**changes)


# ---- VG2: axial attention, three axes summed ------------------------------------------------------------------------------


@torch.no_grad()
def test_a_cell_looks_along_its_three_axes_and_nowhere_else():
    """In a 3 x 4 x 5 grid a change at one cell reaches 3 + 4 + 5 - 2 = 10 of the 60 cells."""
    attention = AxialAttention(8, 2)
    x, places = torch.randn(1, 8, 3, 4, 5), torch.zeros(3, 4, 5, 8)
    changed = x.clone()
    changed[:, :, 1, 2, 3] += 1
    reached = (attention(changed, places) != attention(x, places)).any(dim=1)[0]  # (3, 4, 5)
    expected = torch.zeros(3, 4, 5, dtype=torch.bool)
    expected[:, 2, 3] = expected[1, :, 3] = expected[1, 2, :] = True
    assert torch.equal(reached, expected) and reached.sum() == 10


@torch.no_grad()
def test_the_three_attentions_read_the_same_input_and_are_added():
    attention = AxialAttention(8, 2)
    x, places = torch.randn(1, 8, 3, 4, 5), torch.randn(3, 4, 5, 8)
    outputs = {name: getattr(attention, name).output.weight for name in ("along_time", "along_height", "along_width")}
    together, kept = attention(x, places), {name: weight.clone() for name, weight in outputs.items()}
    alone = []
    for name in outputs:
        for other, weight in outputs.items():
            weight.copy_(kept[other] if other == name else torch.zeros_like(weight))
        alone.append(attention(x, places))
    assert torch.allclose(sum(alone), together, atol=1e-5)


@torch.no_grad()
def test_without_positions_attention_does_not_know_the_order_of_frames():
    attention, positions = AxialAttention(8, 2), AxialPositions(8, (3, 4, 5))
    x = torch.randn(1, 8, 3, 4, 5)
    blind, seeing = torch.zeros(3, 4, 5, 8), positions(3)
    assert torch.allclose(attention(x.flip(2), blind), attention(x, blind).flip(2), atol=1e-5)
    assert not torch.allclose(attention(x.flip(2), seeing), attention(x, seeing).flip(2), atol=1e-5)


@torch.no_grad()
def test_one_table_of_positions_serves_encoder_and_decoder():
    tokenizer = built()
    clip = torch.rand(1, 4, 3, 16, 16)
    codes = tokenizer.encode(clip).codes
    latents, video = tokenizer._latents(clip), tokenizer.decode(codes)
    tokenizer.positions.tables[0].weight[0] += 5  # of the first step only
    assert not torch.allclose(tokenizer._latents(clip), latents, atol=1e-3)
    assert not torch.allclose(tokenizer.decode(codes), video, atol=1e-4)
    assert sum("positions" in name for name, _ in tokenizer.named_parameters()) == 3  # steps, rows, columns


@pytest.mark.parametrize("preset", VideoGPTTokenizer.presets)
def test_without_attention_the_parameters_stay_within_five_percent(preset):
    def parameters(switch):
        words = ["--preset", preset, "--frame-size", "64", "--axial-attention", switch]
        with torch.device("meta"):
            tokenizer = build_tokenizer(parse_config(VideoGPTConfig, VideoGPTTokenizer.presets, words))
        assert any(isinstance(one, AxialAttention) for one in tokenizer.modules()) == (switch == "on")
        return sum(one.numel() for one in tokenizer.parameters())

    assert abs(parameters("off") / parameters("on") - 1) < 0.05
    block, without = (sum(one.numel() for one in AxialResidualBlock(64, 32, heads).parameters()) for heads in (2, 0))
    assert (block, without) == (106_816, 57_536) and blocks_without_attention(64, 32, 2) == 4  # as the docstring says


# ---- VG3: a codebook of running means; its arithmetic is in test_vector_quantizer.py -----------------------------------------


def test_no_gradient_reaches_the_codebook_and_commitment_is_the_only_extra_loss():
    tokenizer = built().train()
    output = tokenizer(torch.rand(2, 4, 3, 16, 16))
    assert list(output.losses) == ["commitment"]
    assert not [name for name, _ in tokenizer.named_parameters() if "quantizer" in name]
    assert "quantizer.codebook.weight" in tokenizer.state_dict()


def test_a_threshold_that_would_restart_codes_in_use_is_refused():
    """4 frames x 16 tokens x 2 clips = 128 latents for 64 codes: 2 for each, and 4 are wanted for a threshold of 1."""
    with pytest.raises(InputError, match=r"restart_below 1.0 is too high for 128 latents a step and num_codes 64.*below 0.5 "):
        built(num_codes=64)
    assert built(num_codes=64, restart_below=0.5) and built(num_codes=32) and built(num_codes=512, restart_below=0.0)


@torch.no_grad()
def test_codes_depend_neither_on_the_mode_nor_on_the_other_clips():
    tokenizer = built()
    clips = torch.rand(3, 4, 3, 16, 16)
    assert not [one for one in tokenizer.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    together = tokenizer._latents(clips)
    assert torch.allclose(tokenizer._latents(clips[1:2]), together[1:2], atol=1e-5)
    assert torch.equal(tokenizer.train()._latents(clips), together)


# ---- VG4: the error in units of the data's variance -----------------------------------------------------------------------


def white_in_ten():
    """(10, 4, 4, 3): nine black frames and a white one; the mean is 0.1, the variance 0.1 * 0.9 = 0.09."""
    frames = np.zeros((10, 4, 4, 3), np.uint8)
    frames[7] = 255
    return frames


def test_a_reconstruction_that_is_the_mean_everywhere_has_an_error_of_one():
    tokenizer = built(foreground_weight=0.0, moving_weight=0.0)
    tokenizer.fit_statistics(white_in_ten())
    assert tokenizer.data_variance.item() == pytest.approx(0.09)
    video = torch.from_numpy(white_in_ten()).float().permute(0, 3, 1, 2)[None] / 255  # (1, 10, 3, 4, 4)
    mean = TokenizerOutput(torch.full_like(video, 0.1), torch.empty(0), torch.empty(0), {"commitment": torch.tensor(0.5)})
    assert float(sum(tokenizer.loss(video, mean, torch.zeros(3, 4, 4)).values())) == pytest.approx(1.5)


def test_the_raw_error_is_the_control():
    tokenizer = built(normalise_loss=False)
    tokenizer.fit_statistics(white_in_ten())
    assert tokenizer.data_variance.item() == 1
    flat = built()
    flat.fit_statistics(np.zeros((3, 4, 4, 3), np.uint8))
    assert flat.data_variance.item() == pytest.approx(1e-4)  # and not 0


@pytest.mark.parametrize("time_stride", [2, 4])
def test_the_scripts_train_and_score_it_with_shortened_time(time_stride, tmp_path):
    common = ["--use-dummy-data", "--device", "cpu"]
    sizes = [*flags("videogpt"), "--num-frames", 4, "--time-stride", time_stride, "--num-codes", 8, "--frame-size", 16]
    train = ["--num-steps", 2, "--batch-size", 2, "--validation-batches", 1, "--warmup-steps", 1, "--checkpoint-dir", tmp_path]
    assert call(CHAPTER / "tokenizer_variants" / "train.py", *common, *sizes, *train) == 0
    checkpoint = tmp_path / "best_model.pt"
    assert call(CHAPTER / "validate.py", *common, "--checkpoint", checkpoint, "--save-images", "--num-batches", 1) == 0
    report = json.loads((tmp_path / "validation" / "validation.json").read_text())
    assert report["bits_per_frame"] == 16 * 3 / time_stride
    assert 0 < load_tokenizer(checkpoint).data_variance < 0.25  # measured, and kept in the checkpoint
