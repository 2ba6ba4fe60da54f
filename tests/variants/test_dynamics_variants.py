"""What training, evaluation and the world ask of a dynamics model, asked of every one there is."""

import json
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_tokenizers
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_dynamics import CERTAIN, MODELS, NUM_ACTIONS, NUM_CODES, SEEN, built, changed, clip, flags, tiny_config

from dynamics_model import load_dynamics
from dynamics_model.metrics import DynamicsMetrics
from dynamics_model.registry import build_dynamics, dynamics_class
from dynamics_model.rollouts import roll_out
from dynamics_model.sampling_flags import SamplingFlags, sampling_of
from dynamics_variants import DYNAMICS
from video_tokenizer.errors import InputError
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import load_checkpoint, save_checkpoint

CHAPTER = REPOSITORY / "3.dynamics-model"
GENERATE, EVALUATE = (REPOSITORY / "4.inference" / script for script in ("generate.py", "evaluate.py"))
every_model = pytest.mark.parametrize("name", MODELS)
every_variant = pytest.mark.parametrize("name", DYNAMICS)


def errors(model, frames, actions):
    """(B, T - 1, N): the errors of frames 1 .. T - 1, each predicted from the real frames before it."""
    torch.manual_seed(0)
    return model.teacher_forced(frames, actions).error


# ---- the model ----------------------------------------------------------------------------------------------------------


def test_the_registry_and_the_settings_name_the_same_models():
    assert all(dynamics_class(name).config_class().model == name for name in MODELS)
    with pytest.raises(InputError, match="no dynamics model called 'lstm'; there are maskgit, "):
        dynamics_class("lstm")


def test_the_variant_is_chosen_by_flag_then_by_config_file(tmp_path):
    choose, file = load_script(CHAPTER / "dynamics_variants" / "train.py").chosen_model, tmp_path / "config.json"
    file.write_text(json.dumps({"model": "gpt"}))
    assert choose(["--config", str(file)]) == "gpt" and choose(["--config", str(file), "--model=gpt"]) == "gpt"
    with pytest.raises(InputError, match=r"maskgit is trained by 3\.dynamics-model/train\.py"):
        choose(["--model", "maskgit"])
    with pytest.raises(InputError, match="no dynamics model is chosen; give --model and one of gpt"):
        choose([])


@every_model
def test_presets_are_settings_of_the_model(name):
    for sizes in dynamics_class(name).presets.values():
        dynamics_class(name).config_class(**sizes | {"frame_size": 64, "grid_size": (8, 8)}).check()


@every_model
def test_shapes_of_predictions_and_rollouts(name):
    model = built(name)
    frames, actions = clip(model)
    error, predicted = model.teacher_forced(frames, actions)
    assert error.shape == (2, 8, 6) and error.isfinite().all() and predicted.shape == frames[:, 1:].shape
    rollout = roll_out(model, frames[:, :4], actions[:, :4], actions[:, 4:])
    assert rollout.shape == frames[:, 4:].shape and rollout.dtype == frames.dtype and rollout.isfinite().all()
    if model.reads == "tokens":
        assert (error > 0).all() and rollout.min() >= 0 and rollout.max() < NUM_CODES


@every_model
def test_a_prediction_never_depends_on_a_later_frame_or_action(name):
    """Frame 4 is predicted from frames 0 .. 3 and the actions up to the one that leads to it."""
    model = built(name)
    frames, actions = clip(model)
    later_frames, later_actions = frames.clone(), actions.clone()
    later_frames[:, 5:], later_actions[:, 5:] = changed(frames[:, 5:]), (actions[:, 5:] + 1) % NUM_ACTIONS
    before, after = errors(model, frames, actions), errors(model, later_frames, later_actions)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)  # frames 1 .. 4
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


@every_model
def test_the_action_that_led_to_a_frame_changes_that_frame_and_none_before(name):
    model = built(name)
    frames, actions = clip(model)
    other = actions.clone()
    other[:, 4] = (other[:, 4] + 1) % NUM_ACTIONS
    difference = (errors(model, frames, actions) - errors(model, frames, other)).abs().amax(dim=(0, 2))  # of frames 1 .. 8
    assert difference[:3].max() < 1e-5 and difference[3] > 1e-4


@every_model
def test_without_actions_nothing_steers(name):
    model = built(name, actions="none", num_actions=0)
    frames, actions = clip(model)
    assert model.num_actions == 0
    assert torch.equal(errors(model, frames, actions), errors(model, frames, (actions + 1) % NUM_ACTIONS))
    unknown = torch.full((2, 2), -1)
    assert roll_out(model, frames[:, :4], torch.full((2, 4), -1), unknown).isfinite().all()


@every_model
@torch.no_grad()
def test_unknown_actions_are_taken_everywhere(name):
    model = built(name)
    frames, actions = clip(model)
    some = actions.masked_fill(torch.arange(9) % 2 == 0, -1)
    assert errors(model, frames, some).isfinite().all()
    assert not torch.equal(errors(model, frames, some), errors(model, frames, actions))
    state, known = (model.start(frames[:, :3], given) for given in (None, torch.full((2, 3), -1)))
    sampled = [model.step(one, torch.tensor([-1, 2]), None, torch.Generator().manual_seed(0)) for one in (state, known)]
    assert torch.equal(*sampled)


@every_model
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_a_rollout_begins_after_any_number_of_frames(name, num_frames):
    model = built(name)
    frames, actions = clip(model, num_frames=num_frames)
    assert model.step(model.start(frames, actions), actions[:, 0]).shape == frames[:, 0].shape


@pytest.mark.parametrize("name", CERTAIN)
def test_a_rollout_with_its_cache_is_what_teacher_forcing_predicts(name):
    """Frames that are each the most likely one are, read all at once, each the most likely one."""
    model = built(name)
    frames, actions = clip(model)
    sampling = model.sampling_class(**CERTAIN[name])
    rollout = roll_out(model, frames[:, :2], actions[:, :2], actions[:, 2:], None, sampling)
    predicted = model.teacher_forced(torch.cat([frames[:, :2], rollout], dim=1), actions).predicted
    assert torch.allclose(predicted[:, 1:].float(), rollout.float(), atol=1e-4)


@pytest.mark.parametrize("name", CERTAIN)
def test_a_batch_of_rollouts_is_the_rollouts_one_by_one(name):
    model = built(name)
    frames, actions = clip(model, batch_size=3)
    sampling = model.sampling_class(**CERTAIN[name])
    together = roll_out(model, frames[:, :4], actions[:, :4], actions[:, 4:], None, sampling)
    for row, (one, its) in enumerate(zip(frames.split(1), actions.split(1), strict=True)):
        alone = roll_out(model, one[:, :4], its[:, :4], its[:, 4:], None, sampling)
        assert torch.allclose(alone[0].float(), together[row].float(), atol=1e-4)


@every_model
def test_the_same_seed_dreams_the_same(name):
    model = built(name)
    frames, actions = clip(model)

    def dream(seed: int) -> torch.Tensor:
        return roll_out(model, frames[:, :4], actions[:, :4], actions[:, 4:], torch.Generator().manual_seed(seed))

    assert torch.equal(dream(0), dream(0)) and not torch.equal(dream(0), dream(1))


@every_model
def test_a_state_read_frame_by_frame_is_the_state_read_at_once(name):
    """What a rollout knows after frames 0 .. 8 is the same whether they came together or were sampled one by one."""
    model = built(name)
    frames, actions = clip(model)
    state, sampled = model.start(frames[:, :4], actions[:, :4]), []
    sampling = model.sampling_class(**SEEN.get(name, {}))
    for t in range(4, 9):
        sampled.append(model.step(state, actions[:, t], sampling, torch.Generator().manual_seed(t)))
    at_once = model.start(torch.cat([frames[:, :4], torch.stack(sampled, dim=1)], dim=1), actions)
    following = [model.step(one, actions[:, 0], sampling, torch.Generator().manual_seed(9)) for one in (state, at_once)]
    assert torch.allclose(following[0].float(), following[1].float(), atol=1e-4)


@every_model
def test_a_state_does_not_grow_with_the_rollout(name):
    model = built(name)
    frames, actions = clip(model)
    state, sizes = model.start(frames[:, :4], actions[:, :4]), []
    for step in range(24):
        model.step(state, actions[:, 0])
        if step in (11, 23):
            sizes.append(numbers_in(state))
    assert sizes[0] == sizes[1] > 0


def numbers_in(thing) -> int:
    """How many numbers all tensors of a state hold, wherever they are."""
    if isinstance(thing, torch.Tensor):
        return thing.numel()
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else vars_of(thing)
    return sum(numbers_in(part) for part in parts)


def vars_of(thing):
    return list(vars(thing).values()) if hasattr(thing, "__dict__") else []


@every_model
def test_watching_a_frame_changes_nothing(name):
    model = built(name)
    frames, actions = clip(model)
    unseen, seen, trace = model.start(frames, actions), model.start(frames, actions), []
    sampled = model.step(seen, actions[:, 0], None, torch.Generator().manual_seed(3), trace)
    assert torch.equal(sampled, model.step(unseen, actions[:, 0], None, torch.Generator().manual_seed(3)))
    assert not trace or (torch.equal(trace[-1].tokens, sampled) and trace[-1].unmasked.all())
    for earlier, later in pairwise(trace):
        assert torch.equal(earlier.tokens[earlier.unmasked], later.tokens[earlier.unmasked])
        assert (later.unmasked | ~earlier.unmasked).all() and (later.probability[later.unmasked] > 0).all()


@every_model
def test_latent_actions_of_tokens_have_a_prior(name):
    model = built(name)
    frames, actions = clip(model)
    probabilities = model.next_action_probabilities(model.start(frames, actions))
    assert (probabilities is None) == (model.action_prior is None) == (model.reads == "latents")
    if probabilities is not None:
        assert probabilities.shape == (2, NUM_ACTIONS) and torch.allclose(probabilities.sum(dim=-1), torch.ones(2))
    for kind in ("true", "none"):
        other = built(name, actions=kind)
        assert other.next_action_probabilities(other.start(frames, actions)) is None


@every_model
def test_every_parameter_receives_a_gradient(name):
    model = built(name).train()
    frames, actions = clip(model, batch_size=16)
    sum(model.loss(frames, actions).values()).backward()
    dead = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert [key for key in dead if not key.startswith("action_prior.")] == []


@every_model
def test_steps_of_training_lower_the_loss(name):
    torch.manual_seed(0)
    model = build_dynamics(tiny_config(name, actions="true")).train()
    frames, actions = clip(model, batch_size=4, num_frames=4)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(40):
        torch.manual_seed(0)  # the same masks, noise and dropped actions in every step
        loss = torch.stack([*model.loss(frames, actions).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@every_model
def test_scores_change_nothing_and_are_those_of_the_errors(name):
    model = built(name)
    frames, actions = clip(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    metrics = DynamicsMetrics()
    torch.manual_seed(0)
    metrics.update(model, frames, actions, torch.Generator().manual_seed(0))
    assert metrics.result()["loss"] == pytest.approx(errors(model, frames, actions).mean().item(), rel=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_model
@torch.no_grad()
def test_a_checkpoint_rebuilds_it_bit_by_bit(name, tmp_path):
    model, path = built(name), tmp_path / "dynamics.pt"
    save_checkpoint(path, "dynamics", name, asdict(model.config), model.state_dict(), 0, {}, "no data")
    again = load_dynamics(path)
    assert type(again) is type(model)
    assert torch.equal(errors(again, *clip(model)), errors(model, *clip(model)))


# ---- the scripts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of a tokenizer with tokens and of one with latents, by what a model reads."""
    paths = {}
    for reads, name in (("tokens", "st-fsq"), ("latents", "dreamer4")):
        torch.manual_seed(0)
        config = tiny_tokenizers.tiny_config(name)
        weights = tiny_tokenizers.stirred(build_tokenizer(config)).state_dict()
        paths[reads] = tmp_path_factory.mktemp(reads) / "tokenizer.pt"
        save_checkpoint(paths[reads], "tokenizer", name, asdict(config), weights, 0, {}, "no data")
    return paths


def script_of(name: str) -> Path:
    return CHAPTER / ("train.py" if name == "maskgit" else "dynamics_variants/train.py")


def training(name, tokenizers, *extra):
    """The command line of a training of six steps on the moving square."""
    sizes = ["--frame-size", 16, "--num-frames", 4, "--context-frames", 3, "--batch-size", 2, "--num-steps", 6]
    few = ["--validation-batches", 1, "--validate-every", 3, "--save-every", 3, "--warmup-steps", 1, "--prior-steps", 2]
    tokenizer = ["--tokenizer-checkpoint", tokenizers[dynamics_class(name).reads], "--device", "cpu"]
    return [script_of(name), *flags(name), "--use-dummy-data", *sizes, *few, *tokenizer, *extra]


@every_variant
def test_a_stopped_training_resumes_as_if_nothing_had_happened(name, tokenizers, tmp_path, monkeypatch):
    """Six steps in one go, and three, a stop, three more: the same weights to the bit, also when keys are to count for more."""
    from video_tokenizer.training import run

    keep, command = run.Run._save_resume, training(name, tokenizers, "--actions", "true")

    def keep_and_stop(self):
        keep(self)
        if self.step == 3:
            raise KeyboardInterrupt

    assert call(*command, "--checkpoint-dir", tmp_path / "whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(run.Run, "_save_resume", keep_and_stop)
        assert call(*command, "--checkpoint-dir", tmp_path / "halves") == 130
    assert call(*command, "--checkpoint-dir", tmp_path / "halves", "--key-guidance", 7) == 0
    assert not (tmp_path / "halves" / "previous-1").exists()
    assert load_checkpoint(tmp_path / "halves" / "final_model.pt", "dynamics")["key_guidance"] == 7
    whole, halves = (load_dynamics(tmp_path / folder / "final_model.pt").state_dict() for folder in ("whole", "halves"))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_a_variant_trains_into_a_folder_of_its_own(tokenizers, tmp_path, monkeypatch):
    from video_tokenizer.training import run

    monkeypatch.setattr(run, "chapter_folder", lambda kind: tmp_path)
    assert call(*training("gpt", tokenizers, "--actions", "none")) == 0
    assert [file.parent for file in tmp_path.rglob("best_model.pt")] == [tmp_path / "checkpoints" / "gpt"]


@pytest.fixture(scope="module", params=[(name, actions) for name in DYNAMICS for actions in ("true", "none")], ids="-".join)
def world(request, tokenizers, tmp_path_factory) -> tuple[str, Path]:
    """The name of a model, and a world folder with it after six steps of training."""
    name, actions = request.param
    folder = tmp_path_factory.mktemp(name)
    assert call(*training(name, tokenizers, "--actions", actions), "--checkpoint-dir", folder) == 0
    (folder / "best_model.pt").rename(folder / "dynamics.pt")
    (folder / "tokenizer.pt").write_bytes(tokenizers[dynamics_class(name).reads].read_bytes())
    return name, folder


def test_validation_and_a_film_go_through_every_model(world, tmp_path, capsys):
    name, folder = world
    few = ["--num-batches", 1, "--num-rollouts", 2, "--num-samples", 1, "--batch-size", 2, "--use-dummy-data"]
    numbers = ["--json", tmp_path / "numbers.json", "--save-images", "--output", tmp_path / "pictures"]
    assert call(CHAPTER / "validate.py", "--checkpoint", folder / "dynamics.pt", *few, *numbers) == 0
    scores = json.loads((tmp_path / "numbers.json").read_text())
    assert scores["loss"] > 0 and scores["rollout"]["dream, right actions"]
    assert ("bits_per_code" in scores) == dynamics_class(name).is_exact_likelihood
    assert (tmp_path / "pictures" / "actions.png").exists()
    assert call(GENERATE, "--world", folder, "--num-frames", 3, "--output", tmp_path / "film.png") == 0
    assert (tmp_path / "film.png").exists()
    capsys.readouterr()
    for command in ((CHAPTER / "validate.py", "--checkpoint", folder / "dynamics.pt"), (GENERATE, "--world", folder)):
        assert call(*command, "--order", "random") == 2  # MaskGIT's alone
        assert f"error: --order is not a sampling flag of the dynamics model {name}; it has" in capsys.readouterr().err


@every_variant
def test_a_tokenizer_that_it_cannot_read_is_refused(name, tokenizers, tmp_path, capsys):
    reads = dynamics_class(name).reads
    if reads == "latents":
        pytest.skip("every tokenizer has codes")
    command = training(name, {reads: tokenizers["latents"]}, "--actions", "true")
    assert call(*command, "--checkpoint-dir", tmp_path) == 2
    assert "this dreamer4 tokenizer has no codebook; the dynamics model needs tokens" in capsys.readouterr().err


@every_variant
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--num-frames", 1], "num_frames 1 leaves nothing to predict"),
        (["--context-frames", 0], "context_frames 0 must be at least 1"),
        (["--frame-size", 20], "the tokenizer was trained on frames of 16 pixels"),
        (["--num-frames", 4000], "no clip of 4000 frames fits"),
        (["--tokenizer-checkpoint", "nowhere"], "checkpoint nowhere does not exist"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(name, tokenizers, tmp_path, capsys, given, words):
    assert call(*training(name, tokenizers, "--actions", "true", *given), "--checkpoint-dir", tmp_path / "run") == 2
    assert words in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@every_model
def test_a_sampling_flag_of_another_model_is_named_with_those_that_this_one_has(name):
    """A world from any of them is sampled through the same flags of generate.py, evaluate.py, play.py and validate.py."""
    model = built(name)
    own = {field.name for field in fields(model.sampling_class)}
    foreign = {field.name for field in fields(SamplingFlags)} - own
    assert foreign, "else nothing is tested"
    for flag in foreign:
        with pytest.raises(InputError) as refused:
            sampling_of(model, {flag: 1})
        said = str(refused.value)
        assert said.startswith(f"--{flag.replace('_', '-')} is not a sampling flag of the dynamics model {name}; it has ")
        assert set(said.split("it has ")[1].replace("--", "").replace("-", "_").split(", ")) == own


@every_model
def test_settings_that_clash_are_refused_in_a_sentence(name):
    for changes, said in (({"num_frames": 1}, "num_frames 1"), ({"action_dropout": 1.5}, "action_dropout 1.5")):
        with pytest.raises(InputError, match=said):
            build_dynamics(replace(tiny_config(name), **changes))
