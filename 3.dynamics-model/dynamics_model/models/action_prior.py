"""The action prior: how probable each latent action is in the present situation, before a key is pressed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKEN_DIM = 16
HIDDEN = 128
HIDDEN_TOKENS = 0.2
"""dropout of the prior's input tokens in training, against memorizing its situations"""
GUIDANCE = 3.0
"""power of P(key | action) in `action_of_key`: with 1 it is Bayes' rule, above 1 the key counts for more than the habit"""
KEY_SMOOTHING = 0.3
"""pseudo-counts in P(key | action): an action that came five times, always with LEFT, is taken to mean LEFT"""


class ActionPrior(nn.Module):
    """P(action t | frames t - 2 and t - 1, action t - 1), a small network beside the dynamics model.

    Latent actions are names of visible movements. A paddle at the left wall cannot move left, so the training data never has
    "left" there, and a dynamics model that is conditioned on it anyway is out of distribution: the paddle melts. The prior knows
    which actions occur in which situation, so that `action_of_key` can choose what a key leads to there.
    """

    def __init__(self, codebook_size: int, tokens_per_frame: int, num_actions: int):
        super().__init__()
        self.num_actions = num_actions
        self.token_embedding = nn.Embedding(codebook_size, TOKEN_DIM)
        self.action_embedding = nn.Embedding(num_actions + 1, HIDDEN)  # one more for "unknown"
        self.frames = nn.Linear(2 * tokens_per_frame * TOKEN_DIM, HIDDEN)
        self.output = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, num_actions))

    def forward(self, older: Tensor, newer: Tensor, previous_action: Tensor) -> Tensor:
        """older, newer: (..., N) int64 tokens of frames t - 2 and t - 1. previous_action: (...), -1 unknown.

        Returns logits (..., num_actions) of the action that leads from frame t - 1 to t.
        """
        frames = torch.cat([self.token_embedding(older), self.token_embedding(newer)], dim=-2)  # (..., 2 N, TOKEN_DIM)
        if self.training:
            shown = torch.rand(frames.shape[:-1], device=frames.device) >= HIDDEN_TOKENS
            frames = frames * shown[..., None] / (1 - HIDDEN_TOKENS)
        known = torch.where(previous_action < 0, self.num_actions, previous_action)
        return self.output(self.frames(frames.flatten(-2)) + self.action_embedding(known))

    def loss(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Mean cross-entropy of the known actions. tokens: (B, T, N), actions: (B, T); actions[:, t] led from t - 1 to t."""
        newer = tokens[:, :-1]
        older = torch.cat([tokens[:, :1], tokens[:, :-2]], dim=1)  # the first frame also serves as its own predecessor
        logits = self(older, newer, actions[:, :-1]).float()  # (B, T - 1, num_actions)
        target = actions[:, 1:].flatten()
        total = F.cross_entropy(logits.flatten(0, 1), target, ignore_index=-1, reduction="sum")
        return total / (target >= 0).sum().clamp(min=1)  # 0 where no action is known


def action_of_key(wanted: Tensor, prior: Tensor, p_key_given_action: Tensor, guidance: float = GUIDANCE) -> Tensor:
    """The action to which the key of the wanted one leads in this situation. wanted: (B,), -1 unknown.

    prior: (B, A) = P(c | past) of the next action c. p_key_given_action: (A, A), entry a, c is P(the key of action a | action c),
    zeros in rows of actions that belong to no key; these are sent as they are. Of all c it takes the one with the largest
    P(c | past) * P(key | c) ** guidance, as classifier guidance does (Dhariwal and Nichol, arXiv:2105.05233). At the left wall
    "left" (prior 0) gives way to "rest". Elsewhere, of two actions that mean "left", the one that fits the situation is sent.
    """
    scores = prior * p_key_given_action[wanted.clamp(min=0)] ** guidance  # (B, A)
    best, chosen = scores.max(dim=-1)
    return torch.where((wanted >= 0) & (best > 0), chosen, wanted)
