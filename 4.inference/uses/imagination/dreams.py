"""Games that take place in a world alone: rollouts side by side, paid and ended by a reward head."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uses.imagination.reward_head import RewardHead
from world_model.world import RolloutState, WorldModel


class Prompts(NamedTuple):
    """Real moments from which rollouts begin, S of them."""

    frames: np.ndarray
    """(S, T, H, W, 3) uint8"""
    actions: np.ndarray | None
    """(S, T), the world's action that led to each; None for a world that infers them"""
    tokens: np.ndarray
    """(S, T, N)"""


class Step(NamedTuple):
    """What a frame brings to each of B games."""

    features: np.ndarray
    """(B, F) float32, what the agent observes"""
    paid: np.ndarray
    """(B,) the head's probability that something was paid for it"""
    lost: np.ndarray
    """(B,) that a life was lost with it"""
    outlook: np.ndarray
    """(B,) the probability that something is paid within the longest horizon, minus that of a lost life"""


class DreamedGames:
    """B rollouts of a world, all of the same length. An agent sees what the head makes of their tokens, and no picture.

    keys: the world's action for each key of the agent.
    """

    def __init__(self, world: WorldModel, head: RewardHead, prompts: Prompts, keys: list[int], num_games: int, seed: int):
        self.world, self.head, self.prompts, self.num_games = world, head, prompts, num_games
        self.keys = np.array(keys)
        self.rng = np.random.default_rng(seed)
        self.state: RolloutState | None = None
        self.window = torch.empty(0)

    def reset(self) -> Step:
        """Begin all games anew, each from a random prompt."""
        chosen = self.rng.integers(len(self.prompts.frames), size=self.num_games)
        actions = None if self.prompts.actions is None else self.prompts.actions[chosen]
        self.state = self.world.start_rollouts(self.prompts.frames[chosen], actions, int(self.rng.integers(2**31)))
        self.window = torch.from_numpy(self.prompts.tokens[chosen, -self.head.num_frames :].astype(np.int64))  # (B, T, N)
        return judge(self.head, self.window)

    def step(self, keys: np.ndarray) -> Step:
        """Press a key (B,) in every game."""
        assert self.state is not None, "reset() comes first"
        self.world.step_rollouts(self.state, self.keys[keys])
        self.window = torch.cat([self.window[:, 1:], self.state.latest[:, None].cpu()], dim=1)
        return judge(self.head, self.window)

    @property
    def frames(self) -> np.ndarray:
        """The newest frames, (B, H, W, 3) uint8."""
        assert self.state is not None, "reset() comes first"
        return self.state.frames


@torch.no_grad()
def judge(head: RewardHead, window: Tensor) -> Step:
    """What the head makes of tokens (B, T, N)."""
    features = head.features(window)
    probability = head.logits(features).sigmoid().numpy()  # (B, 2, H)
    paid, lost = probability[:, :, 0].T
    return Step(features.numpy(), paid, lost, probability[:, 0, -1] - probability[:, 1, -1])
