"""Dreamer 4's dynamics model: each thing the paper says about it, as numbers to check by hand or as one thing changed."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_tokenizers import built as built_tokenizer
from torch import Tensor

from dynamics_model.registry import build_dynamics, load_dynamics
from dynamics_variants.dreamer4.config import PAPER, SMALL, Dreamer4Config
from dynamics_variants.dreamer4.forcing import clean_latents, mix, random_signal, velocity
from dynamics_variants.dreamer4.model import Dreamer4Dynamics, Dreamer4Sampling
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import KVCache
from video_tokenizer.training.checkpoint import save_checkpoint
from video_tokenizer.training.optimizer import build_optimizer
from world_model import WorldModel

SIZES: dict[str, Any] = {
    "embed_dim": 32, "num_heads": 2, "num_layers": 4, "time_every": 2, "num_frames": 5, "context_frames": 4, "finest_steps": 8,
    "batch_size": 2, "precision": "float32",
}  # fmt: skip
TRAIN = REPOSITORY / "3.dynamics-model" / "dynamics_variants" / "train.py"
CPU = torch.device("cpu")


def built(**changes: Any) -> Dreamer4Dynamics:
    """A model of 4 latents of 3 numbers with 5 actions; fresh weights."""
    torch.manual_seed(0)
    sizes = {"grid_size": (1, 4), "code_length": 3, "actions": "true", "num_actions": 5}
    model = build_dynamics(Dreamer4Config(**SIZES | sizes | changes)).eval()
    assert isinstance(model, Dreamer4Dynamics)
    return model


@pytest.fixture
def clip() -> tuple[Tensor, Tensor]:
    """Latents (2, 7, 4, 3) in [-1, 1] and actions (2, 7)."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 7, 4, 3, generator=generator) * 2 - 1, torch.randint(5, (2, 7), generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of(*values: float) -> Tensor:
    """One clip of as many frames as values, each of one latent of one number: (1, T, 1, 1)."""
    return torch.tensor(values).view(1, -1, 1, 1)


# ---- "diffusion forcing": a signal level for every frame ------------------------------------------------------------------


def test_a_mixture_by_hand():
    """Noise 0.2 and a clean 1, half and half, are 0.6; from there the velocity is 0.4 in half the time, 0.8, the way from 0.2."""
    level = torch.tensor([[0.0, 0.5, 1.0]])
    assert torch.allclose(mix(of(0.2, 0.2, 0.2), of(1.0, 1.0, 1.0), level).flatten(), torch.tensor([0.2, 0.6, 1.0]))
    assert torch.allclose(velocity(of(1.0), of(0.6), torch.tensor([[0.5]])), of(0.8))


def test_every_frame_has_a_step_size_and_a_level_on_its_grid():
    torch.manual_seed(0)
    size, signal = random_signal(2_000, 10, 8, 1, CPU)
    assert set(size.unique().tolist()) == {0, 1, 2, 3}  # steps of 1/8, 1/4, 1/2 and 1
    for number in range(4):
        steps, levels = 8 // 2**number, signal[size == number]
        assert levels.unique().tolist() == [step / steps for step in range(steps)]  # never the clean frame
        assert abs(len(levels) / signal.numel() - 0.25) < 0.02 and abs(levels.mean() - (steps - 1) / steps / 2) < 0.02
    assert all(len(row.unique()) > 1 for row in signal[:20])  # in one clip, not one level for it


def test_one_clip_in_so_many_learns_larger_steps_and_none_without_the_bootstrap():
    torch.manual_seed(0)
    size, _ = random_signal(40, 50, 8, 4, CPU)
    assert (size > 0).any(dim=1).nonzero().flatten().tolist() == list(range(0, 40, 4))
    size, signal = random_signal(40, 50, 8, 0, CPU)
    assert (size == 0).all() and len(signal.unique()) == 8


@torch.no_grad()
def test_each_frame_is_told_its_own_level_and_sees_no_later_frame(clip):
    model, (frames, actions) = built(), clip
    signal, size = torch.full((2, 7), 0.5), torch.zeros(2, 7, dtype=torch.int64)
    before = model.predict(frames, signal, size, actions)[0]
    for changed in ("frame", "level", "size", "action"):
        other = [frames.clone(), signal.clone(), size.clone(), actions.clone()]
        values = {"frame": 0.0, "level": 0.25, "size": 2, "action": -1}
        other[list(values).index(changed)][:, 4] = values[changed]
        after = model.predict(*other)[0]
        assert torch.equal(before[:, :4], after[:, :4]), changed
        assert all(not torch.equal(before[:, t], after[:, t]) for t in (4, 5)), changed  # itself, and the frame after it


# ---- "x-prediction", and v and noise beside it -----------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["x", "v", "noise"])
def test_what_the_network_is_asked_for_leads_to_the_same_clean_frame(prediction):
    noise, clean, signal = of(0.2, -1.0), of(1.0, 3.0), torch.tensor([[0.5, 0.25]])
    output = {"x": clean, "v": clean - noise, "noise": noise}[prediction]
    assert torch.allclose(clean_latents(output, mix(noise, clean, signal), signal, prediction, 1 / 8), clean)


def test_noise_taken_away_from_noise_leaves_something_finite():
    """At level 0 the mixture 0.5 is all noise. Taken as level 1/8, a noise of 0.4 leaves (0.5 - 0.4) * 8 = 0.8."""
    assert torch.allclose(clean_latents(of(0.4), of(0.5), torch.tensor([[0.0]]), "noise", 1 / 8), of(0.8))


@pytest.mark.parametrize("changes", [{"prediction": "v"}, {"prediction": "noise"}, {"loss_space": "v"}, {"ramp": False}])
def test_every_arm_of_the_paper_trains(changes, clip):
    losses = [built(**arm).train().loss(*clip) for arm in ({}, changes)]
    assert all(set(loss) == {"flow", "shortcut"} for loss in losses)
    total = [sum(loss.values()) for loss in losses]
    total[1].backward()
    assert torch.isfinite(total[1]) and total[0] != total[1]


# ---- "ramp weight" ---------------------------------------------------------------------------------------------------------


def test_the_weights_by_hand():
    level = torch.tensor([[0.0, 0.5, 0.75]])
    assert torch.allclose(built().weight_of(level), torch.tensor([[0.1, 0.55, 0.775]]))
    assert torch.allclose(built(ramp=False).weight_of(level), torch.ones(1, 3))
    # an error of 1 in the clean frame is one of 2 in velocity at level 0.5, and of 4 at 0.75: squared 4 and 16
    assert torch.allclose(built(ramp=False, loss_space="v").weight_of(level), torch.tensor([[1.0, 4.0, 16.0]]))


def test_what_changed_more_than_the_mean_counts_more():
    clean = torch.tensor([[[0.0], [0.0]], [[1.0], [0.1]]])[None]  # (1, 2, 2, 1): the first latent moves, the second hardly
    assert built(changed_weight=6.0).weight_of_changed(clean).tolist() == [[[1, 1], [6, 1]]]


# ---- "bootstrap targets": one step as two of half its size ------------------------------------------------------------------


def answering(model: Dreamer4Dynamics, monkeypatch, *answers: float) -> list[dict[str, Tensor]]:
    """Let `predict` say these clean values one after the other. Returns what it is asked, as it is asked."""
    asked: list[dict[str, Tensor]] = []

    def predict(noisy, signal, size, actions, cache=None):
        asked.append({"noisy": noisy, "signal": signal, "size": size})
        return torch.full_like(noisy, answers[min(len(asked), len(answers)) - 1]), cache

    monkeypatch.setattr(model, "predict", predict)
    return asked


def test_a_whole_step_should_lead_where_two_halves_lead(monkeypatch):
    """From noise 0: the first half sees a clean 1 and moves to 0.5; the second sees 3 and lands there."""
    asked = answering(model := built(finest_steps=2), monkeypatch, 1.0, 3.0)
    one = torch.ones(1, 1, dtype=torch.int64)
    target = model.bootstrap_target(of(0.0), torch.zeros(1, 1), one, -one)
    assert torch.allclose(target, of(3.0))
    assert [(float(call["noisy"]), float(call["signal"]), int(call["size"])) for call in asked] == [(0, 0, 0), (0.5, 0.5, 0)]


def test_a_step_that_ends_on_the_way_is_told_the_mean_velocity(monkeypatch):
    """Half of the way, in quarters. First velocity 1, to 0.25; then (2 - 0.25) / 0.75 = 7/3. The mean 5/3 leads to 5/3."""
    asked = answering(model := built(finest_steps=4), monkeypatch, 1.0, 2.0)
    one = torch.ones(1, 1, dtype=torch.int64)
    target = model.bootstrap_target(of(0.0), torch.zeros(1, 1), one, -one)
    assert torch.allclose(target, of(5 / 3)) and float(asked[1]["noisy"]) == 0.25
    # a step of this target and half two quarter steps end at the same place
    assert torch.isclose(target.squeeze() / 2, torch.tensor(0.25 + 0.25 * 7 / 3))


def test_the_teacher_gets_no_gradient_and_frames_of_the_smallest_size_do_not_move(monkeypatch, clip):
    model, (frames, actions) = built(), clip
    size = torch.tensor([[0, 1, 2, 3, 0, 1, 2]]).expand(2, -1)
    target = model.bootstrap_target(frames, torch.zeros(2, 7), size, actions)
    assert not target.requires_grad
    asked = answering(model, monkeypatch, 0.5)
    model.bootstrap_target(frames, torch.zeros(2, 7), size, actions)
    still = size == 0
    assert torch.equal(asked[1]["noisy"][still], frames[still]) and not torch.equal(asked[1]["noisy"], frames)
    assert asked[1]["signal"][0].tolist() == [0, 1 / 8, 1 / 4, 1 / 2, 0, 1 / 8, 1 / 4]


def test_with_the_bootstrap_off_it_is_plain_flow_matching(monkeypatch, clip):
    model = built(bootstrap_every=0).train()
    monkeypatch.setattr(model, "bootstrap_target", None)
    assert model.loss(*clip).keys() == {"flow"} and model.size_embedding.num_embeddings == 1
    assert built().size_embedding.num_embeddings == 4


def test_without_errors_the_loss_is_nothing_and_an_error_is_squared(monkeypatch, clip):
    """About clips of 0, a network that says 0 makes no error, and one that says 2 is wrong by 2, squared 4."""
    frames, actions = torch.zeros_like(clip[0]), clip[1]
    for answer, loss in ((0.0, 0.0), (2.0, 4.0)):
        answering(model := built(ramp=False, bootstrap_every=0), monkeypatch, answer)
        assert model.loss(frames, actions)["flow"] == loss


def learned(num_steps: int = 400, **changes: Any) -> Dreamer4Dynamics:
    """A model of a coin: every frame is one number, 1 or -1, whatever came before."""
    torch.manual_seed(0)
    sizes = {"grid_size": (1, 1), "code_length": 1, "actions": "none", "num_frames": 2, "context_frames": 2, "num_registers": 0}
    model = build_dynamics(Dreamer4Config(**SIZES | sizes | {"num_layers": 2} | changes)).train()
    assert isinstance(model, Dreamer4Dynamics)
    optimizer = build_optimizer(model, model.config)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (num_steps - step) / num_steps * 2)
        frames = torch.randint(2, (64, 2, 1, 1)) * 2.0 - 1
        optimizer.zero_grad()
        torch.stack([*model.loss(frames, torch.full((64, 2), -1)).values()]).sum().backward()
        optimizer.step()
    return model.eval()


def tosses(model: Dreamer4Dynamics, num_steps: int) -> Tensor:
    """1,000 frames after a 1, formed in so many steps."""
    state = model.start(torch.ones(1_000, 1, 1, 1))
    return model.step(state, torch.full((1_000,), -1), Dreamer4Sampling(num_steps=num_steps), seeded()).flatten()


def test_one_step_of_flow_matching_lands_in_the_middle_and_one_learned_jump_on_a_side():
    """Of a coin, the best guess is 0, which no coin shows. Many small steps find a side, and a jump learns where they end."""
    plain, shortcut = learned(bootstrap_every=0), learned(bootstrap_every=2)
    assert tosses(plain, 1).abs().mean() < 0.2
    assert tosses(plain, 8).abs().mean() > 0.8
    assert tosses(shortcut, 1).abs().mean() > 0.7
    for model, num_steps in ((plain, 8), (shortcut, 1), (shortcut, 4)):
        assert 0.3 < (tosses(model, num_steps) > 0).float().mean() < 0.7  # both sides


# ---- "K = 4 steps", and any other number from the same network --------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 3, 4, 8, 64])
def test_a_frame_takes_as_many_passes_as_steps_and_one_to_remember_it(num_steps, monkeypatch, clip):
    asked = answering(model := built(), monkeypatch, 0.5)
    state = model.start(*clip)
    asked.clear()
    frame = model.step(state, clip[1][:, 0], Dreamer4Sampling(num_steps=num_steps), seeded())
    assert len(asked) == num_steps + 1 and torch.allclose(frame, torch.full_like(frame, 0.5))  # the last step goes all the way
    *steps, read = asked
    assert torch.equal(steps[0]["noisy"][:, 0], torch.randn(2, 4, 3, generator=seeded()))  # the present begins as noise alone
    assert read["signal"].unique().tolist() == [7 / 8] and read["size"].unique().tolist() == [0]  # 0.9 of 8 levels
    assert [float(step["signal"][0, 0]) for step in steps] == pytest.approx([step / num_steps for step in range(num_steps)])
    assert steps[0]["size"].unique().tolist() == [{1: 3, 3: 1, 4: 1, 8: 0, 64: 0}[num_steps]]


def test_four_steps_are_the_default_and_others_are_bounded():
    assert Dreamer4Sampling().num_steps == 4 and Dreamer4Sampling().context_signal == 0.9
    with pytest.raises(InputError, match="num_steps 0 must be between 1 and 64"):
        Dreamer4Sampling(num_steps=0)
    with pytest.raises(InputError, match=r"context_signal 1\.5 must be between 0\.0 and 1\.0"):
        Dreamer4Sampling(context_signal=1.5)


# ---- "slightly noised past" -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "level"), [(0.0, 0), (0.5, 4), (0.9, 7), (1.0, 7)])
def test_the_past_is_noised_to_a_level_that_training_knows(given, level, monkeypatch, clip):
    asked = answering(model := built(), monkeypatch, 0.0)
    model._read(*clip, KVCache(position=2), Dreamer4Sampling(context_signal=given))
    noise = model.past_noise[[2, 3, 0, 1, 2, 3, 0]]  # of frames 2 to 8; those in one window of 4 differ
    assert torch.equal(asked[0]["noisy"], mix(noise, clip[0], torch.full((2, 7), level / 8)))
    assert (asked[0]["signal"] == level / 8).all() and abs(model.past_noise.std() - 1) < 0.2


# ---- rollouts ---------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_step_with_the_cache_is_the_whole_clip_at_once(clip):
    """Past frames slightly noised, the last one all noise, in one pass without a cache: the first step of a rollout."""
    model, (frames, actions) = built(), clip
    noise = torch.cat(
        [model.past_noise[[0, 1, 2, 3, 0, 1]].expand(2, -1, -1, -1), torch.randn(2, 1, 4, 3, generator=seeded())], 1
    )
    signal = torch.full((2, 7), 7 / 8)
    signal[:, -1] = 0
    size = torch.zeros(2, 7, dtype=torch.int64)
    size[:, -1] = 3
    together = model.predict(mix(noise, model.normalise(frames), signal), signal, size, actions)[0][:, -1]
    stepped = model.step(model.start(frames[:, :6], actions[:, :6]), actions[:, 6], Dreamer4Sampling(num_steps=1), seeded())
    assert torch.allclose(stepped, model.normalise.undo(together), atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 3, 6])
def test_a_rollout_forms_what_teacher_forcing_forms(prompt, clip):
    model, (frames, actions) = built(), clip
    state = model.start(frames[:, :prompt], actions[:, :prompt])
    stepped = model.step(state, actions[:, prompt], generator=seeded())
    forced = model.teacher_forced(frames, actions)
    assert forced.error.shape == (2, 6, 4) and torch.allclose(stepped, forced.predicted[:, prompt - 1], atol=1e-4)
    assert torch.allclose(forced.error, (forced.predicted - frames[:, 1:]).square().mean(dim=-1))


def test_teacher_forcing_sees_neither_the_frame_nor_what_follows(clip):
    model, (frames, actions) = built(), clip
    changed = frames.clone()
    changed[:, 3:] = 0.0
    before, after = model.teacher_forced(frames, actions), model.teacher_forced(changed, actions)
    assert torch.equal(before.predicted[:, :3], after.predicted[:, :3])  # frames 1 to 3
    assert not torch.equal(before.predicted[:, 3], after.predicted[:, 3])


def test_memory_stays_flat_and_a_seed_gives_the_same_rollout(clip):
    model, (frames, actions) = built(), clip
    rollouts = []
    for _ in range(2):
        state, generator, sizes, rollout = model.start(frames, actions), seeded(5), [], []
        for step in range(12):
            rollout.append(model.step(state, actions[:, step % 7], generator=generator))
            kept = [tensor for pair in state.cache.blocks for tensor in pair]
            sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept))
        assert set(sizes[3:]) == {sizes[3]} <= {min(sizes)}
        assert state.cache.num_kept == 3 and state.cache.position == 19
        rollouts.append(torch.stack(rollout))
    assert torch.equal(*rollouts) and not torch.equal(rollouts[0][0], rollouts[0][1])


# ---- 'action tokens with a learned "unknown"' -------------------------------------------------------------------------------


def test_an_unknown_action_is_the_learned_vector_of_its_place_alone(clip):
    model, (frames, actions) = built(), clip
    assert model.action_embedding.weight[-1].abs().max() == 0
    sum(model.train().loss(frames, actions).values()).backward()
    assert model.action_embedding.weight.grad[-1].abs().max() == 0  # and stays so
    assert model.places.weight.grad[0].abs().max() > 0 and model.action_embedding.weight.grad[:-1].abs().max() > 0
    model.eval()
    unsaid, said = (model.start(frames, given).cache.blocks[0][0] for given in (None, actions * 0 - 1))
    assert torch.equal(unsaid, said) and not torch.equal(said, model.start(frames, actions).cache.blocks[0][0])
    known, unknown = (
        model.step(model.start(frames), action, generator=seeded()) for action in (actions[:, 0], -(actions[:, 0] ** 0))
    )
    assert not torch.equal(known, unknown)


def test_a_model_without_actions_takes_any(clip):
    model, (frames, actions) = built(actions="none", num_actions=1), clip
    assert torch.equal(model.teacher_forced(frames, actions).predicted, model.teacher_forced(frames, actions * 0 - 1).predicted)
    assert model.next_action_probabilities(model.start(frames)) is None


# ---- latents have the size of the noise -------------------------------------------------------------------------------------


def test_latents_are_measured_before_they_meet_noise():
    model = built(grid_size=(1, 1), code_length=2)
    model.fit_statistics(np.array([[[0.5, 0.1]], [[0.7, 0.5]]], np.float16))  # two frames around (0.6, 0.3)
    assert torch.allclose(model.normalise.mean, torch.tensor([[0.6, 0.3]]), atol=1e-3)
    assert torch.isclose(model.normalise.scale, torch.tensor((0.1**2 + 0.2**2) / 2).sqrt(), atol=1e-3)
    latents = torch.tensor([[[0.5, 0.1]], [[0.7, 0.5]]])
    assert torch.isclose(model.normalise(latents).square().mean(), torch.tensor(1.0), atol=1e-2)
    assert torch.allclose(model.normalise.undo(model.normalise(latents)), latents)


# ---- all the way ------------------------------------------------------------------------------------------------------------


def flags(folder, *more: Any) -> list[Any]:
    """Flags of a training of four steps on dummy data with the tokenizer in `folder`."""
    words = [word for name, value in SIZES.items() for word in ("--" + name.replace("_", "-"), value)]
    common = ["--model", "dreamer4", "--use-dummy-data", "--frame-size", 16, "--num-steps", 4, "--validation-batches", 1]
    return [*common, *words, "--tokenizer-checkpoint", folder / "tokenizer.pt", "--checkpoint-dir", folder / "run", *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tokenizer of 4 latents of 3 numbers."""
    folder, tokenizer = tmp_path_factory.mktemp("world"), built_tokenizer()
    content = (asdict(tokenizer.config), tokenizer.state_dict())
    save_checkpoint(folder / "tokenizer.pt", "tokenizer", "dreamer4", *content, 0, {}, "no data")
    return folder


@pytest.mark.parametrize("kind", ["true", "none"])
def test_it_trains_on_the_latents_of_the_tokenizer_and_plays(folder, kind, capsys):
    assert call(TRAIN, *flags(folder, "--actions", kind)) == 0
    (folder / "run" / "best_model.pt").rename(folder / "dynamics.pt")
    model = load_dynamics(folder / "dynamics.pt")
    assert isinstance(model, Dreamer4Dynamics) and model.normalise.scale != 1 and model.num_sizes == 4
    world = WorldModel.load(folder, "cpu", num_steps=2, context_signal=0.8)
    actions = np.array([[0, 1, 2]]) % max(1, world.num_actions)
    rollout = world.rollout(world.start_frames[:1], world.start_actions[:1], actions)
    assert rollout.shape == (1, 3, 16, 16, 3) and world.sampling == Dreamer4Sampling(2, 0.8)
    film = [REPOSITORY / "4.inference" / "generate.py", "--world", folder, "--num-frames", 2, "--output", folder / "film.png"]
    assert call(*film, "--context-signal", 0.5) == 0
    capsys.readouterr()
    assert call(*film, "--temperature", 1) == 2 and "temperature" in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "words"), [
    ({"embed_dim": 36}, r"embed_dim 36 is not a multiple of 4 \* num_heads 2"),
    ({"key_value_heads": 3}, "num_heads 2 is not a multiple of key_value_heads 3"),
    ({"time_every": 1}, "time_every 1 must lie between 2 and"),
    ({"num_layers": 1}, "num_layers 1 must lie between 2 and"),
    ({"finest_steps": 12}, "finest_steps 12 is not a power of two"),
    ({"bootstrap_every": -1}, "bootstrap_every -1 must lie between 0 and"),
])  # fmt: skip
def test_sizes_that_cannot_work_are_refused_with_their_numbers(changes, words):
    with pytest.raises(InputError, match=words):
        built(**changes)


def test_the_presets_fit_together_and_the_largest_is_of_the_published_size():
    for preset in (SMALL, PAPER):
        Dreamer4Config(**preset).check()
    config = Dreamer4Config(**PAPER, grid_size=(1, 512), code_length=16)
    with torch.device("meta"):
        model = Dreamer4Dynamics(config)
    assert 1.5e9 < sum(parameter.numel() for parameter in model.parameters()) < 1.7e9
    assert config.finest_steps == 64 and config.context_frames == 192
