"""A DQN agent that practices in dreamed games, and how it plays the emulator."""

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from uses.imagination.dreams import DreamedGames, judge
from uses.imagination.reward_head import RewardHead
from video_tokenizer.data.clips import to_video
from world_model.ball_game import BallGame
from world_model.world import WorldModel


class DreamedVecEnv(VecEnv):
    """Dreamed games as stable-baselines3 wants them: a lost life ends an episode, but its rollout goes on, as it does in the
    emulator. All rollouts begin anew after rollout_steps frames, before they drift away."""

    def __init__(self, games: DreamedGames, rollout_steps: int):
        num_features = games.head.to_logits.in_features
        observed = gymnasium.spaces.Box(-np.inf, np.inf, (num_features,), np.float32)
        super().__init__(games.num_games, observed, gymnasium.spaces.Discrete(len(games.keys)))
        self.games, self.rollout_steps, self.elapsed = games, rollout_steps, 0
        self.chosen = np.zeros(games.num_games, np.int64)

    def reset(self) -> np.ndarray:
        self.elapsed = 0
        return self.games.reset().features

    def step_async(self, actions: np.ndarray) -> None:
        self.chosen = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        step = self.games.step(self.chosen)
        self.elapsed += 1
        is_cut = self.elapsed >= self.rollout_steps
        lost = self.games.rng.random(self.num_envs) < step.lost
        infos: list[dict[str, Any]] = [
            {"terminal_observation": features, "TimeLimit.truncated": is_cut and not is_lost} if is_cut or is_lost else {}
            for features, is_lost in zip(step.features, lost, strict=True)
        ]
        observed = self.reset() if is_cut else step.features
        return observed, step.outlook, lost | is_cut, infos

    def close(self) -> None: ...

    # the rest is about single environments inside a vectorized one, of which there are none

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def train_agent(env: DreamedVecEnv, num_steps: int, seed: int) -> DQN:
    """Train on num_steps dreamed frames."""
    agent = DQN(
        "MlpPolicy",
        env,
        learning_rate=lambda left: 1e-3 * left,
        learning_starts=min(2_000, num_steps // 4),
        batch_size=256,
        gamma=0.95,
        train_freq=1,
        gradient_steps=16,
        target_update_interval=10 * env.num_envs,
        exploration_fraction=1.0,
        exploration_final_eps=0.3,  # the dreams are few, and a key that is never pressed teaches nothing
        policy_kwargs={"net_arch": [128, 128]},
        seed=seed,
        device="cpu",
    )
    with tqdm(total=num_steps, desc="dreaming", unit="frame", disable=None) as bar:
        agent.learn(num_steps, callback=lambda *_: bar.update(env.num_envs) or True)
    return agent


class Awake:
    """The agent in one game of the emulator: the world's tokenizer reads the frames, and the head reads their tokens.

    ledger: counts "frames", what it "believed" to be paid, and how often it was "paid" in truth, which it does not see.
    """

    def __init__(self, agent: DQN, world: WorldModel, head: RewardHead, real: BallGame, ledger: dict[str, float]):
        self.agent, self.world, self.head, self.real, self.ledger = agent, world, head, real, ledger
        self.cache: Any = None
        self.window: deque[torch.Tensor] = deque(maxlen=head.num_frames)
        self.score = 0.0

    @torch.no_grad()
    def __call__(self, seen: np.ndarray, frame: np.ndarray) -> int:
        """The key for the next frame. seen, the positions of ball and paddle, is not looked at."""
        encoded, self.cache = self.world.tokenizer.encode_next(to_video(frame[None, None], self.world.device), self.cache)
        tokens = encoded.indices[0].cpu()  # (1, N)
        self.window.extend([tokens] * (1 if self.window else self.head.num_frames))
        step = judge(self.head, torch.cat(list(self.window))[None])
        score = self.real.env.game.score  # type: ignore[attr-defined]
        self.ledger["frames"] += 1
        self.ledger["believed"] += float(step.paid[0])
        self.ledger["paid"] += float(score > self.score)
        self.score = score
        return int(self.agent.predict(step.features, deterministic=True)[0][0])
