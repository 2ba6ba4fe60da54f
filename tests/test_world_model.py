"""The world behind reset and step: what it promises to players and agents."""

import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from PIL import Image
from script_runner import load_script, run
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from video_tokenizer.command_line import InputError
from world_model.actions import action_label, parse_actions, read_action_file
from world_model.environment import WorldModelEnv
from world_model.film import save_film
from world_model.starts import read_start
from world_model.world import WorldModel

GENERATE = REPOSITORY / "4.inference" / "generate.py"


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
    dream = world.dream(world.start_frames[:1], world.start_actions[:1], actions)
    assert np.array_equal(dream[0], play(world, actions[0]))


def test_without_chance_a_batch_equals_its_games_one_by_one(folders):
    world = WorldModel.load(folders["latent"], "cpu", temperature=0.0, precision="float32")
    actions = np.array([[0, 2, 5], [1, 1, 4]])
    together = world.dream(world.start_frames, world.start_actions, actions)
    for game in range(2):
        alone = world.dream(world.start_frames[game : game + 1], world.start_actions[game : game + 1], actions[game : game + 1])
        assert np.array_equal(together[game], alone[0])


def test_what_is_dreamed_is_fed_back_as_tokens(world, monkeypatch):
    world.reset(world.start_frames[0])
    monkeypatch.setattr(type(world.tokenizer), "_encode", None)
    monkeypatch.setattr(type(world.tokenizer), "encode_frame", None)  # any encoding from here on would fail
    world.step(0)
    assert world.current is not None and world.current.tokens.shape == (1, 16)
    assert torch.equal(world.current.tokens, world.current.dynamics.tokens)


def test_the_memory_of_a_dream_does_not_grow(world):
    def size() -> int:
        assert world.current is not None
        caches = [world.current.dynamics.cache, world.current.decoder]
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


def test_unknown_actions_are_read_off_the_frames(world):
    video = torch.rand(1, 4, 3, 32, 32)
    actions = world.infer_actions(video)
    assert actions[0, 0] == -1 and np.array_equal(actions[:, 1:], world.latent_action_model.encode(video).indices)


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


def test_an_environment_begins_where_it_is_told(folders):
    env = WorldModelEnv(folders["latent"])
    frames = some_frames(3, seed=9)
    observation, info = env.reset(seed=0, options={"frames": frames})
    assert info["start_index"] == -1
    assert np.array_equal(observation, env.world.reset(frames))


# ---- actions as people write them ---------------------------------------------------------------------------------------

MAP = {"NOOP": 0, "RIGHT": 2, "LEFT": 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,3,1", [3, 3, 1, 3, 3]),
        ("RIGHT*2,LEFT", [2, 2, 5, 2, 2]),
        (" right , Left*3", [2, 5, 5, 5, 2]),
        ("4*100", [4, 4, 4, 4, 4]),
    ],
)
def test_a_list_of_actions_is_repeated_until_the_film_is_full(text, expected):
    assert parse_actions(text, 5, 6, MAP).tolist() == expected


def test_random_actions_are_seeded():
    first, again, other = (parse_actions("random", 50, 6, MAP, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert set(first) <= set(range(6))


def test_a_world_without_actions_needs_none():
    assert parse_actions("random", 3, 0).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("text", ["UP", "6", "-1", "", "RIGHT,,LEFT", "RIGHT*0", "RIGHT*x", "2*-3"])
def test_an_unknown_action_is_answered_with_the_names_there_are(text):
    with pytest.raises(InputError, match=r"NOOP, RIGHT, LEFT and the numbers 0 to 5|whole number"):
        parse_actions(text, 5, 6, MAP)


def test_an_action_file_is_a_list_or_an_object(tmp_path):
    path = tmp_path / "actions.json"
    path.write_text('[3, "LEFT"]')
    assert read_action_file(path).actions == (3, "LEFT")
    path.write_text('{"actions": [1], "seed": 4, "comment": "x"}')
    assert read_action_file(path).settings == {"seed": 4}
    for wrong in ("{}", "[]", "[true]", '"LEFT"', "[1", '{"actions": [1], "seed": "x"}', '{"actions": [1], "num_steps": 0.5}'):
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"actions\.json"):
            read_action_file(path)


def test_a_frame_is_labelled_with_its_key_or_its_name():
    names = ["a", "b", "c"]
    assert [action_label(number, names, {"LEFT": 1}) for number in (0, 1, -1, 7)] == ["a", "LEFT", "", "action 7"]


# ---- beginnings and films -----------------------------------------------------------------------------------------------


def test_a_dream_begins_at_a_picture(world, tmp_path):
    Image.fromarray(some_frames(1)[0]).save(tmp_path / "start.png")
    frames, actions = read_start(world, str(tmp_path / "start.png"), 0)
    assert actions is None and np.array_equal(frames, some_frames(1))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_start(world, str(tmp_path / "text.png"), 0)


def test_a_dream_begins_at_one_of_the_worlds_own_starts(world):
    assert np.array_equal(read_start(world, None, 1)[0], world.start_frames[1])
    with pytest.raises(InputError, match=r"there are 2 this world's own beginnings"):
        read_start(world, None, 2)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".mp4"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_film_is_written_by_its_suffix(tmp_path, suffix, beside):
    videos = {"": some_frames(10)} if not beside else {"dream": some_frames(10), "real game": some_frames(10, seed=1)}
    save_film(tmp_path / f"film{suffix}", videos, ["LEFT"] * 10, 15.0)
    assert (tmp_path / f"film{suffix}").stat().st_size > 1000


def test_generate_films_a_dream_that_its_actions_file_repeats(folders, tmp_path):
    recording = tmp_path / "actions.json"
    recording.write_text(json.dumps({"actions": ["RIGHT", "LEFT", 3], "seed": 5}))
    first = run(GENERATE, "--world", folders["latent"], "--actions-file", recording, "--output", "a.gif", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "3 frames" in first.stdout and "seed 5" in first.stdout
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--output", "dream.txt"], ".gif, .mp4, .png"),
        (["--num-frames", "0"], "--num-frames 0"),
        (["--actions", "UP"], "no action 'UP'; there are NOOP, FIRE, RIGHT, LEFT and the numbers 0 to 5"),
        (["--start", "nowhere"], "nowhere does not exist"),
        (["--start-index", "9"], "--start-index 9"),
        (["--world", "nowhere"], "nowhere does not exist"),
    ],
)
def test_generate_answers_bad_input_with_one_sentence(folders, tmp_path, monkeypatch, capsys, flags, words):
    module = load_script(GENERATE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["generate.py", "--world", str(folders["latent"]), *flags])
    with pytest.raises(SystemExit) as ended:
        module.run_script(module.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and words in error


def test_generate_plays_the_real_game_beside_the_dream(folders, tmp_path):
    flags = ["--actions", "RIGHT*2,LEFT*2", "--num-frames", 6, "--beside-emulator", "ALE/Breakout-v5", "--output", "both.png"]
    done = run(GENERATE, "--world", folders["true"], *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "both.png").exists()
