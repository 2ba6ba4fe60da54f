"""Dreamer 4's tokenizer. The paper says of it six things in three sentences; each is tested here by an intervention.

A checklist with line numbers shows that code with the right name is there. An intervention shows what the code does: change one
thing, and see what moves and what does not.
"""

import pytest
import torch
from einops import rearrange
from tiny_tokenizers import BLACK, built, scrolling_walls

from tokenizer_variants.dreamer4.parts import hidden_patches
from video_tokenizer.data.clips import to_frames
from video_tokenizer.metrics import psnr_db
from video_tokenizer.training.optimizer import build_optimizer


@pytest.fixture(scope="module")
def trained():
    """A tokenizer that has seen 2,800 walls scroll past and may keep two numbers of each frame."""
    tokenizer = built(
        patch_size=4, num_latents=2, latent_channels=1, perceptual="none", foreground_weight=0.0, moving_weight=0.0,
        optimizer="adamw", query_key_scale=1.0,
    ).train()  # fmt: skip
    tokenizer.fit_statistics(to_frames(scrolling_walls(256, 1, seed=-1))[:, 0])
    optimizer = build_optimizer(tokenizer, tokenizer.config)
    for step in range(350):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * min(1, (350 - step) / 150)
        video = scrolling_walls(8, 4, seed=step)
        optimizer.zero_grad()
        sum(tokenizer.loss(video, tokenizer(video), BLACK).values()).backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
    return tokenizer.eval()


@pytest.fixture
def clip():
    """(2, 5, 3, 16, 16) random pixels: whatever can be seen is different everywhere."""
    return torch.rand(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# ---- claim 1: "the tokenizer encodes partially masked image patches and latent tokens" ----------------------------------


@torch.no_grad()
def test_the_latents_do_not_know_what_is_behind_the_mask(clip):
    tokenizer = built()
    hidden = torch.zeros(2, 5, 4, dtype=torch.bool)
    hidden[:, :, 0] = True  # the patch of the upper left corner, pixels (0 to 7, 0 to 7)
    behind, beside = clip.clone(), clip.clone()
    behind[..., :8, :8] = 0.0
    beside[..., 7, 8] = 0.0  # the first visible pixel to the right of the mask
    codes = tokenizer.encoder(clip, hidden)[0]
    assert torch.equal(tokenizer.encoder(behind, hidden)[0], codes)
    assert not torch.equal(tokenizer.encoder(beside, hidden)[0], codes)
    assert not torch.equal(tokenizer.encoder(behind)[0], tokenizer.encoder(clip)[0])  # without the mask it is seen


def test_every_image_hides_a_share_of_its_own_between_none_and_nine_tenths():
    torch.manual_seed(0)
    shares = hidden_patches(10_000, 1_000, 0.9, torch.device("cpu")).float().mean(dim=1)  # (images,)
    assert shares.min() < 0.02 and 0.85 < shares.max() < 0.9 + 0.05
    assert abs(shares.mean() - 0.45) < 0.01 and abs(shares.std() - 0.9 / 12**0.5) < 0.01  # U(0, 0.9)
    frames = built().train().random_mask(torch.zeros(1, 4_000, 3, 16, 16))[0].float().mean(dim=1)
    assert set(frames.tolist()) == {0, 0.25, 0.5, 0.75, 1}  # of one clip's frames, not one share for a batch


def test_the_mask_token_is_learned_and_only_training_uses_it(clip):
    tokenizer = built().train()
    sum(tokenizer.loss(clip, tokenizer(clip), BLACK).values()).backward()
    assert tokenizer.encoder.mask_token.weight.grad.abs().sum() > 0
    with torch.no_grad():
        before = tokenizer.eval()(clip).codes
        tokenizer.encoder.mask_token.weight.add_(1.0)
        assert torch.equal(tokenizer(clip).codes, before)


# ---- claim 2: "squeezes the latents through a low-dimensional projection with tanh activation" --------------------------


def survives_another_video(tokenizer, draw, first, second) -> bool:
    """Whether a picture stays as it is, to the bit, when the video behind it is replaced and only its codes are held fixed."""
    codes = tokenizer.encoder(first)[0]
    handle = tokenizer.encoder.bottleneck.register_forward_hook(lambda *_: codes)
    try:
        return torch.equal(draw(first), draw(second))
    finally:
        handle.remove()


@torch.no_grad()
def test_all_that_is_drawn_has_come_through_the_bottleneck(clip):
    tokenizer = built()
    assert not torch.equal(tokenizer(clip).reconstruction, tokenizer(1 - clip).reconstruction)
    assert survives_another_video(tokenizer, lambda video: tokenizer(video).reconstruction, clip, 1 - clip)

    def beside_the_bottleneck(video):
        """Draw from the encoder's own patches, with the bottleneck as a branch that no picture waits for."""
        tokenizer(video)
        return tokenizer.decoder.patch_unembedding(tokenizer.encoder.patch_embedding(video))

    assert not survives_another_video(tokenizer, beside_the_bottleneck, clip, 1 - clip)  # the test can fail


def test_given_the_codes_no_pixel_of_the_input_moves_the_picture(clip):
    tokenizer, video = built(), clip.clone().requires_grad_()
    handle = tokenizer.encoder.bottleneck.register_forward_hook(lambda _, __, codes: codes.detach())
    drawn = tokenizer(video).reconstruction
    assert not drawn.requires_grad or torch.autograd.grad(drawn.sum(), video, allow_unused=True)[0] is None
    handle.remove()
    assert torch.autograd.grad(tokenizer(video).reconstruction.sum(), video)[0].abs().sum() > 0


@torch.no_grad()
def test_the_bottleneck_is_narrow_bounded_and_trained(clip):
    tokenizer = built()
    tokenizer.encoder.bottleneck.linear.weight.mul_(1e3)
    codes = tokenizer.encode(clip).codes
    assert codes.shape == (2, 5, 4, 3) and 0.99 < codes.abs().max() <= 1
    assert 4 * 3 < 3 * 16 * 16 / 50  # 12 numbers for 768
    fresh = built().train()
    with torch.enable_grad():
        sum(fresh.loss(clip, fresh(clip), BLACK).values()).backward()
    assert fresh.encoder.bottleneck.linear.weight.grad.abs().min() > 0  # by the error of the picture, not by a side branch


# ---- claim 3: "and decodes the patches" ---------------------------------------------------------------------------------


@torch.no_grad()
def test_decoding_is_the_path_that_was_trained(trained):
    video = scrolling_walls(16, 4, seed=10_000)
    drawn = trained.decode(trained.encode(video).codes)
    assert torch.allclose(drawn, trained(video).reconstruction, atol=1e-5)
    grey = psnr_db(video.mean().expand_as(video), video)
    assert psnr_db(drawn, video) > grey + 2  # without a mask, of walls never seen


def test_the_loss_is_over_all_patches_the_hidden_ones_too(clip):
    tokenizer = built(largest_hidden_share=0.99).train()
    output = tokenizer(clip)
    output.reconstruction.retain_grad()
    sum(tokenizer.loss(clip, output, BLACK).values()).backward()
    patches = rearrange(output.reconstruction.grad.abs(), "b t c (y p) (x q) -> b t (y x) (c p q)", p=8, q=8).sum(dim=-1)
    assert output.hidden.any() and (patches > 0).all()
    seen = tokenizer.seen_pixels(output)[:, :, 0, ::8, ::8].flatten(2)  # one pixel of each patch
    assert torch.equal(seen, ~output.hidden)
    assert patches[seen].mean() > 3 * patches[~seen].mean()  # the weights of what moves hold where it could be seen


# ---- claim 4: "it uses causal attention to achieve temporal compression" ------------------------------------------------


@torch.no_grad()
def test_a_later_frame_changes_nothing_and_an_earlier_one_does(clip):
    tokenizer = built()
    later, earlier = clip.clone(), clip.clone()
    later[:, 3], earlier[:, 2] = 0.0, 0.0
    before = tokenizer(clip)
    after = tokenizer(later)
    assert torch.equal(before.codes[:, :3], after.codes[:, :3])
    assert torch.equal(before.reconstruction[:, :3], after.reconstruction[:, :3])
    assert not torch.equal(before.codes[:, 3], tokenizer(earlier).codes[:, 3])
    drawn = tokenizer.decode(torch.cat([before.codes[:, :2], -before.codes[:, 2:3], before.codes[:, 3:]], dim=1))
    assert not torch.equal(before.reconstruction[:, 3], drawn[:, 3])  # the decoder remembers as well


@torch.no_grad()
def test_frames_with_their_past_are_drawn_better_than_alone(trained):
    video = scrolling_walls(32, 4, seed=20_000)
    assert trained.diagnostics(video).scores["context_gain_db"] > 1
    still = video[:, :1].expand(-1, 4, -1, -1, -1)
    codes = trained.encode(still).codes
    assert torch.allclose(codes[:, :1].expand_as(codes), codes, atol=1e-5)  # nothing moves: the past has nothing to add


@torch.no_grad()
def test_inside_a_step_each_kind_of_token_sees_what_it_should():
    tokenizer = built(context_frames=1)
    tokens = torch.randn(1, 1, 6 + 4, 32)  # 4 latents and 2 registers, 4 patches
    others = torch.cat([tokens[:, :, :6], -tokens[:, :, 6:]], dim=2)  # other patches
    latents, patches = slice(0, 6), slice(6, 10)
    encoder, decoder = tokenizer.encoder.transformer, tokenizer.decoder.transformer
    assert not torch.equal(encoder(tokens)[:, :, latents], encoder(others)[:, :, latents])  # the encoder's latents read patches
    assert torch.equal(decoder(tokens)[:, :, latents], decoder(others)[:, :, latents])  # the decoder's do not read readouts
    others = torch.cat([-tokens[:, :, :6], tokens[:, :, 6:]], dim=2)  # other latents
    assert torch.equal(encoder(tokens)[:, :, patches], encoder(others)[:, :, patches])  # patches read only patches
    assert not torch.equal(decoder(tokens)[:, :, patches], decoder(others)[:, :, patches])  # readouts read latents
    others = tokens.clone()
    others[:, :, 9] = 0.0  # another last patch
    for transformer in (encoder, decoder):
        assert not torch.equal(transformer(tokens)[:, :, 6], transformer(others)[:, :, 6])  # and each other


# ---- claim 5: "while allowing frames to be decoded one by one" ----------------------------------------------------------


@torch.no_grad()
def test_frames_come_one_by_one_for_longer_than_any_clip_of_the_training_and_memory_stays_flat():
    tokenizer = built()
    video = torch.rand(1, 40, 3, 16, 16)
    together = tokenizer.encode(video).codes
    drawn = tokenizer.decode(together)
    encoder_cache = decoder_cache = None
    sizes = []
    for t in range(video.shape[1]):
        encoded, encoder_cache = tokenizer.encode_next(video[:, t : t + 1], encoder_cache)
        frame, decoder_cache = tokenizer.decode_next(encoded.codes, decoder_cache)
        assert torch.allclose(encoded.codes[:, 0], together[:, t], atol=1e-4), t
        assert torch.allclose(frame[:, 0], drawn[:, t], atol=1e-4), t
        kept = [tensor for cache in (encoder_cache, decoder_cache) for pair in cache.blocks for tensor in pair]
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept))  # what is held, also by a view
    assert len(video[0]) > 3 * tokenizer.config.num_frames and len(kept) == 4  # keys and values of one layer each
    assert set(sizes[3:]) == {sizes[3]} and sizes[3] > 0
    assert encoder_cache.position == 40 and encoder_cache.num_kept == tokenizer.config.context_frames - 1
