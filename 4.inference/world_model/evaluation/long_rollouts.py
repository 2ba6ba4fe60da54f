"""A rollout of a thousand frames: does it still look like the game?

After a second or two a rollout under random keys and the real game have diverged, and frames cannot be compared one by one. What
can be compared are statistics of single frames with their range in real games:

    foreground          share of pixels that differ by more than 0.1 from the background, the temporal median of the real games
    red, green, blue    mean of the channel, in levels from 0 to 255
    moving              share of pixels that change by more than 0.3 from one frame to the next, mean over the last 16 frames

The range goes from the 1st to the 99th percentile of real frames, so about 98 % of other real frames lie in it. A repeated last
frame looks right forever and fails on `moving` alone, whose threshold is 0.3 because reconstructed frames flicker; how much they
do is `changed_ratio`. The range of a mean color is widened by half a level on either side, a pixel's own rounding. Without it
the colors of a game, which hardly vary (Breakout's red by two levels), would only show that the tokenizer reconstructs a wall a
third of a level too bright.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.games.detectors import detect_ball, game_facts
from video_tokenizer.losses import FOREGROUND, MOVING, background_of
from video_tokenizer.metrics import share
from video_tokenizer.models.base import Tokenizer
from world_model.evaluation.games import RealGames
from world_model.evaluation.rollouts import rollout_windows, world_actions
from world_model.world import WorldModel

STATISTICS = ("foreground", "red", "green", "blue", "moving")
LEAD = 16
"""frames over which `moving` is averaged: in a single frame of a real game nothing may move, in a second something does"""
CLEARLY = 0.3
"""smallest change of a channel that counts for `moving`, as where a sprite appears or disappears"""
PERCENTILES = (1.0, 99.0)
ROUNDING = np.array([0.0, 0.5, 0.5, 0.5, 0.0])
"""by how much the range of each statistic is widened on either side"""
STRETCH = 100
"""frames of a stretch; a rollout that degrades late has a bad one, however long it was good before"""
ROOM = 64
"""real frames that must follow the prompt of a rollout, so that none starts where a game ends"""


@dataclass(frozen=True)
class RealFrames:
    """Statistics of the frames of real games."""

    background: np.ndarray
    """(H, W, 3) in [0, 1]"""
    low: np.ndarray
    """(5,) lower end of the range of each of `STATISTICS`"""
    high: np.ndarray
    """(5,) upper end"""
    changed: float
    """mean share of pixels that change by more than 0.05 from one frame to the next"""
    ball_share: float | None
    """share of frames in which a ball is detected; None for a game whose ball is not described"""


def frame_statistics(video: np.ndarray, background: np.ndarray) -> np.ndarray:
    """`STATISTICS` of the frames of a video from frame LEAD on; earlier ones are used for `moving` only.

    video: (T, H, W, 3) uint8, T > LEAD; background: (H, W, 3) in [0, 1]. Returns (T - LEAD, 5): shares in [0, 1], levels in
    0 to 255.
    """
    difference = np.abs(video.astype(np.float32) / 255 - background).max(axis=-1)  # (T, H, W)
    foreground = (difference > FOREGROUND).mean(axis=(1, 2))  # (T,)
    colors = video.mean(axis=(1, 2), dtype=np.float64)  # (T, 3)
    moving = np.convolve(changed_shares(video, CLEARLY), np.full(LEAD, 1 / LEAD), mode="valid")  # (T - LEAD,)
    return np.column_stack([foreground[LEAD:], colors[LEAD:], moving])


def changed_shares(video: np.ndarray, by: float) -> np.ndarray:
    """Share of pixels in which a channel changes by more than 255 * `by` from the frame before.

    video: (T, H, W, 3) uint8. Returns (T - 1,), entry t for frame t + 1.
    """
    largest = np.abs(np.diff(video.astype(np.int16), axis=0)).max(axis=-1)  # (T-1, H, W)
    return (largest > 255 * by).mean(axis=(1, 2))


def pieces(store: ClipStore, num_frames: int = 64) -> Iterator[np.ndarray]:
    """All episodes in pieces of at most num_frames frames, each with the LEAD frames before it: (LEAD + n, H, W, 3) uint8."""
    for start, stop in store.episodes:
        for first in range(start + LEAD, stop, num_frames):
            yield np.asarray(store.frames[first - LEAD : min(first + num_frames, stop)])


def real_frames(games: RealGames) -> RealFrames | None:
    """Statistics of real games; None if no episode is longer than LEAD frames."""
    background = background_of(games.store.frames).permute(1, 2, 0).numpy()
    statistics = [frame_statistics(piece, background) for piece in pieces(games.store)]
    if not statistics:
        return None
    low, high = usual_range(statistics)
    changed = np.concatenate([changed_shares(piece[LEAD - 1 :], MOVING) for piece in pieces(games.store)])
    return RealFrames(background, low, high, float(changed.mean()), ball_share(pieces(games.store), games.store.env_id))


def usual_range(statistics: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Between which values each of the `frame_statistics` usually lies. statistics: of several pieces, float (F, 5) each."""
    low, high = np.percentile(np.concatenate(statistics), PERCENTILES, axis=0)
    return low - ROUNDING, high + ROUNDING


def ball_share(videos: Iterator[np.ndarray], env_id: str | None) -> float | None:
    """Share of frames, from frame LEAD of each video on, with a ball; None for a game whose ball is not described."""
    known = game_facts(env_id) if env_id is not None else None
    if env_id is None or known is None or known.ball is None:
        return None
    return float(np.isfinite(np.concatenate([detect_ball(video[LEAD:], env_id)[:, 0] for video in videos])).mean())


def range_scores(statistics: np.ndarray, real: RealFrames) -> dict[str, float]:
    """Shares of frames that are like real ones. statistics: (B, K, 5) of B rollouts of K frames.

    Each of `STATISTICS`: share of frames in which it lies in the range of real frames. within_real_range: the smallest of these
    shares. all_within: share of frames in which every statistic does. worst_stretch: the smallest within_real_range of frames 1
    to 100, 101 to 200, ... of all rollouts.
    """
    inside = (real.low <= statistics) & (statistics <= real.high)  # (B, K, 5)
    shares = inside.mean(axis=(0, 1))  # (5,)
    firsts = range(0, max(1, inside.shape[1] - STRETCH + 1), STRETCH)
    stretches = [inside[:, first : first + STRETCH].mean(axis=(0, 1)).min() for first in firsts]
    return {
        "within_real_range": float(shares.min()),
        "all_within": float(inside.all(axis=-1).mean()),
        "worst_stretch": float(min(stretches)),
        **{name: float(value) for name, value in zip(STATISTICS, shares, strict=True)},
    }


def realism_scores(videos: np.ndarray, real: RealFrames, env_id: str | None) -> dict[str, float]:
    """`range_scores` of rollouts; changed_ratio: the share of pixels that change by more than 0.05, over that of real games (1:
    as much as in real games, 0: nothing changes); and ball_share with ball_share_real, if the game's ball is described.

    videos: (B, LEAD + K, H, W, 3) uint8, LEAD real frames and the K predicted ones after them.
    """
    statistics = np.stack([frame_statistics(video, real.background) for video in videos])
    scores = range_scores(statistics, real)
    changed = np.mean([changed_shares(video[LEAD - 1 :], MOVING).mean() for video in videos])
    scores["changed_ratio"] = share(float(changed), real.changed)
    predicted = ball_share(iter(videos), env_id)
    if predicted is not None and real.ball_share is not None:
        scores |= {"ball_share": predicted, "ball_share_real": real.ball_share}
    return scores


def long_rollouts(
    world: WorldModel, games: RealGames, num_frames: int, num_rollouts: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """num_rollouts rollouts of num_frames frames in one batch, from different prompts, under a new random key at every step; and
    their last prompt frames, repeated. Both (B, LEAD + K, H, W, 3) uint8, LEAD real frames first. None if no game is long enough.

    Keys are sampled uniformly from the world's action_map, or from all of its actions if the map is empty.
    """
    store, lead = games.store, max(LEAD, world.context_frames)
    windows = rollout_windows(games, lead, ROOM, num_rollouts)
    if len(windows) == 0:
        return None
    places = windows[:, None] + np.arange(lead)  # (B, lead)
    start = store.frames[places]
    known = world_actions(world, store.actions[places], store.action_names) if world.action_kind == "true" else None
    keys = random_keys(world, (len(windows), num_frames), seed)
    rollouts = np.concatenate([start[:, -LEAD:], world.rollout(start, known, keys, seed)], axis=1)
    return rollouts, np.concatenate([start[:, -LEAD:], np.repeat(start[:, -1:], num_frames, axis=1)], axis=1)


def long_rollout_scores(
    world: WorldModel, games: RealGames, real: RealFrames, num_frames: int, num_rollouts: int, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """`realism_scores` of `long_rollouts`, and those of repeated last frames. Two empty tables if no game is long enough."""
    videos = long_rollouts(world, games, num_frames, num_rollouts, seed)
    if videos is None:
        return {}, {}
    scores, still = (realism_scores(video, real, games.store.env_id) for video in videos)
    return scores, still


def random_keys(world: WorldModel, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Actions of random keys; -1 in a world without actions."""
    numbers = list(world.action_map.values()) or list(range(world.num_actions)) or [-1]
    return np.array(numbers, dtype=np.int64)[np.random.default_rng(seed).integers(len(numbers), size=shape)]


def ceiling_scores(tokenizer: Tokenizer, others: RealGames, real: RealFrames) -> dict[str, float]:
    """The scores of real games that are not those of `real`: within_real_range_real and all_within_real, what a perfect world
    would reach, and within_real_range_redrawn, of the same frames encoded and decoded, what a perfect dynamics model would."""
    played = [frame_statistics(piece, real.background) for piece in pieces(others.store)]
    redrawn = [frame_statistics(reconstruct(tokenizer, piece), real.background) for piece in pieces(others.store)]
    if not played:
        return {}
    scores = range_scores(np.concatenate(played)[None], real)
    return {
        "within_real_range_real": scores["within_real_range"],
        "all_within_real": scores["all_within"],
        "within_real_range_redrawn": range_scores(np.concatenate(redrawn)[None], real)["within_real_range"],
    }


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, video: np.ndarray) -> np.ndarray:
    """A video (T, H, W, 3) uint8, encoded and decoded."""
    device = next(tokenizer.parameters()).device
    return to_frames(tokenizer(to_video(np.ascontiguousarray(video[None]), device)).reconstruction)[0]
