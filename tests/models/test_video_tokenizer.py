"""Claims about the tokenizer: causal, streamable, rebuilt bit by bit, every parameter alive."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from video_tokenizer import load_tokenizer
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.errors import InputError
from video_tokenizer.losses import foreground_pixels, moving_pixels, pixels_of, temporal_consistency_loss, weighted_mse
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


def test_a_ball_too_many_costs_as_much_as_a_missing_one_once_its_patch_counts():
    video = torch.zeros(1, 2, 3, 8, 8)
    video[0, 1, :, 1, 1] = 1.0  # appears in the first of four patches of 4 x 4
    erased, doubled = torch.zeros_like(video), video.clone()
    doubled[0, 1, :, 2, 2] = 1.0
    black = torch.zeros(3, 8, 8)
    assert weighted_mse(erased, video, black, 0.0, 40.0) == pytest.approx(41 / (128 + 40))
    assert weighted_mse(doubled, video, black, 0.0, 40.0) == pytest.approx(1 / (128 + 40))
    assert weighted_mse(doubled, video, black, 0.0, 0.0, 3.0, patch_size=4) == pytest.approx(4 / (128 + 3 * 16))
    assert weighted_mse(erased, video, black, 0.0, 0.0, 3.0, patch_size=4) == pytest.approx(4 / (128 + 3 * 16))


def test_the_votes_of_a_moving_patch_and_the_rest_of_the_tokens_come_late():
    config = TokenizerConfig(patch_share=0.25, patch_weight=3.0, stability_weight=0.1)
    assert config.phase(0.4) == (0.25, 0.0, 0.0) and config.phase(0.55) == (0.25, 0.0, 0.1)
    assert config.phase(0.7) == (0.25, 3.0, 0.1) and config.phase(0.9) == (1.0, 3.0, 0.1)
    assert replace(config, patch_weight_from=0.0).phase(0.001) == (0.25, 3.0, 0.0)


def test_a_step_works_on_the_patches_that_move_and_copies_the_others():
    torch.manual_seed(0)
    tokenizer: Any = build_tokenizer(replace(TINY, frame_size=32)).train()  # 4 x 4 patches
    video = torch.rand(2, 1, 3, 32, 32).repeat(1, 3, 1, 1, 1)
    video[0, 1, :, 9, 9] += 0.5  # patch 5 of the first clip, patches 0 and 15 of the second
    video[1, 2, :, 0, 0] += 0.5
    video[1, 2, :, 31, 31] += 0.5
    output = tokenizer(video.clamp(0, 1), patch_share=0.25)
    assert output.patches.shape == (2, 4) and output.indices.shape == (2, 3, 4)
    assert 5 in output.patches[0] and {0, 15} <= set(output.patches[1].tolist())
    shown = pixels_of(output.patches, (32, 32), 8)
    assert shown.sum() == 2 * 4 * 64
    same = (output.reconstruction == video.clamp(0, 1)).all(dim=2, keepdim=True)
    assert torch.equal(same.all(dim=1, keepdim=True), ~shown)


@torch.no_grad()
def test_all_patches_in_any_order_give_what_whole_frames_give(clip):
    torch.manual_seed(0)
    tokenizer: Any = build_tokenizer(TINY).eval()
    patches = torch.tensor([[2, 0, 3, 1], [0, 3, 2, 1]])
    places = patches[:, None, :, None].expand(-1, clip.shape[1], -1, 4)
    whole = tokenizer._latents(clip, 0)
    assert torch.allclose(tokenizer._latents(clip, 0, patches), whole.gather(2, places), atol=1e-5)
    codes = tokenizer.quantizer(whole).codes
    shuffled = codes.gather(2, places)
    assert torch.allclose(tokenizer._decode(shuffled, 0, patches), tokenizer._decode(codes, 0), atol=1e-5)


def test_the_median_frame_is_subtracted_added_again_and_saved(tmp_path):
    frames = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)).numpy()
    tokenizer: Any = build_tokenizer(TINY)
    tokenizer.fit_statistics(frames)
    tokenizer.patch_unembedding.requires_grad_(False)
    for parameter in tokenizer.patch_unembedding.parameters():
        parameter.zero_()
    save_checkpoint(tmp_path / "tokenizer.pt", "tokenizer", TINY.model, asdict(TINY), tokenizer.state_dict(), 7, {}, "data")
    loaded = load_tokenizer(tmp_path / "tokenizer.pt")
    median = torch.from_numpy(np.median(frames, axis=0)).float().permute(2, 0, 1) / 255
    assert torch.equal(loaded.decode_indices(torch.zeros(1, 1, 4, dtype=torch.int64))[0, 0], median)  # nothing drawn: the median


def test_a_checkpoint_that_names_no_background_subtracts_grey(tmp_path):
    config = asdict(replace(TINY, background="grey"))
    del config["background"]
    weights = build_tokenizer(replace(TINY, background="grey")).state_dict()
    assert "background" not in weights
    save_checkpoint(tmp_path / "tokenizer.pt", "tokenizer", TINY.model, config, weights, 7, {}, "data")
    loaded: Any = load_tokenizer(tmp_path / "tokenizer.pt")
    assert (loaded.background == 0.5).all()


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
