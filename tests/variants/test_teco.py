"""What makes TECO TECO: changes of two frames, a memory of the whole clip, a prior over changes, a decoder that reads both."""

import pytest
import torch
from tiny_dynamics import tiny_config

from dynamics_model.registry import build_dynamics
from dynamics_variants.teco.model import TECOSampling
from video_tokenizer.errors import InputError


def model_of(**changes):
    torch.manual_seed(0)
    return build_dynamics(tiny_config("teco", **changes)).eval()


@pytest.fixture
def tokens():
    model = model_of()
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.codebook_size, (2, 5, model.tokens_per_frame), generator=generator)


def test_a_change_depends_on_a_frame_and_the_one_before_and_on_no_other(tokens):
    model, other = model_of(), tokens.clone()
    other[:, 2] = (other[:, 2] + 1) % model.config.codebook_size
    grids = [model.codebook[one].transpose(-1, -2).unflatten(-1, model.grid_size) for one in (tokens, other)]
    changes = [model.encoder(grid[:, :-1], grid[:, 1:]) for grid in grids]  # of frames 1 .. 4
    differs = (changes[0] - changes[1]).abs().flatten(2).amax(dim=(0, 2)) > 1e-6
    assert differs.tolist() == [False, True, True, False]


def test_without_the_frame_before_a_change_is_the_code_of_one_frame(tokens):
    model, other = model_of(sees_previous=False), tokens.clone()
    other[:, 2] = (other[:, 2] + 1) % model.config.codebook_size
    assert torch.equal(model.read(tokens)[1][:, 3:], model.read(other)[1][:, 3:])


def test_the_change_of_the_first_frame_is_not_quantized(tokens):
    model = model_of()
    changes, indices, _ = model.read(tokens)
    quantized = model.quantizer.indices_to_changes(indices, model.change_grid)
    assert torch.allclose(changes[:, 1:], quantized[:, 1:], atol=1e-5) and not torch.allclose(changes[:, 0], quantized[:, 0])


def test_a_step_drops_the_share_of_frames_that_it_should():
    model = model_of(drop_rate=0.8)
    kept = model.kept_frames(15, torch.device("cpu"))
    assert len(kept) == len(kept.unique()) == 3 and kept.min() >= 0 and kept.max() <= 14
    assert len(model_of(drop_rate=0.0).kept_frames(15, torch.device("cpu"))) == 15
    with pytest.raises(InputError, match=r"drop_rate 1\.0 must be"):
        model_of(drop_rate=1.0)


def test_every_frame_has_a_masked_code_and_some_have_only_masked_ones():
    model = model_of()
    number = model.masked_codes(2_000, torch.device("cpu")).sum(dim=1)
    assert number.min() >= 1 and number.max() <= model.codes_per_frame
    # max(1, floor(N cos(pi/2 u))) has its mean near 2 N / pi, less half of a code for the floor
    assert number.float().mean() == pytest.approx(2 * model.codes_per_frame / torch.pi - 0.5, abs=0.35)


def test_the_decoder_reads_the_change_and_what_was_known():
    model = model_of()
    change, known = torch.randn(2, 1, 3, model.config.change_channels, *model.change_grid)
    logits = model.decoder(change, known)
    assert not torch.allclose(logits, model.decoder(change + 1, known))
    assert not torch.allclose(logits, model.decoder(change, known + 1))


def test_a_draft_leaves_no_code_masked_and_a_revision_sees_it():
    model = model_of()
    known = torch.randn(3, model.config.change_channels, *model.change_grid)
    masked = torch.full((3, model.codes_per_frame), model.prior.mask_code)
    asked, prior = [], model.prior.forward

    def counted(codes, known):
        asked.append((codes == model.prior.mask_code).sum(dim=1))
        return prior(codes, known)

    model.prior.forward = counted
    sampling, generator = TECOSampling(draft_chunks=2), torch.Generator().manual_seed(0)
    draft = model.sample_round(masked, known, sampling, generator)
    assert (draft < model.config.change_codes).all() and len(asked) == 2
    assert asked[0].tolist() == [model.codes_per_frame] * 3  # the draft's first chunk sees nothing
    model.sample_round(draft, known, sampling, generator)
    assert asked[2].max() < model.codes_per_frame or model.codes_per_frame == 1  # a revision sees the codes of the draft
