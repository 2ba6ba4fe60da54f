"""Frames that training has as well: games begin alike, so episodes that are kept apart still share frames, bit for bit.

In 40,000 frames of Breakout, a third of the frames of validation episodes are frames of training episodes too. A score on them
would show what a model has memorized. So they are left out of all scores, and the share that they were is printed and saved.
"""

from collections.abc import Sequence
from copy import copy
from hashlib import blake2b

import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips

FEWEST_CLIPS = 2
"""if fewer clips than this have no seen frame, all clips are kept: a poor score is better than none"""


def frame_hashes(frames: np.ndarray) -> np.ndarray:
    """A 64-bit number for each frame, the same for equal frames: uint64 (F,). frames: uint8 (F, H, W, 3).

    Different frames get different numbers: that any two of a million frames collide has a probability of 3 in 100 million.
    160,000 frames of 64x64 pixels take a few seconds.
    """
    progress = tqdm(frames, desc="comparing frames", unit="frame", leave=False, delay=2, disable=None)
    digests = b"".join(blake2b(np.ascontiguousarray(frame).data, digest_size=8).digest() for frame in progress)
    return np.frombuffer(digests, dtype=np.uint64)


def seen_frames(
    store: ClipStore, training: Sequence[int], validation: Sequence[int], known: np.ndarray | None = None
) -> np.ndarray:
    """bool (F,): the frames of validation episodes that training has too; False in all other episodes.

    training, validation: rows of `store.episodes`. known: the hashes of the frames of training, if it had another store.
    """
    hashes = frame_hashes(store.frames)
    if known is None:
        known = hashes[frames_of(store, training)]
    seen = np.zeros(len(hashes), dtype=bool)
    chosen = frames_of(store, validation)
    seen[chosen] = np.isin(hashes[chosen], known)
    return seen


def frames_of(store: ClipStore, episodes: Sequence[int]) -> np.ndarray:
    """The positions of all frames of the chosen episodes, int64 (N,)."""
    return np.concatenate([np.arange(start, stop) for start, stop in store.episodes[np.asarray(episodes, np.int64)]])


def unseen_clips(clips: Clips, seen: np.ndarray, num_given: int = 1) -> Clips:
    """The clips that score no frame marked in `seen` (F,); all of them if fewer than `FEWEST_CLIPS` would be left.

    num_given: frames at the start of a clip that are not scored, because they only serve to predict the others.
    """
    scored = clips.starts[:, None] + np.arange(min(num_given, clips.num_frames - 1), clips.num_frames)  # (clips, scored frames)
    unseen = ~seen[scored].any(axis=1)
    chosen = copy(clips)
    if unseen.sum() >= FEWEST_CLIPS:
        chosen.starts = clips.starts[unseen]
    return chosen
