"""What makes TECO TECO: changes of two frames, a memory of the whole clip, a prior over changes, a decoder that reads both."""

import math

import pytest
import torch
from tiny_dynamics import built, tiny_config
from torch.utils.flop_counter import FlopCounterMode

from dynamics_model.metrics import DynamicsMetrics
from dynamics_model.registry import build_dynamics
from dynamics_variants.teco.blocks import CosineCodebook
from dynamics_variants.teco.model import TECOSampling
from video_tokenizer.errors import InputError
from video_tokenizer.metrics import CodeUsage


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


@pytest.mark.parametrize("both_actions", [False, True])
def test_with_both_actions_a_change_also_stands_beside_the_one_that_led_to_it(both_actions, tokens):
    """TECO's memory of frames 0 and 1 reads actions 1 and 2. With both, the change of frame 0 also stands beside action 0."""
    model = built("teco", both_actions=both_actions)
    actions = torch.tensor([[0, 1, 2]]).expand(len(tokens), -1)
    reads = []
    for changed in ([], [0], [1], [2]):
        other = actions.clone()
        other[:, changed] = 3
        vectors = model._action_vectors(other)
        reads.append(model.teacher_forced(tokens[:, :3], other).error)
    differs = [[not torch.allclose(reads[0][:, frame], one[:, frame]) for frame in (0, 1)] for one in reads[1:]]
    assert vectors.shape == (len(tokens), 2, (1 + both_actions) * model.config.action_dim)
    assert differs == [[both_actions, both_actions], [True, True], [False, True]]  # of frames 1 and 2, for actions 0, 1 and 2


def test_with_both_actions_a_rollout_is_what_teacher_forcing_predicts(tokens):
    model = built("teco", both_actions=True, context_frames=6)
    actions = torch.randint(model.num_actions, tokens.shape[:2], generator=torch.Generator().manual_seed(2))
    state, frames = model.start(tokens[:, :2], actions[:, :2]), tokens
    sampling = TECOSampling(draft_chunks=1, revise_rounds=0, temperature=0.0, feedback="frame")
    for number in (2, 3, 4):
        drawn = model.step(state, actions[:, number], sampling)
        frames = torch.cat([frames[:, :number], drawn[:, None]], dim=1)
        assert torch.equal(drawn, model.teacher_forced(frames, actions[:, : number + 1]).predicted[:, -1])


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
    """A draft begins with nothing but masked codes, so the prior has to know that. With 4 codes: where cos(pi/2 u) > 3/4."""
    model = model_of()
    count = model.codes_per_frame
    number = model.masked_codes(4_000, torch.device("cpu")).sum(dim=1)
    assert number.min() >= 1 and number.max() == count
    assert (number == count).float().mean() == pytest.approx(2 / math.pi * math.acos(1 - 1 / count), abs=0.04)
    assert number.float().mean() == pytest.approx(2 * count / math.pi + 0.5, abs=0.35)  # rounded up: half a code more


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


def test_metrics_count_the_codes_of_changes_that_are_in_use(tokens):
    """The codebook has 10 codes. Turned so that all changes point to the first of them, it has collapsed, and this is seen."""
    model, metrics = built("teco"), [DynamicsMetrics(), DynamicsMetrics()]
    actions = torch.randint(model.num_actions, tokens.shape[:2])
    metrics[0].update(model, tokens, actions, torch.Generator().manual_seed(0))
    used = model.own_codes(tokens)
    assert used.shape == (2, 4, model.codes_per_frame)  # no code for a first frame
    assert metrics[0].result()["codes_used"] == len(used.unique()) > 1
    with torch.no_grad():
        model.quantizer.to_code.weight.zero_()
        model.quantizer.to_code.bias.copy_(model.quantizer.codes.weight[0])
    metrics[1].update(model, tokens, actions, torch.Generator().manual_seed(0))
    assert metrics[1].result()["codes_used"] == 1 and metrics[1].result()["perplexity"] == pytest.approx(1)


def test_a_coarse_grid_of_changes_is_read_and_decoded_back_onto_the_grid_of_tokens():
    """4 x 6 tokens, change_downsample 2: 2 x 3 codes a frame. A token changes the code of its own quarter most of all."""
    model = model_of(grid_size=(4, 6), change_downsample=2)
    assert model.change_grid == (2, 3) and model.codes_per_frame == 6
    tokens = torch.randint(20, (1, 2, 24), generator=torch.Generator().manual_seed(0))
    changes, codes, _ = model.read(tokens)
    assert changes.shape == (1, 2, 8, 2, 3) and codes.shape == (1, 2, 6)
    assert model.decoder(changes, changes).shape == (1, 2, 24, 20)
    pooled = model.encoder.layers[2]
    grid = torch.arange(24.0).view(1, 1, 4, 6)
    assert pooled(grid).flatten().tolist() == [3.5, 5.5, 7.5, 15.5, 17.5, 19.5]  # (0 + 1 + 6 + 7) / 4 = 3.5
    state = model.start(tokens, torch.zeros(1, 2, dtype=torch.int64))
    assert model.step(state, torch.tensor([1]), TECOSampling(feedback="frame")).shape == (1, 24)
    with pytest.raises(InputError, match=r"grid_size \(4, 6\) cannot be cut into squares of change_downsample 4"):
        model_of(grid_size=(4, 6), change_downsample=4)


def test_the_nearest_code_is_the_one_with_the_largest_cosine_whatever_its_length():
    """Of (3, 4) the short code (0.1, 0.2) has a cosine of 0.98, and (5, 0), which is nearer in space, one of 0.6."""
    quantizer = CosineCodebook(num_codes=2, code_length=2, channels=2, commitment_weight=0.25)
    with torch.no_grad():
        quantizer.codes.weight.copy_(torch.tensor([[5.0, 0.0], [0.1, 0.2]]))
        quantizer.to_code.weight.copy_(torch.eye(2))
        quantizer.to_code.bias.zero_()
    change = torch.tensor([3.0, 4.0]).view(1, 1, 2, 1, 1)
    codes, indices, losses = quantizer(change)
    assert indices.item() == 1 and quantizer(100 * change).indices.item() == 1
    # on the unit sphere: (0.6, 0.8) against (0.447, 0.894), squared distance 0.0322, mean over two numbers, half of it
    assert losses["codebook"].item() == pytest.approx(0.5 * 0.0322 / 2, rel=0.01)
    assert losses["commitment"].item() == pytest.approx(0.25 * losses["codebook"].item())
    assert torch.allclose(codes.flatten(), quantizer.from_code(torch.tensor([0.1, 0.2]) / 0.05**0.5), atol=1e-5)


@pytest.mark.parametrize(("drop_rate", "frames"), [(0.0, 10), (0.8, 2)])
def test_dropped_frames_cost_prior_and_decoder_nothing(drop_rate, frames, tokens):
    """Of 11 frames 10 are predicted. What is dropped never enters prior and decoder, while the memory reads all of them."""
    model, tokens = model_of(drop_rate=drop_rate, num_frames=11, context_frames=11), tokens[:, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]]
    seen = {}
    for name in ("prior", "decoder", "temporal"):
        part = getattr(model, name)
        part.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].shape}))
    operations = {}
    for name in ("prior", "decoder"):
        part = getattr(model, name)
        known = torch.zeros(2, frames, model.config.change_channels, *model.change_grid)
        inputs = (torch.zeros(2 * frames, model.codes_per_frame, dtype=torch.int64), known.flatten(0, 1))
        with FlopCounterMode(display=False) as counter:
            part(*(inputs if name == "prior" else (known, known)))
        operations[name] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model(tokens, torch.zeros(2, 11, dtype=torch.int64))
    assert seen["prior"][0] == 2 * frames and seen["decoder"][:2] == (2, frames) and seen["temporal"][:2] == (2, 10)
    with FlopCounterMode(display=False) as others:
        model.temporal(model.read(tokens)[0][:, :-1], model._action_vectors(torch.zeros(2, 11, dtype=torch.int64)))
    assert counter.get_total_flops() == others.get_total_flops() + operations["prior"] + operations["decoder"]


def test_the_changes_of_a_fresh_model_are_spread_over_its_codes(tokens):
    """With PyTorch's own initial weights, all of them chose one code of the ten."""
    usage = CodeUsage(10)
    usage.update(model_of().own_codes(tokens))
    assert usage.result()["perplexity"] > 3
