"""The game that a world was learned from, played beside a rollout: same start, same keys."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from dynamics_model.data.metadata import WorldMetadata
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Episode, Game, Opening, Policy, record_episode
from video_tokenizer.games.policies import make_players, replay
from world_model.lively_starts import ball_in_flight, is_ball_game
from world_model.world import WorldModel

BEGINNING_FRAMES = (24, 96)
"""range of frames that a live game is played before the prompt frames of the rollout"""
FILM_BEGINNING = 48
"""frames that a game runs before it is filmed"""
GAMES_TRIED = 20
"""until one lasts as long as the film; the second half of them with the shortest possible beginning"""


def open_game(env_id: str, metadata: WorldMetadata, frame_size: tuple[int, int]) -> Game:
    """The world's own game, recorded as it was for training. Raises InputError for a game with other actions."""
    timing = metadata.frame_skip or 4, metadata.picture_delay, metadata.merged_frames
    game = Game(env_id, frame_size, *timing, metadata.linear_light)
    names = metadata.action_names
    if names and names != game.action_names:
        raise InputError(
            f"{env_id} has the actions {', '.join(game.action_names)}, but this world was learned from a game with "
            f"{', '.join(names)}; give its own game"
        )
    return game


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


MOST_WAITING = 64
"""frames that are played until the ball is in flight; Pong, which waits longest, serves after 16"""


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
