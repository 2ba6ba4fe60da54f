"""Did the latent actions find the buttons? Scores against the true actions, which training never saw.

Codes are kept in step with the clip store: `codes[f]` belongs to the movement from frame f-1 to frame f, as `actions[f]` does,
and both are -1 where there is none (first frames of episodes, videos without actions). What a code says about an action is always
measured on other episodes than those it was learnt from: a code as rare as a fingerprint would otherwise tell everything.
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
    """Transitions with a known action and a known code before, at and after them, all within one episode."""

    codes: np.ndarray  # int64 (N, 3): the codes of transitions t-1, t, t+1
    actions: np.ndarray  # int64 (N,): the true action of transition t
    episodes: np.ndarray  # int64 (N,): number of the episode, to split by

    def choose(self, mask: np.ndarray) -> "Transitions":
        """The transitions where mask (N,) is True, or those it lists."""
        return Transitions(self.codes[mask], self.actions[mask], self.episodes[mask])


def find_transitions(codes: np.ndarray, actions: np.ndarray, ranges: np.ndarray) -> Transitions:
    """All transitions of the given episodes that have a known action and three known codes around them.

    codes, actions: (F,); ranges: (E, 2) start and stop. An episode of frames 0..4 has the transitions 1..4; transitions 2 and 3
    have a neighbour on both sides.
    """
    frames = [np.arange(start + 2, stop - 1) for start, stop in ranges]
    episode = np.repeat(np.arange(len(ranges)), [len(part) for part in frames])
    frame = np.concatenate(frames) if frames else np.empty(0, np.int64)
    around = codes[frame[:, None] + np.array([-1, 0, 1])].astype(np.int64)  # (N, 3)
    known = (actions[frame] >= 0) & (around >= 0).all(axis=1)
    return Transitions(around[known], actions[frame][known].astype(np.int64), episode[known])


def independent_episodes(store: ClipStore, episodes: Sequence[int]) -> tuple[list[int], str]:
    """The episodes whose actions were drawn at random, and who played them, "random" or, if there are none, "all": all episodes.

    Where a player follows the ball, the ball tells the action too, and a code that only describes the ball looks informative.
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
    """I(code; action) in nats from the frequencies of one set (N,): too high for small sets, as it is measured where counted."""
    pairs = np.unique(np.stack([codes, actions]), axis=1, return_inverse=True)[1].ravel()
    codes, actions = np.unique(codes, return_inverse=True)[1], np.unique(actions, return_inverse=True)[1]
    return max(0.0, entropy(codes.ravel()) + entropy(actions.ravel()) - entropy(pairs))


def information_share(log_probabilities: np.ndarray, actions: np.ndarray) -> float:
    """(H(a) - cross entropy) / H(a), at least 0: the share of what there is to know about the action that a classifier knows.

    log_probabilities: (N, A) in nats; actions: (N,), both of transitions the classifier was not fitted on. NaN when there is only
    one action. Four equally frequent actions, one of which is always named with 0.97 and the others guessed within three: about
    0.4.
    """
    uncertainty = entropy(actions)
    if uncertainty == 0.0:
        return math.nan
    cross_entropy = -log_probabilities[np.arange(len(actions)), actions].mean()
    return float(max(0.0, (uncertainty - cross_entropy) / uncertainty))


class ActionTable:
    """P(action | codes of transitions t-1, t, t+1) by counting, where few counts fall back on coarser tables.

    The table of all three codes has K^3 rows, most of them rarely seen. Each row is therefore filled up with `smoothing`
    imaginary transitions that follow the two tables of neighbouring pairs, these with the table of the middle code alone, and
    that with the overall frequencies.
    """

    def __init__(self, codes: np.ndarray, actions: np.ndarray, num_codes: int, num_actions: int, smoothing: float):
        """codes: (N, 3) in [0, num_codes); actions: (N,) in [0, num_actions); smoothing: > 0, in transitions."""
        self.num_codes, self.num_actions, self.smoothing = num_codes, num_actions, smoothing
        overall = (np.bincount(actions, minlength=num_actions) + 1.0) / (len(actions) + num_actions)
        self.single = self._fill(codes[:, 1:2], actions, overall)  # (K, A)
        before = self._fill(codes[:, 0:2], actions, self.single[None, :, :])  # (K, K, A) codes t-1, t
        after = self._fill(codes[:, 1:3], actions, self.single[:, None, :])  # (K, K, A) codes t, t+1
        both = before[:, :, None] * after[None] / self.single[None, :, None]  # exact if t-1 and t+1 say independent things
        self.triple = self._fill(codes, actions, both / both.sum(axis=-1, keepdims=True))  # (K, K, K, A)

    def _fill(self, codes: np.ndarray, actions: np.ndarray, prior: np.ndarray) -> np.ndarray:
        shape = (self.num_codes,) * codes.shape[1] + (self.num_actions,)
        places = np.ravel_multi_index((*codes.T, actions), shape)
        counts = np.bincount(places, minlength=int(np.prod(shape))).reshape(shape)
        return (counts + self.smoothing * prior) / (counts.sum(axis=-1, keepdims=True) + self.smoothing)

    def log_probabilities(self, codes: np.ndarray, single: bool = False) -> np.ndarray:
        """codes: (N, 3). Returns (N, A) in nats, from the middle code alone if `single`."""
        return np.log(self.single[codes[:, 1]] if single else self.triple[codes[:, 0], codes[:, 1], codes[:, 2]])


def action_information(fit: Transitions, test: Transitions, num_codes: int, num_actions: int, single: bool = False) -> float:
    """Share of the true action's entropy that the codes tell, on transitions of other episodes than those counted; in [0, 1].

    single: from the code of the transition alone instead of three codes in a row. The smoothing is the one of five that
    predicts a quarter of `fit`, held back by episode, best. NaN where there is nothing to fit or test.
    """
    if len(fit.actions) < 8 or len(test.actions) == 0:
        return math.nan
    held_back = fit.episodes % 4 == fit.episodes.max() % 4
    if held_back.all():  # one episode: its last quarter
        held_back = np.arange(len(fit.actions)) >= 0.75 * len(fit.actions)
    rest, check = fit.choose(~held_back), fit.choose(held_back)

    def cross_entropy(smoothing: float) -> float:
        table = ActionTable(rest.codes, rest.actions, num_codes, num_actions, smoothing)
        return -table.log_probabilities(check.codes, single)[np.arange(len(check.actions)), check.actions].mean()

    smoothing = min((1.0, 5.0, 25.0, 125.0, 1000.0), key=cross_entropy)
    table = ActionTable(fit.codes, fit.actions, num_codes, num_actions, smoothing)
    return information_share(table.log_probabilities(test.codes, single), test.actions)


def mapping_accuracy(
    fit: Transitions, test: Transitions, num_codes: int, num_labels: int = 200, seed: int = 0
) -> dict[str, float]:
    """How well a dictionary code -> action, learnt from `num_labels` labelled transitions of `fit`, names the actions of `test`.

    The dictionary gives each code its most frequent action; a code without a label gets the most frequent action of all labels.
    Returns mapping_accuracy and majority_accuracy (always naming that most frequent action), both shares in [0, 1].
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
    """The code of every transition of the chosen episodes, in step with the store's actions: int64 (F,), -1 elsewhere.

    Episodes are read in clips of `num_frames` that overlap by one frame, so that each transition belongs to one clip. The last
    clip of an episode may reach back over transitions that have a code already, which they keep.
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
    """The report of one latent action model over any number of batches of clips, the part that needs no true actions.

    psnr_db, moving_psnr_db                of the next frames drawn with the inferred actions, and copy_last_... beside them
    delta_psnr_db, delta_moving_psnr_db    the same minus that of the next frames drawn with random actions
    swap_test                              share of pairs of clips that are drawn worse when they exchange their last actions;
                                           0.5 is chance, 0 a decoder that ignores the action
    codes_used, perplexity                 over all transitions
    """

    def __init__(self, num_actions: int) -> None:
        self.inferred, self.random, self.copy_last = VideoScores(), VideoScores(), VideoScores()
        self.usage = CodeUsage(num_actions)
        self.swaps_right = self.swaps = 0

    @torch.no_grad()
    def update(self, model, video: Tensor, generator: torch.Generator) -> None:
        """video: (B, T, C, H, W) in [0, 1], B >= 2 for the swap test; generator: on the CPU, draws the random actions."""
        past, target = video[:, :-1], video[:, 1:]
        indices = model.encode(video).indices  # (B, T-1)
        random = torch.randint(model.num_actions, indices.shape, generator=generator).to(indices.device)
        drawn = model.decode_indices(past, indices)
        self.inferred.update(drawn, target, past)
        self.random.update(model.decode_indices(past, random), target, past)
        self.copy_last.update(past, target, past)
        self.usage.update(indices)
        right, pairs = swap_test(model, past, target, indices, drawn)
        self.swaps_right, self.swaps = self.swaps_right + right, self.swaps + pairs

    def result(self) -> dict[str, float]:
        """The scores of the class's table."""
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
def swap_test(model, past: Tensor, target: Tensor, indices: Tensor, drawn: Tensor) -> tuple[int, int]:
    """(pairs that the exchange of their last actions makes worse, pairs). Clip i is paired with clip i+1 if their actions differ.

    past, target, drawn: (B, T-1, C, H, W), drawn with each clip's own actions; indices: (B, T-1). Only the pixels that moved in
    the real frame count, summed over both clips of a pair.
    """
    moved = pixels_that_moved(target[:, -1], past[:, -1])  # (B, H, W)

    def error(frame: Tensor) -> Tensor:
        return ((frame - target[:, -1]).square().mean(dim=1) * moved).sum(dim=(1, 2))  # (B,)

    def error_with_action_of(shift: int) -> Tensor:
        borrowed = torch.cat([indices[:, :-1], indices[:, -1:].roll(shift, dims=0)], dim=1)
        return error(model.decode_indices(past, borrowed)[:, -1])

    own, from_next, from_previous = error(drawn[:, -1]), error_with_action_of(-1), error_with_action_of(1)
    worse = (from_next - own) + (from_previous - own).roll(-1)  # clip i drawn with i+1's action, and clip i+1 with i's
    moves = moved.any(dim=(1, 2))
    counted = (indices[:, -1] != indices[:, -1].roll(-1)) & moves & moves.roll(-1)
    return int((counted & (worse > 0)).sum()), int(counted.sum())


@torch.no_grad()
def validate(model: Any, data: TrainingData, config: Any, device: torch.device) -> dict[str, float]:
    """The scores of a model during training, on the same validation clips every time, evenly spaced over all of them.

    True actions, where the store has them, only score; they never train.
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
        episodes = episodes if len(episodes) > 1 else [training[0], *episodes]  # one to fit the table on, one to test it
        with autocast(device, config.precision):
            codes = encode_episodes(model, store, episodes, config.num_frames)
        half = max(1, len(episodes) // 2)
        fitted, tested = (
            find_transitions(codes, store.actions, store.episodes[part]) for part in (episodes[:half], episodes[half:])
        )
        information = action_information(fitted, tested, model.num_actions, store.num_actions, single=True)
    return metrics.result() | {"action_information_single": information}
