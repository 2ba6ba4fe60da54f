"""Does the model predict what happens next, and is it controlled by the actions?

From one frame to the next about nine tokens in ten stay the same, so a model that copies is nearly always right. Everything
here is therefore also measured on the tokens that changed, where a copy is never right:

    loss_changed, accuracy_changed      on tokens that differ from the previous frame's; copying scores 0 by construction
    shuffle_ratio                       loss on changed tokens with the actions of other clips over that with the right ones
    delta_psnr_db                       PSNR of a rollout under the inferred actions minus one under random actions, after t steps

A model of latents has a squared error instead of a loss in nats, and no accuracy. Frames are tokens, int64 (B, T, N), or latents,
float (B, T, N, D); actions int64 (B, T), entry t for the action that led from frame t-1 to frame t, -1 where unknown.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dynamics_model.config import DynamicsConfig
from dynamics_model.data.frame_cache import FrameClips
from dynamics_model.models.base import DynamicsModel
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.metrics import VideoScores, share
from video_tokenizer.training.device import autocast


class FrameScores:
    """Loss of next-frame predictions over any number of batches, of all tokens or latents and of those that changed.

    A token has changed if it differs from the previous frame's. A latent always differs a little, so it counts as changed if its
    squared change is above the mean of its frame.
    """

    def __init__(self) -> None:
        self.loss = self.loss_changed = self.copy_loss = self.copy_loss_changed = 0.0
        self.num_tokens = self.num_changed = self.right = self.right_changed = 0
        self.has_tokens = True

    def update(self, error: Tensor, predicted: Tensor | None, frames: Tensor, previous: Tensor) -> None:
        """error: nats or mean squared error of each token or latent (..., N). predicted: what the model holds most likely, None
        to leave out the accuracy. frames: the real ones; previous: one frame earlier; all three (..., N) or (..., N, D)."""
        self.has_tokens = not frames.is_floating_point()
        if self.has_tokens:
            changed = frames != previous  # (..., N)
            right = torch.zeros_like(changed) if predicted is None else predicted == frames
            self.right += int(right.sum())
            self.right_changed += int((right & changed).sum())
        else:
            change = (frames - previous).square().mean(dim=-1)  # (..., N), also the error of a copy
            changed = change > change.mean(dim=-1, keepdim=True)
            self.copy_loss += change.sum(dtype=torch.float64).item()
            self.copy_loss_changed += change[changed].sum(dtype=torch.float64).item()
        self.loss += error.sum(dtype=torch.float64).item()
        self.loss_changed += error[changed].sum(dtype=torch.float64).item()
        self.num_tokens += changed.numel()
        self.num_changed += int(changed.sum())

    def result(self) -> dict[str, float]:
        """loss, loss_changed and share_changed; for tokens their accuracy and a copy's, for latents the loss of a copy."""
        scores = {
            "loss": share(self.loss, self.num_tokens),
            "loss_changed": share(self.loss_changed, self.num_changed),
            "share_changed": share(self.num_changed, self.num_tokens),
        }
        if not self.has_tokens:
            copy = {"copy_loss": share(self.copy_loss, self.num_tokens)}
            return scores | copy | {"copy_loss_changed": share(self.copy_loss_changed, self.num_changed)}
        return scores | {
            "accuracy": share(self.right, self.num_tokens),
            "accuracy_changed": share(self.right_changed, self.num_changed),
            "copy_accuracy": share(self.num_tokens - self.num_changed, self.num_tokens),
            "copy_accuracy_changed": 0.0 if self.num_changed else math.nan,
        }


class HorizonScores:
    """PSNR and moving PSNR of rollouts after 1, 4, 16, ... steps, over any number of batches."""

    def __init__(self, horizons: Sequence[int]):
        """horizons: numbers of rollout steps, each at least 1."""
        self.scores = {horizon: VideoScores() for horizon in horizons}

    def update(self, predicted: Tensor, real: Tensor, before: Tensor) -> None:
        """predicted, real: (B, S, C, H, W) in [0, 1], step 1 at entry 0; before: (B, C, H, W), the real frame before."""
        for horizon, scores in self.scores.items():
            if horizon <= real.shape[1]:
                previous = real[:, horizon - 2] if horizon > 1 else before
                scores.update(predicted[:, horizon - 1 : horizon], real[:, horizon - 1 : horizon], previous[:, None])

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
    """The scores of one dynamics model over any number of batches, each frame predicted from the real frames before it.

    Those of `FrameScores`, and, for a model with actions:
    loss_changed_shuffled   loss on what changed with every clip under another clip's actions
    shuffle_ratio           loss_changed_shuffled / loss_changed; 1 when the model ignores its actions, NaN when it has none
    """

    def __init__(self) -> None:
        self.right, self.shuffled = FrameScores(), FrameScores()

    @torch.no_grad()
    def update(self, model: DynamicsModel, frames: Tensor, actions: Tensor, generator: torch.Generator) -> None:
        """actions: (B, T), -1 where unknown; generator: a CPU generator that shuffles the clips."""
        past, target = frames[:, :-1], frames[:, 1:]
        self.right.update(*model.teacher_forced(frames, actions), target, past)
        if model.num_actions and len(frames) > 1:
            error, _ = model.teacher_forced(frames, shuffle_actions(actions, generator))
            self.shuffled.update(error, None, target, past)

    def result(self) -> dict[str, float]:
        right, shuffled = self.right.result(), self.shuffled.result()["loss_changed"]
        ratio = shuffled / right["loss_changed"] if right["loss_changed"] else math.nan
        return {**right, "loss_changed_shuffled": shuffled, "shuffle_ratio": ratio}


@torch.no_grad()
def validate(model: DynamicsModel, clips: FrameClips, config: DynamicsConfig, device: torch.device) -> dict[str, float]:
    """The scores of a model during training, on the same validation clips every time, evenly spaced over all of them.

    weighted_loss weights what changes as the training loss does; the weights with the least of it are kept.
    """
    model.eval()
    metrics = DynamicsMetrics()
    generator = torch.Generator().manual_seed(config.seed)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        batch = clips.__getitems__(chosen[first : first + config.batch_size])
        with autocast(device, config.precision):
            metrics.update(model, batch["frames"].to(device), batch["actions"].to(device), generator)
    scores = metrics.result()
    weight_of_changed = (config.changed_weight - 1) * scores["share_changed"]
    return scores | {"weighted_loss": scores["loss"] + weight_of_changed * scores["loss_changed"]}
