"""Map the actions of the game to the codes of the model, and back, from a few labeled transitions.

The codes of a model are arbitrary numbers, but keys have names. `action_map` answers "which code do I send when RIGHT is
pressed?", and `latent_names` answers "what does code 3 mostly do?". Both only count pairs (code, true action).

Videos have no true actions to count. `keys_by_motion` gives the arrow keys to codes under which the picture moves their way.
"""

from collections.abc import Sequence

import numpy as np

SMOOTHING = 5.0
"""pseudo-counts that follow the average, so that a code seen twice cannot win by luck"""

SURE = 4.0
"""standard errors by which the motion under a code must differ from the mean motion before a key is named after it"""


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


def keys_by_motion(frames: np.ndarray, codes: np.ndarray, num_codes: int) -> dict[str, int]:
    """LEFT, RIGHT, UP and DOWN -> the code under which what stands out from the background moves that way most surely, and NOOP
    -> the most frequent other code. A direction in which nothing moves under any code gets no key.

    Takes the moment of the foreground, brightness times place, in each frame: a paddle of brightness 3 that goes from x = 4 to
    x = 6 adds 6 to it. A ball adds too, but the same under every code, so that the mean over many transitions tells codes apart.
    frames: uint8 (N, 2, H, W, 3), before and after. codes: (N,), which codes led from one to the other.
    """
    grey = frames.mean(axis=-1, dtype=np.float32)  # (N, 2, H, W)
    foreground = np.abs(grey - np.median(grey[::8, 0], axis=0))
    mass = {"y": foreground.sum(axis=3), "x": foreground.sum(axis=2)}  # (N, 2, H) and (N, 2, W)
    counts, scores = np.bincount(codes, minlength=num_codes), {}
    for axis, (back, forth) in {"x": ("LEFT", "RIGHT"), "y": ("UP", "DOWN")}.items():
        length = mass[axis].shape[-1]
        moments = mass[axis] @ (np.arange(length, dtype=np.float32) - (length - 1) / 2)  # (N, 2)
        moves = moments[:, 1] - moments[:, 0]
        for code in np.flatnonzero(counts):
            error = float(moves.std()) / counts[code] ** 0.5  # of the mean of so many moves, if codes meant nothing
            score = float(moves[codes == code].mean() - moves.mean()) / max(error, 1e-6)
            scores[forth if score > 0 else back, int(code)] = abs(score)
    keys: dict[str, int] = {}
    for key, code in sorted(scores, key=scores.__getitem__, reverse=True):
        if scores[key, code] > SURE and key not in keys and code not in keys.values():
            keys[key] = code
    others = [code for code in np.argsort(-counts, kind="stable").tolist() if code not in keys.values() and counts[code]]
    return keys | ({"NOOP": others[0]} if others else {})


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
