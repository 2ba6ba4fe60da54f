"""The game that a world was learnt from, played beside the dream: same beginning, same keys."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from video_tokenizer.command_line import InputError
from video_tokenizer.data.environment import Episode, Game, Policy, record_episode
from video_tokenizer.data.policies import make_players, replay
from world_model.world import WorldModel


def open_game(env_id: str, facts: dict[str, Any], frame_size: tuple[int, int]) -> Game:
    """The world's own game, filmed as it was for training. facts: what dynamics.pt tells about its data."""
    frame_skip, delay, merged = facts.get("frame_skip") or 4, facts.get("picture_delay"), facts.get("merged_frames", 2)
    game = Game(env_id, frame_size, frame_skip, delay, merged)
    names = facts.get("action_names") or []
    if names and list(names) != game.action_names:
        raise InputError(
            f"{env_id} has the actions {', '.join(game.action_names)}, but this world was learnt from a game with "
            f"{', '.join(names)}; give its own game"
        )
    return game


def best_player(game: Game) -> Policy:
    """The scripted player where there is one, so that the ball is in play; chance elsewhere."""
    return list(make_players("mixed", game).values())[-1]


def play_beginning(game: Game, policy: Policy, num_frames: int, seed: int) -> list[int]:
    """The actions of a game's first num_frames frames, (num_frames - 1,); fewer where the game was over before."""
    return record_episode(game, policy, num_frames, seed).actions[1:].tolist()


def play_keys(game: Game, beginning: Sequence[int], keys: Sequence[str], seed: int) -> Episode:
    """The same game once more, with these keys pressed after its beginning: len(beginning) + 1 + len(keys) frames in all.

    The emulator repeats a game exactly from its seed and actions, so that games with the same beginning part only where their
    keys do. Fewer frames come back where the game is over earlier.
    """
    pressed = [game.action_names.index(key) for key in keys]
    # the last picture is taken a little into the step after it, in which the last key stays down
    actions = [*beginning, *pressed, *pressed[-1:]]
    return record_episode(game, replay(actions), len(beginning) + 1 + len(keys), seed)


class RealGame:
    """The real game played live, one key at a time, beside a dream."""

    def __init__(self, env_id: str, world: WorldModel, beginning_frames: int = 48):
        self.world, self.beginning_frames = world, max(beginning_frames, world.context_frames)
        self.game = open_game(env_id, world.facts, world.frame_size)
        # the way back from the world's actions to keys; of two keys with the same action the first
        self.keys = {action: self.game.action_names.index(key) for key, action in reversed(world.action_map.items())}

    def reset(self, seed: int) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Let a practised player begin a new game.

        Returns its last frames (T, H, W, 3), the actions (1, T) that led to them where the world knows true ones, and the
        action pressed since, which no picture shows yet.
        """
        policy, rng = best_player(self.game), np.random.default_rng(seed)
        self.game.reset(seed)
        frames, pressed = [], [-1]
        for _ in range(self.beginning_frames):
            pressed.append(policy(self.game, rng))
            frames.append(self.game.step(pressed[-1])[0])
        context = self.world.context_frames
        known = np.array([pressed[:-1]])[:, -context:] if self.world.action_kind == "true" else None
        last = self.world.action_map.get(self.game.action_names[pressed[-1]], -1)
        return np.stack(frames[-context:]), known, last

    def step(self, action: int) -> np.ndarray:
        """Press the key that stands for the world's action. Returns the picture (H, W, 3) that closes the step before it.

        A game that is over begins anew.
        """
        if self.game.over:
            self.game.reset(0)
        return self.game.step(self.keys.get(action, 0))[0]
