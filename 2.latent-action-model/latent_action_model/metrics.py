"""Do the latent actions correspond to the buttons? Scores against the true actions, which training never uses.

Codes are indexed like the actions of the clip store: `codes[f]` and `actions[f]` belong to the transition from frame f-1 to frame
f. Both are -1 where there is none (first frames of episodes, videos without actions). How well codes predict actions is always
measured on other episodes than those used for counting. Otherwise a code that occurs only once would seem to predict its action
perfectly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import split_episodes, to_video
from video_tokenizer.data.training_data import TrainingData, evenly_spaced
from video_tokenizer.metrics import CodeUsage, VideoScores, pixels_that_moved, share
from video_tokenizer.training.device import autocast


@dataclass(frozen=True)
class Transitions:
    """Transitions with a known action, and known codes of the transition and its two neighbors in the same episode."""

    codes: np.ndarray  # int64 (N, 3): the codes of transitions t-1, t, t+1
    actions: np.ndarray  # int64 (N,): the true action of transition t
    episodes: np.ndarray  # int64 (N,): number of the episode, to split by

    def choose(self, mask: np.ndarray) -> "Transitions":
        """The transitions where mask (N,) is True, or those it lists."""
        return Transitions(self.codes[mask], self.actions[mask], self.episodes[mask])


def find_transitions(codes: np.ndarray, actions: np.ndarray, ranges: np.ndarray) -> Transitions:
    """All transitions of the given episodes with a known action whose own code and neighboring codes are known.

    codes, actions: (F,); ranges: (E, 2), the start and stop of each episode. An episode of frames 0..4 has the transitions 1..4;
    transitions 2 and 3 have a neighbor on both sides.
    """
    frames = [np.arange(start + 2, stop - 1) for start, stop in ranges]
    episode = np.repeat(np.arange(len(ranges)), [len(part) for part in frames])
    frame = np.concatenate(frames) if frames else np.empty(0, np.int64)
    around = codes[frame[:, None] + np.array([-1, 0, 1])].astype(np.int64)  # (N, 3)
    known = (actions[frame] >= 0) & (around >= 0).all(axis=1)
    return Transitions(around[known], actions[frame][known].astype(np.int64), episode[known])


def independent_episodes(store: ClipStore, episodes: Sequence[int]) -> tuple[list[int], str]:
    """The episodes with random actions, and "random"; if there are none, all episodes, and "all".

    If a player follows the ball, the ball predicts the action, and a code that only describes the ball would seem informative.
    """
    players = store.info.get("episode_players") or []
    random = [episode for episode in episodes if episode < len(players) and players[episode] == "random"]
    if random and len(players) == len(store.episodes):
        return random, "random"
    return list(episodes), "all"


def entropy(labels: np.ndarray) -> float:
    """Entropy in nats of the frequencies of integer labels (N,): four equally frequent labels have log(4) = 1.386."""
    frequencies = np.bincount(labels) / max(len(labels), 1)
    frequencies = frequencies[frequencies > 0]
    return float(-(frequencies * np.log(frequencies)).sum()) + 0.0


def mutual_information(codes: np.ndarray, actions: np.ndarray) -> float:
    """I(code; action) in nats, from frequencies. codes, actions: (N,).

    It is biased upward on small sets, because the frequencies are counted and evaluated on the same transitions.
    """
    pairs = np.unique(np.stack([codes, actions]), axis=1, return_inverse=True)[1].ravel()
    codes, actions = np.unique(codes, return_inverse=True)[1], np.unique(actions, return_inverse=True)[1]
    return max(0.0, entropy(codes.ravel()) + entropy(actions.ravel()) - entropy(pairs))


def information_share(log_probabilities: np.ndarray, actions: np.ndarray) -> float:
    """(H(a) - cross entropy) / H(a): the share of the action's entropy that a classifier explains, at most 1.

    It is negative for a classifier that is worse than the frequencies of the actions, as one that learned from chance is.
    log_probabilities: (N, A) in nats; actions: (N,), both for held-out transitions. NaN if there is only one action. Example: of
    four equally frequent actions, the classifier recognizes one with probability 0.97 and guesses among the other three: about
    0.4.
    """
    uncertainty = entropy(actions)
    if uncertainty == 0.0:
        return math.nan
    cross_entropy = -log_probabilities[np.arange(len(actions)), actions].mean()
    return float((uncertainty - cross_entropy) / uncertainty)


class ActionTable:
    """P(action | codes of transitions t-1, t, t+1) from counts, smoothed with coarser tables.

    The table of all three codes has K^3 rows, most of which are rarely observed. `smoothing` pseudo-counts are therefore added to
    each row. Their prior is the two tables of neighboring pairs. The prior of a pair is the table of the middle code alone, and
    its prior is the overall frequencies.
    """

    def __init__(self, codes: np.ndarray, actions: np.ndarray, num_codes: int, num_actions: int, smoothing: float):
        """codes: (N, 3) in [0, num_codes); actions: (N,) in [0, num_actions); smoothing: pseudo-counts per row, above 0."""
        self.num_codes, self.num_actions, self.smoothing = num_codes, num_actions, smoothing
        overall = (np.bincount(actions, minlength=num_actions) + 1.0) / (len(actions) + num_actions)
        self.single = self._fill(codes[:, 1:2], actions, overall)  # (K, A)
        before = self._fill(codes[:, 0:2], actions, self.single[None, :, :])  # (K, K, A) codes t-1, t
        after = self._fill(codes[:, 1:3], actions, self.single[:, None, :])  # (K, K, A) codes t, t+1
        # exact if the codes of t-1 and t+1 are independent given the action and the code of t
        both = before[:, :, None] * after[None] / self.single[None, :, None]
        self.triple = self._fill(codes, actions, both / both.sum(axis=-1, keepdims=True))  # (K, K, K, A)

    def _fill(self, codes: np.ndarray, actions: np.ndarray, prior: np.ndarray) -> np.ndarray:
        shape = (self.num_codes,) * codes.shape[1] + (self.num_actions,)
        places = np.ravel_multi_index((*codes.T, actions), shape)
        counts = np.bincount(places, minlength=int(np.prod(shape))).reshape(shape)
        return (counts + self.smoothing * prior) / (counts.sum(axis=-1, keepdims=True) + self.smoothing)

    def log_probabilities(self, codes: np.ndarray, single: bool = False) -> np.ndarray:
        """codes: (N, 3). Returns log P(action), (N, A), given all three codes, or the middle code alone if `single`."""
        return np.log(self.single[codes[:, 1]] if single else self.triple[codes[:, 0], codes[:, 1], codes[:, 2]])


def action_information(fit: Transitions, test: Transitions, num_codes: int, num_actions: int, single: bool = False) -> float:
    """Share of the true action's entropy that the codes explain, at most 1: counted on `fit`, scored on the episodes of `test`.

    single: use only the code of the transition instead of three successive codes. The smoothing is chosen among five values by
    cross entropy on a quarter of `fit`, held out by episode. NaN if there is nothing to fit or test.
    """
    if len(fit.actions) < 8 or len(test.actions) == 0:
        return math.nan
    held_out = fit.episodes % 4 == fit.episodes.max() % 4
    if held_out.all():  # a single episode: hold out its last quarter
        held_out = np.arange(len(fit.actions)) >= 0.75 * len(fit.actions)
    rest, check = fit.choose(~held_out), fit.choose(held_out)

    def cross_entropy(smoothing: float) -> float:
        table = ActionTable(rest.codes, rest.actions, num_codes, num_actions, smoothing)
        return -table.log_probabilities(check.codes, single)[np.arange(len(check.actions)), check.actions].mean()

    smoothing = min((1.0, 5.0, 25.0, 125.0, 1000.0), key=cross_entropy)
    table = ActionTable(fit.codes, fit.actions, num_codes, num_actions, smoothing)
    return information_share(table.log_probabilities(test.codes, single), test.actions)


def mapping_accuracy(
    fit: Transitions, test: Transitions, num_codes: int, num_labels: int = 200, seed: int = 0
) -> dict[str, float]:
    """Accuracy on `test` of a dictionary code -> action that is built from `num_labels` labeled transitions of `fit`.

    The dictionary maps each code to its most frequent action, and a code without labels to the most frequent action overall.
    Returns mapping_accuracy, and the baseline majority_accuracy (always predicting that action); both are in [0, 1].
    """
    if len(fit.actions) == 0 or len(test.actions) == 0:
        return {"mapping_accuracy": math.nan, "majority_accuracy": math.nan}
    chosen = np.random.default_rng(seed).permutation(len(fit.actions))[:num_labels]
    codes, actions = fit.codes[chosen, 1], fit.actions[chosen]
    majority = int(np.bincount(actions).argmax())
    dictionary = np.full(num_codes, majority)
    for code in np.unique(codes):
        dictionary[code] = np.bincount(actions[codes == code]).argmax()
    return {
        "mapping_accuracy": float((dictionary[test.codes[:, 1]] == test.actions).mean()),
        "majority_accuracy": float((test.actions == majority).mean()),
    }


@torch.no_grad()
def encode_episodes(model, store: ClipStore, episodes: Sequence[int], num_frames: int, batch_size: int = 32) -> np.ndarray:
    """The code of every transition of the chosen episodes, indexed like the store's actions: int64 (F,), -1 elsewhere.

    Episodes are read in clips of `num_frames` that overlap by one frame, so that each transition belongs to one clip. The last
    clip of an episode may also cover earlier transitions; these keep the code that they already have.
    """
    device = next(model.parameters()).device
    codes = np.full(len(store.frames), -1, np.int64)
    starts = []
    for start, stop in store.episodes[np.asarray(episodes, np.int64)]:
        if stop - start >= num_frames:
            starts += [*range(start, stop - num_frames, num_frames - 1), stop - num_frames]
    for first in range(0, len(starts), batch_size):
        positions = np.array(starts[first : first + batch_size])[:, None] + np.arange(num_frames)  # (B, T)
        indices = model.encode(to_video(store.frames[positions], device)).indices.cpu().numpy()  # (B, T-1)
        for transitions, found in zip(positions[:, 1:], indices, strict=True):
            new = codes[transitions] < 0
            codes[transitions[new]] = found[new]
    return codes


class LatentActionMetrics:
    """The scores of a latent action model that need no true actions, over any number of batches of clips.

    psnr_db, moving_psnr_db                of next frames predicted with the inferred actions
    copy_last_psnr_db, ..._moving_...      of the baseline, which repeats the last frame
    delta_psnr_db, delta_moving_psnr_db    gain of inferred actions over random actions
    swap_test                              share of pairs of clips that are predicted worse if they exchange their last actions;
                                           0.5 is chance, 0 means that the decoder ignores the action
    codes_used, perplexity                 over all transitions
    """

    def __init__(self, num_actions: int) -> None:
        self.inferred, self.random, self.copy_last = VideoScores(), VideoScores(), VideoScores()
        self.usage = CodeUsage(num_actions)
        self.swaps_right = self.swaps = 0

    @torch.no_grad()
    def update(self, model, video: Tensor, generator: torch.Generator) -> None:
        """video: (B, T, C, H, W) in [0, 1], B >= 2 for the swap test. generator: samples the random actions, on the CPU."""
        past, target = video[:, :-1], video[:, 1:]
        indices = model.encode(video).indices  # (B, T-1)
        random = torch.randint(model.num_actions, indices.shape, generator=generator).to(indices.device)
        predicted = model.decode_indices(past, indices)
        self.inferred.update(predicted, target, past)
        self.random.update(model.decode_indices(past, random), target, past)
        self.copy_last.update(past, target, past)
        self.usage.update(indices)
        right, pairs = swap_test(model, past, target, indices, predicted)
        self.swaps_right, self.swaps = self.swaps_right + right, self.swaps + pairs

    def result(self) -> dict[str, float]:
        """The scores listed in the docstring of the class."""
        inferred, random, copied = self.inferred.result(), self.random.result(), self.copy_last.result()
        return {
            "psnr_db": inferred["psnr_db"],
            "moving_psnr_db": inferred["moving_psnr_db"],
            "copy_last_psnr_db": copied["psnr_db"],
            "copy_last_moving_psnr_db": copied["moving_psnr_db"],
            "delta_psnr_db": inferred["psnr_db"] - random["psnr_db"],
            "delta_moving_psnr_db": inferred["moving_psnr_db"] - random["moving_psnr_db"],
            "swap_test": share(self.swaps_right, self.swaps),
            **self.usage.result(),
        }


@torch.no_grad()
def swap_test(model, past: Tensor, target: Tensor, indices: Tensor, predicted: Tensor) -> tuple[int, int]:
    """(pairs of clips whose predictions get worse if they exchange their last actions, pairs).

    Clip i is paired with clip i+1 if their last actions differ and something moves in both. The error is summed over both clips
    of a pair, over the pixels that moved in the real frame.
    past, target, predicted: (B, T-1, C, H, W); predicted uses the clips' own actions. indices: (B, T-1).
    """
    moved = pixels_that_moved(target[:, -1], past[:, -1])  # (B, H, W)

    def error(frame: Tensor) -> Tensor:
        return ((frame - target[:, -1]).square().mean(dim=1) * moved).sum(dim=(1, 2))  # (B,)

    def error_with_action_of(shift: int) -> Tensor:
        borrowed = torch.cat([indices[:, :-1], indices[:, -1:].roll(shift, dims=0)], dim=1)
        return error(model.decode_indices(past, borrowed)[:, -1])

    own, from_next, from_previous = error(predicted[:, -1]), error_with_action_of(-1), error_with_action_of(1)
    worse = (from_next - own) + (from_previous - own).roll(-1)  # clip i with the action of i+1, and clip i+1 with that of i
    moves = moved.any(dim=(1, 2))
    counted = (indices[:, -1] != indices[:, -1].roll(-1)) & moves & moves.roll(-1)
    return int((counted & (worse > 0)).sum()), int(counted.sum())


@torch.no_grad()
def validate(model: Any, data: TrainingData, config: Any, device: torch.device) -> dict[str, float]:
    """Score a model during training, always on the same clips, evenly spaced over the validation set.

    True actions, if the store has them, are used for scoring only.
    """
    model.eval()
    store, clips = data.store, data.validation
    metrics = LatentActionMetrics(model.num_actions)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = evenly_spaced(len(clips), config.validation_batches * config.batch_size)
    for first in range(0, len(chosen), config.batch_size):
        video = to_video(clips.__getitems__(chosen[first : first + config.batch_size])["frames"], device)
        with autocast(device, config.precision):
            metrics.update(model, video, generator)
    information = math.nan
    if store.num_actions:
        training, episodes = split_episodes(store, config.validation_share, config.seed)
        episodes = episodes if len(episodes) > 1 else [training[0], *episodes]  # at least one to fit the table and one to test it
        with autocast(device, config.precision):
            codes = encode_episodes(model, store, episodes, config.num_frames)
        half = max(1, len(episodes) // 2)
        actions = np.where(data.seen, -1, store.actions)  # frames that training has too are not scored
        fitted, tested = (find_transitions(codes, actions, store.episodes[part]) for part in (episodes[:half], episodes[half:]))
        information = action_information(fitted, tested, model.num_actions, store.num_actions, single=True)
    return metrics.result() | {"action_information_single": information}
