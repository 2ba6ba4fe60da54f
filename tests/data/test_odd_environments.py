"""Other people's environments: what they get away with is recorded correctly, and what they raise becomes one sentence."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from script_runner import call
from tiny_world import save_tiny_world

from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game, record_episode, short_name, usual_frame_skip
from video_tokenizer.games.policies import replay
from world_model.real_game import RealGame
from world_model.world import WorldModel

RECORD = Path(__file__).parents[2] / "1.video-tokenizer" / "record.py"
GENERATE = Path(__file__).parents[2] / "4.inference" / "generate.py"


class Square(gymnasium.Env):
    """A red square of 8x8 pixels that action 1 moves right by a pixel, and every other action left, for `length` frames."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}  # noqa: RUF012
    action_space = gymnasium.spaces.Discrete(4)
    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, render_mode=None, length=10**9):
        self.render_mode, self.length = render_mode, length

    def reset(self, *, seed=None, options=None):
        self.place, self.time = 24, 0
        return 0, {}

    def step(self, action):
        self.place, self.time = int(np.clip(self.place + (1 if action == 1 else -1), 0, 56)), self.time + 1
        return 0, 0.0, self.time >= self.length, False, {}

    def render(self):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[20:28, self.place : self.place + 8] = (220, 30, 10)
        return picture


def test_an_atari_game_named_with_its_package_is_the_same_game():
    """The same delay of its picture, and no sticky keys, which ale_py would have by default."""
    screens = []
    for env_id in ("ALE/Pong-v5", "ale_py:ALE/Pong-v5"):
        game = Game(env_id, frame_size=(16, 16))
        game.reset(seed=1)
        screens.append(np.stack([game.step(step % game.num_actions)[0] for step in range(12)]))
        game.close()
    assert np.array_equal(*screens)


class OwnBuffer(Square):
    """render() returns the array that every frame is drawn into, as nes_py's Super Mario does."""

    screen = np.zeros((64, 64, 3), np.uint8)

    def render(self):
        self.screen[:] = super().render()
        return self.screen


class NoScreen(Square):
    def __init__(self, render_mode=None):
        raise OSError("cannot open display")


class NoServer(Square):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("no simulator at port 2000\nand a second line")


class NoPicture(Square):
    def render(self):
        raise NotImplementedError


class OldStep(Square):
    def step(self, action):
        return super().step(action)[:4]


class NoReward(Square):
    def step(self, action):
        return 0, None, False, False, {}


class ManyEnds(Square):
    def step(self, action):
        return 0, 0.0, np.array([False, True]), np.array([False, False]), {}


class Window(Square):
    def render(self):
        return super().render()[: 64 - self.time % 20]


class NoPixels(Square):
    def render(self):
        return np.zeros((0, 64, 3), np.uint8)


class Explodes(Square):
    games = 0

    def reset(self, *, seed=None, options=None):
        type(self).games += 1
        return super().reset()

    def step(self, action):
        if type(self).games > 3 + 200 and self.time > 20:
            raise RuntimeError("physics exploded")
        return super().step(action)


FAILING = {"NoScreen": "cannot open display", "NoServer": "no simulator at port 2000", "NoPicture": "NotImplementedError",
           "OldStep": "its step failed", "NoReward": "its step failed", "ManyEnds": "its step failed",
           "Window": "pictures change from 64x64 to 64x60", "NoPixels": "does not render RGB pictures"}  # fmt: skip
for kind in (Square, *Square.__subclasses__()):
    gymnasium.register(f"Odd{kind.__name__}-v0", kind)
gymnasium.register("OddShort-v0", Square, kwargs={"length": 50})
gymnasium.register("OddShortest-v0", Square, kwargs={"length": 1})


@pytest.mark.parametrize("frame_size", [64, 32])
@pytest.mark.parametrize("merged_frames", [1, 2])
def test_a_game_that_draws_into_one_array_is_recorded_like_one_that_makes_new_ones(frame_size, merged_frames):
    actions = [1, 1, 1, 0, 1, 0]
    episodes = [
        record_episode(
            Game(f"Odd{name}-v0", (frame_size, frame_size), picture_delay=0, merged_frames=merged_frames), replay(actions), 7, 0
        )
        for name in ("Square", "OwnBuffer")
    ]
    assert np.array_equal(episodes[0].frames, episodes[1].frames)
    if (frame_size, merged_frames) == (64, 1):  # four emulator frames a step, a pixel each
        edges = [int(np.flatnonzero(frame[20, :, 0])[0]) for frame in episodes[1].frames]
        assert edges == [24, 28, 32, 36, 32, 36, 32]


@pytest.mark.parametrize("name", FAILING)
def test_what_an_environment_raises_becomes_one_sentence_with_its_name(name):
    with pytest.raises(InputError) as error:
        record_episode(Game(f"Odd{name}-v0", picture_delay=0, merged_frames=1), replay([1] * 8), 9, seed=0)
    assert f"Odd{name}-v0" in str(error.value) and FAILING[name] in str(error.value) and "\n" not in str(error.value)


def test_when_a_game_fails_the_complete_episodes_before_are_kept(tmp_path, capsys):
    Explodes.games = 200
    flags = ("--env", "OddExplodes-v0", "--num-frames", "400", "--frame-skip", "4", "--picture-delay", "0", "--frame-size", "16")
    assert call(RECORD, *flags, "--output", str(tmp_path / "store")) == 2
    said = capsys.readouterr().err
    assert "physics exploded; the 2 complete episodes before it, 128 frames, are kept" in said
    assert open_clip_store(tmp_path / "store").episodes.tolist() == [[0, 64], [64, 128]]


def test_a_game_of_another_package_is_named_with_the_package():
    with pytest.raises(InputError, match="such as minigrid:MiniGrid-Empty-8x8-v0"):
        Game("MiniGrid-Nothing-8x8-v0")
    names = [short_name(env_id) for env_id in ("ALE/MsPacman-v5", "CartPole-v1", "minigrid:MiniGrid-Empty-8x8-v0")]
    assert names == ["mspacman", "cartpole", "minigrid-empty-8x8"]  # no colon, which Windows allows in no path


def test_the_usual_frame_skip_makes_15_frames_a_second_unless_games_are_short():
    assert usual_frame_skip("ALE/Breakout-v5") == 4
    assert usual_frame_skip("OddSquare-v0") == 4  # 60 a second
    assert usual_frame_skip("OddShort-v0") == 1  # 50 frames: with 2 they were 25, less than 32


@pytest.fixture
def short_world(tmp_path):
    names = [f"ACTION{action}" for action in range(4)]
    facts = {"action_names": names, "action_map": dict(zip(names, range(4), strict=True)), "picture_delay": 0, "frame_skip": 1}
    return lambda env_id: save_tiny_world(tmp_path / "world", "true", env_id, **facts)


def test_a_film_beside_a_short_game_is_as_long_as_the_game(short_world, tmp_path, capsys):
    folder = short_world("OddShort-v0")
    flags = (
        "--world",
        str(folder),
        "--beside-emulator",
        "OddShort-v0",
        "--output",
        str(tmp_path / "film.gif"),
        "--device",
        "cpu",
    )
    assert call(GENERATE, *flags, "--num-frames", "72") == 0
    said = capsys.readouterr().out
    assert "OddShort-v0 ended after 47 of 72 frames; the film is as long as the game" in said and "47 frames of" in said
    assert call(GENERATE, *flags, "--num-frames", "2") == 0 and "2 frames of" in capsys.readouterr().out
    flags = ("--world", str(short_world("OddShortest-v0")), "--beside-emulator", "OddShortest-v0", "--device", "cpu")
    assert call(GENERATE, *flags, "--num-frames", "8", "--output", str(tmp_path / "none.gif")) == 2
    assert "OddShortest-v0 ends at once" in capsys.readouterr().err


def test_a_short_game_is_still_alive_when_the_dream_joins_in(short_world):
    game = RealGame("OddShort-v0", WorldModel.load(short_world("OddShort-v0"), "cpu"))
    for seed in range(20):
        game.reset(seed)
        assert not game.game.over and len(game.frames) == 3
        game.step("ACTION1")
    game = RealGame("OddShortest-v0", WorldModel.load(short_world("OddShortest-v0"), "cpu"))
    with pytest.raises(InputError, match="OddShortest-v0 is over after one frame"):
        game.reset(0)
