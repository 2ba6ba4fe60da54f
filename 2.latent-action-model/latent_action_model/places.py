"""Busy places: let a pixel count by how much its place changes (`--place-power 1`).

In Freeway ten lanes of cars fill the screen, and a place sees one of them now and then. The chicken keeps to one narrow strip, so
that strip changes at nearly every step. Where much moves and the player keeps to few places, these places give the player away
without a label. Where the player roams the whole screen they say little, so this is off by default.
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
    is more than half of the whole. Returns float (H, W); ones for a power of 0, and for a recording in which nothing changes.
    """
    arrivals = np.concatenate([np.arange(start + 1, stop) for start, stop in store.episodes])
    total = np.zeros(store.frames.shape[1:3])
    for frame in arrivals[np.linspace(0, len(arrivals) - 1, min(SAMPLED, len(arrivals))).astype(int)]:
        before, after = store.frames[frame - 1 : frame + 1] / 255.0
        total += np.square(after - before).mean(axis=-1)
    busy = F.avg_pool2d(torch.from_numpy(total).float()[None], kernel_size=3, stride=1, padding=1, count_include_pad=False)[0]
    if power == 0 or busy.max() == 0:
        return torch.ones_like(busy)
    weights = (busy / busy.max()) ** power
    return weights / weights.mean()
