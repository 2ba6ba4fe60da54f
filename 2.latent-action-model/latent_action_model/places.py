"""Busy places: let a pixel count by how much its place changes (`--place-power 1`).

In Freeway the cars spread their change over the whole width of ten lanes. The chicken keeps to one narrow strip, so its change
piles up there. Where much moves and the player keeps to few places, these places give the player away without a label. Where the
player roams the whole screen they can say little, so this is off by default.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from video_tokenizer.data.clip_store import ClipStore

SAMPLED = 2_000
"""transitions that are looked at, evenly spaced in the recording"""


def busy_places(store: ClipStore, power: float) -> Tensor:
    """The weight of every pixel, on average 1: the mean squared change of its place within episodes, to this power.

    Neighbors share their change in squares of 3 x 3 pixels, so that an outline does not count more than what it encloses.
    If a tenth of the places change ten times as much as the others, a power of 1 gives that tenth ten times their weight, which
    is more than half of the whole. A place that never changes weighs 0, so what the decoder draws there is not trained.
    All episodes are looked at, held-out ones too, but no key. Returns float (H, W), ones where nothing changes at all; for a
    power of 0 a single one, for frames of any size.
    """
    if power == 0:
        return torch.ones(1)
    arrivals = np.concatenate([np.arange(start + 1, stop) for start, stop in store.episodes])
    total = np.zeros(store.frames.shape[1:3])
    for frame in arrivals[np.linspace(0, len(arrivals) - 1, min(SAMPLED, len(arrivals))).astype(int)]:
        before, after = store.frames[frame - 1 : frame + 1] / 255.0
        total += np.square(after - before).mean(axis=-1)
    busy = F.avg_pool2d(torch.from_numpy(total).float()[None], kernel_size=3, stride=1, padding=1, count_include_pad=False)[0]
    if busy.max() == 0:
        return torch.ones_like(busy)
    weights = (busy / busy.max()) ** power
    return weights / weights.mean()
