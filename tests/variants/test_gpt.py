"""What makes the autoregressive model VideoGPT's prior: its checklist, with numbers small enough to check by hand."""

import math
from dataclasses import asdict

import pytest
import torch
from tiny_dynamics import built, changed, clip, tiny_config
from tiny_tokenizers import WITHOUT_CODEBOOK
from tiny_tokenizers import tiny_config as tiny_tokenizer_config

from dynamics_model import load_dynamics
from dynamics_model.registry import build_dynamics
from dynamics_variants.gpt.blocks import ConditionalNorm, Memory, alibi_slopes, attention_with_bias, rotate, rotation
from dynamics_variants.gpt.model import GPTSampling
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import attention
from video_tokenizer.registry import TOKENIZERS, build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint

POSITIONS = ["learned", "rope", "alibi"]


def step_by_step(model, frames, actions):
    """Logits (B, T - 1, N, K) of frames 1 .. T - 1, one token at a time from the memories."""
    state, logits = model.start(frames[:, :1], actions[:, :1]), []
    for t in range(1, frames.shape[1]):
        given, x = model._begin_frame(state, actions[:, t]), state.next_input
        for place in range(model.tokens_per_frame):
            logits.append(model.to_logits(model._advance(state, x, place, given)))
            x = model.from_codes(model.codebook[frames[:, t, place : place + 1]])
        model._end_frame(state, frames[:, t], actions[:, t])
    return torch.cat(logits, dim=1).unflatten(1, (-1, model.tokens_per_frame))


# ---- VG5: causal over the flattened grid --------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("condition_frames", [0, 1])
@torch.no_grad()
def test_a_token_depends_on_all_before_it_in_reading_order_and_on_none_after(positions, condition_frames):
    """Token 4 of frame 2 is changed: nothing before token 5 of frame 2 may notice, and token 5 must."""
    model = built("gpt", positions=positions, condition_frames=condition_frames)
    frames, actions = clip(model, num_frames=4)
    other = frames.clone()
    other[:, 2, 4] = changed(frames[:, 2, 4])
    moved = (model.predict(frames, actions) - model.predict(other, actions)).abs().amax(dim=(0, 3)).flatten()  # frames 1 .. 3
    first_to_know = 6 + 5  # six tokens of frame 1, then tokens 0 .. 4 of frame 2
    assert moved[:first_to_know].max() < 1e-5 and (moved[first_to_know:] > 1e-5).all()


@torch.no_grad()
def test_the_shift_is_by_one_token_over_the_whole_clip_and_begins_with_a_learned_vector():
    """The first token of frame 1 reads the last of frame 0: a shift inside each row or frame would hide it."""
    model = built("gpt", condition_frames=0)
    frames, actions = clip(model, num_frames=2)
    seen = []
    model._run = lambda x, *others: seen.append(x) or x  # type: ignore[method-assign]
    model.predict(frames, actions)
    inputs = (seen[0] - model.positions(torch.tensor([[0, 1]]))).flatten(1, 2)  # (B, 12, E)
    vectors = model.from_codes(model.codebook[frames]).flatten(1, 2)
    assert torch.allclose(inputs[:, 0], model.start_vector.expand(2, -1), atol=1e-5)
    assert torch.allclose(inputs[:, 1:], vectors[:, :-1], atol=1e-5)


@torch.no_grad()
def test_a_position_is_a_learned_frame_a_row_and_a_column_side_by_side():
    positions = built("gpt").positions  # 2 rows, 3 columns, 9 rows of time, width 32: 10 + 11 + 11
    vectors = positions(torch.tensor([[4, 13]]))[0]  # (2, N, E)
    assert torch.equal(vectors[0], vectors[1])  # 13 = 4 modulo 9
    assert torch.equal(
        vectors[0, 5], torch.cat([positions.time.weight[4], positions.rows.weight[1], positions.columns.weight[2]])
    )


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in WITHOUT_CODEBOOK])
@torch.no_grad()
def test_the_input_is_the_codebook_of_the_tokenizer_and_is_kept_in_the_checkpoint(name):
    tokenizer = build_tokenizer(tiny_tokenizer_config(name)).eval()
    model = built("gpt", codebook_size=tokenizer.codebook_size, code_length=tokenizer.code_length)
    model.fit_tokenizer(tokenizer)
    some = torch.tensor([[0, tokenizer.codebook_size - 1]])
    assert torch.equal(model.codebook[some], tokenizer.indices_to_codes(some))
    assert "codebook" in model.state_dict() and "codebook" not in dict(model.named_parameters())
    assert model.sizes_from(tokenizer)["code_length"] == tokenizer.code_length


def test_training_starts_where_all_tokens_are_equally_likely():
    model = build_dynamics(tiny_config("gpt")).eval()
    frames, actions = clip(model)
    error = model.teacher_forced(frames, actions).error
    assert torch.allclose(error, torch.full_like(error, math.log(20)))


# ---- VG6: both conditions -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_norm_takes_scale_and_shift_from_the_action():
    """x = (0, 2) is (-1, 1) when normalized. Scale (0.5, 0) and shift (0, 3) make it (-1.5, 4)."""
    norm = ConditionalNorm(2)
    norm.to_scale_and_shift.weight.copy_(torch.tensor([[0.5, 0], [0, 0], [0, 0], [3.0, 0]]))
    result = norm(torch.tensor([[0.0, 2.0]]), norm.to_scale_and_shift(torch.tensor([[1.0, 7.0]])))
    assert torch.allclose(result, torch.tensor([[-1.5, 4.0]]), atol=1e-4)


@torch.no_grad()
def test_every_norm_has_the_action_of_its_own_frame():
    """With the condition of frame 2 changed, frames 0 and 1 are as before. The paper's one vector for all would change them."""
    model = built("gpt")
    frames, actions = clip(model, num_frames=4)
    norms = [module for module in model.modules() if isinstance(module, ConditionalNorm)]
    assert len(norms) == 3 * 2 + 1
    assert sum(isinstance(module, torch.nn.LayerNorm) for module in model.modules()) == 0
    other = actions.clone()
    other[:, 2] = (other[:, 2] + 1) % 4
    moved = (model.predict(frames, actions) - model.predict(frames, other)).abs().amax(dim=(0, 2, 3))  # frames 1, 2, 3
    assert moved[0] < 1e-5 and (moved[1:] > 1e-4).all()


@torch.no_grad()
def test_the_context_is_the_frame_before_as_a_whole():
    """Without self-attention, the first token of frame 2 still sees the last token of frame 1, and nothing of frame 0."""
    model = built("gpt", condition_frames=1)
    for block in model.blocks:
        block.attention.output.weight.zero_()
    frames, actions = clip(model, num_frames=3)

    def moved(frame: int, place: int) -> float:
        """How much a change of one token moves the logits of the first token of frame 2."""
        other = frames.clone()
        other[:, frame, place] = changed(frames[:, frame, place])
        return (model.predict(frames, actions) - model.predict(other, actions))[:, 1, 0].abs().max().item()

    assert moved(1, 3) > 1e-4 and moved(0, 3) < 1e-6


# ---- VG7: sampling from memory, and the likelihood ----------------------------------------------------------------------


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("condition_frames", [0, 1, 2])
@torch.no_grad()
def test_logits_from_memory_are_the_logits_without_it(positions, condition_frames):
    """Nine frames in a window of three: the memory has long begun to forget."""
    model = built("gpt", positions=positions, condition_frames=condition_frames)
    frames, actions = clip(model)
    assert torch.allclose(step_by_step(model, frames, actions), model.predict(frames, actions), atol=1e-4)


@torch.no_grad()
def test_a_memory_forgets_the_oldest_and_takes_no_more_room():
    memory, keys = Memory(4), torch.arange(6.0).view(1, 1, 6, 1)
    memory.append(keys[:, :, :3], -keys[:, :, :3])
    memory.keep(2)
    kept = memory.append(keys[:, :, 3:5], -keys[:, :, 3:5])
    assert kept[0].flatten().tolist() == [1, 2, 3, 4] and kept[1].flatten().tolist() == [-1, -2, -3, -4]
    assert memory.buffer is not None and memory.buffer.numel() == 2 * 4


@torch.no_grad()
def test_the_errors_add_up_to_the_likelihood_under_which_frames_are_sampled():
    """One frame of two tokens with three codes each has nine values. Their probabilities add up to 1, and sampling meets them."""
    model = built("gpt", grid_size=(1, 2), codebook_size=3, actions="true")
    before = torch.tensor([[[0, 2]]]).expand(9, 1, 2)
    after = torch.cartesian_prod(torch.arange(3), torch.arange(3))[:, None]  # (9, 1, 2)
    actions = torch.ones(9, 2, dtype=torch.int64)
    probability = (-model.teacher_forced(torch.cat([before, after], dim=1), actions).error.sum(dim=(1, 2))).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    many = before[:1].expand(6_000, 1, 2)
    state = model.start(many, torch.full((6_000, 1), 1))
    drawn = model.step(state, torch.full((6_000,), 1), GPTSampling(top_p=1.0), torch.Generator().manual_seed(0))
    share = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 6_000
    assert torch.allclose(share, probability, atol=0.03)


@torch.no_grad()
def test_a_draft_costs_a_call_for_every_token_that_differs_from_it_and_one():
    """Greedy, so that the frame does not depend on the draft: it is the frame that comes without one, token by token."""
    model = built("gpt", grid_size=(4, 4))
    frames, actions = clip(model, batch_size=1)
    calls, advance = [], model._advance
    model._advance = lambda state, x, *others: calls.append(x.shape[1]) or advance(state, x, *others)  # type: ignore[method-assign]
    state, slow = (model.start(frames, actions) for _ in range(2))
    for _ in range(4):
        before = state.tokens
        calls.clear()
        frame = model.step(state, actions[:, 0], GPTSampling(temperature=0.0))
        assert len(calls) == 1 + int((frame != before)[0, :-1].sum())  # behind the last token there is nothing left to call for
        calls.clear()
        assert torch.equal(frame, model.step(slow, actions[:, 0], GPTSampling(temperature=0.0, num_drafted=1)))
        assert calls == [1] * 16


@torch.no_grad()
def test_with_a_draft_frames_are_sampled_with_the_same_probabilities():
    """The two tokens of the last test once more, one rollout at a time, where the second token is drafted."""
    model = built("gpt", grid_size=(1, 2), codebook_size=3, actions="true")
    before, after = torch.tensor([[[0, 2]]]), torch.cartesian_prod(torch.arange(3), torch.arange(3))[:, None]
    clips = torch.cat([before.expand(9, 1, 2), after], dim=1)
    probability = (-model.teacher_forced(clips, torch.ones(9, 2, dtype=torch.int64)).error.sum(dim=(1, 2))).exp()
    action, generator, counts = torch.tensor([1]), torch.Generator().manual_seed(0), torch.zeros(9)
    for _ in range(800):
        drawn = model.step(model.start(before, action[None]), action, GPTSampling(top_p=1.0), generator)[0]
        counts[drawn[0] * 3 + drawn[1]] += 1
    assert torch.allclose(counts / 800, probability, atol=0.06)


def test_a_frame_is_watched_call_by_call():
    model = built("gpt")
    frames, actions = clip(model)
    trace = []
    model.step(model.start(frames, actions), actions[:, 0], GPTSampling(num_drafted=1), torch.Generator().manual_seed(0), trace)
    assert [int(call.unmasked[0].sum()) for call in trace] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(trace[2].tokens[:, 3:], frames[:, -1, 3:])  # what is still to come shows the frame before


# ---- LW7: guidance on logits (arXiv:2402.08268) ---------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_guided_frames_are_the_most_likely_under_unknown_plus_s_times_what_the_action_changes(guidance):
    """Streaming equals teacher forcing: the unknown action is that of the frame in question, and the past keeps its own."""
    model = built("gpt", condition_frames=1)
    frames, actions = clip(model, num_frames=7)
    state, frames = model.start(frames[:, :2], actions[:, :2]), frames[:, :2]
    for t in range(2, 7):
        step = model.step(state, actions[:, t], GPTSampling(temperature=0.0, guidance=guidance))
        frames = torch.cat([frames, step[:, None]], dim=1)
    for t in range(2, 7):
        hidden = actions.clone()
        hidden[:, t] = -1
        known, unknown = (model.predict(frames, given)[:, t - 1] for given in (actions, hidden))
        assert torch.equal((unknown + guidance * (known - unknown)).argmax(dim=-1), frames[:, t])
        assert guidance == 0 or not torch.equal(known.argmax(dim=-1), frames[:, t])


@pytest.mark.parametrize(("guidance", "changes"), [(1.0, {}), (3.0, {"actions": "none", "num_actions": 0})])
def test_guidance_of_1_and_a_model_without_actions_cost_nothing_and_change_nothing(guidance, changes):
    model = built("gpt", **changes)
    frames, actions = clip(model)
    calls, advance, sampled = [], model._advance, []
    model._advance = lambda *given: calls.append(given) or advance(*given)  # type: ignore[method-assign]
    for sampling in (GPTSampling(num_drafted=1), GPTSampling(num_drafted=1, guidance=guidance)):
        state = model.start(frames, actions)
        calls.clear()
        sampled.append(model.step(state, actions[:, 0], sampling, torch.Generator().manual_seed(0)))
        assert len(calls) == 6
    assert torch.equal(*sampled)


def test_an_unknown_action_guides_nowhere_and_a_guided_state_has_one_past():
    model = built("gpt")
    frames, actions = clip(model)
    unknown, sampled = torch.full_like(actions[:, 0], -1), []
    for guidance in (1.0, 5.0):
        state = model.start(frames, actions)
        sampled.append(model.step(state, unknown, GPTSampling(guidance=guidance), torch.Generator().manual_seed(0)))
        assert len(state.memories) == 2 and all(memory.filled == 3 * 6 for memory in state.memories)
    assert torch.equal(*sampled)


# ---- how a token knows its frame ----------------------------------------------------------------------------------------


def test_the_penalty_of_alibi_is_a_slope_per_head_times_the_frames_apart():
    """Two heads lose 1/16 and 1/256 for every frame; the next token and later frames are out of sight."""
    assert alibi_slopes(4) == [1 / 4, 1 / 16, 1 / 64, 1 / 256]
    bias = built("gpt", positions="alibi")._mask(0, 18, torch.device("cpu"))  # three frames of six tokens
    assert bias.shape == (2, 18, 18)
    assert bias[0, 14, [14, 12, 11, 5]].tolist() == [0, 0, -1 / 16, -2 / 16] and bias[1, 14, 5] == -2 / 256
    assert bias[0, 14, 15] == -math.inf


@torch.no_grad()
def test_attention_with_a_bias_is_pytorch_s():
    queries, keys, values = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()
    bias = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1)).masked_fill(
        ~torch.ones(5, 5).tril().bool(), -math.inf
    )
    expected = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, bias)
    assert torch.allclose(attention_with_bias(queries, keys, values, bias), expected, atol=1e-6)
    causal = torch.zeros(2, 5, 5).masked_fill(~torch.ones(5, 5).tril().bool(), -math.inf)
    assert torch.allclose(
        attention_with_bias(queries, keys, values, causal), attention(queries, keys, values, "causal"), atol=1e-6
    )


def test_turned_queries_and_keys_know_how_far_apart_they_are_and_nothing_else():
    one, other = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).unbind()

    def product(first: int, second: int) -> float:
        turned = [rotate(x, rotation(torch.tensor([frame]), 8, 100.0)) for x, frame in ((one, first), (other, second))]
        return (turned[0] * turned[1]).sum().item()

    assert product(7, 4) == pytest.approx(product(103, 100), abs=1e-4)
    assert product(7, 4) != pytest.approx(product(4, 7), abs=1e-2)


def test_with_a_larger_base_a_longer_context_has_the_slow_angles_of_a_shorter_one():
    """Of 4 numbers the second pair turns by base^(-1/2) a frame: 1/10 with base 100, and 1/40 with base 1,600."""
    slow = {base: rotation(torch.tensor([3, 12]), 4, base)[0][:, 1].acos().tolist() for base in (100.0, 1_600.0)}
    assert slow[100.0] == pytest.approx([0.3, 1.2], abs=1e-4) and slow[1_600.0] == pytest.approx([0.075, 0.3], abs=1e-4)
    frames, actions = clip(built("gpt"))
    turned = [built("gpt", positions="rope", rope_base=base).predict(frames, actions) for base in (100.0, 1_600.0)]
    assert not torch.allclose(*turned, atol=1e-3)


def test_only_alibi_and_short_windows_leave_the_causal_mask_of_the_flash_kernel():
    masks = {positions: built("gpt", positions=positions)._mask(0, 18, torch.device("cpu")) for positions in POSITIONS}
    assert masks["learned"] == masks["rope"] == "causal" and masks["alibi"].is_floating_point()
    assert built("gpt")._mask(0, 24, torch.device("cpu")).dtype == torch.bool  # four frames in a window of three
    assert built("gpt")._mask(12, 1, torch.device("cpu")) is None  # one token that sees all before it


@torch.no_grad()
def test_rows_of_time_that_training_never_enters_stay_as_they_began():
    """As published, clips of six frames begin at row 0: rows 6 to 8 get no gradient. A random beginning reaches all nine."""
    for random_start, reached in ((False, 6), (True, 9)):
        model = built("gpt", random_start=random_start, context_frames=6).train()
        frames, actions = clip(model, batch_size=64, num_frames=6)
        with torch.enable_grad():
            sum(model.loss(frames, actions).values()).backward()
        assert int(model.positions.time.weight.grad.any(dim=1).sum()) == reached


@pytest.mark.parametrize("name", ["maskgit", "gpt"])
@torch.no_grad()
def test_a_model_may_be_asked_to_look_further_back_than_it_was_trained_to(name, tmp_path):
    """Frame 6 is predicted from frames 0 .. 5: with a window of seven it depends on frame 0, and the weights are the same."""
    trained, path = built(name, num_blocks=1), tmp_path / "dynamics.pt"
    save_checkpoint(path, "dynamics", name, asdict(trained.config), trained.state_dict(), 0, {}, "no data")
    further = load_dynamics(path, context_frames=7)
    frames, actions = clip(trained, num_frames=7)
    other = torch.cat([changed(frames[:, :1]), frames[:, 1:]], dim=1)
    for model, notices in ((trained, False), (further, True)):
        moved = model.teacher_forced(frames, actions).error[:, 5] - model.teacher_forced(other, actions).error[:, 5]
        assert bool(moved.abs().max() > 1e-4) == notices


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_rows": 2}, "time_rows 2 is less than context_frames 3"),
        ({"positions": "rope", "embed_dim": 30, "num_heads": 2}, "embed_dim 30 over num_heads 2 is odd"),
        ({"rope_base": 0.5}, "rope_base 0.5 must be at least 1"),
        ({"attention": "blockwise", "positions": "alibi", "context_frames": 6}, "knows no penalty on distance"),
        ({"attention": "blockwise"}, "num_frames 6 is more than context_frames 3; give --context-frames 6"),
        ({"condition_frames": -1}, "condition_frames -1 must be at least 0"),
        ({"dropout": 1.0}, "dropout 1.0 must be at least 0 and less than 1"),
        ({"context_corruption": 2.0}, "context_corruption 2.0 must lie between 0 and 1"),
        ({"embed_dim": 33}, "embed_dim 33 is not a multiple of num_heads 2"),
    ],
)
def test_sizes_that_clash_are_refused(changes, said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        build_dynamics(tiny_config("gpt", **changes))
