"""MAGVIT-2 with FSQ as a tokenizer: lengths of time, pictures as videos, streams, flags. Its parts: test_causal_convolutions.py
and test_adversarial_training.py."""

import math

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_tokenizers import tiny_config
from torch import nn

from tokenizer_variants.magvit2.causal_convolutions import TimeSettings
from tokenizer_variants.magvit2.config import Magvit2Config
from tokenizer_variants.magvit2.model import Magvit2Tokenizer
from tokenizer_variants.magvit2.networks import Decoder, Encoder
from video_tokenizer.errors import InputError
from video_tokenizer.models.fsq import FiniteScalarQuantizer
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.command_line import parse_config

TRAIN = REPOSITORY / "1.video-tokenizer/tokenizer_variants/magvit2/train.py"
every_stride = pytest.mark.parametrize("stride", [1, 2, 4])


def built(**changes) -> Magvit2Tokenizer:
    """Three resolutions, so that time can be shortened twice; with every weight drawn at random."""
    torch.manual_seed(0)
    sizes = {"channels": (8, 16, 16), "blocks": (1, 0, 1)} | changes
    sizes["num_frames"] = 1 + 4 * sizes.get("time_stride", 1)
    tokenizer = build_tokenizer(tiny_config("magvit2", **sizes)).eval()
    for parameter in tokenizer.parameters():  # also those that start at zero
        nn.init.normal_(parameter, std=0.15)
    nn.init.normal_(tokenizer.encoder.to_latents.weight)  # tokens of many kinds  # type: ignore[union-attr]
    return tokenizer  # type: ignore[return-value]


@pytest.mark.parametrize("stride", [2, 4])
@torch.no_grad()
def test_with_a_time_stride_a_step_ends_at_its_own_frame(stride):
    tokenizer = built(time_stride=stride)
    video = torch.rand(1, 1 + 2 * stride, 3, 16, 16)
    changed = video.clone()
    changed[:, 1 + stride :] = 1 - changed[:, 1 + stride :]
    before, after = tokenizer.encode(video).codes, tokenizer.encode(changed).codes
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.equal(before[:, 2], after[:, 2])
    drawn, drawn_after = tokenizer.decode(before), tokenizer.decode(after)
    assert torch.equal(drawn[:, : 1 + stride], drawn_after[:, : 1 + stride]) and not torch.equal(drawn, drawn_after)


@every_stride
@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@torch.no_grad()
def test_a_picture_is_a_video_of_one_frame(stride, padding):
    tokenizer = built(time_stride=stride, time_padding=padding)
    video = torch.rand(2, 5, 3, 16, 16)
    alone, together = tokenizer.encode(video[:, :1]), tokenizer.encode(video)
    assert alone.indices.shape == (2, 1, 16) and torch.equal(alone.indices[:, 0], together.indices[:, 0])
    assert torch.allclose(tokenizer.decode(alone.codes)[:, 0], tokenizer.decode(together.codes)[:, 0], atol=1e-5)


@every_stride
@torch.no_grad()
def test_1_plus_s_t_frames_are_1_plus_t_steps_and_back(stride):
    tokenizer = built(time_stride=stride)
    for steps in (1, 2, 3):
        video = torch.rand(1, 1 + stride * (steps - 1), 3, 16, 16)
        codes = tokenizer.encode(video).codes
        assert codes.shape == (1, steps, 16, 4) and tokenizer.decode(codes).shape == video.shape
    assert tokenizer.frames_per_step == stride
    assert tokenizer.bits_per_frame == pytest.approx(16 * math.log2(1000) / stride)


def test_time_is_shortened_late():
    four_levels = {"channels": (8, 8, 8, 8), "blocks": (0, 0, 0, 0)}
    strides = [Magvit2Config(time_stride=stride, **four_levels).time_strides for stride in (1, 2, 4)]
    assert strides == [(1, 1, 1), (1, 1, 2), (1, 2, 2)]
    encoder = built(time_stride=2).encoder
    assert [layer.convolution.convolution.stride for layer in encoder.downsamples] == [(1, 2, 2), (2, 2, 2)]


def test_the_paper_makes_17_frames_of_128x128_into_5x16x16_tokens():
    config = Magvit2Config(**Magvit2Tokenizer.presets["paper"])
    config.check()
    time = TimeSettings(config.time_kernel, config.time_dilation, config.time_padding)
    with torch.device("meta"):  # shapes without numbers
        encoder = Encoder(config.channels, config.blocks, 6, time, config.time_strides)
        decoder = Decoder(config.channels, config.blocks, 6, time, config.time_strides)
        latents = encoder(torch.empty(1, 3, 17, 128, 128))
        assert latents.shape == (1, 6, 5, 16, 16)
        assert decoder(latents).shape == (1, 3, 17, 128, 128)
    assert math.prod(config.levels) == 64_000


def test_without_causality_it_sees_ahead_and_refuses_streams():
    tokenizer = built(causal=False)
    video = torch.rand(1, 5, 3, 16, 16)
    changed = torch.cat([video[:, :4], 1 - video[:, 4:]], dim=1)
    assert not torch.equal(tokenizer.encode(video).codes[:, 3], tokenizer.encode(changed).codes[:, 3])
    assert not tokenizer.is_causal
    with pytest.raises(InputError, match="later frames with --no-causal and cannot encode a stream"):
        tokenizer.encode_frame(video[:, 0])
    with pytest.raises(InputError, match="cannot decode a stream"):
        tokenizer.decode_frame(tokenizer.encode(video).indices[:, 0])


@every_stride
@torch.no_grad()
def test_a_stream_in_pieces_is_the_video_all_at_once(stride):
    tokenizer = built(time_stride=stride, time_kernel=3, time_dilation=3)
    video = torch.rand(2, 1 + 8 * stride, 3, 16, 16)
    together = tokenizer.encode(video)
    encoder = decoder = None
    indices, frames = [], []
    for piece in video.split([1, stride, 3 * stride, 4 * stride], dim=1):
        encoded, encoder = tokenizer.encode_next(piece, encoder)
        drawn, decoder = tokenizer.decode_next(encoded.codes, decoder)
        assert drawn.shape == piece.shape
        indices.append(encoded.indices)
        frames.append(drawn)
    assert torch.equal(torch.cat(indices, dim=1), together.indices)
    assert torch.allclose(torch.cat(frames, dim=1), tokenizer.decode(together.codes), atol=1e-5)


@torch.no_grad()
def test_a_stream_goes_on_from_the_same_cache_twice():
    tokenizer = built()
    video = torch.rand(1, 4, 3, 16, 16)
    _, cache = tokenizer.encode_next(video[:, :3])
    first, _ = tokenizer.encode_frame(video[:, 3], cache)
    tokenizer.encode_frame(1 - video[:, 3], cache)
    again, _ = tokenizer.encode_frame(video[:, 3], cache)
    assert torch.equal(first.codes, again.codes)
    lengths = {frames.shape[2] for frames in cache.kept.values()}
    assert lengths == {2, 4}  # kernel 3, dilation 1 and 2: no more frames than it reaches back
    assert {"from_pixels", "levels.2.blocks.0.convolution_2"} <= cache.kept.keys()  # each convolution has a slot of its own


def test_a_stream_takes_whole_steps_only():
    tokenizer = built(time_stride=2)
    with pytest.raises(InputError, match="2 frames cannot be read with time_stride 2; give 1 \\+ a multiple of 2"):
        tokenizer.encode(torch.rand(1, 2, 3, 16, 16))
    _, cache = tokenizer.encode_next(torch.rand(1, 1, 3, 16, 16))
    with pytest.raises(InputError, match="give a multiple of 2, because the stream has begun"):
        tokenizer.encode_next(torch.rand(1, 1, 3, 16, 16), cache)
    with pytest.raises(InputError, match="is 2 frames, not one; decode steps with decode_next"):
        tokenizer.decode_frame(torch.zeros(1, 16, dtype=torch.int64))


def test_every_resolution_of_the_decoder_reads_the_codes_and_the_quantizer_is_fsq():
    tokenizer = built()
    assert len(tokenizer.decoder.adaptive_norms) == len(tokenizer.decoder.levels) == 3
    assert isinstance(tokenizer.quantizer, FiniteScalarQuantizer)
    assert not [module for module in tokenizer.modules() if isinstance(module, nn.AvgPool3d | nn.Upsample | nn.ConvTranspose3d)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_size": 20}, "frame_size 20 is not a multiple of the cell side of 4 channels, 8"),
        ({"time_stride": 3}, "time_stride 3 must be 1, 2 or 4"),
        ({"time_stride": 2}, "num_frames 4 must be 1 \\+ a multiple of time_stride 2; try 5"),
        ({"blocks": (1, 1)}, "must have one number per resolution"),
        ({"channels": (12, 16), "blocks": (1, 1)}, "must be multiples of 8"),
        ({"channels": (8, 264), "blocks": (1, 1)}, "above 256 multiples of 32"),
        ({"time_kernel": 1}, "time_kernel 1 must be at least 2"),
        ({"causal": False}, "time_kernel 2 has no middle, as --no-causal needs; give --time-kernel 3"),
        ({"adversarial_start": 1.5}, "adversarial_start 1.5 must be a share"),
        ({"levels": (8, 1)}, "must be 1 to 8 numbers between 2 and 4096"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        Magvit2Config(**({"frame_size": 64} | changes)).check()


def test_recomputed_activations_give_the_same_gradients_with_a_second_forward_pass_of_each_block():
    video, gradients, calls = torch.rand(1, 5, 3, 16, 16), [], []
    for recompute in (False, True):
        tokenizer = built(activation_checkpointing=recompute).train()
        passes: list[int] = []
        block = tokenizer.encoder.levels[0].blocks[0]  # type: ignore[union-attr]
        block.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        tokenizer(video).reconstruction.square().sum().backward()
        gradients.append([parameter.grad for parameter in tokenizer.parameters()])
        calls.append(len(passes))
    assert calls == [1, 2] and all(torch.allclose(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("preset", Magvit2Tokenizer.presets)
def test_every_preset_fits_together(preset):
    parse_config(Magvit2Config, Magvit2Tokenizer.presets, argv=["--preset", preset, "--frame-size", "128"]).check()


def test_two_frames_a_step_train_from_the_command_line(tmp_path):
    sizes = ["--frame-size", 16, "--channels", 8, 8, "--blocks", 0, 0, "--time-stride", 2, "--num-frames", 5]
    short = ["--num-steps", 2, "--batch-size", 2, "--validation-batches", 1, "--device", "cpu"]
    flags = ["--model", "magvit2", "--use-dummy-data", *sizes, *short]
    assert call(TRAIN, *flags, "--checkpoint-dir", tmp_path) == 0
    assert (tmp_path / "samples.png").exists()
