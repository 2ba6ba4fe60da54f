"""Does the model know what happens next, and does it listen to the player?

From one frame to the next about nine tokens in ten stay as they are, so a model that copies is nearly always right. Everything
here is therefore also measured on the tokens that changed, where a copy is right in no case at all:

    loss_changed, accuracy_changed      on tokens that differ from the previous frame's; copying scores 0 by construction
    shuffle_ratio                       loss on changed tokens with the actions of other clips over that with the right ones
    delta_psnr_db                       PSNR of a rollout under the inferred actions minus one under random actions, after t steps

Tokens are int64 (B, T, N); actions int64 (B, T), entry t for the action that led from frame t-1 to frame t, -1 where unknown.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.metrics import VideoScores, share
from video_tokenizer.training.device import autocast


def changed_tokens(tokens: Tensor) -> Tensor:
    """True where a token differs from the one at the same place in the frame before; never in the first frame. (B, T, N) bool."""
    changed = torch.zeros_like(tokens, dtype=torch.bool)
    changed[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
    return changed


class TokenScores:
    """Loss and accuracy of next-frame predictions over any number of batches, on all tokens and on those that changed.

    `previous` and `tokens` are one real frame and the next; `result` has the copy baseline beside the model.
    """

    def __init__(self) -> None:
        self.loss = self.loss_changed = 0.0
        self.num_tokens = self.num_changed = self.right = self.right_changed = 0

    def update(self, loss: Tensor, predicted: Tensor | None, tokens: Tensor, previous: Tensor) -> None:
        """loss: nats per token; predicted: the tokens the model holds most likely, or None; tokens: the real ones; previous:
        those of the frame before. All of one shape (..., N)."""
        changed = tokens != previous
        self.loss += loss.sum(dtype=torch.float64).item()
        self.loss_changed += loss[changed].sum(dtype=torch.float64).item()
        self.num_tokens += tokens.numel()
        self.num_changed += int(changed.sum())
        if predicted is not None:
            right = predicted == tokens
            self.right += int(right.sum())
            self.right_changed += int((right & changed).sum())

    def result(self) -> dict[str, float]:
        """Losses in nats, accuracies as shares, and the share of tokens that changed, which is 1 - copy_accuracy."""
        return {
            "loss": share(self.loss, self.num_tokens),
            "loss_changed": share(self.loss_changed, self.num_changed),
            "accuracy": share(self.right, self.num_tokens),
            "accuracy_changed": share(self.right_changed, self.num_changed),
            "copy_accuracy": share(self.num_tokens - self.num_changed, self.num_tokens),
            "copy_accuracy_changed": 0.0 if self.num_changed else math.nan,
        }


class HorizonScores:
    """PSNR and moving PSNR of rollouts after 1, 4, 16, ... steps, over any number of batches."""

    def __init__(self, horizons: Sequence[int]):
        """horizons: numbers of dreamed steps, each at least 1."""
        self.scores = {horizon: VideoScores() for horizon in horizons}

    def update(self, dreamed: Tensor, real: Tensor, before: Tensor) -> None:
        """dreamed, real: (B, S, C, H, W) in [0, 1], step 1 at entry 0; before: (B, C, H, W), the real frame before."""
        for horizon, scores in self.scores.items():
            if horizon <= real.shape[1]:
                previous = real[:, horizon - 2] if horizon > 1 else before
                scores.update(dreamed[:, horizon - 1 : horizon], real[:, horizon - 1 : horizon], previous[:, None])

    def result(self, name: str = "psnr_db") -> dict[int, float]:
        """horizon -> "psnr_db" or "moving_psnr_db", the squared error of all clips pooled; NaN for horizons not reached."""
        return {horizon: scores.result()[name] for horizon, scores in self.scores.items()}


def delta_psnr_db(inferred: HorizonScores, random: HorizonScores, name: str = "psnr_db") -> dict[int, float]:
    """Genie's controllability score: how many dB the right actions are worth after t steps. horizon -> dB."""
    right, wrong = inferred.result(name), random.result(name)
    return {horizon: right[horizon] - wrong[horizon] for horizon in right}


def shuffle_actions(actions: Tensor, generator: torch.Generator) -> Tensor:
    """Give each clip the actions of another clip of the batch. actions: (B, T), B >= 2.

    The clips form a random circle and each takes its neighbour's actions; a permutation leaves one clip, on average, its own.
    """
    circle = torch.randperm(len(actions), generator=generator)
    partner = torch.empty_like(circle)
    partner[circle] = circle.roll(1)
    return actions[partner.to(actions.device)]


class DynamicsMetrics:
    """The report of one dynamics model over any number of batches: next frames given the real past, all their tokens hidden.

    loss, loss_changed, accuracy, accuracy_changed, copy_accuracy, copy_accuracy_changed   as in `TokenScores`
    loss_changed_shuffled   loss on changed tokens with every clip under another clip's actions
    shuffle_ratio           loss_changed_shuffled / loss_changed; 1 when the model ignores actions, NaN when it has none
    """

    def __init__(self) -> None:
        self.right, self.shuffled = TokenScores(), TokenScores()

    @torch.no_grad()
    def update(self, model, tokens: Tensor, actions: Tensor, generator: torch.Generator) -> None:
        """tokens: (B, T, N); actions: (B, T), -1 where unknown; generator: a CPU generator that shuffles the clips."""
        past, target = tokens[:, :-1], tokens[:, 1:]
        hidden = torch.full_like(target, model.mask_token)
        logits = model.predict(past, hidden, actions).float()  # (B, T-1, N, K)
        loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        self.right.update(loss, logits.argmax(dim=-1), target, past)
        if model.num_actions and len(tokens) > 1:
            loss = model.loss_per_token(tokens, shuffle_actions(actions, generator))[:, 1:]
            self.shuffled.update(loss, None, target, past)

    def result(self) -> dict[str, float]:
        """The scores of the class's table."""
        right, shuffled = self.right.result(), self.shuffled.result()["loss_changed"]
        ratio = shuffled / right["loss_changed"] if right["loss_changed"] else math.nan
        return {**right, "loss_changed_shuffled": shuffled, "shuffle_ratio": ratio}


@torch.no_grad()
def validate(model: Any, clips: Any, config: Any, device: torch.device) -> dict[str, float]:
    """The scores of a model during training, on the same validation clips every time, evenly spaced over all of them.

    weighted_loss weights the tokens that change as the training loss does; the weights with the least of it are kept.
    """
    model.eval()
    metrics = DynamicsMetrics()
    generator = torch.Generator().manual_seed(config.seed)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        batch = clips.__getitems__(chosen[first : first + config.batch_size])
        with autocast(device, config.precision):
            metrics.update(model, batch["tokens"].to(device), batch["actions"].to(device), generator)
    scores = metrics.result()
    share_changed = 1 - scores["copy_accuracy"]
    return scores | {"weighted_loss": scores["loss"] + (config.changed_weight - 1) * scores["loss_changed"] * share_changed}
