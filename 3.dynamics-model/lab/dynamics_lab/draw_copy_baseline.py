"""Copying looks perfect: one step in which something happens, and what a copier and the model say of its tokens.

The copier says that every token stays. The model says its likeliest token for every patch, once under the key that was pressed
and once under another. On all tokens the three are hardly apart; on those that change they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dynamics_model.metrics import TokenScores
from dynamics_model.rollouts import decode_after
from tokenizer_lab.draw_psnr_failure import BAD, GOOD, draw_pair
from tokenizer_lab.draw_tokens import CHANGED, liveliest_step
from tokenizer_lab.illustrations import bare
from video_tokenizer.data.clips import to_frames
from video_tokenizer.figures import DARK, save_figure
from video_tokenizer.training.command_line import InputError

COPIER, RIGHT_KEY, WRONG_KEY = "copier", "right key", "wrong key"
STAYS = "#e6e9ee"
"""of a cell whose token stays, and of which that was said"""


def wrong_key(action: int, names: Sequence[str], action_map: Mapping[str, int], keys: Iterable[str]) -> str:
    """The first of some keys that sends another action than `action` and has another name.

    names: what each action is called; action_map: key -> the action it sends. Raises InputError where there is none.
    """
    for key in keys:
        if action_map[key] != action and key not in names[action]:
            return key
    raise InputError(f"no key of this world means anything but {names[action]}; choose another --world")


def wrong_actions(actions: Tensor, names: Sequence[str], action_map: Mapping[str, int], keys: Sequence[str]) -> Tensor:
    """For every action (B, T) that of its wrong key; an unknown one, -1, stays."""
    wrong = actions.clone()
    for action in actions[actions >= 0].unique().tolist():
        wrong[actions == action] = action_map[wrong_key(action, names, action_map, keys)]
    return wrong


@torch.no_grad()
def guesses(model, tokens: Tensor, actions: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """What copier and model say of frames 1 to T - 1, each from the real frames before it: label -> (B, T - 1, N).

    tokens: (B, T, N); actions, wrong: (B, T). Under the wrong key only the newest action is wrong, not those before it.
    """

    def likeliest(actions: Tensor) -> Tensor:
        past = tokens[:, : actions.shape[1] - 1]
        return model.predict(past, torch.full_like(past, model.mask_token), actions).argmax(dim=-1)

    under_wrong = torch.empty_like(tokens[:, 1:])
    for frame in range(1, tokens.shape[1]):
        mistaken = torch.cat([actions[:, :frame], wrong[:, frame : frame + 1]], dim=1)  # (B, frame + 1)
        under_wrong[:, frame - 1] = likeliest(mistaken)[:, -1]
    return {COPIER: tokens[:, :-1], RIGHT_KEY: likeliest(actions), WRONG_KEY: under_wrong}


def accuracies(guess: Tensor, target: Tensor, before: Tensor) -> tuple[float, float]:
    """Share of right tokens, of all and of those that changed. All of one shape (..., N)."""
    scores = TokenScores()
    scores.update(torch.zeros(target.shape), guess, target, before)
    return scores.result()["accuracy"], scores.result()["accuracy_changed"]


def save_copy_trap(
    path: Path, tokenizer, frames: np.ndarray, tokens: Tensor, said: Mapping[str, Tensor], clip: int, pressed: tuple[str, str]
) -> None:
    """The liveliest step of a clip, what was said of it, which tokens were right, and the two accuracies.

    frames: uint8 (B, T, H, W, 3); tokens: (B, T, N), theirs; said: what `guesses` gives for them; pressed: names of the right and
    the wrong key in this step.
    """
    shown = liveliest_step(tokens[clip])
    before, now = tokens[clip, shown - 1], tokens[clip, shown]
    columns = tokenizer.grid_size[1]
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    charts = figure.subplots(3, 2 + len(said), height_ratios=(1, 1, 0.85))
    for column, title, number in zip(charts.T, ("a frame", "the next"), (shown - 1, shown), strict=False):
        column[0].imshow(frames[clip, number], interpolation="nearest")
        bare(column[0], title)
    draw_cells(charts[1, 1], before, now, now, columns, changed=CHANGED)
    charts[1, 1].set_title(f"{int((now != before).sum())} of {len(now)} change", fontsize=9)
    for axes in (charts[1, 0], charts[2, 0], charts[2, 1]):
        axes.set_axis_off()
    titles = (COPIER, f"model, {pressed[0]}", f"model, {pressed[1]}")
    for column, title, guess in zip(charts[:, 2:].T, titles, said.values(), strict=True):
        drawn = decode_after(tokenizer, tokens[clip : clip + 1, :shown], guess[clip : clip + 1, shown - 1 : shown])
        column[0].imshow(to_frames(drawn)[0, 0], interpolation="nearest")
        bare(column[0], title)
        right = draw_cells(column[1], before, now, guess[clip, shown - 1], columns)
        column[1].set_title(right, fontsize=9)
        draw_pair(column[2], accuracies(guess[clip, shown - 1], now, before), ("all", "changed"), top=1.25, decimals=2)
    _explain(charts[2, 0])
    figure.supxlabel(_caption(said, tokens), fontsize=9, color=DARK)
    save_figure(path, figure)


def draw_cells(axes: Axes, before: Tensor, now: Tensor, guess: Tensor, columns: int, changed: str = GOOD) -> str:
    """One cell per token: pale where it stays and that was said, `changed` where its change was, red and crossed where not.

    before, now, guess: (N,). Returns how many of the changed ones are right, in words.
    """
    right, differs = (guess == now).view(-1, columns), (now != before).view(-1, columns)
    colors = np.where(differs[..., None], to_rgb(changed), to_rgb(STAYS))
    axes.imshow(np.where(right[..., None], colors, to_rgb(BAD)), interpolation="nearest")
    for edge in range(1, columns):
        axes.axvline(edge - 0.5, color="white", linewidth=1)
    for edge in range(1, len(right)):
        axes.axhline(edge - 0.5, color="white", linewidth=1)
    row, column = torch.nonzero(~right, as_tuple=True)
    axes.scatter(column.numpy(), row.numpy(), marker="x", s=30, color="white", linewidths=1)
    bare(axes, "")
    axes.spines[:].set_visible(False)
    return f"{int((right & differs).sum())} of {int(differs.sum())} changes"


def _explain(axes: Axes) -> None:
    """What the colours of the cells and the bars mean."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    lines = ((STAYS, "stays, as was said"), (GOOD, "changes, as was said"), (BAD, "said wrong"), (None, "bars: share said right"))
    for height, (color, words) in zip((0.75, 0.53, 0.31, 0.05), lines, strict=True):
        if color is not None:
            axes.add_patch(Rectangle((0, height), 0.12, 0.13, facecolor=color, clip_on=False))
        text = axes.text(0.2 if color else 0, height + 0.06, words, fontsize=9, va="center")
        text.set_in_layout(False)  # it may reach into the empty chart beside it


def _caption(said: Mapping[str, Tensor], tokens: Tensor) -> str:
    shares = [accuracies(guess, tokens[:, 1:], tokens[:, :-1]) for guess in said.values()]
    everything, changed = (" / ".join(f"{pair[kind]:.2f}" for pair in shares) for kind in (0, 1))
    steps = tokens.shape[0] * (tokens.shape[1] - 1)
    return f"The three over {steps} steps: all tokens {everything}, changed ones {changed}."
