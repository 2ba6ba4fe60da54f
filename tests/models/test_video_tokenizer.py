"""Claims about the tokenizer: causal, streamable, rebuilt bit by bit, every parameter alive."""

from dataclasses import asdict, replace

import pytest
import torch

from video_tokenizer import load_tokenizer
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import foreground_pixels, moving_pixels, temporal_consistency_loss, weighted_mse
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint

TINY = TokenizerConfig(frame_size=16, patch_size=8, embed_dim=32, num_blocks=2, num_heads=2, context_frames=3)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return build_tokenizer(TINY).eval()


@pytest.fixture
def clip():
    return torch.rand(2, 7, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_token_never_depends_on_a_later_frame(tokenizer, clip):
    changed = clip.clone()
    changed[:, 4:] = 0.0
    assert torch.equal(tokenizer.encode(clip).indices[:, :4], tokenizer.encode(changed).indices[:, :4])
    assert not torch.equal(tokenizer.encode(clip).indices[:, 4], tokenizer.encode(changed).indices[:, 4])


def test_a_decoded_frame_never_depends_on_a_later_token(tokenizer, clip):
    indices = tokenizer.encode(clip).indices
    changed = indices.clone()
    changed[:, 4:] = (changed[:, 4:] + 500) % 1000
    before, after = tokenizer.decode_indices(indices), tokenizer.decode_indices(changed)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4], after[:, 4])


def test_the_decoder_does_use_the_frames_before(tokenizer, clip):
    indices = tokenizer.encode(clip).indices
    changed = indices.clone()
    changed[:, 3] = (changed[:, 3] + 500) % 1000
    assert not torch.allclose(tokenizer.decode_indices(indices)[:, 4], tokenizer.decode_indices(changed)[:, 4])


@torch.no_grad()
def test_frame_by_frame_equals_all_at_once_beyond_the_period_of_the_clock():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TINY).eval()
    clip = torch.rand(1, tokenizer.positions.period + 9, 3, 16, 16)
    together = tokenizer.encode(clip)
    video = tokenizer.decode_indices(together.indices)
    encoder_cache = decoder_cache = None
    for t in range(clip.shape[1]):
        encoded, encoder_cache = tokenizer.encode_frame(clip[:, t], encoder_cache)
        frame, decoder_cache = tokenizer.decode_frame(encoded.indices, decoder_cache)
        assert torch.equal(encoded.indices, together.indices[:, t]), t
        assert torch.allclose(frame, video[:, t], atol=1e-5), t


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_every_parameter_receives_a_gradient(clip, stem):
    tokenizer = build_tokenizer(replace(TINY, stem=stem)).train()
    background = torch.zeros(3, 16, 16)
    weighted_mse(tokenizer(clip).reconstruction, clip, background, 10.0).backward()
    dead = [name for name, parameter in tokenizer.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


def test_pixels_of_0_to_255_are_refused(tokenizer):
    with pytest.raises(ValueError, match="divide uint8 pixels by 255"):
        tokenizer.encode(torch.full((1, 1, 3, 16, 16), 200.0))


def test_a_compiled_model_saves_the_same_names(tokenizer, tmp_path):
    weights = {f"_orig_mod.{name}": tensor for name, tensor in tokenizer.state_dict().items()}
    save_checkpoint(tmp_path / "tokenizer.pt", "tokenizer", TINY.model, asdict(TINY), weights, 7, {}, "data")
    load_tokenizer(tmp_path / "tokenizer.pt")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"patch_size": 7}, "frame_size 16 is not a multiple of patch_size 7"),
        ({"patch_size": 32}, "frame_size 16 is smaller than patch_size 32"),
        ({"num_heads": 3}, "embed_dim 32 is not a multiple of num_heads 3"),
        ({"levels": (8, 1)}, "must all be at least 2"),
        ({"frame_size": None}, "frame_size is not known"),
    ],
)
def test_sizes_that_clash_are_refused_with_both_numbers(change, words):
    with pytest.raises(InputError, match=words):
        build_tokenizer(replace(TINY, **change))


def test_the_weighted_loss_counts_a_ball_that_the_plain_mean_overlooks():
    background = torch.zeros(3, 8, 8)
    video = torch.zeros(1, 1, 3, 8, 8)
    video[..., 4, 4] = 1.0  # one bright pixel of 64
    assert foreground_pixels(video, background).sum() == 1 and moving_pixels(video).sum() == 0
    erased = torch.zeros_like(video)
    assert weighted_mse(erased, video, background, 0.0) == pytest.approx(1 / 64)
    assert weighted_mse(erased, video, background, 10.0) == pytest.approx(11 / (63 + 11))


def test_a_pixel_that_moved_away_counts_as_well():
    video = torch.zeros(1, 2, 3, 8, 8)
    video[0, 0, :, 1, 1] = 1.0
    video[0, 1, :, 1, 2] = 1.0
    moving = moving_pixels(video)[0, :, 0]
    assert moving[1, 1, 1] and moving[1, 1, 2] and moving.sum() == 2
    still = video[:, :1].expand(-1, 2, -1, -1, -1)  # a picture in which the old place is kept is wrong in two pixels
    assert weighted_mse(still, video, torch.zeros(3, 8, 8), 0.0, 40.0) == pytest.approx(2 * 41 / (128 + 2 * 40))


def test_a_patch_at_rest_is_asked_to_keep_its_token():
    video = torch.rand(1, 1, 3, 16, 16).expand(-1, 3, -1, -1, -1).clone()
    video[:, 2, :, :8, :8] = 0.0  # the first of four patches changes in the last frame
    latents = torch.zeros(1, 3, 4, 4)
    latents[0, 2, 0] = 5.0
    assert temporal_consistency_loss(latents, video, 8) == 0.0  # it may take another token
    latents[0, 1, 3] = torch.atanh(torch.tensor(0.5))
    assert temporal_consistency_loss(latents, video, 8) == pytest.approx(2 * 0.25 / 7, rel=1e-4)  # one more patch


def test_a_step_of_two_frames_is_at_rest_when_both_are():
    video = torch.rand(1, 1, 3, 16, 16).expand(-1, 3, -1, -1, -1).clone()
    video[:, 1, :, :8, :8] = 0.0  # the first of four patches flashes in the middle of the one step from latent to latent
    latents = torch.zeros(1, 2, 4, 4)
    latents[0, 1, 0] = 5.0
    assert temporal_consistency_loss(latents, video, 8) == 0.0
    latents[0, 1, 3] = 5.0
    assert temporal_consistency_loss(latents, video, 8) == pytest.approx(1 / 3, rel=1e-3)
