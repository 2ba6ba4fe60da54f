"""Dreamer 4's tokenizer. The paper says six things about it in three sentences; each is tested here by an intervention.

A checklist with line numbers shows that code with the right name is there. An intervention shows what the code does: change one
thing, and see what moves and what does not.
"""

import numpy as np
import pytest
import tiny_dynamics
import torch
from einops import rearrange
from tiny_tokenizers import BLACK, built, scrolling_walls, tiny_config

from tokenizer_variants.dreamer4 import model as dreamer4
from tokenizer_variants.dreamer4.block_causal_transformer import (
    BlockCausalSizes,
    BlockCausalTransformer,
    RotaryAttention,
    angles,
    rotate,
)
from tokenizer_variants.dreamer4.model import RunningScale
from tokenizer_variants.dreamer4.parts import hidden_patches
from tokenizer_variants.perceptual import PerceptualDistance
from video_tokenizer.data.clips import to_frames
from video_tokenizer.errors import InputError
from video_tokenizer.losses import weighted_mse
from video_tokenizer.metrics import psnr_db
from video_tokenizer.training.optimizer import build_optimizer


def backward(tokenizer, video, output=None) -> None:
    """Gradients of the whole loss."""
    losses = tokenizer.loss(video, tokenizer(video) if output is None else output, BLACK)
    torch.stack([*losses.values()]).sum().backward()


@pytest.fixture(scope="module")
def trained():
    """A tokenizer that has seen 5,600 walls scroll past and may keep two numbers of each frame."""
    tokenizer = built(
        patch_size=4, num_latents=2, latent_channels=1, perceptual="none", foreground_weight=0.0, moving_weight=0.0,
        optimizer="adamw", query_key_scale=1.0,
    ).train()  # fmt: skip
    tokenizer.fit_statistics(to_frames(scrolling_walls(256, 1, seed=-1))[:, 0])
    optimizer = build_optimizer(tokenizer, tokenizer.config)
    for step in range(700):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * min(1, (700 - step) / 300)
        video = scrolling_walls(8, 4, seed=step)
        optimizer.zero_grad()
        backward(tokenizer, video)
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
    backward(tokenizer, clip)
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
        backward(fresh, clip)
    assert fresh.encoder.bottleneck.linear.weight.grad.abs().min() > 0  # by the error of the picture, not by a side branch


# ---- claim 3: "and decodes the patches" ---------------------------------------------------------------------------------


@torch.no_grad()
def test_decoding_is_the_path_that_was_trained(trained):
    video = scrolling_walls(16, 4, seed=10_000)
    drawn = trained.decode(trained.encode(video).codes)
    assert torch.allclose(drawn, trained(video).reconstruction, atol=1e-5)
    gray = psnr_db(video.mean().expand_as(video), video)
    assert psnr_db(drawn, video) > gray + 2  # without a mask, of walls never seen


def test_the_loss_is_over_all_patches_the_hidden_ones_too(clip):
    tokenizer = built(largest_hidden_share=0.99).train()
    output = tokenizer(clip)
    output.reconstruction.retain_grad()
    backward(tokenizer, clip, output)
    patches = rearrange(output.reconstruction.grad.abs(), "b t c (y p) (x q) -> b t (y x) (c p q)", p=8, q=8).sum(dim=-1)
    assert output.hidden.any() and (patches > 0).all()
    seen = tokenizer.seen_pixels(output)[:, :, 0, ::8, ::8].flatten(2)  # one pixel of each patch
    assert torch.equal(seen, ~output.hidden)
    assert patches[seen].mean() > 3 * patches[~seen].mean()  # the weights of what moves hold where it could be seen


# ---- claim 4: "it uses causal attention to achieve temporal compression"; causality itself: test_variants.py -------------


@torch.no_grad()
def test_an_earlier_frame_changes_later_codes_and_pictures(clip):
    tokenizer = built()
    earlier, before = clip.clone(), tokenizer(clip)
    earlier[:, 2] = 0.0
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
    encoder_cache, decoder_cache, sizes = None, None, []
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


# ---- claim 6: the same architecture for the tokenizer and for the dynamics model -------------------------------------------

BOTH = ["encoder", "decoder", "dynamics"]


def transformer_of(name: str) -> BlockCausalTransformer:
    """The transformer of the tokenizer's encoder or decoder, or of the dynamics model on its latents; four layers, fresh."""
    if name == "dynamics":
        return tiny_dynamics.built("dreamer4", time_every=4, key_value_heads=1, soft_cap=50.0).transformer  # type: ignore[return-value]
    return getattr(built(num_layers=4), name).transformer


@pytest.mark.parametrize("name", BOTH)
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
    transformers = [transformer_of(name) for name in BOTH]
    assert {type(transformer) for transformer in transformers} == {BlockCausalTransformer}
    names = [{name for name, _ in transformer.named_parameters()} for transformer in transformers]
    assert names[0] == names[1] == names[2]
    deep = BlockCausalTransformer(BlockCausalSizes(32, 2, 12, 3), torch.ones(2, 2).bool(), torch.zeros(2, 2))
    assert [number for number, layer in enumerate(deep.layers) if layer.looks_back] == [1, 5, 9]


def test_rotated_vectors_meet_at_their_distance_whatever_their_places():
    """Place 5 is to place 2 as place 9 is to place 6, and not as 2 is to 5."""
    quarter = rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([[torch.pi / 2]]))
    assert torch.allclose(quarter, torch.tensor([[0.0, 1.0]]), atol=1e-6)
    turns = angles(torch.arange(12), num_pairs=2, base=100.0)
    assert torch.allclose(turns[1], torch.tensor([1.0, 0.1]))  # one radian a place, then a tenth
    query, key = torch.randn(4), torch.randn(4)
    queries, keys = (rotate(vector.expand(12, 4), turns) for vector in (query, key))
    meetings = queries @ keys.T  # (12, 12)
    assert torch.allclose(meetings[5, 2], meetings[9, 6], atol=1e-5) and not torch.allclose(meetings[5, 2], meetings[2, 5])
    assert torch.allclose(queries.norm(dim=1), query.norm().expand(12), atol=1e-5)


def test_the_soft_cap_bounds_what_attention_can_want():
    """With a cap of almost 0 all scores are equal, and attention is the mean over all tokens."""
    torch.manual_seed(0)
    tokens, everyone, turns = torch.randn(1, 10, 32), torch.ones(10, 10).bool(), torch.zeros(10, 16)
    free, capped = (RotaryAttention(BlockCausalSizes(32, 1, 1, 1, soft_cap=cap)) for cap in (0.0, 1e-6))
    capped.load_state_dict(free.state_dict())
    values = free.to_qkv(tokens).chunk(3, dim=-1)[2]
    mean = free.output(values.mean(dim=1, keepdim=True).expand_as(values))
    assert torch.allclose(capped(tokens, everyone, turns)[0], mean, atol=1e-4)
    assert not torch.allclose(free(tokens, everyone, turns)[0], mean, atol=1e-2)


# ---- the loss: every term over its running root mean square ----------------------------------------------------------------


def gradients_of(monkeypatch, factor: float, **changes) -> list[torch.Tensor]:
    """Gradients of three steps on images whose loss is `factor` times as large."""
    distance = PerceptualDistance.__call__
    with monkeypatch.context() as patched:
        patched.setattr(dreamer4, "weighted_mse", lambda *given: factor * weighted_mse(*given))
        patched.setattr(PerceptualDistance, "__call__", lambda *given: factor * distance(*given))
        tokenizer = built(largest_hidden_share=0.0, **changes).train()
        tokenizer.fit_statistics(to_frames(scrolling_walls(8, 1, seed=9))[:, 0])
        found = []
        for step in range(3):
            video = scrolling_walls(2, 3, seed=step)
            tokenizer.zero_grad()
            backward(tokenizer, video)
            gradients = [parameter.grad for parameter in tokenizer.parameters() if parameter.grad is not None]
            found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return found


def test_a_loss_a_hundred_times_as_large_has_the_same_gradient(monkeypatch):
    once, hundred_times = gradients_of(monkeypatch, 1.0), gradients_of(monkeypatch, 100.0)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(once, hundred_times, strict=True))
    plain = gradients_of(monkeypatch, 1.0, normalise_losses=False), gradients_of(monkeypatch, 100.0, normalise_losses=False)
    assert torch.allclose(100 * plain[0][0], plain[1][0], rtol=1e-3, atol=1e-4)  # what the division takes away


def test_the_running_scale_is_a_mean_of_squares_at_first():
    scale = RunningScale()
    assert scale(torch.tensor(3.0)) == 1.0  # 3 / sqrt(9)
    assert torch.isclose(scale(torch.tensor(4.0)), torch.tensor(4 / 12.5**0.5))  # sqrt((9 + 16) / 2)
    scale.eval()
    assert torch.isclose(scale(torch.tensor(5.0)), torch.tensor(5 / 12.5**0.5)) and scale.num_updates == 2
    again = RunningScale()
    again.load_state_dict(scale.state_dict())
    assert again(torch.tensor(6.0)) == scale.train()(torch.tensor(6.0))


def test_the_perceptual_term_sees_a_missing_dot_and_can_be_left_out():
    video = torch.zeros(1, 1, 3, 16, 16)
    video[..., 8, 8] = 0.5
    distance = PerceptualDistance("ssim", 1, "float32", torch.device("cpu"))
    assert distance(video, video) < 1e-6 and distance(torch.zeros_like(video), video) > 0.1
    assert psnr_db(torch.zeros_like(video), video) > 25  # which the squared error hardly notices
    tokenizer = built(perceptual="none").train()
    assert tokenizer.loss(video, tokenizer(video), BLACK).keys() == {"pixels"}


def test_without_the_weights_of_lpips_training_ends_before_its_first_step(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=f"AlexNet's weights in {tmp_path}/checkpoints/alexnet"):
        built(perceptual="lpips").fit_statistics(np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(("changes", "words"), [
    ({"patch_size": 5}, "frame_size 16 is not a multiple of patch_size 5"),
    ({"embed_dim": 36}, r"embed_dim 36 is not a multiple of 4 \* num_heads 2"),
    ({"time_every": 1}, "time_every 1 must lie between 2 and"),
    ({"num_latents": 0}, "num_latents 0 must lie between 1 and"),
    ({"largest_hidden_share": 1.0}, "largest_hidden_share 1.0 must lie between 0 and 0.99"),
    ({"soft_cap": -1.0}, "soft_cap -1.0"),
])  # fmt: skip
def test_sizes_that_cannot_work_are_refused_with_their_numbers(changes, words):
    with pytest.raises(InputError, match=words):
        tiny_config("dreamer4", **changes).check()
