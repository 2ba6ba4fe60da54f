"""Does the model predict the next frame, and do the actions control it?

About nine tokens in ten do not change from one frame to the next, so a model that copies is nearly always right. All scores are
therefore also measured on the tokens that changed, where copying is never right:

    loss_changed, accuracy_changed      on tokens that differ from the previous frame; copying has an accuracy of 0
    shuffle_ratio                       loss on changed tokens with the actions of other clips / loss with the right actions
    delta_psnr_db                       PSNR of rollouts with the inferred actions minus PSNR with random actions, after t steps

A model of latents has a squared error instead of a loss in nats, and no accuracy. Frames are tokens, int64 (B, T, N), or latents,
float (B, T, N, D). Actions are int64 (B, T); entry t led from frame t-1 to frame t, and -1 is unknown.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dynamics_model.config import NextFrameConfig
from dynamics_model.data.frame_cache import FrameClips
from dynamics_model.models.base import DynamicsModel
from video_tokenizer.data.training_data import evenly_spaced
from video_tokenizer.metrics import CodeUsage, VideoScores, share, total
from video_tokenizer.training.device import autocast


class FrameScores:
    """Loss and accuracy of next-frame predictions over any number of batches, for all tokens or latents and those that changed.

    A token has changed if it differs from the previous frame. A latent always differs a little, so it counts as changed if its
    squared change is above the mean of its frame.
    """

    def __init__(self) -> None:
        self.loss = self.loss_changed = self.copy_loss = self.copy_loss_changed = 0.0
        self.num_tokens = self.num_changed = self.right = self.right_changed = 0
        self.has_tokens = True

    def update(self, error: Tensor, predicted: Tensor | None, frames: Tensor, previous: Tensor) -> None:
        """Add a batch.

        error: (..., N), the loss of each token in nats, or the mean squared error of each latent.
        predicted: the model's most likely tokens (..., N), or None to skip the accuracy.
        frames, previous: the real frames and those before them, (..., N) or (..., N, D).
        """
        self.has_tokens = not frames.is_floating_point()
        if self.has_tokens:
            changed = frames != previous  # (..., N)
            right = torch.zeros_like(changed) if predicted is None else predicted == frames
            self.right += int(right.sum())
            self.right_changed += int((right & changed).sum())
        else:
            change = (frames - previous).square().mean(dim=-1)  # (..., N), also the error of a copy
            changed = change > change.mean(dim=-1, keepdim=True)
            self.copy_loss += total(change)
            self.copy_loss_changed += total(change[changed])
        self.loss += total(error)
        self.loss_changed += total(error[changed])
        self.num_tokens += changed.numel()
        self.num_changed += int(changed.sum())

    def result(self) -> dict[str, float]:
        """loss, loss_changed, share_changed; for tokens the accuracies of the model and of a copy, for latents a copy's loss."""
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


def copy_bits_per_code(share_changed: float, codebook_size: int) -> float:
    """Bits per code of a copy of the last frame that knows how often it is wrong, and nothing else: the baseline of a likelihood.

    With half of 5 codes changed, 1 bit says whether this one has changed, and every second time 2 bits say which of 4 it is: 2.
    """
    shares = [(1 - share_changed, 1), (share_changed, codebook_size - 1)]
    return sum(-one * math.log2(one / codes) for one, codes in shares if one)


class HorizonScores:
    """Scores of rollouts after given numbers of steps, over any number of batches."""

    def __init__(self, horizons: Sequence[int]):
        """horizons: rollout steps to score, each at least 1."""
        self.scores = {horizon: VideoScores() for horizon in horizons}

    def update(self, predicted: Tensor, real: Tensor, before: Tensor) -> None:
        """predicted, real: (B, S, C, H, W) in [0, 1], step 1 at entry 0. before: (B, C, H, W), the real frame before step 1."""
        for horizon, scores in self.scores.items():
            if horizon <= real.shape[1]:
                previous = real[:, horizon - 2] if horizon > 1 else before
                scores.update(predicted[:, horizon - 1 : horizon], real[:, horizon - 1 : horizon], previous[:, None])

    def result(self, name: str = "psnr_db") -> dict[int, float]:
        """horizon -> score, from the pooled squared error of all clips; NaN for horizons that were not reached.

        name: a score of `VideoScores`, such as "psnr_db" or "moving_psnr_db".
        """
        return {horizon: scores.result()[name] for horizon, scores in self.scores.items()}


def delta_psnr_db(inferred: HorizonScores, random: HorizonScores, name: str = "psnr_db") -> dict[int, float]:
    """Genie's controllability score: how many dB the right actions gain over random ones. Returns horizon -> dB."""
    right, wrong = inferred.result(name), random.result(name)
    return {horizon: right[horizon] - wrong[horizon] for horizon in right}


def shuffle_actions(actions: Tensor, generator: torch.Generator) -> Tensor:
    """Give each clip the actions of another clip of the batch. actions: (B, T), B >= 2.

    The clips form a random circle, and each takes the actions of its neighbor. A plain permutation would, on average, leave one
    clip with its own actions.
    """
    circle = torch.randperm(len(actions), generator=generator)
    partner = torch.empty_like(circle)
    partner[circle] = circle.roll(1)
    return actions[partner.to(actions.device)]


class DynamicsMetrics:
    """The scores of a dynamics model over any number of batches. Each frame is predicted from the real frames before it.

    The scores of `FrameScores`, and, for a model with actions:
    loss_changed_shuffled   loss on what changed, with the actions of other clips
    shuffle_ratio           loss_changed_shuffled / loss_changed; 1 if the model ignores its actions, NaN if it has none
    For a model with its own codebook also codes_used and perplexity, which a collapse would bring down to 1.
    """

    def __init__(self) -> None:
        self.right, self.shuffled = FrameScores(), FrameScores()
        self.usage: CodeUsage | None = None

    @torch.no_grad()
    def update(self, model: DynamicsModel, frames: Tensor, actions: Tensor, generator: torch.Generator) -> None:
        """frames: (B, T, N) or (B, T, N, D). actions: (B, T), -1 where unknown. generator: shuffles the clips, on the CPU."""
        past, target = frames[:, :-1], frames[:, 1:]
        self.right.update(*model.teacher_forced(frames, actions), target, past)
        if model.num_actions and len(frames) > 1:
            error, _ = model.teacher_forced(frames, shuffle_actions(actions, generator))
            self.shuffled.update(error, None, target, past)
        if model.num_own_codes:
            self.usage = self.usage or CodeUsage(model.num_own_codes)
            self.usage.update(model.own_codes(frames))

    def result(self) -> dict[str, float]:
        right, shuffled = self.right.result(), self.shuffled.result()["loss_changed"]
        ratio = shuffled / right["loss_changed"] if right["loss_changed"] else math.nan
        usage = self.usage.result() if self.usage else {}
        return {**right, "loss_changed_shuffled": shuffled, "shuffle_ratio": ratio, **usage}


@torch.no_grad()
def validate(model: DynamicsModel, clips: FrameClips, config: NextFrameConfig, device: torch.device) -> dict[str, float]:
    """Score a model during training, always on the same clips, evenly spaced over the validation set.

    weighted_loss weights what changed as the training loss does; training keeps the weights for which it is lowest.
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
