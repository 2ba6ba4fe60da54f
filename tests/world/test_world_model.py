"""The world behind reset and step: what it promises to players and agents."""

import re
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tiny_tokenizers import CAUSAL, WITHOUT_CODEBOOK, tiny_config
from tiny_world import save_tiny_world, some_frames

from dynamics_model.data.metadata import WorldMetadata
from video_tokenizer.errors import InputError
from world_model import WorldModel, WorldModelEnv


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("worlds")
    return {kind: save_tiny_world(root / kind, kind) for kind in ("latent", "true", "none")}


@pytest.fixture(scope="module")
def world(folders) -> WorldModel:
    return WorldModel.load(folders["latent"], "cpu")


def play(world: WorldModel, actions, seed: int | None = None) -> np.ndarray:
    world.reset(world.start_frames[0], world.start_actions[0], seed)
    return np.stack([world.step(action) for action in actions])


# ---- reset and step -----------------------------------------------------------------------------------------------------


def test_a_world_tells_what_it_is(world):
    assert (world.num_actions, world.action_kind, world.frame_size, world.context_frames) == (6, "latent", (32, 32), 3)
    assert world.action_names == ["NOOP", "FIRE", "RIGHT", "mixed", "unused", "LEFT"]
    assert world.action_map == {"NOOP": 0, "FIRE": 1, "RIGHT": 2, "LEFT": 5}
    assert world.start_frames.shape == (2, 4, 32, 32, 3) and world.start_frames.dtype == np.uint8
    assert world.start_actions.shape == (2, 4)


def test_a_step_gives_one_picture(world):
    first = world.reset(some_frames(4))
    frame = world.step(2)
    assert first.shape == frame.shape == (32, 32, 3)
    assert first.dtype == frame.dtype == np.uint8


@pytest.mark.parametrize("name", [name for name in CAUSAL if name not in WITHOUT_CODEBOOK])
def test_any_causal_tokenizer_with_tokens_can_be_played(name, tmp_path):
    world = WorldModel.load(save_tiny_world(tmp_path, "true", tokenizer_config=tiny_config(name, frame_size=32)), "cpu")
    frames = play(world, [0, 2, 2, 3, 1], seed=0)
    assert frames.shape == (5, 32, 32, 3) and np.array_equal(frames, play(world, [0, 2, 2, 3, 1], seed=0))


@pytest.mark.parametrize("num_frames", [1, 2, 7, 40])
def test_any_number_of_start_frames_will_do(world, num_frames):
    world.reset(some_frames(num_frames))
    assert world.step(0).shape == (32, 32, 3)


def test_the_same_seed_and_actions_give_the_same_dream(world):
    assert np.array_equal(play(world, [0, 2, 5, 1]), play(world, [0, 2, 5, 1]))
    assert not np.array_equal(play(world, [0, 2, 5, 1]), play(world, [0, 2, 5, 1], seed=1))


def test_a_dream_survives_saving_and_loading(world, folders):
    assert np.array_equal(play(world, [0, 2, 5]), play(WorldModel.load(folders["latent"], "cpu"), [0, 2, 5]))


def test_actions_act_even_in_an_untrained_world(world):
    assert not np.array_equal(play(world, [0, 0, 0]), play(world, [5, 5, 5]))


def test_a_dream_of_one_equals_the_steps(world):
    actions = np.array([[0, 2, 5, 1]])
    dream = world.rollout(world.start_frames[:1], world.start_actions[:1], actions)
    assert np.array_equal(dream[0], play(world, actions[0]))


def test_without_chance_a_batch_equals_its_games_one_by_one(folders):
    world = WorldModel.load(folders["latent"], "cpu", temperature=0.0, precision="float32")
    actions = np.array([[0, 2, 5], [1, 1, 4]])
    together = world.rollout(world.start_frames, world.start_actions, actions)
    for game in range(2):
        alone = world.rollout(world.start_frames[game : game + 1], world.start_actions[game : game + 1], actions[game : game + 1])
        assert np.array_equal(together[game], alone[0])


def test_what_is_dreamed_is_fed_back_as_tokens(world, monkeypatch):
    world.reset(world.start_frames[0])
    for name in ("encode", "encode_next", "encode_frame"):
        monkeypatch.setattr(type(world.tokenizer), name, None)  # any encoding from here on would fail
    world.step(0)
    assert world.current is not None and world.current.latest.shape == (1, 16)
    assert torch.equal(world.current.latest, world.current.dynamics_state.tokens)


def test_the_memory_of_a_dream_does_not_grow(world):
    def size() -> int:
        assert world.current is not None
        caches = [world.current.dynamics_state.cache, world.current.decoder_cache]
        return sum(part.numel() for cache in caches for pair in cache.blocks for part in pair)

    world.reset(world.start_frames[0])
    sizes = []
    for _ in range(12):
        world.step(0)
        sizes.append(size())
    assert len(set(sizes)) == 1


def test_larger_frames_are_shrunk_by_area(world):
    large = some_frames(3).repeat(2, axis=1).repeat(2, axis=2)  # every pixel four times: averaging gives it back
    assert np.array_equal(world.fit_frames(large), some_frames(3))


def test_pictures_are_shrunk_as_the_recording_of_the_world_was(world):
    """Half black and half white: 188 where light was averaged, 128 in an older world, whose checkpoint does not say how."""
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert (world.fit_frames(stripes) == 128).all()
    metadata = WorldMetadata.of_checkpoint({"linear_light": True})
    assert (WorldModel(world.tokenizer, world.dynamics, metadata=metadata).fit_frames(stripes) == 188).all()


def test_unknown_actions_are_read_off_the_frames(world):
    video = torch.rand(1, 4, 3, 32, 32)
    actions = world.infer_actions(video)
    assert actions[0, 0] == -1 and np.array_equal(actions[:, 1:], world.latent_action_model.encode(video).indices)


@pytest.mark.parametrize(
    ("guidance", "smoothing", "left", "taken"),
    [(1, 0, [0.2, 1], 0), (3, 0, [0.2, 1], 5), (3, 10, [0.4, 0.8], 0), (7, 10, [0.4, 0.8], 5)],
)
def test_a_world_knows_how_much_its_keys_count(tmp_path, monkeypatch, guidance, smoothing, left, taken):
    """LEFT was pressed in 2 of 10 transitions of code 0, in all 10 of code 5, and in 12 of all 20. The prior has 0.9 and 0.1.

    Power 1: 0.9 * 0.2 > 0.1, power 3: 0.9 * 0.2**3 < 0.1. With 10 pseudo-counts, 6 of them LEFT, the codes have 8/20 and 16/20,
    and at power 3 the habit wins: 0.9 * 0.4**3 = 0.058 and 0.1 * 0.8**3 = 0.051. At power 7 it is 0.001 and 0.021.
    """
    counts = [[8, 0, 0, 2], *[[0] * 4] * 4, [0, 0, 0, 10]]
    world = WorldModel.load(
        save_tiny_world(tmp_path, code_counts=counts, key_guidance=float(guidance), key_smoothing=float(smoothing)), "cpu"
    )
    assert world.key_probabilities()[5, [0, 5]] == pytest.approx(left)
    prior = torch.tensor([[0.9, 0, 0, 0, 0, 0.1]])
    monkeypatch.setattr(type(world.dynamics), "next_action_probabilities", lambda model, state: prior)
    world.reset(world.start_frames[0])
    world.step(world.action_map["LEFT"])
    assert world.current is not None and world.current.dynamics_state.action.item() == taken


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"key_guidance": "7"}, "key_guidance is '7'"),
        ({"key_guidance": float("nan")}, "key_guidance nan must lie between 0.1 and 100"),
        ({"key_smoothing": -1}, "key_smoothing -1 must lie between 0 and 1,000"),
        ({"key_smoothing": True}, "key_smoothing is True"),
        ({"frames_per_second": "fast"}, "frames_per_second is 'fast'"),
        ({"action_map": ["LEFT"]}, "action_map is ['LEFT']"),
        ({"start_frames": "none"}, "start_frames is 'none'"),
    ],
)
def test_facts_that_cannot_be_played_by_are_refused(tmp_path, facts, words):
    with pytest.raises(InputError, match=re.escape(words)):
        WorldModel.load(save_tiny_world(tmp_path, **facts), "cpu")


def test_a_world_of_true_actions_takes_the_games_keys(folders):
    world = WorldModel.load(folders["true"], "cpu")
    assert world.action_names == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    assert world.infer_actions(torch.rand(1, 3, 3, 32, 32)).tolist() == [[-1, -1, -1]]


def test_a_world_without_actions_goes_on_by_itself(folders):
    world = WorldModel.load(folders["none"], "cpu")
    assert world.num_actions == 0
    world.reset(world.start_frames[0])
    assert world.step(-1).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda world: world.step(6), "no action 6; there are 0 to 5"),
        (lambda world: world.reset(some_frames(3)[0]), "T >= 1"),
        (lambda world: world.reset(some_frames(3).astype(np.float32)), "float32"),
        (lambda world: world.reset(some_frames(3, size=16)), "16x16 pixels are smaller than this world's 32x32"),
        (lambda world: world.reset(some_frames(3), [0, 1]), "3 start frames came with 2 actions"),
    ],
)
def test_wrong_input_is_answered_with_its_numbers(world, call, words):
    world.reset(some_frames(3))
    with pytest.raises(InputError, match=words):
        call(world)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": -1.0}, {"order": "best"}])
def test_sampling_that_cannot_be_done_is_refused(folders, options):
    with pytest.raises(InputError, match="|".join(options)):
        WorldModel.load(folders["latent"], **options)


def test_a_wrong_type_of_sampling_is_no_fault_of_a_file(folders):
    with pytest.raises(InputError, match=r"temperature is 'hot', not a float; correct it"):
        WorldModel.load(folders["latent"], temperature="hot")


def test_parts_that_do_not_belong_together_are_refused(folders, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        WorldModel.load(tmp_path / "nowhere")
    mixed = shutil.copytree(folders["latent"], tmp_path / "mixed")
    save_tiny_world(mixed, tokenizer_fingerprint="another")
    with pytest.raises(InputError, match=r"another tokenizer\.pt"):
        WorldModel.load(mixed)
    shutil.copy(folders["latent"] / "dynamics.pt", mixed / "tokenizer.pt")
    with pytest.raises(InputError, match="holds a dynamics"):
        WorldModel.load(mixed)
    (mixed / "tokenizer.pt").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.pt does not exist"):
        WorldModel.load(mixed)


# ---- the Gymnasium environment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["latent", "true", "none"])
@pytest.mark.filterwarnings("ignore:.*not having a spec.*")
def test_gymnasium_accepts_the_environment(folders, kind):
    check_env(WorldModelEnv(folders[kind], max_steps=5, render_mode="rgb_array"))


def test_gymnasium_makes_it_by_name(folders):
    env = gymnasium.make("WorldModel-v0", world=folders["latent"], max_steps=3, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_an_episode_is_cut_after_max_steps_and_pays_nothing(folders):
    env = WorldModelEnv(folders["latent"], max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.int64(0))[1:4] for _ in range(2)] == [(0.0, False, False), (0.0, False, True)]


def test_an_environment_refuses_actions_and_lengths_that_it_does_not_have(folders):
    env = WorldModelEnv(folders["latent"])
    env.reset(seed=0)
    for action in (-1, 6):
        with pytest.raises(InputError, match=f"there is no action {action}; give one from 0 to 5"):
            env.step(action)
    with pytest.raises(InputError, match="max_steps 0 leaves no step"):
        WorldModelEnv(env.world, max_steps=0)
    with pytest.raises(InputError, match=r"dynamics.pt is a file, not a folder"):
        WorldModelEnv(folders["latent"] / "dynamics.pt")


def test_an_environment_begins_where_it_is_told(folders):
    env = WorldModelEnv(folders["latent"])
    frames = some_frames(3, seed=9)
    observation, info = env.reset(seed=0, options={"frames": frames})
    assert info["start_index"] == -1
    assert np.array_equal(observation, env.world.reset(frames))
