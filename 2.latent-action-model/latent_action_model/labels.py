"""A few labels: training may see which key was pressed in a small share of the recorded transitions (`--label-share 0.02`).

Without any, the codes are about whatever changes the picture most. In Freeway that is ten lanes of cars, and not a chicken that
moves by one pixel (unless busy places count more, see `places.py`). A few keys tell the encoder which movement the codes are for
(LAOM, arXiv:2502.00379). The labels are needed in training only: the model has the same weights as without them, and infers
actions from video alone.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_action_model.config import LatentActionConfig
from video_tokenizer.data.clips import split_episodes, to_video
from video_tokenizer.data.training_data import TrainingData
from video_tokenizer.errors import InputError

LABELED_PER_KEY = 8
"""labeled transitions of a step for each key. They come on top of its batch, in which a share of 0.02 would be one or two"""
WEIGHT = 0.1
"""weight of their loss, low enough that the encoder still learns from every other transition"""


class KeyLabels:
    """The labeled transitions: a share of those in training episodes whose key is known, chosen once, by the seed alone.

    frames: int64 (L,), the frame of the store that each labeled transition leads to. A larger share adds to a smaller one.
    """

    def __init__(self, data: TrainingData, config: LatentActionConfig):
        """Raises InputError for a share that cannot be taken: of a store without keys, or too few of two different keys."""
        self.store, self.seed, self.frames = data.store, config.seed, np.empty(0, np.int64)
        if config.label_share == 0:
            return
        wanted = f"--label-share {config.label_share:g} needs"
        if self.store.num_actions < 2:
            known = f"one key, {self.store.action_names[0]}" if self.store.num_actions else "no keys"
            raise InputError(f"{wanted} keys that differ, but {self.store.path} knows {known}; leave the flag out")
        training, _ = split_episodes(self.store, config.validation_share, config.seed)
        arrivals = np.concatenate([np.arange(start + 1, stop) for start, stop in self.store.episodes[training]])
        known = arrivals[self.store.actions[arrivals] >= 0]
        order = np.random.default_rng(config.seed).permutation(known)
        self.frames = order[: round(config.label_share * len(known))]
        if (np.bincount(self.store.actions[self.frames], minlength=2) >= 2).sum() < 2:
            raise InputError(
                f"{wanted} two keys with two transitions each, but chooses {len(self.frames)} of {len(known):,} transitions "
                f"of {self.store.path}; give a larger share"
            )

    def loss(self, encoder: nn.Module, step: int) -> dict[str, Tensor]:
        """{"by_key": the loss of `gather_by_key` on this step's labeled transitions}; {} where there are no labels.

        The choice depends on seed and step only, so a resumed run continues it. Every one of several processes takes the same
        transitions, so that the average of their gradients is the gradient of one. encoder: (L, 2, C, H, W) -> (L, 1, A).
        """
        if len(self.frames) == 0:
            return {}
        number = min(LABELED_PER_KEY * self.store.num_actions, len(self.frames))
        chosen = np.random.default_rng((self.seed, step)).choice(self.frames, number, replace=False)
        device = next(encoder.parameters()).device
        pairs = to_video(self.store.frames[chosen[:, None] + np.array([-1, 0])], device)  # (L, 2, C, H, W), before and after
        keys = torch.from_numpy(self.store.actions[chosen].astype(np.int64)).to(device)  # (L,)
        return {"by_key": WEIGHT * gather_by_key(encoder(pairs)[:, 0], keys, self.store.num_actions)}


def gather_by_key(latents: Tensor, keys: Tensor, num_keys: int) -> Tensor:
    """Cross-entropy of guessing each transition's key from the nearest prototype, which gathers the latents of a key in one place
    and moves those of different keys apart. So they fall on different codes.

    A prototype is the mean latent of a key (prototypical networks, arXiv:1703.05175), here without the latent that is being
    guessed, which would attract itself. Latents are standardized first, as in the quantizer, so that the encoder gains nothing by
    making them larger. P(key) is the softmax of minus the squared distances, averaged over dimensions.
    If latents 0 and 1 have one key, and 2 and 3 another, their variance is 1.25. The prototypes for 1 are 0 and 2.5, at squared
    distances 1 / 1.25 = 0.8 and 2.25 / 1.25 = 1.8, and its loss is log(1 + exp(0.8 - 1.8)) = 0.31.
    latents: (L, A), not quantized. keys: (L,) int64 in [0, num_keys). A key that occurs once has no prototype and is not guessed.
    Returns the mean over the others, 0 if there are none.
    """
    latents = F.batch_norm(latents.float(), None, None, training=True)
    own = F.one_hot(keys, num_keys)  # (L, K)
    others = own.sum(dim=0) - own  # (L, K): latents of each key, this one left out
    summed = (own[:, :, None] * latents[:, None]).sum(dim=0)  # (K, A)
    prototypes = (summed - own[:, :, None] * latents[:, None]) / others.clamp(min=1)[:, :, None]  # (L, K, A)
    distances = (latents[:, None] - prototypes).square().mean(dim=2)  # (L, K)
    guesses = (-distances).masked_fill(others == 0, torch.finfo(torch.float32).min)  # a key without prototype: probability 0
    guessed = (own * others).sum(dim=1) > 0  # (L,)
    targets = torch.where(guessed, keys, -100)  # which cross_entropy ignores
    return F.cross_entropy(guesses, targets, ignore_index=-100, reduction="sum") / guessed.sum().clamp(min=1)
