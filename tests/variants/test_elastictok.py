"""ElasticTok: what makes it that system and not another (EECS-2024-193, chapter 4), box by box."""

import pytest
import torch
from tiny_tokenizers import tiny_config

from tokenizer_variants.elastictok.config import PAPER, ElasticConfig
from video_tokenizer.errors import InputError
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint
from video_tokenizer.training.optimizer import build_optimizer
from video_tokenizer.training.run import load_initial_weights


def built(**changes):
    """A tokenizer of frames of 16x16 with 16 tokens each, of which 2 to 16 are kept in training."""
    torch.manual_seed(0)
    return build_tokenizer(tiny_config("elastictok", **changes)).eval()


@pytest.fixture
def clip():
    """(2, 4, 3, 16, 16) in [0, 1]."""
    return torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# ---- EL1: tail dropping -------------------------------------------------------------------------------------------------


def test_lengths_are_drawn_evenly_for_each_block_from_the_fewest_to_all_both_included():
    lengths = built(min_tokens=2).sample_lengths(torch.zeros(5_000, 4, 1))  # (5000, 4)
    counts = torch.bincount(lengths.flatten(), minlength=17)
    assert (counts[:2] == 0).all() and len(counts) == 17
    assert (counts[2:] - 20_000 / 15).abs().max() < 200  # each of 15 lengths 1,333 times, give or take
    together = torch.corrcoef(lengths.float().T)
    assert (together - torch.eye(4)).abs().max() < 0.05  # a block's length says nothing about its neighbour's


def test_a_length_of_three_keeps_three_tokens_and_they_are_the_first():
    tokenizer = built()
    kept = tokenizer.kept_places(torch.tensor([[1, 3, 16, 0]]), torch.zeros(1, 4, 1))
    assert kept.sum(dim=-1).tolist() == [[1, 3, 16, 0]]
    assert kept[0, 1].tolist() == [True] * 3 + [False] * 13
    shared = built(block_frames=2).kept_places(torch.tensor([[20, 3]]), torch.zeros(1, 4, 1))
    assert shared.sum(dim=-1).tolist() == [[16, 4, 3, 0]]  # one length a block: 20 of the 32 tokens of two frames, then 3


def test_training_drops_and_evaluation_keeps_all(clip):
    tokenizer = built()
    assert (tokenizer(clip).codes.abs().amax(dim=-1) > 0).float().mean() > 0.9
    dropped = (tokenizer.train()(clip).codes == 0).all(dim=-1)  # (B, T, N)
    lengths = 16 - dropped.sum(dim=-1)
    assert dropped.any() and len(lengths.unique()) > 2


# ---- EL2: the encoder is told, and the decoder sees zeros -----------------------------------------------------------------


@torch.no_grad()
def test_a_kept_token_says_something_else_when_others_are_dropped(clip):
    tokenizer = built(bottleneck="vae")
    few, all_kept = tokenizer.encode_to_length(clip, 4).codes, tokenizer.encode(clip).codes
    assert (few[:, :, :4] - all_kept[:, :, :4]).abs().max() > 1e-3
    tokenizer.dropped_or_kept.weight.copy_(tokenizer.dropped_or_kept.weight[:1].expand(2, -1))  # now it is told nothing
    few, all_kept = tokenizer.encode_to_length(clip, 4).codes, tokenizer.encode(clip).codes
    assert torch.equal(few[:, :, :4], all_kept[:, :, :4])


@torch.no_grad()
def test_dropped_tokens_are_zero_and_nothing_of_them_reaches_the_picture(clip):
    tokenizer = built(levels=(8, 5, 5, 5))
    encoded = tokenizer.encode_to_length(clip, 5)
    assert (encoded.codes[:, :, 5:] == 0).all()
    assert torch.equal(encoded.codes, tokenizer.indices_to_codes(encoded.indices))
    middle = 4 + 8 * (2 + 5 * (2 + 5 * 2))  # level 0 of every dimension: digits 4, 2, 2, 2
    assert (encoded.indices[:, :, 5:] == middle).all()  # a dropped token looks like the middle code


# ---- EL3: attention, blocks, one set of weights for any number of them ----------------------------------------------------


@pytest.mark.parametrize(("block_frames", "changed", "first_to_notice"), [(1, 2, 2), (2, 3, 2), (2, 2, 2), (4, 3, 0)])
@torch.no_grad()
def test_a_block_sees_all_of_itself_and_nothing_later(clip, block_frames, changed, first_to_notice):
    tokenizer = built(block_frames=block_frames, context_blocks=4, bottleneck="vae")
    other = clip.clone()
    other[:, changed] = 1 - other[:, changed]
    codes, other_codes = tokenizer.encode(clip).codes, tokenizer.encode(other).codes
    assert ((codes != other_codes).flatten(2).any(dim=-1) == (torch.arange(4) >= first_to_notice)).all()
    codes = codes.clone()
    video = tokenizer.decode(codes)
    codes[:, changed] += 1
    noticed = (tokenizer.decode(codes) != video).flatten(2).any(dim=-1)
    assert (noticed == (torch.arange(4) >= first_to_notice)).all()


@torch.no_grad()
def test_a_block_looks_back_as_far_as_its_window_and_layers_reach():
    tokenizer = built(context_blocks=2, num_layers=2, bottleneck="vae")
    clip = torch.rand(1, 6, 3, 16, 16)
    other = clip.clone()
    other[:, 0] = 0.0
    noticed = (tokenizer.encode(clip).codes != tokenizer.encode(other).codes).flatten(2).any(dim=-1)
    assert noticed[0].tolist() == [True, True, True, False, False, False]  # one block back a layer


@torch.no_grad()
def test_blocks_without_a_past_are_encoded_as_single_clips(clip):
    alone = built(context_blocks=1)
    together, apart = alone.encode(clip).indices, alone.encode(clip.flatten(0, 1)[:, None]).indices
    assert torch.equal(together.flatten(0, 1), apart[:, 0])


def test_more_blocks_need_no_new_parameters():
    shapes = [{key: value.shape for key, value in built(context_blocks=blocks).state_dict().items()} for blocks in (1, 8)]
    assert shapes[0] == shapes[1]


def started(path, name="elastictok", **changes):
    """The tokenizer that a training with --init-from begins with."""
    config = tiny_config(name, init_from=str(path), **changes)
    tokenizer = build_tokenizer(config)
    load_initial_weights(tokenizer, config, "tokenizer")
    return tokenizer


def test_training_on_more_blocks_starts_from_the_weights_of_one(tmp_path, clip):
    single = built(context_blocks=1)
    path = tmp_path / "single.pt"
    save_checkpoint(path, "tokenizer", "elastictok", vars(single.config), single.state_dict(), 0, {}, "")
    several = started(path, context_blocks=4).eval()
    assert all(torch.equal(value, several.state_dict()[key]) for key, value in single.state_dict().items())
    assert torch.equal(several.encode(clip).indices[:, 0], single.encode(clip).indices[:, 0])  # no past yet: nothing changes
    with pytest.raises(InputError, match="does not fit the sizes given"):
        started(path, embed_dim=64)
    with pytest.raises(InputError, match=r"holds model .elastictok.;"):
        started(path, "st-fsq")


@pytest.mark.parametrize("block_frames", [1, 2])
@torch.no_grad()
def test_a_stream_with_its_flat_cache_is_the_whole_video_at_once(block_frames):
    tokenizer = built(block_frames=block_frames, context_blocks=3, bottleneck="vae")
    clip = torch.rand(2, 12, 3, 16, 16)
    kept = tokenizer.kept_places(torch.randint(2, 17, (2, 12 // block_frames)), clip)
    together = tokenizer.encode_kept(clip, kept)[0].codes
    drawn = tokenizer.decode(together)
    encoder_cache = decoder_cache = None
    for first in range(0, 12, 2):
        here = slice(first, first + 2)
        encoded, encoder_cache = tokenizer.encode_kept(clip[:, here], kept[:, here], encoder_cache)
        picture, decoder_cache = tokenizer.decode_next(encoded.codes, decoder_cache)
        assert torch.allclose(encoded.codes, together[:, here], atol=1e-4), first
        assert torch.allclose(picture, drawn[:, here], atol=1e-4), first
        assert encoder_cache[0][0].shape[2] <= 2 * tokenizer.block_tokens  # window - 1 blocks, however long the stream


def test_blocks_of_several_frames_do_not_pretend_to_be_causal(clip):
    tokenizer = built(block_frames=2)
    assert not tokenizer.is_causal and built().is_causal
    with pytest.raises(InputError, match="depends on later frames"):
        tokenizer.encode_frame(clip[:, 0])
    with pytest.raises(InputError, match="depends on later frames"):
        tokenizer.decode_frame(tokenizer.encode(clip).indices[:, 0])
    assert tokenizer.encode(clip[:, :3]).codes.shape[:3] == (2, 3, 16)  # a last block may be cut short


# ---- EL4: the bottleneck --------------------------------------------------------------------------------------------------


def test_the_continuous_bottleneck_samples_in_training_and_counts_kept_tokens_only(clip):
    tokenizer = built(bottleneck="vae", kl_weight=1.0, latent_dim=3, kept_tokens=4)
    assert (tokenizer.codebook_size, tokenizer.code_length) == (0, 3)
    assert torch.equal(tokenizer(clip).codes, tokenizer(clip).codes) and tokenizer(clip).indices.shape == (2, 4, 0)
    assert not torch.equal(tokenizer.train()(clip).codes, tokenizer(clip).codes)
    with torch.no_grad():
        tokenizer.bottleneck.to_moments.weight.zero_()
        tokenizer.bottleneck.to_moments.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0]))  # mean (1, 0, 0), variance 1
    assert torch.isclose(tokenizer(clip).losses["kl"], torch.tensor(0.5))  # 1**2 / 2 nats a kept token
    kept = tokenizer.kept_places(4, clip)
    x = torch.randn(2, 4, 16, 32)
    other = torch.where(kept[..., None], x, torch.randn_like(x))
    tokenizer.eval().bottleneck.to_moments.reset_parameters()
    assert torch.equal(tokenizer.bottleneck(x, kept).losses["kl"], tokenizer.bottleneck(other, kept).losses["kl"])
    with pytest.raises(InputError, match="no codebook"):
        tokenizer.decode_indices(torch.zeros(1, 1, 16, dtype=torch.int64))


# ---- EL6: baselines -------------------------------------------------------------------------------------------------------


def test_a_fixed_length_is_the_same_net_with_one_mask(clip):
    elastic, fixed = built(), built(kept_tokens=6)
    assert all(torch.equal(value, fixed.state_dict()[key]) for key, value in elastic.state_dict().items())
    assert torch.equal(fixed.encode(clip).indices, elastic.encode_to_length(clip, 6).indices)
    assert ((fixed.train()(clip).codes != 0).any(dim=-1).sum(dim=-1) <= 6).all()
    assert fixed.bits_per_frame == pytest.approx(elastic.bits_per_frame * 6 / 16)


# ---- sizes ----------------------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_the_published_numbers_of_tokens_and_parameters():
    config = ElasticConfig(**PAPER)
    config.check()
    assert (config.block_tokens, config.min_tokens) == (4_096, 256)
    with torch.device("meta"):
        number = sum(parameter.numel() for parameter in build_tokenizer(config).parameters())
    assert number == pytest.approx(210e6, rel=0.01)


def test_muon_moves_the_matrices_of_the_blocks():
    tokenizer = built()
    _, muon = build_optimizer(tokenizer, tokenizer.config).optimizers
    moved = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    inside = {id(p) for name, p in tokenizer.named_parameters() if ".layers." in name and p.ndim == 2}
    assert moved == inside and len(moved) == 2 * 2 * 4


@pytest.mark.parametrize(("changes", "words"), [
    ({"min_tokens": 17}, "min_tokens 17 must lie between 1 and the 16 tokens of a block"),
    ({"kept_tokens": 0}, "kept_tokens 0 must lie between 1 and"),
    ({"block_frames": 0}, "block_frames 0 must be at least 1"),
    ({"num_heads": 32}, "embed_dim / num_heads = 1 must be even"),
    ({"patch_size": 5}, "frame_size 16 is not a multiple of patch_size 5"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        built(**changes)
