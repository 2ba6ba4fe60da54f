"""How late a game shows an action, measured from pixels alone.

The same random game is filmed with the picture taken 0, 1, 2 and 3 emulator frames into the next step. In each film a small
classifier reads the movement from picture t-1 to picture t and names an action: action t, which it should show, and, to see what
else is mixed in, action t-1 and action t+1. The best delay tells most about its own action and least about its neighbours.
"""

from dataclasses import dataclass

import numpy as np

from video_tokenizer.data.environment import Game, record_episode
from video_tokenizer.data.policies import random_policy

NUM_BANDS = 8  # the frame is cut into 8 horizontal and 8 vertical bands, so that the player is not drowned by the rest
VISIBLE = 0.02  # share of the entropy below which we say that the pictures show no action


@dataclass(frozen=True)
class MeasuredDelay:
    """What one movement tells about actions, as a share of their entropy; one entry per candidate delay 0, 1, 2, ..."""

    own: list[float]
    """about action t"""
    before: list[float]
    """about action t-1"""
    after: list[float]
    """about action t+1"""

    @property
    def best(self) -> int:
        """The delay with the largest own - before - after; 0 when no picture shows its action."""
        clean = np.array(self.own) - np.array(self.before) - np.array(self.after)
        return int(clean.argmax()) if max(self.own) > VISIBLE else 0

    def describe(self) -> str:
        """The figures and the choice, in one line."""
        figures = " | ".join(
            f"delay {delay}: own {own:.2f}, before {before:.2f}, after {after:.2f}"
            for delay, (own, before, after) in enumerate(zip(self.own, self.before, self.after, strict=True))
        )
        verdict = f"picture delay {self.best}" if max(self.own) > VISIBLE else "no action shows in the pictures, picture delay 0"
        return f"what one movement tells about an action: {figures} -> {verdict}"


def calibrate_picture_delay(
    env_id: str, num_frames: int = 3000, frame_skip: int = 4, episode_frames: int = 300, seed: int = 0
) -> MeasuredDelay:
    """Film `num_frames` random frames per candidate delay (0 to 3, below frame_skip) and compare. About 3 s per delay.

    The random player never looks at the pictures, so every film shows the same games. Raises InputError as `Game` does.
    """
    measured = MeasuredDelay([], [], [])
    for delay in range(min(frame_skip, 4)):
        game = Game(env_id, (64, 64), frame_skip, picture_delay=delay)
        movements, own, before, after = [], [], [], []
        episode_number = 0
        while sum(map(len, own)) < num_frames:
            episode = record_episode(game, random_policy, episode_frames, seed=10**6 * (seed + 1) + episode_number)
            movements.append(describe_movements(episode.frames)[1:-1])  # those with a known action before and after
            own.append(episode.actions[2:-1])
            before.append(episode.actions[1:-2])
            after.append(episode.actions[3:])
            episode_number += 1
        game.close()
        features = np.concatenate(movements)
        for shares, actions in ((measured.own, own), (measured.before, before), (measured.after, after)):
            shares.append(information_share(features, np.concatenate(actions).astype(np.int64), game.num_actions))
    return measured


def describe_movements(frames: np.ndarray) -> np.ndarray:
    """How far things moved, band by band. frames: uint8 (T, H, W, 3). Returns float32 (T-1, 4 * NUM_BANDS).

    What became brighter is where a bright thing is now, what became darker is where it was. Brightness that moved times the way
    it moved is the same for every place, and grows with the displacement: a 6 pixel paddle that moves by 2 gains 2 pixels and
    loses 2, which lie 6 apart: 2 * 6 = 12; if it moves by 9, all 6 pixels go 9 far: 54. (A dark thing turns the sign.)
    """
    grey = frames.mean(axis=3, dtype=np.float32) / 255.0  # (T, H, W)
    change = np.diff(grey, axis=0)
    change[np.abs(change) < 0.03] = 0.0
    features = []
    for axis in (1, 2):  # bands of rows, then bands of columns
        for band in np.array_split(change, NUM_BANDS, axis=axis):
            features += [_moved_brightness(band.sum(axis=1)), _moved_brightness(band.sum(axis=2))]
    return np.stack(features, axis=1)


def _moved_brightness(profile: np.ndarray) -> np.ndarray:
    """profile: change of brightness (T-1, positions). What was gained and lost, times the way between the two centroids."""
    positions = np.arange(profile.shape[1], dtype=np.float32)
    gains, losses = np.maximum(profile, 0.0), np.maximum(-profile, 0.0)
    gained, lost = gains.sum(axis=1), losses.sum(axis=1)
    way = gains @ positions / np.maximum(gained, 1e-6) - losses @ positions / np.maximum(lost, 1e-6)
    return way * np.minimum(gained, lost)


def information_share(features: np.ndarray, actions: np.ndarray, num_actions: int) -> float:
    """What `features` (N, F) tell about `actions` (N,), as a share of the actions' entropy, measured on the second half.

    A ridge regression from binned features to the action, fitted on the first half, names an action for each movement of the
    second; the mutual information of named and true actions is reported, less what it is for shuffled true actions.
    """
    binned = _one_hot_bins(features)
    half = len(actions) // 2
    targets = np.eye(num_actions)[actions]
    train = binned[:half]
    weights = np.linalg.solve(
        train.T @ train + 10.0 * np.eye(train.shape[1]), train.T @ (targets[:half] - targets[:half].mean(0))
    )
    named = (binned[half:] @ weights).argmax(axis=1)
    true = actions[half:]
    chance = mutual_information(named, np.random.default_rng(0).permutation(true), num_actions)
    entropy = mutual_information(true, true, num_actions)
    return max(0.0, (mutual_information(named, true, num_actions) - chance) / entropy) if entropy > 0 else 0.0


def _one_hot_bins(features: np.ndarray, num_bins: int = 6) -> np.ndarray:
    """(N, F) -> (N, F * (2 * num_bins + 1)) zeros and ones, so that a linear map can treat every range of values by itself.

    Each feature has one bin for standing still and `num_bins` for each direction, with as many values in each.
    """
    columns = []
    for values in features.T:
        moved = np.abs(values[values != 0.0])
        edges = np.quantile(moved, np.linspace(0, 1, num_bins + 1)[:-1]) if len(moved) else np.ones(num_bins)
        bins = np.sign(values).astype(int) * np.digitize(np.abs(values), edges)
        columns.append(bins[:, None] == np.arange(-num_bins, num_bins + 1))
    return np.concatenate(columns, axis=1).astype(float)


def mutual_information(first: np.ndarray, second: np.ndarray, size: int) -> float:
    """Mutual information in nats of two lists of whole numbers in [0, size)."""
    joint = np.bincount(first * size + second, minlength=size * size).reshape(size, size) / len(first)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())
