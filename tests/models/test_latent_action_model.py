"""Claims about the latent action model: it looks at the right frames, its actions act, its codes do not collapse."""

from dataclasses import asdict, replace

import pytest
import torch

from latent_action_model import load_latent_action_model
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from latent_action_model.models import quantizers
from latent_action_model.models.action_encoder import pool_by_change
from latent_action_model.models.quantizers import ActionQuantizer, SignQuantizer
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import save_checkpoint

TINY = LatentActionConfig(
    frame_size=16, conv_width=16, embed_dim=32, num_heads=2, encoder_blocks=1, decoder_blocks=1, context_frames=3, noisy_steps=3
)
KINDS = [
    {"quantizer": "vq"},
    {"quantizer": "fsq"},
    {"encoder_blocks": 0, "decoder_blocks": 0},
    {"pooling": "flatten"},
    {"reconstruction_loss": "bce"},
]
WIDE = [{}, {"encoder_blocks": 0, "decoder_blocks": 0}, {"pooling": "flatten"}]


def build(**changes):
    """A model past its first random state: the decoder's last layer, which starts at zero, is given some weights."""
    torch.manual_seed(0)
    model = build_latent_action_model(replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.decoder.output.weight, std=0.1)
    return model


@pytest.fixture
def clip():
    return torch.rand(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", KINDS)
@torch.no_grad()
def test_an_action_sees_the_next_frame_and_none_later(clip, changes):
    model = build(**changes)
    changed = clip.clone()
    changed[:, 4:] = 1 - changed[:, 4:]
    before, after = model.encoder(clip), model.encoder(changed)
    assert torch.equal(before[:, :3], after[:, :3])  # transitions 0->1, 1->2, 2->3
    assert not torch.allclose(before[:, 3], after[:, 3])  # transition 3->4 sees frame 4


@pytest.mark.parametrize("changes", WIDE)
@torch.no_grad()
def test_frames_may_be_wider_than_high(changes):
    model, wide = build(frame_size=(16, 24), **changes), torch.rand(2, 4, 3, 16, 24)
    assert model(wide).prediction.shape == (2, 3, 3, 16, 24) and model.encode(wide).indices.shape == (2, 3)


def test_pooling_looks_where_something_moved_and_nowhere_else():
    before, after = torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16)  # two cells of 8x8
    cells = torch.tensor([[[1.0, 0.0], [0.0, 8.0]]])  # (M, N, channels)
    assert torch.equal(pool_by_change(cells, (after - before).abs()), torch.zeros(1, 2))
    after[..., :8], after[..., 8:] = 0.3, 0.1  # three quarters of the change, and one quarter
    assert pool_by_change(cells, (after - before).abs())[0].tolist() == pytest.approx([0.75, 2.0], rel=0.01)


@torch.no_grad()
def test_a_movement_is_the_same_action_wherever_it_happens():
    model = build(encoder_blocks=0, frame_size=64)
    video = torch.zeros(2, 2, 3, 64, 64)
    for clip, column in enumerate((16, 32)):  # a block in mid-screen moves 4 pixels to the right
        video[clip, 0, :, 24:32, column : column + 8] = 1.0
        video[clip, 1, :, 24:32, column + 4 : column + 12] = 1.0
    left, right = model.encoder(video)
    # GroupNorm looks at the whole frame, in which both clips show the same things; edges are zero-padded alike
    assert torch.allclose(left, right, atol=1e-4)
    flat_left, flat_right = build(encoder_blocks=0, frame_size=64, pooling="flatten").encoder(video)
    assert not torch.allclose(flat_left, flat_right, atol=1e-3)


@pytest.mark.parametrize("changes", KINDS)
@torch.no_grad()
def test_a_prediction_depends_on_the_past_and_its_own_action_only(clip, changes):
    model = build(**changes)
    past, indices = clip[:, :-1], torch.zeros(2, 5, dtype=torch.int64)
    drawn = model.decode_indices(past, indices)
    later_frames = past.clone()
    later_frames[:, 3:] = 0.0
    assert torch.equal(model.decode_indices(later_frames, indices)[:, :3], drawn[:, :3])
    other = indices.clone()
    other[:, 2] = 1
    redrawn = model.decode_indices(past, other)
    same = [torch.equal(redrawn[:, t], drawn[:, t]) for t in range(5)]
    assert same == [True, True, False, True, True]


@pytest.mark.parametrize("changes", KINDS)
@torch.no_grad()
def test_exchanging_two_actions_exchanges_what_the_decoder_draws(clip, changes):
    model = build(**changes)
    past = clip[:1, :1].expand(2, 5, -1, -1, -1)  # two copies of the same past
    indices = torch.tensor([[1] * 5, [2] * 5])
    drawn = model.decode_indices(past, indices)
    swapped = model.decode_indices(past, indices.flip(0))
    assert torch.equal(swapped, drawn.flip(0)) and not torch.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize("changes", KINDS)
@torch.no_grad()
def test_training_gives_each_transition_its_own_action(clip, changes):
    """A code shifted by one step would still lower the loss a little, and make every action mean the one before it."""
    model = build(**changes)
    assert torch.equal(model(clip).prediction, model.decode(clip[:, :-1], model.encode(clip).codes))


@pytest.mark.parametrize("changes", KINDS)
def test_every_parameter_receives_a_gradient(clip, changes):
    model = build(**changes).train()
    if model.config.quantizer == "vq":
        model.quantizer.count_from(model.quantizer.noisy_steps)  # the codebook takes part after the noisy phase
    torch.stack([*model(clip).losses.values()]).sum().backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


@pytest.mark.parametrize("changes", KINDS)
def test_shapes_and_bit_equal_rebuild(clip, changes, tmp_path):
    model = build(**changes)
    encoding = model.encode(clip)
    assert encoding.indices.shape == (2, 5) and encoding.indices.max() < model.num_actions == 8
    assert model.decode(clip[:, :-1], encoding.codes).shape == (2, 5, 3, 16, 16)
    path = tmp_path / "latent_action_model.pt"
    save_checkpoint(path, "latent_action_model", "latent-action-model", asdict(model.config), model.state_dict(), 1, {}, "data")
    assert torch.equal(load_latent_action_model(path)(clip).prediction, model(clip).prediction)


@torch.no_grad()
def test_the_first_prediction_is_that_nothing_changes(clip):
    model = build_latent_action_model(TINY).eval()
    assert torch.equal(model(clip).prediction, clip[:, :-1])


def test_noise_then_codes_among_the_latents():
    torch.manual_seed(0)
    quantizer = ActionQuantizer(num_codes=4, latent_dim=2, noisy_steps=5).train()
    corners = torch.tensor([[5.0, 5.0], [5.0, -5.0], [-5.0, 5.0], [-5.0, -5.0]])
    batch = corners.repeat(16, 1) + 0.1 * torch.randn(64, 2)
    for _ in range(5):
        noisy = quantizer(batch)
        assert float((noisy.codes - quantizer.whiten(batch)).detach().std()) == pytest.approx(1.0, abs=0.3)
    rounded = quantizer(batch)
    assert len(rounded.indices.unique()) == 4  # k-means found the four corners
    assert all(len(rounded.indices[corner::4].unique()) == 1 for corner in range(4))
    assert rounded.losses["codebook"] < 0.01


def test_an_idle_code_is_moved_onto_a_latent():
    torch.manual_seed(0)
    quantizer = ActionQuantizer(num_codes=2, latent_dim=2, noisy_steps=0, restart_after=10).train()
    with torch.no_grad():
        quantizer.codebook.weight.copy_(torch.tensor([[0.0, 0.0], [100.0, 100.0]]))
    batch = torch.randn(64, 2)
    for _ in range(60):
        quantizer(batch)
    assert quantizer.codebook.weight[1].abs().max() < 5


@pytest.mark.parametrize("quantizer", [ActionQuantizer(4, 2), SignQuantizer(4)])
def test_encoding_exchanges_nothing_so_one_process_may_do_it_alone(quantizer, monkeypatch):
    """In training all processes quantize together; where the first encodes a recording, the others wait for its file."""
    asked = []
    monkeypatch.setattr(quantizers, "gather_rows", lambda rows: asked.append(len(rows)) or rows)
    quantizer.eval()(torch.randn(5, 2))
    assert asked == []
    quantizer.train()(torch.randn(5, 2))
    assert asked == [5]


def test_a_straight_through_gradient_reaches_the_latents():
    quantizer = ActionQuantizer(num_codes=4, latent_dim=3, noisy_steps=0).eval()
    latents = torch.randn(5, 3, requires_grad=True)
    quantizer(latents).codes.sum().backward()
    assert latents.grad.abs().min() > 0


def test_sign_bits_number_the_actions():
    quantizer = SignQuantizer(8)
    assert quantizer(torch.tensor([[1.0, -1.0, 1.0]])).indices.tolist() == [0b101]
    assert quantizer.indices_to_codes(torch.arange(8)).unique(dim=0).shape == (8, 3)
    balanced = torch.tensor([[a, b, c] for a in (-9.0, 9.0) for b in (-9.0, 9.0) for c in (-9.0, 9.0)])
    assert quantizer(balanced).losses["balance"] < 1e-6 < quantizer(balanced.abs()).losses["balance"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"frame_size": 20}, "frame_size 20 is not a multiple of the cell side 8"),
        ({"num_frames": 1}, "num_frames 1 holds no transition"),
        ({"num_frames": 2, "batch_size": 8, "accumulate": 8}, "num_frames 2: one transition at a time"),
        ({"quantizer": "fsq", "num_actions": 6}, "num_actions 6 must be a power of 2"),
    ],
)
def test_sizes_that_clash_are_refused_with_the_number(change, words):
    with pytest.raises(InputError, match=words):
        build_latent_action_model(replace(TINY, **change))


def test_activation_checkpointing_changes_neither_the_loss_nor_a_gradient(clip):
    def loss_and_gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = build(activation_checkpointing=checkpointing).train()
        torch.manual_seed(0)
        loss = sum(model(clip).losses.values())
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters())]

    without, with_checkpointing = loss_and_gradients(False), loss_and_gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(without, with_checkpointing, strict=True))
    assert build(activation_checkpointing=True).encoder.context.transformer.activation_checkpointing
