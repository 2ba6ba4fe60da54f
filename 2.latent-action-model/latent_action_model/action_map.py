"""Map the actions of the game to the codes of the model, and back, from a few labeled transitions.

The codes of a model are arbitrary numbers, but keys have names. `action_map` answers "which code do I send when RIGHT is
pressed?", and `latent_names` answers "what does code 3 mostly do?". Both only count pairs (code, true action).
"""

from collections.abc import Sequence

import numpy as np

SMOOTHING = 5.0
"""pseudo-counts that follow the average, so that a code seen twice cannot win by luck"""


def count_pairs(codes: np.ndarray, actions: np.ndarray, num_codes: int, num_actions: int) -> np.ndarray:
    """How often each code came with each true action. codes, actions: (N,), all known. Returns int64 (num_codes, num_actions)."""
    pairs = np.asarray(codes, np.int64) * num_actions + np.asarray(actions, np.int64)
    return np.bincount(pairs, minlength=num_codes * num_actions).reshape(num_codes, num_actions)


def lift(counts: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """P(code | action) / P(code): how much more likely a code becomes if the action is known; 1 if they are independent.

    By Bayes' rule it equals P(action | code) / P(action). We smooth this ratio with `smoothing` pseudo-counts per code, which
    follow P(action). A code that occurs 30 times, always with an action of share 1/4, at smoothing 10:
    (30 + 10/4) / (30 + 10) / (1/4) = 3.25 instead of 4. counts: (num_codes, num_actions). Returns the same shape.
    """
    shares = counts.sum(axis=0) / max(counts.sum(), 1)  # (num_actions,) P(action)
    given_code = action_given_code(counts, smoothing)
    return np.divide(given_code, shares, out=np.ones_like(given_code), where=shares > 0)


def action_given_code(counts: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """P(action | code), smoothed by pseudo-counts that follow P(action). counts and result: (num_codes, num_actions)."""
    shares = counts.sum(axis=0) / max(counts.sum(), 1)
    return (counts + smoothing * shares) / np.maximum(counts.sum(axis=1, keepdims=True) + smoothing, 1e-9)


def action_map(codes: np.ndarray, actions: np.ndarray, num_codes: int, num_actions: int) -> list[int]:
    """The code to send for each true action: the one with the largest P(code | action) * log lift.

    This is the code's term in the information that codes carry about the action. Frequency alone would choose the code for
    "nothing happens", which occurs with every action (log lift 0). Lift alone would choose a code that occurs eight times, always
    with this action, but only in one corner of the game. Two actions may share a code: NOOP and FIRE look alike in Breakout, and
    only three of Pong's six keys have different effects.
    codes, actions: (N,) transitions with known actions. Returns num_actions code numbers; an action that never occurs gets the
    most frequent code.
    """
    counts = count_pairs(codes, actions, num_codes, num_actions)
    shares = counts / np.maximum(counts.sum(axis=0), 1)  # (num_codes, num_actions) P(code | action)
    information = shares * np.log(lift(counts))
    best = information.argmax(axis=0)
    best[counts.sum(axis=0) == 0] = counts.sum(axis=1).argmax()
    return [int(code) for code in best]


def latent_names(
    codes: np.ndarray, actions: np.ndarray, num_codes: int, action_names: Sequence[str], enough: float = 0.75
) -> list[str]:
    """A name for each code: "LEFT", "NOOP or FIRE", "mixed", "rare" (fewer than 5 transitions) or "unused".

    A code is named after its one or two most frequent true actions if at least the share `enough` of its transitions have them.
    codes, actions: (N,) transitions with known actions. Returns num_codes names.
    """
    counts = count_pairs(codes, actions, num_codes, len(action_names))
    names = []
    for row in counts:
        order = [int(action) for action in np.argsort(-row, kind="stable")]
        shares = np.cumsum(row[order]) / max(row.sum(), 1)
        if row.sum() < 5:
            names.append("rare" if row.any() else "unused")
        elif shares[0] >= enough:
            names.append(action_names[order[0]])
        elif len(order) > 2 and shares[1] >= enough:
            names.append(" or ".join(action_names[action] for action in sorted(order[:2])))
        else:
            names.append("mixed")
    return names
