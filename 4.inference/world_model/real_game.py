"""The game that a world was learned from, played beside a rollout: same start, same keys."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from dynamics_model.data.metadata import WorldMetadata
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Episode, Game, Policy, record_episode
from video_tokenizer.games.policies import make_players, replay
from world_model.world import WorldModel

BEGINNING_FRAMES = (24, 96)
"""range of frames that a live game is played before the prompt frames of the rollout"""


def open_game(env_id: str, metadata: WorldMetadata, frame_size: tuple[int, int]) -> Game:
    """The world's own game, recorded as it was for training. Raises InputError for a game with other actions."""
    game = Game(env_id, frame_size, metadata.frame_skip or 4, metadata.picture_delay, metadata.merged_frames)
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


def play_beginning(game: Game, policy: Policy, num_frames: int, seed: int) -> list[int]:
    """The actions of a game's first num_frames frames, (num_frames - 1,); fewer if the game ends earlier."""
    return record_episode(game, policy, num_frames, seed).actions[1:].tolist()


def play_keys(game: Game, beginning: Sequence[int], keys: Sequence[str], seed: int) -> Episode:
    """Replay a game's beginning and press these keys after it: len(beginning) + 1 + len(keys) frames in all.

    The emulator is deterministic given seed and actions, so games with the same beginning differ only from the first different
    key on. Fewer frames are returned if the game ends earlier.
    """
    pressed = [game.action_names.index(key) for key in keys]
    # the last picture is taken a little into the following step, in which the last key is still held
    actions = [*beginning, *pressed, *pressed[-1:]]
    return record_episode(game, replay(actions), len(beginning) + 1 + len(keys), seed)


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
        """Start a new game and let `best_player` play a random number of frames, so that the ball is in play."""
        policy, rng = best_player(self.game), np.random.default_rng(seed)
        self.game.reset(seed)
        self.frames.clear()
        self.actions.clear()
        count = self.world.context_frames + int(rng.integers(*BEGINNING_FRAMES))
        for number in range(count):
            self._play(policy(self.game, rng), last=number == count - 1)
        self.actions[0] = -1  # the frame before the first picture is unknown

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
