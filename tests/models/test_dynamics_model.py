"""Claims about the dynamics model: causal, cached, steered by its actions, masked as the schedule says."""

import itertools
import math
from dataclasses import asdict, replace
from typing import Any
from unittest import mock

import pytest
import torch

from dynamics_model import load_dynamics
from dynamics_model.config import DynamicsConfig
from dynamics_model.models.action_prior import ActionPrior, action_of_key
from dynamics_model.models.maskgit import MaskGITSampling
from dynamics_model.models.masking import tokens_left_masked
from dynamics_model.registry import build_dynamics
from video_tokenizer.training.checkpoint import save_checkpoint

TINY = DynamicsConfig(
    embed_dim=32,
    num_blocks=2,
    num_heads=2,
    num_frames=6,
    context_frames=3,
    codebook_size=20,
    grid_size=(2, 3),
    num_actions=4,
    frame_size=16,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_dynamics(TINY).eval()


@pytest.fixture
def tokens():
    return torch.randint(20, (2, 9, 6), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def actions():
    return torch.randint(4, (2, 9), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_a_prediction_never_depends_on_a_later_token_or_action(model, tokens, actions):
    later_tokens, later_actions = tokens.clone(), actions.clone()
    later_tokens[:, 5:] = (later_tokens[:, 5:] + 7) % 20
    later_actions[:, 6:] = (later_actions[:, 6:] + 1) % 4
    before, after = (model.teacher_forced(*clip).error for clip in ((tokens, actions), (later_tokens, later_actions)))
    assert torch.equal(before[:, :4], after[:, :4])  # frames 1 .. 4
    logits = model.predict(tokens[:, :-1], torch.full_like(tokens[:, 1:], model.mask_token), actions)
    changed = model.predict(later_tokens[:, :-1], torch.full_like(tokens[:, 1:], model.mask_token), later_actions)
    assert torch.equal(logits[:, :5], changed[:, :5])  # frames 1 .. 5: frame 5 is predicted from frames 0 .. 4
    assert not torch.allclose(logits[:, 5], changed[:, 5])


@torch.no_grad()
def test_the_action_that_led_to_a_frame_changes_that_frame_and_none_before(model, tokens, actions):
    other = actions.clone()
    other[:, 4] = (other[:, 4] + 1) % 4
    right, wrong = model.teacher_forced(tokens, actions).error, model.teacher_forced(tokens, other).error  # of frames 1 .. 8
    difference = (right - wrong).abs().amax(dim=(0, 2))
    assert torch.equal(difference[:3], torch.zeros(3)) and (difference[3:] > 0).all()


@torch.no_grad()
def test_dreaming_with_the_cache_equals_predicting_without_it(model, tokens, actions):
    hidden = torch.full_like(tokens[:, 1:], model.mask_token)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])  # any order, another one for each dream
    together = model.predict(tokens[:, :-1], hidden, actions)  # (B, 8, N, K)
    state = model.start(tokens[:, :1], actions[:, :1])
    for t in range(1, 9):
        logits = model._present_logits(state.cache, hidden[:, 0], actions[:, t], positions)
        expected = together[torch.arange(2)[:, None], t - 1, positions]
        assert torch.allclose(logits, expected, atol=1e-4), t
        state.cache = model._prefill(tokens[:, t : t + 1], actions[:, t : t + 1], state.cache)


@torch.no_grad()
def test_greedy_dreams_are_the_arg_max_of_the_same_forward_pass(model, tokens, actions):
    hidden = torch.full_like(tokens[:, 1:], model.mask_token)
    expected = model.predict(tokens[:, :-1], hidden, actions).argmax(dim=-1)
    state = model.start(tokens[:, :8], actions[:, :8])
    assert torch.equal(model.step(state, actions[:, 8], MaskGITSampling(num_steps=1, temperature=0)), expected[:, 7])


def test_a_dream_remembers_the_same_amount_at_frame_100_as_at_frame_10(model, tokens, actions):
    state = model.start(tokens, actions)
    sizes = []
    for frame in range(100):
        model.step(state, torch.tensor([0, 1]), MaskGITSampling(num_steps=1))
        if frame in (9, 99):
            sizes.append(sum(part.numel() for pair in state.cache.blocks for part in pair))
    assert sizes[0] == sizes[1] and state.cache.num_kept == TINY.context_frames - 1


@pytest.mark.parametrize("order", ["confidence", "random"])
def test_the_same_seed_dreams_the_same_and_every_token_is_filled(model, tokens, actions, order):
    def dream(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        state = model.start(tokens, actions)
        sampling = MaskGITSampling(num_steps=3, order=order)
        frames = [model.step(state, torch.tensor([0, 1]), sampling, generator) for _ in range(4)]
        return torch.stack(frames)

    assert torch.equal(dream(0), dream(0)) and not torch.equal(dream(0), dream(1))
    assert dream(0).max() < 20 and dream(0).min() >= 0


def test_watching_the_passes_of_a_frame_changes_nothing(model, tokens, actions):
    unseen, seen = model.start(tokens, actions), model.start(tokens, actions)
    sampling = MaskGITSampling(num_steps=3)
    trace = []
    frame = model.step(seen, actions[:, 0], sampling, torch.Generator().manual_seed(3), trace)
    assert torch.equal(frame, model.step(unseen, actions[:, 0], sampling, torch.Generator().manual_seed(3)))
    assert [int((~step.unmasked[0]).sum()) for step in trace] == [2, 1, 0]  # halving
    assert torch.equal(trace[-1].tokens, frame)
    for earlier, later in itertools.pairwise(trace):
        assert torch.equal(earlier.tokens[earlier.unmasked], later.tokens[earlier.unmasked])
        assert later.probability.min() > 0 and later.probability.max() <= 1
        assert torch.equal(earlier.probability[earlier.unmasked], later.probability[earlier.unmasked])


def test_fixed_tokens_stay_fixed(model, tokens, actions, monkeypatch):
    seen = []
    inner = model._present_logits
    monkeypatch.setattr(
        model, "_present_logits", lambda cache, now, *others: seen.append(now.clone()) or inner(cache, now, *others)
    )
    final = model.step(model.start(tokens, actions), torch.tensor([0, 1]), MaskGITSampling(schedule="cosine"))
    assert [int((now == model.mask_token).sum(dim=1)[0]) for now in seen] == [6, 5, 4, 3]
    for now in seen:
        fixed = now != model.mask_token
        assert torch.equal(now[fixed], final[fixed])


@torch.no_grad()
def test_drawing_only_where_something_is_hidden_equals_drawing_everywhere(model, tokens, actions):
    """The plain MaskGIT loop: logits of all positions in every pass, settled ones kept by force. Greedy, so without dice."""
    state = model.start(tokens, actions)
    everywhere = torch.arange(6).expand(2, -1)
    plain = torch.full((2, 6), model.mask_token)
    for step in (1, 2, 3, 4):
        log_probabilities = model._present_logits(state.cache, plain, actions[:, 0], everywhere).log_softmax(-1)
        best, drawn = log_probabilities.max(-1)
        hidden = plain == model.mask_token
        complete = torch.where(hidden, drawn, plain)
        least_sure = best.masked_fill(~hidden, float("inf")).argsort(-1)[:, : tokens_left_masked(step, 4, 6)]
        plain = complete.scatter(1, least_sure, model.mask_token)
    assert torch.equal(model.step(state, actions[:, 0], MaskGITSampling(temperature=0, schedule="cosine")), plain)


def test_a_key_sends_the_action_to_which_it_leads_here():
    """Actions: 0 rest, 1 left, 2 right, 3 belongs to no key, 4 a rarer left. The key LEFT is mapped to 1."""
    p_key_given_action = torch.tensor(
        [[0.7, 0.0, 0.0, 0.3, 0.1], [0.15, 1.0, 0.0, 0.3, 0.9], [0.15, 0.0, 1.0, 0.4, 0.0]] + 2 * [[0.0] * 5]
    )
    wall = torch.tensor([0.7, 0.0001, 0.2999, 0.0, 0.0])  # 0.7 * 0.15**3 = 0.0024 for rest, 0.0001 for left
    field = torch.tensor([0.5, 0.2, 0.25, 0.0, 0.05])  # 0.2 for left, 0.0017 for rest, although a player mostly rests
    gliding = torch.tensor([0.5, 0.05, 0.15, 0.0, 0.3])  # 0.22 for the rarer left, 0.05 for left
    wanted = torch.tensor([1, 1, 1, 2, 3, -1])
    prior = torch.stack([wall, field, gliding, wall, wall, wall])
    assert action_of_key(wanted, prior, p_key_given_action).tolist() == [0, 1, 4, 2, 3, -1]


def test_without_guidance_the_habit_of_resting_wins_over_the_key():
    """LEFT was pressed in 3 of 10 transitions in which nothing moved: 0.8 * 0.3 = 0.24 is more than 0.1, 0.8 * 0.3**3 is not."""
    p_key_given_action = torch.tensor([[0.7, 0.0], [0.3, 1.0]])
    prior, wanted = torch.tensor([[0.8, 0.1]]), torch.tensor([1])
    assert action_of_key(wanted, prior, p_key_given_action, guidance=1).tolist() == [0]
    assert action_of_key(wanted, prior, p_key_given_action, guidance=3).tolist() == [1]


def test_the_action_prior_learns_where_an_action_is_never_taken():
    """Token 0 means "at the wall", where action 1 never follows; elsewhere both actions are as frequent."""
    torch.manual_seed(0)
    prior = ActionPrior(codebook_size=2, tokens_per_frame=4, num_actions=2)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(150):
        place = torch.randint(2, (64, 1))
        tokens = place[:, :, None].expand(64, 2, 4)
        actions = torch.cat([torch.full((64, 1), -1), torch.randint(2, (64, 1)) * place], dim=1)
        optimizer.zero_grad()
        prior.loss(tokens, actions).backward()
        optimizer.step()
    prior.eval()
    at_wall, elsewhere = (torch.full((1, 4), place) for place in (0, 1))
    chance = [prior(tokens, tokens, torch.tensor([-1])).softmax(-1)[0, 1].item() for tokens in (at_wall, elsewhere)]
    assert chance[0] < 0.01 and chance[1] == pytest.approx(0.5, abs=0.15)


def test_only_latent_actions_have_a_prior_and_it_sees_no_frame_after_the_present(tokens, actions):
    assert build_dynamics(replace(TINY, actions="true")).action_prior is None
    prior = build_dynamics(TINY).eval().action_prior
    assert prior is not None
    later = tokens.clone()
    later[:, -1] = (later[:, -1] + 1) % TINY.codebook_size
    assert torch.equal(prior.loss(tokens, actions), prior.loss(later, actions))  # the last frame follows the last action


def test_every_parameter_receives_a_gradient(tokens, actions):
    torch.manual_seed(0)
    model = build_dynamics(replace(TINY, clean_context_share=0.5)).train()
    sum(model.loss(tokens.repeat(8, 1, 1), actions.repeat(8, 1)).values()).backward()
    dead = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert {name for name in dead if not name.startswith("action_prior.")} == set()


def test_the_loss_counts_hidden_tokens_only_and_changed_ones_more(tokens, actions):
    model = build_dynamics(replace(TINY, action_dropout=0.0)).eval()
    torch.manual_seed(3)
    past, present, _ = model.spoil(tokens, actions)
    logits = model.predict(past, present, actions, model.positions.random_start(len(tokens), tokens.device))
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 2), tokens[:, 1:].flatten(), reduction="none")
    weight = (present == model.mask_token) * torch.where(tokens[:, 1:] != tokens[:, :-1], 6.0, 1.0)
    torch.manual_seed(3)  # the same masks
    loss = model.loss(tokens, actions)["cross_entropy"]
    assert torch.allclose(loss, (losses.view_as(weight) * weight).sum() / weight.sum())


def test_a_step_sees_the_patches_that_change_first(tokens, actions):
    config = replace(TINY, grid_size=(4, 4), smallest_mask_rate=1.0, clean_context_share=1.0, context_corruption=0.0)
    model: Any = build_dynamics(config).train()
    clip = torch.zeros(2, 3, 16, dtype=torch.int64)
    clip[0, 1, 5] = clip[1, 2, 0] = clip[1, 2, 15] = 1  # one patch of the first clip changes, two of the second
    seen = []
    with mock.patch.object(model, "predict", lambda *given: seen.append(given) or torch.zeros(2, 2, 4, TINY.codebook_size)):
        loss = model(clip, torch.zeros(2, 3, dtype=torch.int64), 0.25)["cross_entropy"]
    past, present, _, _, patches = seen[0]
    assert past.shape == present.shape == (2, 2, 4) and patches.shape == (2, 4)
    assert 5 in patches[0] and {0, 15} <= set(patches[1].tolist())
    assert torch.equal(past[0, 1], (patches[0] == 5).long())  # the tokens of frame 1 at these patches
    assert loss == pytest.approx(math.log(TINY.codebook_size))


@torch.no_grad()
def test_all_patches_in_any_order_are_predicted_as_whole_frames_are(tokens, actions):
    model: Any = build_dynamics(TINY).eval()
    patches = torch.stack(
        [torch.randperm(tokens.shape[2], generator=torch.Generator().manual_seed(n)) for n in range(len(tokens))]
    )
    places = patches[:, None].expand(-1, tokens.shape[1] - 1, -1)
    past, present = tokens[:, :-1], tokens[:, 1:]
    whole = model.predict(past, present, actions)
    shuffled = model.predict(past.gather(2, places), present.gather(2, places), actions, 0, patches)
    assert torch.allclose(shuffled, whole.gather(2, places[..., None].expand_as(whole)), atol=1e-4)


def test_without_actions_nothing_steers(tokens, actions):
    torch.manual_seed(0)
    model = build_dynamics(replace(TINY, actions="none")).eval()
    assert model.num_actions == 0
    assert torch.equal(model.teacher_forced(tokens, actions).error, model.teacher_forced(tokens, (actions + 1) % 4).error)


def test_a_saved_model_is_rebuilt_bit_by_bit(model, tokens, actions, tmp_path):
    path = tmp_path / "dynamics.pt"
    save_checkpoint(path, "dynamics", "maskgit", asdict(TINY), model.state_dict(), 1, {}, "data", action_names=["NOOP"])
    assert torch.equal(load_dynamics(path).teacher_forced(tokens, actions).error, model.teacher_forced(tokens, actions).error)
