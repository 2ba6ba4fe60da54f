"""How an agent is paid: by likelihood and a bonus for what is new, or by a discriminator to compare with. Never by the score.

Needs the extra: pip install -e ".[agent]"
"""

from collections import deque
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import Tensor, nn

from uses.viper.reward import Payer, RunningScale, Stream, VideoReward

RECENT_STEPS, PAIRS = 64, 64
"""the discriminator learns from so many pairs of the agent's last steps: with the last step alone, in which all balls are equally
high, it would learn how high they are"""


class Paid(VecEnvWrapper):
    """Replaces the rewards of games: the payer's, normalized, + beta * novelty. beta 0: no bonus.

    All games begin and end together. Their info holds "frame", the picture that the action has led to. The payer sees nothing
    else, and the agent does not see the score.
    """

    def __init__(self, games: Any, payer: Payer, beta: float = 1.0):
        super().__init__(games)
        self.payer, self.beta, self.scale = payer, beta, RunningScale()
        self.novelty = Novelty(int(np.prod(games.observation_space.shape)))

    def reset(self) -> np.ndarray:
        """New episodes, from whose first frames on the agent is judged."""
        seen = self.venv.reset()
        self.payer.start(frames_of(self.venv.reset_infos))
        return seen  # type: ignore[return-value]

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Be paid for the frames that the actions led to. Where an episode ends, the next one has begun already."""
        seen, _, done, infos = self.venv.step_wait()
        rewards = self.scale(self.payer.pay(frames_of(infos)))
        if self.beta:
            new = np.stack([info["terminal_observation"] for info in infos]) if done.all() else seen
            rewards = rewards + self.beta * self.novelty(new)  # type: ignore[arg-type]
        if done.all():
            self.payer.start(frames_of(self.venv.reset_infos))
        return seen, rewards.astype(np.float32), done, infos  # type: ignore[return-value]


def frames_of(infos: list[dict[str, Any]]) -> np.ndarray:
    """(B, H, W, 3) uint8."""
    return np.stack([info["frame"] for info in infos])


class Novelty:
    """RND (arXiv:1810.12894): how badly a network predicts what another one, which never learns, says of an observation. It gets
    better where the agent has been, so the error that is left is for what is new."""

    def __init__(self, num_inputs: int):
        self.target, self.predictor = (two_layers(num_inputs, 16) for _ in range(2))
        self.optimizer = torch.optim.Adam(self.predictor.parameters(), lr=1e-3)
        self.scale = RunningScale()

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        """The bonus (B,) for observations (B, D), normalized. The predictor learns from them."""
        inputs = torch.as_tensor(seen)
        errors = (self.predictor(inputs) - self.target(inputs).detach()).square().mean(dim=1)
        take_step(self.optimizer, errors.mean())
        return self.scale(errors.detach().double().numpy())


class Discriminator(Stream):
    """The adversarial baseline (GAIL, arXiv:1606.03476; pairs of frames as in AMP, arXiv:2104.02180): a network that learns to
    tell the expert's pairs of frames from the agent's, and pays -ln(1 - P(expert)) for a pair. It never stops learning."""

    def __init__(self, reward: VideoReward, films: list[np.ndarray]):
        """films: episodes of the expert, uint8 (F, H, W, 3) each. The reward lends its tokenizer and its mask."""
        super().__init__(reward)
        self.codes = reward.world.tokenizer.indices_to_codes  # tokens (..., N) -> (..., N, D)
        pairs = [torch.stack([tokens[:-1], tokens[1:]], dim=1) for tokens in map(reward.tokens, films)]
        self.expert = torch.cat(pairs)  # (M, 2, N)
        self.network = two_layers(self.codes(self.expert[0]).numel(), 1)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.recent: deque[Tensor] = deque(maxlen=RECENT_STEPS)

    def pay(self, frames: np.ndarray) -> np.ndarray:
        self.see(frames)
        pairs = torch.stack(list(self.window)[-2:], dim=1)  # (B, 2, N)
        with torch.no_grad():
            rewards = F.softplus(self.logit(pairs)).double().numpy()  # -ln(1 - sigmoid(x)) = softplus(x)
        self.recent.append(pairs)
        self.learn(torch.cat(list(self.recent)))
        return rewards

    def logit(self, pairs: Tensor) -> Tensor:
        """(M,): how sure the network is that these pairs (M, 2, N) are the expert's."""
        return self.network(self.codes(pairs).flatten(1))[:, 0]

    def learn(self, agent: Tensor) -> None:
        """One step on pairs of the expert and on as many of the agent."""
        both = torch.cat([pairs[torch.randint(len(pairs), (PAIRS,))] for pairs in (self.expert, agent)])
        truth = torch.cat([torch.ones(PAIRS), torch.zeros(PAIRS)])
        take_step(self.optimizer, F.binary_cross_entropy_with_logits(self.logit(both), truth))


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def two_layers(num_inputs: int, num_outputs: int) -> nn.Sequential:
    """A network with 64 units in between."""
    return nn.Sequential(nn.Linear(num_inputs, 64), nn.ReLU(), nn.Linear(64, num_outputs))
