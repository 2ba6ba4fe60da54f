"""The pictures of chapter 3: how MaskGIT decodes a frame, and why copying the last frame looks almost perfect."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dynamics_model.metrics import FrameScores
from dynamics_model.models.maskgit import DecodingPass, MaskGITSampling
from dynamics_model.rollouts import decode_after
from tokenizer_lab.draw import CHANGED, bare, draw_pair, most_changing_step
from video_tokenizer.data.clips import to_frames
from video_tokenizer.errors import InputError
from video_tokenizer.figures import BAD, DARK, GOOD, GRID, image_grid, save_figure, save_gif, save_picture

# ---- how MaskGIT decodes a frame --------------------------------------------------------------------------------------

MASKED = 110
"""grey level of a patch whose token is still masked"""


@torch.no_grad()
def decoding_passes(
    model, tokens: Tensor, actions: Tensor, action: int, num_steps: int, schedule: Literal["halving", "cosine"], seed: int
) -> list[DecodingPass]:
    """The passes that decode the frame after `tokens` under `action`. tokens: (1, T, N) of real frames; actions: (1, T)."""
    trace: list[DecodingPass] = []
    state, generator = model.start(tokens, actions), torch.Generator().manual_seed(seed)
    model.step(state, torch.tensor([action]), MaskGITSampling(num_steps=num_steps, schedule=schedule), generator, trace)
    return trace


def pass_pictures(tokenizer, tokens: Tensor, trace: Sequence[DecodingPass]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three pictures of each pass, uint8 (S, H, W, 3): unmasked patches, the rest grey; all samples; their probability."""
    columns, patch_size = tokenizer.grid_size[1], tokenizer.config.patch_size

    def per_pixel(values: Tensor) -> np.ndarray:  # (1, N) -> (H, W)
        grid = values[0].view(-1, columns)
        return grid.repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1).numpy()

    sampled = np.stack([to_frames(decode_after(tokenizer, tokens, step.tokens[:, None]))[0, 0] for step in trace])
    unmasked = np.stack([per_pixel(step.unmasked) for step in trace])[..., None]
    probability = [colormaps["viridis"](per_pixel(step.probability))[..., :3] * 255 for step in trace]
    return np.where(unmasked, sampled, MASKED).astype(np.uint8), sampled, np.stack(probability).astype(np.uint8)


def save_filling_in(path: Path, model, tokenizer, tokens: Tensor, actions: Tensor, action: int, seed: int) -> None:
    """A frame decoded with both schedules: a row with what is unmasked after each pass, and one with the probabilities."""
    rows: list[tuple[str, np.ndarray]] = []
    for schedule in ("cosine", "halving"):
        trace = decoding_passes(model, tokens, actions, action, 4, schedule, seed)
        unmasked, _, probability = pass_pictures(tokenizer, tokens, trace)
        rows += [(f"{schedule}:\nunmasked", unmasked), ("probability", probability)]
    labels = [f"pass {number}" for number in range(1, 5)]
    save_picture(
        path, image_grid(rows, "Gray: still masked. Yellow: the model was sure of its sample, blue: it was not.", labels)
    )


def save_filling_in_film(path: Path, model, tokenizer, tokens: Tensor, actions: Tensor, action: int, seed: int) -> None:
    """The same as a GIF of sixteen passes with the cosine schedule, which ends with the finished frame held for two seconds."""
    trace = decoding_passes(model, tokens, actions, action, 16, "cosine", seed)
    held = [*range(16), *[15] * 6]
    pictures = zip(("unmasked", "all samples", "probability"), pass_pictures(tokenizer, tokens, trace), strict=True)
    captions = [f"pass {number + 1} of 16" for number in held]
    save_gif(path, {label: frames[held] for label, frames in pictures}, frames_per_second=3.0, captions=captions)


# ---- why copying looks perfect ----------------------------------------------------------------------------------------

COPIER, RIGHT_KEY, WRONG_KEY = "copy-last", "right key", "wrong key"


def wrong_key(action: int, names: Sequence[str], action_map: Mapping[str, int], keys: Iterable[str]) -> str:
    """The first of some keys that sends another action than `action` and has another name.

    names: what each action is called; action_map: key -> the action it sends. Raises InputError if there is none.
    """
    for key in keys:
        if action_map[key] != action and key not in names[action]:
            return key
    raise InputError(f"every key of this world means {names[action]}; choose another --world")


def wrong_actions(actions: Tensor, names: Sequence[str], action_map: Mapping[str, int], keys: Sequence[str]) -> Tensor:
    """Replace every action (B, T) by that of its wrong key; -1, unknown, stays."""
    wrong = actions.clone()
    for action in actions[actions >= 0].unique().tolist():
        wrong[actions == action] = action_map[wrong_key(action, names, action_map, keys)]
    return wrong


@torch.no_grad()
def predictions(model, tokens: Tensor, actions: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """What copy-last and the model predict for frames 1 to T - 1, each from the real frames before: label -> (B, T - 1, N).

    tokens: (B, T, N); actions, wrong: (B, T). Under the wrong key only the newest action is wrong, not those before it.
    """

    def likeliest(actions: Tensor) -> Tensor:
        return model.teacher_forced(tokens[:, : actions.shape[1]], actions).predicted

    under_wrong = torch.empty_like(tokens[:, 1:])
    for frame in range(1, tokens.shape[1]):
        one_wrong = torch.cat([actions[:, :frame], wrong[:, frame : frame + 1]], dim=1)  # (B, frame + 1)
        under_wrong[:, frame - 1] = likeliest(one_wrong)[:, -1]
    return {COPIER: tokens[:, :-1], RIGHT_KEY: likeliest(actions), WRONG_KEY: under_wrong}


def accuracies(predicted: Tensor, target: Tensor, before: Tensor) -> tuple[float, float]:
    """Share of right tokens, of all and of those that changed. All of one shape (..., N)."""
    scores = FrameScores()
    scores.update(torch.zeros(target.shape), predicted, target, before)
    return scores.result()["accuracy"], scores.result()["accuracy_changed"]


def save_copy_trap(
    path: Path, tokenizer, frames: np.ndarray, tokens: Tensor, predicted: Mapping[str, Tensor], clip: int, keys: tuple[str, str]
) -> None:
    """The step of a clip in which most tokens change, its predictions, which tokens are right, and the two accuracies.

    frames: uint8 (B, T, H, W, 3); tokens: (B, T, N); predicted: from `predictions`; keys: names of the right and the wrong key.
    """
    shown = most_changing_step(tokens[clip])
    before, now = tokens[clip, shown - 1], tokens[clip, shown]
    columns = tokenizer.grid_size[1]
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    charts = figure.subplots(3, 2 + len(predicted), height_ratios=(1, 1, 0.85))
    for axes, title, number in zip(charts[0], ("a frame", "the next"), (shown - 1, shown), strict=False):
        axes.imshow(frames[clip, number], interpolation="nearest")
        bare(axes, title)
    draw_cells(charts[1, 1], before, now, now, columns, changed=CHANGED)
    charts[1, 1].set_title(f"{int((now != before).sum())} of {len(now)} change", fontsize=9)
    for axes in (charts[1, 0], charts[2, 0], charts[2, 1]):
        axes.set_axis_off()
    titles = (COPIER, f"model, {keys[0]}", f"model, {keys[1]}")
    for column, title, guess in zip(charts[:, 2:].T, titles, predicted.values(), strict=True):
        decoded = decode_after(tokenizer, tokens[clip : clip + 1, :shown], guess[clip : clip + 1, shown - 1 : shown])
        column[0].imshow(to_frames(decoded)[0, 0], interpolation="nearest")
        bare(column[0], title)
        right = draw_cells(column[1], before, now, guess[clip, shown - 1], columns)
        column[1].set_title(right, fontsize=9)
        draw_pair(column[2], accuracies(guess[clip, shown - 1], now, before), ("all", "changed"), top=1.25, decimals=2)
    _draw_legend(charts[2, 0])
    pairs = [accuracies(guess, tokens[:, 1:], tokens[:, :-1]) for guess in predicted.values()]
    all_tokens, changed = (" / ".join(f"{share:.2f}" for share in shares) for shares in zip(*pairs, strict=True))
    steps = f"{tokens[:, 1:, 0].numel()} steps of {len(tokens)} early clips"
    caption = f"The three over {steps}: all tokens {all_tokens}, changed ones {changed}."
    figure.supxlabel(caption, fontsize=9, color=DARK)
    save_figure(path, figure)


def draw_cells(axes: Axes, before: Tensor, now: Tensor, guess: Tensor, columns: int, changed: str = GOOD) -> str:
    """One cell per token: pale if its stay is predicted, `changed` if its change is, red and crossed if it is predicted wrong.

    before, now, guess: (N,). Returns how many of the changes are right, in words.
    """
    right, differs = (guess == now).view(-1, columns), (now != before).view(-1, columns)
    colors = np.where(differs[..., None], to_rgb(changed), to_rgb(GRID))
    axes.imshow(np.where(right[..., None], colors, to_rgb(BAD)), interpolation="nearest")
    for edge in range(1, columns):
        axes.axvline(edge - 0.5, color="white", linewidth=1)
    for edge in range(1, len(right)):
        axes.axhline(edge - 0.5, color="white", linewidth=1)
    row, column = torch.nonzero(~right, as_tuple=True)
    axes.scatter(column.numpy(), row.numpy(), marker="x", s=30, color="white", linewidths=1)
    bare(axes)
    axes.spines[:].set_visible(False)
    return f"{int((right & differs).sum())} of {int(differs.sum())} changes"


def _draw_legend(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    lines = (
        (GRID, "unchanged, predicted right"),
        (GOOD, "changed, predicted right"),
        (BAD, "predicted wrong"),
        (None, "bars: share predicted right"),
    )
    for height, (color, words) in zip((0.75, 0.53, 0.31, 0.05), lines, strict=True):
        if color is not None:
            axes.add_patch(Rectangle((0, height), 0.12, 0.13, facecolor=color, clip_on=False))
        text = axes.text(0.2 if color else 0, height + 0.06, words, fontsize=9, va="center")
        text.set_in_layout(False)  # it may reach into the empty chart beside it
