"""Search for the keys whose imagined future costs least: random shooting and the cross-entropy method."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from uses.planning.costs import Cost
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import Game
from world_model.world import RolloutState, WorldModel

PROMPT_FRAMES = 4
"""real frames that the world reads before it imagines: enough to see where the ball flies, and twice as fast as eight"""
Imagine = Callable[[np.ndarray], np.ndarray]
"""plans (N, H), the number of a key for each of H frames -> their imagined frames (N, H, h, w, 3) uint8"""


@dataclass(frozen=True)
class Search:
    """How many futures are imagined for one decision, and which. Raises InputError for numbers that do not fit each other."""

    num_rollouts: int = 16
    """imagined futures per decision"""
    horizon: int = 4
    """frames of each"""
    hold: int = 1
    """frames for which a key of a plan is held"""
    num_rounds: int = 1
    """1: random shooting. More: the cross-entropy method, which divides the rollouts among so many rounds"""
    elite_share: float = 0.25
    """share of a round's plans that the next round learns from"""
    smoothing: float = 0.2
    """how much of the probabilities before it a round keeps, so that no key dies out by chance"""

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.hold < 1:
            raise InputError(f"--horizon {self.horizon} and --hold {self.hold}: both must be at least 1")
        if not 1 <= self.num_rounds <= self.num_rollouts:
            raise InputError(
                f"{self.num_rollouts} rollouts cannot be divided among {self.num_rounds} rounds; give at least one each"
            )


class Found(NamedTuple):
    """What a search has imagined."""

    plan: np.ndarray
    """(H,) the keys with the lowest cost"""
    plans: np.ndarray
    """(N, H) all plans"""
    costs: np.ndarray
    """(N,) their costs, infinite where nothing could be said"""
    futures: np.ndarray
    """(N, H, h, w, 3) uint8, their imagined frames"""
    probability: np.ndarray
    """(S, K) how likely each key is in each stretch of held keys, after the last round"""


def search(
    imagine: Imagine, cost: Callable[[np.ndarray], np.ndarray], num_keys: int, settings: Search, rng: np.random.Generator
) -> Found:
    """Draw plans, imagine them, and keep the cheapest; between rounds, make the keys of the cheapest ones likelier."""
    num_stretches = -(-settings.horizon // settings.hold)
    probability = np.full((num_stretches, num_keys), 1 / num_keys)  # (S, K)
    plans, futures, costs = [], [], []
    for share in np.array_split(np.arange(settings.num_rollouts), settings.num_rounds):
        drawn = np.stack([rng.choice(num_keys, len(share), p=of_keys) for of_keys in probability], axis=1)  # (n, S)
        plans.append(drawn.repeat(settings.hold, axis=1)[:, : settings.horizon])  # (n, H)
        futures.append(imagine(plans[-1]))
        costs.append(np.nan_to_num(cost(futures[-1]), nan=np.inf))
        elites = drawn[costs[-1].argsort(kind="stable")[: max(1, round(settings.elite_share * len(share)))]]
        frequency = (elites[..., None] == np.arange(num_keys)).mean(axis=0)  # (S, K)
        probability = settings.smoothing * probability + (1 - settings.smoothing) * frequency
    all_plans, all_costs = np.concatenate(plans), np.concatenate(costs)
    return Found(all_plans[all_costs.argmin()], all_plans, all_costs, np.concatenate(futures), probability)


# ---- who imagines -------------------------------------------------------------------------------------------------------


def imagine_in_world(world: WorldModel, belief: RolloutState, actions: np.ndarray) -> Imagine:
    """Futures in a learned world, all of a round in one batch. belief: a rollout (batch 1) that has seen the real frames so far.

    actions: (K,) the world's action for each key. The world translates it into what the key leads to there, as it does in play.
    """

    def imagine(plans: np.ndarray) -> np.ndarray:
        state = copies(belief, len(plans))
        return np.stack([world.step_rollouts(state, actions[keys]) for keys in plans.T], axis=1)

    return imagine


def copies(state: Any, count: int) -> Any:
    """A batch of `count` rollouts that stand where a batch of one stands: each array, `count` times along its first axis.

    Keys and values are (B*N, heads, frames, dim), and B is 1, so the copies of one rollout's N patches stay together. The random
    number generator is shared.
    """
    if isinstance(state, Tensor):
        return state.repeat(count, *[1] * (state.dim() - 1))
    if isinstance(state, np.ndarray):
        return state.repeat(count, axis=0)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{field.name: copies(getattr(state, field.name), count) for field in fields(state)})
    if isinstance(state, list | tuple):
        return type(state)(copies(entry, count) for entry in state)
    return state


def imagine_in_emulator(game: Game, actions: np.ndarray) -> Imagine:
    """Futures in the game itself, which is rewound after each: not for agents, but to see what a perfect world is worth."""

    def film(plan: np.ndarray) -> np.ndarray:
        frames = []
        with game.rewound():
            for action in actions[plan].tolist():
                game.step(action)
                frames.append(game.peek(action))
        return np.stack(frames)

    def imagine(plans: np.ndarray) -> np.ndarray:
        different, which = np.unique(plans, axis=0, return_inverse=True)
        return np.stack([film(plan) for plan in different])[which]

    return imagine


# ---- the agent ----------------------------------------------------------------------------------------------------------


class Planner:
    """An agent that searches while a ball is in play, presses the first keys of the best plan, looks, and searches again.

    imagine: (the real frames (T, h, w, 3) so far, the keys (T,) that led to them, -1 unknown, a seed) -> who imagines from there.
    replan_every: how many keys of a plan are pressed before the next search.
    """

    def __init__(
        self, imagine: Callable[[np.ndarray, np.ndarray, int], Imagine], cost: Cost, env_id: str, settings: Search,
        replan_every: int, seed: int, context_frames: int,
    ):  # fmt: skip
        self.imagine, self.cost, self.env_id, self.settings, self.replan_every = imagine, cost, env_id, settings, replan_every
        self.rng = np.random.default_rng(seed)
        self.frames: deque[np.ndarray] = deque(maxlen=context_frames)
        self.keys: deque[int] = deque([-1], maxlen=context_frames)
        self.waiting: list[int] = []
        self.found: Found | None = None
        self.num_searches = 0

    def __call__(self, seen: np.ndarray, frame: np.ndarray) -> int:
        """The next key: 0 stays, 1 and 2 move to smaller and larger positions. seen: what `BallGame` observes."""
        self.frames.append(frame)
        if not seen[-1]:
            self.waiting = []
        elif not self.waiting:
            past = np.stack(self.frames), np.array(self.keys)
            imagine = self.imagine(*past, int(self.rng.integers(2**31)))
            self.found = search(imagine, lambda futures: self.cost(futures, self.env_id), 3, self.settings, self.rng)
            self.num_searches += 1
            self.waiting = self.found.plan[: self.replan_every].tolist()
        self.keys.append(self.waiting.pop(0) if seen[-1] else 0)
        return self.keys[-1]


def planner_in_world(
    world: WorldModel, actions: np.ndarray, cost: Cost, env_id: str, settings: Search, replan_every: int, seed: int
) -> Planner:
    """A planner whose world reads the newest real frames at every decision. actions: (3,) the world's actions for the keys."""

    def imagine(frames: np.ndarray, keys: np.ndarray, number: int) -> Imagine:
        known = np.where(keys < 0, -1, actions[keys])[None] if world.action_kind == "true" else None
        return imagine_in_world(world, world.start_rollouts(frames[None], known, number), actions)

    return Planner(imagine, cost, env_id, settings, replan_every, seed, PROMPT_FRAMES)


def planner_in_emulator(
    game: Game, actions: np.ndarray, cost: Cost, env_id: str, settings: Search, replan_every: int, seed: int
) -> Planner:
    """The same planner with the emulator as its world. actions: (3,) the emulator's actions for the keys."""
    return Planner(lambda *past: imagine_in_emulator(game, actions), cost, env_id, settings, replan_every, seed, 1)
