"""The game that a world was learned from, played beside a rollout: same start, same keys."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.data.prepare import learn_action_map
from latent_action_model.metrics import encode_episodes
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.games.emulator import Episode, Game, Opening, Policy, record_episode
from video_tokenizer.games.picture_delay import calibrate_picture_delay
from video_tokenizer.games.policies import make_players, replay
from world_model.lively_starts import ball_in_flight, is_ball_game
from world_model.world import WorldModel

BEGINNING_FRAMES = (24, 96)
"""range of frames that a live game is played before the prompt frames of the rollout"""
FILM_BEGINNING = 48
"""frames that a game runs before it is filmed"""
GAMES_TRIED = 20
"""until one lasts as long as the film; the second half of them with the shortest possible beginning"""
MOST_WAITING = 64
"""frames that are played until the ball is in flight; Pong, which waits longest, serves after 16"""
LABELED_SEED = 2_100_000_000
"""seed of the first game from which a world of videos learns its keys; recordings and evaluations use smaller ones"""
LABELED_GAMES, LABELED_FRAMES = 4, 200
"""how many of these games, and frames of each"""
SMALLEST_LIKENESS = 0.95
"""correlation of a game's background with that of videos of it; cropped instead of stretched, five games scored -0.07 to 0.94"""


def open_game(
    env_id: str,
    metadata: WorldMetadata,
    frame_size: tuple[int, int],
    repeat_action_probability: float = 0.0,
    sound: bool = False,
) -> Game:
    """The world's own game, recorded as it was for training. Raises InputError for a game with other actions."""
    merged_frames = metadata.merged_frames if metadata.env_id else None  # videos do not say it
    timing = metadata.frame_skip or 4, metadata.picture_delay, merged_frames
    game = Game(env_id, frame_size, *timing, metadata.linear_light, repeat_action_probability, sound)
    names = metadata.action_names
    if names and names != game.action_names:
        raise InputError(
            f"{env_id} has the actions {', '.join(game.action_names)}, but this world was learned from a game with "
            f"{', '.join(names)}; give its own game"
        )
    return game


def open_its_game(env_id: str, world: WorldModel) -> Game:
    """`open_game` for a world, which learns its keys from the game if it was learned from videos and has latent actions."""
    game = open_game(env_id, world.metadata, world.frame_size)
    if world.metadata.env_id is None and world.latent_action_model is not None:
        learn_keys(world, game)
    return game


def learn_keys(world: WorldModel, game: Game) -> None:
    """Tell a world of videos which game they show, and which of its latent actions each key is, from as many labels as a recorded
    world has.

    Raises InputError if the videos show the game at another speed or in another frame: then nothing could be compared.
    """
    if not np.isclose(rate := world.frames_per_second, game.frames_per_second, rtol=0.01):
        raise InputError(
            f"the world's videos have {rate:g} frames a second and the steps of {game.env_id} {game.frames_per_second:g}; "
            "its codes are no keys of this game, record videos of it with record.py --video"
        )
    if game_facts(game.env_id) is None:  # as the recorder does
        measured = calibrate_picture_delay(game.env_id, frame_skip=game.frame_skip)
        game.picture_delay, game.merged_frames = measured.best, 2 if measured.flickers else 1
    players = make_players("mixed", game).values()
    episodes = [
        record_episode(game, policy, LABELED_FRAMES, LABELED_SEED + number)
        for number, policy in enumerate(islice(cycle(players), LABELED_GAMES))
    ]
    frames = np.concatenate([episode.frames for episode in episodes])
    background, filmed = (
        np.median(video.mean(axis=-1), axis=0).ravel() for video in (frames, np.concatenate(world.start_frames))
    )
    if (alike := np.corrcoef(background, filmed)[0, 1]) < SMALLEST_LIKENESS:
        raise InputError(
            f"the background of {game.env_id} and that of the world's videos have a correlation of {alike:.2f}, less than "
            f"{SMALLEST_LIKENESS}; give the game that they show, or decode them with --fit stretch, as its screen is shrunk"
        )
    stops = np.cumsum([len(episode.frames) for episode in episodes])
    ranges = np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)
    actions = np.concatenate([episode.actions for episode in episodes])
    store = ClipStore(Path(f"labelled games of {game.env_id}"), frames, actions, ranges, {"action_names": game.action_names})
    model = world.latent_action_model
    assert model is not None
    codes = encode_episodes(model, store, range(len(episodes)), model.config.num_frames)
    world.metadata = replace(
        world.metadata, env_id=game.env_id, action_names=game.action_names, frame_skip=game.frame_skip,
        picture_delay=game.picture_delay, merged_frames=game.merged_frames,
        **learn_action_map(world.dynamics.config, store, codes, world.num_actions),
    )  # fmt: skip
    world.p_key_given_action = torch.as_tensor(world.key_probabilities(), device=world.device)


def best_player(game: Game) -> Policy:
    """The scripted policy if there is one, so that the ball is in play; else random actions."""
    return list(make_players("mixed", game).values())[-1]


def play_beginning(game: Game, policy: Policy, num_frames: int, seed: int, opening: Opening | None = None) -> list[int]:
    """The actions of a game's first num_frames frames, (num_frames - 1,); fewer if the game ends earlier.

    opening: plays steps before the first frame, see `record_episode`.
    """
    return record_episode(game, policy, num_frames, seed, opening).actions[1:].tolist()


def play_keys(game: Game, beginning: Sequence[int], keys: Sequence[str], seed: int, opening: Opening | None = None) -> Episode:
    """Replay a game's beginning and press these keys after it: len(beginning) + 1 + len(keys) frames in all.

    The emulator is deterministic given seed and actions, so games with the same beginning differ only from the first different
    key on. Fewer frames are returned if the game ends earlier.
    """
    pressed = [game.action_names.index(key) for key in keys]
    # the last picture is taken a little into the following step, in which the last key is still held
    actions = [*beginning, *pressed, *pressed[-1:]]
    return record_episode(game, replay(actions), len(beginning) + 1 + len(keys), seed, opening)


def play_after_beginning(game: Game, keys: Sequence[str], context_frames: int, seed: int) -> tuple[list[int], Episode]:
    """Press the keys after a beginning, as `play_keys` does. Returns the beginning and the episode.

    Some games end before all keys are pressed: of `GAMES_TRIED`, this takes the first that lasts, or else the longest. Raises
    InputError for a game in which not even one key can be pressed.
    """
    played: tuple[list[int], Episode] = ([], play_keys(game, [], keys[:0], seed))
    for attempt in range(GAMES_TRIED):
        usual = FILM_BEGINNING if attempt < GAMES_TRIED // 2 else 0
        beginning = play_beginning(game, best_player(game), max(usual, context_frames), seed + attempt)
        if game.over:  # it would be over when the keys begin: press them from its middle on
            beginning = beginning[: len(beginning) // 2]
        episode = play_keys(game, beginning, keys, seed + attempt)
        if len(episode.frames) - len(beginning) > len(played[1].frames) - len(played[0]):
            played = beginning, episode
        if len(episode.frames) == len(beginning) + 1 + len(keys):
            break
    if len(played[1].frames) <= len(played[0]) + 1:
        raise InputError(f"{game.env_id} ends at once, in {GAMES_TRIED} games of {GAMES_TRIED}; leave --beside-emulator out")
    return played


class RealGame:
    """The real game played live, one key at a time, beside a rollout.

    The newest pictures are kept in `frames`, and the actions that led to them in `actions` (-1 unknown): `context_frames` of
    each, so that a rollout can restart from the game's current state.
    """

    def __init__(self, env_id: str, world: WorldModel):
        self.world = world
        self.game = open_game(env_id, world.metadata, world.frame_size)
        self.frames: deque[np.ndarray] = deque(maxlen=world.context_frames)
        self.actions: deque[int] = deque(maxlen=world.context_frames)

    def reset(self, seed: int) -> None:
        """Start a new game and let `best_player` play a random number of frames, and on until the ball is in flight.

        A game that is over by then is played again for half as long. Raises InputError for one that ends at once.
        """
        count = self.world.context_frames + int(np.random.default_rng(seed).integers(*BEGINNING_FRAMES))
        played = self._play_beginning(seed, count)
        while self.game.over:
            if played == 1:
                raise InputError(f"{self.game.env_id} is over after one frame; begin with another seed, or from a stored start")
            played = self._play_beginning(seed, played // 2)
        self.actions[0] = -1  # the frame before the first picture is unknown

    def _play_beginning(self, seed: int, count: int) -> int:
        """Play `count` frames of a new game and on until the ball is in flight, or until the game is over.

        Returns how many of the `count` it were.
        """
        policy, rng = best_player(self.game), np.random.default_rng(seed)
        rng.integers(*BEGINNING_FRAMES)  # the draw that chose the first count
        self.game.reset(seed)
        self.frames.clear()
        self.actions.clear()
        for number in range(count):
            self._play(policy(self.game, rng), last=number == count - 1)
            if self.game.over:
                return number + 1
        self._play_until_ball(policy, rng)
        return count

    def serve(self) -> None:
        """Hold FIRE until the ball is in flight, or NOOP in a game that serves by itself."""
        self._play_until_ball(lambda game, rng: game.fire_action or 0, np.random.default_rng(0))

    @property
    def ball_is_lost(self) -> bool:
        """Whether the game waits for FIRE to serve a ball."""
        return is_ball_game(self.game.env_id) and self.game.needs_fire

    def _play_until_ball(self, policy: Policy, rng: np.random.Generator) -> None:
        """Play until the ball is in flight, in a game whose ball can be detected."""
        for _ in range(MOST_WAITING if is_ball_game(self.game.env_id) else 0):
            if self.game.over or ball_in_flight(np.stack(list(self.frames)[-2:]), self.game.env_id):
                break
            self._play(policy(self.game, rng))

    def step(self, key: str) -> np.ndarray:
        """Hold a key for one step. Returns the picture (H, W, 3) of its effect. Raises InputError if the game is over."""
        if self.game.over:
            raise InputError("the real game is over; begin again")
        if key not in self.game.action_names:
            raise InputError(f"the real game has no key {key!r}; there are {', '.join(self.game.action_names)}")
        self._play(self.game.action_names.index(key))
        return self.frames[-1]

    def known_actions(self) -> np.ndarray | None:
        """The actions (T,) that led to `frames` in a world of true actions; None lets other worlds infer them from the frames."""
        return np.array(self.actions, dtype=np.int64) if self.world.action_kind == "true" else None

    def close(self) -> None:
        self.game.close()

    def _play(self, action: int, last: bool = True) -> None:
        """One step. Its picture is due a little later: the next step returns it, or the emulator peeks ahead, after the last."""
        picture, _ = self.game.step(action)
        if self.frames:
            self.frames[-1] = picture
        self.frames.append(self.game.peek(action) if last else picture)
        self.actions.append(action)
