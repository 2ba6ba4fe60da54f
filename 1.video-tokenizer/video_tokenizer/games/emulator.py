"""Plays and films a game: frame skip, flicker, area resize, and a delay until the action has become visible.

Games respond to the stick late and keep gliding after it is released. Breakout's paddle at rest, in pixels per emulator frame:

    emulator frame    1   2   3   4 | 1   2   3   4 | 1
    stick             LEFT          | released      | released
    paddle            0  -3  -4  -5 |-6  -3  -1  -1 | 0
    picture, delay 0             -12|            -11|          a movement between two pictures is a blend of two actions
    picture, delay 1                 -18|           -5|        most of the movement is the action's own
    picture, delay 2                     -21|           -2|    but if the next action is LEFT, this picture shows it: -3 too early

So the picture that closes a step is taken `picture_delay` emulator frames into the next step: as late as possible without
revealing the next action. `picture_delay.py` measures how late that is. Some games flicker: they draw each sprite in some frames
only. Their pictures are the pixelwise maximum of two successive frames.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import ale_py
import gymnasium
import numpy as np

from video_tokenizer.data.video_files import resize_by_area
from video_tokenizer.errors import InputError, first_line
from video_tokenizer.games.detectors import game_facts

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
gymnasium.register_envs(ale_py)

CHUNK, SILENT_LEVEL = 512, 128  # samples of the Atari's sound in an emulator frame, and the one that is played in silence
SOUND_RATE = 60 * CHUNK  # samples a second
SILENCE = bytes([SILENT_LEVEL]) * CHUNK  # an emulator frame without sound
MAX_NOOP_STEPS = 8  # an episode starts after up to this many unrecorded NOOP steps, so that episodes differ

_first_line = partial(first_line, most=300, otherwise="no reason given")


class Episode(NamedTuple):
    """One recorded game, F frames long."""

    frames: np.ndarray  # uint8 (F, H, W, 3)
    actions: np.ndarray  # int16 (F,), actions[f] led from frame f-1 to frame f; actions[0] is -1
    ram: np.ndarray | None  # uint8 (F, 128), the Atari's RAM at the moment of each picture; None for other environments
    arrays: dict[str, np.ndarray]  # what a clip store keeps beside frames and actions, see `FRAME_ARRAYS`: (F, ...)


Policy = Callable[["Game", np.random.Generator], int]
Opening = Callable[["Game", np.random.Generator], None]


class Game:
    """A Gymnasium environment with discrete actions and RGB pictures, played in steps of `frame_skip` emulator frames."""

    def __init__(
        self,
        env_id: str,
        frame_size: tuple[int, int] = (64, 64),
        frame_skip: int = 4,
        picture_delay: int | None = None,
        merged_frames: int | None = None,
        linear_light: bool = True,
        repeat_action_probability: float = 0.0,
        sound: bool = False,
    ):
        """frame_size: (height, width). picture_delay: 0 to frame_skip - 1; None: that of a known game, else 0.

        merged_frames: 2 for the maximum of two emulator frames, 1 for a single frame; None: 1 for known games that do not
        flicker, else 2. linear_light: how pictures are shrunk, see `resize_by_area`. repeat_action_probability: of each emulator
        frame, the probability that the key of the frame before it is held once more (sticky keys, arXiv:1709.06009).
        sound: also keep what is heard, in `sound_in_picture`; only an Atari has any.

        Raises InputError for an unknown game, a missing package, actions that are not discrete, or a delay out of range.
        """
        facts = game_facts(env_id)
        self.env_id, self.frame_size, self.frame_skip, self.linear_light = env_id, frame_size, frame_skip, linear_light
        known_delay = facts.picture_delay if facts is not None and facts.picture_delay < frame_skip else 0
        self.picture_delay = known_delay if picture_delay is None else picture_delay
        if frame_skip < 1 or not 0 <= self.picture_delay < frame_skip:
            raise InputError(
                f"picture delay {self.picture_delay} is impossible with frame skip {frame_skip}; give 0 to {frame_skip - 1}"
            )
        if merged_frames not in (None, 1, 2):
            raise InputError(f"cannot merge {merged_frames} emulator frames; give 1, or 2 for a game that flickers")
        flickers = facts is None or facts.flickers
        self.merged_frames = (2 if flickers else 1) if merged_frames is None else merged_frames
        self.repeat_action_probability = repeat_action_probability
        self.sound = sound
        self._env = _make_environment(env_id, sound)
        self._ale = getattr(self._env.unwrapped, "ale", None)
        if self._ale is not None:
            self._first_state, self._first_screen = self._ale.cloneState(), self._ale.getScreenRGB()  # loading a ROM takes 0.1 s
            self._emulator_actions = list(self._ale.getMinimalActionSet())
            self.action_names = list(self._env.unwrapped.get_action_meanings())  # type: ignore[attr-defined]
            emulator_rate = 60.0
        else:
            space = self._env.action_space
            self._emulator_actions = [int(space.start) + action for action in range(int(space.n))]  # type: ignore[attr-defined]
            self.action_names = [f"ACTION{action}" for action in range(len(self._emulator_actions))]
            emulator_rate = float(self._env.metadata.get("render_fps") or 30.0)
        self.frames_per_second = emulator_rate / frame_skip
        self._screen_now: np.ndarray | None = None
        self._screen_shape: tuple[int, ...] | None = None
        self.fire_action = self.action_names.index("FIRE") if "FIRE" in self.action_names else None

    @property
    def num_actions(self) -> int:
        return len(self.action_names)

    @property
    def ram(self) -> np.ndarray | None:
        """The Atari's current RAM, uint8 (128,); None for other environments."""
        return None if self._ale is None else self._ale.getRAM()

    @property
    def lives(self) -> int:
        """Balls, ships or whatever else the player has left; 0 in a game that does not count them."""
        return 0 if self._ale is None else self._ale.lives()

    def reset(self, seed: int) -> None:
        """Start a new game, with `score` at 0; the same seed and actions give the same game."""
        self.over, self.truncated, self.score, self._screen_now = False, False, 0.0, None
        self._heard = SILENCE * (self.frame_skip - self.picture_delay)  # since the last picture, were there one
        self._held, self._sticky = 0, np.random.default_rng((seed, 2))
        if self._ale is not None:
            self._ale.restoreState(self._first_state)  # without sticky keys the seed changes nothing but the NOOPs below
            self._screen_now = self._first_screen  # restoring the emulator does not restore its screen
        else:
            with _environment_errors(self.env_id, "reset"):
                self._env.reset(seed=seed)
        self._lives = self.lives
        self.score_in_picture, self.lives_in_picture = 0.0, self.lives
        self.needs_fire = self.fire_action is not None
        self._older = self.screen()
        if self._ale is not None:
            noop = self.action_names.index("NOOP")
            for _ in range(int(np.random.default_rng(seed).integers(MAX_NOOP_STEPS + 1))):
                self.step(noop)

    def step(self, action: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Hold `action` for one step. Returns the picture that closes the step *before* it, and the RAM at that moment.

        Picture: uint8 (H, W, 3). RAM: uint8 (128,) or None.
        """
        picture, ram = self.play(action)
        return resize_by_area(picture, self.frame_size, self.linear_light), ram

    def play(self, action: int) -> tuple[np.ndarray, np.ndarray | None]:
        """`step` with a picture of the screen's own size, in a quarter of the time."""
        if action == self.fire_action:
            self.needs_fire = False
        picture, ram = None, None
        for elapsed in range(self.frame_skip):
            if elapsed == self.picture_delay:
                picture, ram = self.screen(), self.ram
                self.score_in_picture, self.lives_in_picture = self.score, self.lives
                self.sound_in_picture, self._heard = self._heard, b""
                if self.merged_frames == 2:
                    picture = np.maximum(self._older, picture)
            if elapsed == (self.picture_delay - 1) % self.frame_skip and self.merged_frames == 2:
                self._older = self.screen()
            self.advance(action)
        assert picture is not None
        lives = self.lives
        if lives < self._lives and self.fire_action is not None:
            self.needs_fire = True
        self._lives = lives
        return picture, ram

    def peek(self, action: int) -> np.ndarray:
        """The picture that closes the step just played, uint8 (H, W, 3), if `action` is held next.

        The Atari runs picture_delay frames ahead and is then restored. Other environments cannot, and show their current screen.
        """
        newest, older = self.screen(), self._older
        if self._ale is not None and self.picture_delay and not self.over:
            state = self._ale.cloneState()
            self._screen_now = newest  # restoring the emulator does not restore its screen
            ahead = newest
            for _ in range(self.picture_delay):
                older = ahead
                self._ale.act(self._emulator_actions[action])
                ahead = self._ale.getScreenRGB()
            newest = ahead
            self._ale.restoreState(state)
        picture = np.maximum(older, newest) if self.merged_frames == 2 else newest
        return resize_by_area(picture, self.frame_size, self.linear_light)

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """What is played inside the block is undone after it, and no key is sticky there. Raises InputError if not an Atari."""
        if self._ale is None:
            raise InputError(f"{self.env_id} cannot be rewound; only Atari games can")
        before, state = vars(self) | {"_screen_now": self.screen()}, self._ale.cloneState()
        self.repeat_action_probability = 0.0
        try:
            yield
        finally:
            self._ale.restoreState(state)
            vars(self).update(before)

    def close(self) -> None:
        self._env.close()

    def advance(self, action: int) -> None:
        """Advance by one emulator frame. The Atari is driven directly, because Gymnasium's step would render every frame."""
        if self.over:
            self._heard += SILENCE
            return
        if self.repeat_action_probability and self._sticky.random() < self.repeat_action_probability:
            action = self._held
        self._held = action
        self._screen_now = None
        if self._ale is not None:
            self.score += self._ale.act(self._emulator_actions[action])
            self.over = self._ale.game_over()  # also where the emulator cuts a game, after half an hour
            self.truncated = self.over and not self._ale.game_over(with_truncation=False)
            if self.sound:
                self._heard += self._ale.getAudio().tobytes()
        else:
            with _environment_errors(self.env_id, "step"):
                _, reward, terminated, truncated, _ = self._env.step(self._emulator_actions[action])
                self.score += float(reward)
                self.over = bool(terminated) or bool(truncated)
                self.truncated = self.over and not terminated

    def screen(self) -> np.ndarray:
        """The current screen, uint8 RGB at its original size; a copy, because some games draw into one array forever."""
        if self._screen_now is not None:
            return self._screen_now
        if self._ale is not None:
            return self._ale.getScreenRGB()
        with _environment_errors(self.env_id, "render"):
            screen = self._env.render()
        if not isinstance(screen, np.ndarray) or screen.dtype != np.uint8 or screen.shape[2:] != (3,) or screen.size == 0:
            raise InputError(f"{self.env_id} does not render RGB pictures of type uint8 (H, W, 3); choose another environment")
        self._screen_shape = self._screen_shape or screen.shape
        if screen.shape != self._screen_shape:
            raise InputError(
                f"{self.env_id} cannot be recorded: its pictures change from {self._screen_shape[1]}x{self._screen_shape[0]} to "
                f"{screen.shape[1]}x{screen.shape[0]} pixels; choose an environment, or a setting of it, whose size stays"
            )
        return screen.copy()


def record_episode(game: Game, policy: Policy, num_frames: int, seed: int, opening: Opening | None = None) -> Episode:
    """Play one episode of at most `num_frames` frames, or until the game is over.

    policy(game, rng) -> action is called once per step and sees the current game, not the delayed picture.
    opening(game, rng) first plays steps that are not recorded; it must not leave the game over.

    A reward belongs to the first picture that is taken after it. A game that ends has no such picture, so the last frame stands
    for the end as well: it gets what the game still paid.
    """
    rng = np.random.default_rng((seed, 1))
    game.reset(seed)
    if opening is not None:
        opening(game, rng)
    frames, actions, memories, sounds, scores, lives = [], [-1], [], [], [], []
    while True:
        closing = len(frames) + 1 >= num_frames
        action = max(actions[-1], 0) if closing else policy(game, rng)  # hold the last action until its picture is taken
        picture, ram = game.step(action)  # shows the actions so far, not yet `action`
        frames.append(picture)
        memories.append(ram)
        sounds.append(game.sound_in_picture)
        scores.append(game.score_in_picture)
        lives.append(game.lives_in_picture)
        if game.over or closing:
            break
        actions.append(action)
    ram = None if memories[0] is None else np.stack(memories)
    if game.over:
        scores[-1], lives[-1] = game.score, game.lives
    ends = np.zeros(len(frames), dtype=bool)
    ends[-1] = game.over and not game.truncated
    rewards = np.diff(scores, prepend=scores[:1]).astype(np.float32)
    arrays = {"rewards": rewards, "ends": ends, "lives": np.array(lives, dtype=np.uint8)}
    if game.sound:
        arrays["sound"] = np.frombuffer(b"".join(sounds), np.uint8).reshape(len(frames), -1)
    return Episode(np.stack(frames), np.array(actions, dtype=np.int16), ram, arrays)


@contextmanager
def _environment_errors(env_id: str, method: str) -> Iterator[None]:
    """Turn whatever somebody else's environment raises into one sentence with its name."""
    try:
        yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise InputError(f"{env_id} needs a package that is not installed: {_first_line(error)}") from error
    except Exception as error:  # OSError of a display, RuntimeError of a simulator, AssertionError of a level, ...
        raise InputError(
            f"{env_id} cannot be played: its {method} failed with {type(error).__name__}: {_first_line(error)}"
        ) from error


def usual_frame_skip(env_id: str) -> int:
    """4 for the Atari. Elsewhere as many as make 15 recorded frames a second, but fewer where random games would be over within
    32 recorded frames: CartPole has 50 frames a second, of which the pole stands about 20, so that none is skipped."""
    game = Game(env_id, frame_skip=1)
    skip = 4 if game.ram is not None else min(4, max(1, round(game.frames_per_second / 15)))
    if game.ram is None and skip > 1:
        lengths = []
        for seed in range(5):
            rng, length = np.random.default_rng(seed), 0
            game.reset(seed)
            while not game.over and length < 32 * skip:
                game.advance(int(rng.integers(game.num_actions)))
                length += 1
            lengths.append(length)
        skip = max(1, int(np.median(lengths)) // 32)
    game.close()
    return skip


def short_name(env_id: str) -> str:
    """The game's name for folders: ALE/Breakout-v5 -> breakout, minigrid:MiniGrid-Empty-8x8-v0 -> minigrid-empty-8x8."""
    return env_id.split(":")[-1].split("/")[-1].split("-v")[0].lower()


def _make_environment(env_id: str, sound: bool = False) -> gymnasium.Env:
    is_atari = env_id.split(":")[-1].startswith("ALE/")  # ale_py:ALE/Pong-v5 is one too
    if sound and not is_atari:
        raise InputError(f"{env_id} has no sound that could be recorded; only the Atari's games have")
    atari: dict[str, Any] = {"frameskip": 1, "repeat_action_probability": 0.0, "full_action_space": False} if is_atari else {}
    atari |= {"sound_obs": True} if sound else {}
    try:
        env = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True, **atari)
    except gymnasium.error.DependencyNotInstalled as error:
        raise InputError(f"{env_id} needs a package that is not installed: {_first_line(error)}") from error
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise InputError(
            f"{env_id!r} cannot be started ({_first_line(error)}); give a Gymnasium id such as ALE/Breakout-v5, "
            "or package:id for a game of another package, such as minigrid:MiniGrid-Empty-8x8-v0"
        ) from error
    except Exception as error:
        raise InputError(f"{env_id} cannot be started: {type(error).__name__}: {_first_line(error)}") from error
    with _environment_errors(env_id, "reset"):
        env.reset(seed=0)
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        raise InputError(
            f"{env_id} has actions of type {env.action_space}; only environments with discrete actions can be recorded"
        )
    return env
