"""Pictures of latent actions: what each code means, what the model predicts under it, and what exchanging two actions does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import ACCENT, DARK, difference, enlarge, image_grid, save_picture

YELLOW = (255, 214, 10)
GAIN = 3.0
"""factor that makes small differences visible"""


def draw_confusion(counts: np.ndarray, action_names: Sequence[str], code_names: Sequence[str] = (), caption: str = "") -> Figure:
    """The confusion matrix of codes (rows) and true actions (columns). Color shows the share of a row, text the count.

    counts: (K, A), from `action_map.count_pairs`. code_names: K names of the codes, from `action_map.latent_names`.
    """
    num_codes, num_actions = counts.shape
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.85 * num_actions, 0.9 + 0.36 * num_codes))
    axes = figure.subplots()
    axes.set(xlim=(-0.5, num_actions - 0.5), ylim=(num_codes - 0.5, -0.5))
    for code, action in np.ndindex(num_codes, num_actions):
        share = shares[code, action]
        axes.add_patch(Rectangle((action - 0.5, code - 0.5), 1, 1, facecolor=ACCENT, alpha=share, linewidth=0))
        color = "white" if share > 0.7 else DARK
        axes.text(action, code, f"{counts[code, action]:,}", ha="center", va="center", fontsize=8, color=color)
    names = [f", {name}" for name in code_names] or [""] * num_codes
    axes.set_yticks(range(num_codes), [f"action {code}{name}" for code, name in enumerate(names)], fontsize=8)
    axes.set_xticks(range(num_actions), action_names, fontsize=8, rotation=30 if num_actions > 6 else 0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if caption:
        figure.text(0.02, -0.04, caption, fontsize=8, wrap=True)
    return figure


def close_up(changes: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the half-size window with the largest total change. changes: (N, H, W), not negative."""
    height, width = changes.shape[-2:]
    total = changes.float().sum(dim=0)[None, None]
    sums = F.avg_pool2d(total, (height // 2, width // 2), stride=1)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return slice(row, row + height // 2), slice(column, column + width // 2)


def next_frames_under_every_code(model, clip: Tensor) -> Tensor:
    """The frame after clip[-2], predicted under each code; earlier transitions keep their inferred codes.

    clip: (T, C, H, W) in [0, 1], T >= 2. Returns (num_actions, C, H, W).
    """
    with torch.no_grad():
        past = clip[:-1].expand(model.num_actions, *clip[:-1].shape)  # (K, T-1, C, H, W)
        indices = model.encode(clip[None]).indices.repeat(model.num_actions, 1)  # (K, T-1)
        indices[:, -1] = torch.arange(model.num_actions, device=indices.device)
        return model.decode_indices(past, indices)[:, -1].float()


def with_ball(frame: np.ndarray, ball: Sequence[float], scale: int, reach: int = 5) -> np.ndarray:
    """The frame at `scale`, and in it, framed in yellow, what lies around (x, y), at twice this scale and twice as bright.

    frame: uint8 (H, W, 3); returns uint8 (scale * H, scale * W, 3).
    """
    picture, (height, width) = enlarge(frame, scale), frame.shape[:2]
    x, y = (int(np.clip(round(place), reach, size - 1 - reach)) for place, size in zip(ball, (width, height), strict=True))
    around = np.minimum(2 * frame[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(int), 255).astype(np.uint8)
    inset = np.pad(enlarge(around, 2 * scale), ((1, 1), (1, 1), (0, 0)))
    inset[[0, -1]] = inset[:, [0, -1]] = YELLOW
    top = 2 * scale * height // 3 - len(inset) // 2
    left = scale * width // 8 if x > width / 2 else 7 * scale * width // 8 - len(inset)
    picture[top : top + len(inset), left : left + len(inset)] = inset
    return picture


def save_action_gallery(
    path: Path | str, model, clip: Tensor, caption: str = "", code_names: Sequence[str] = (), ball: Sequence[float] | None = None
) -> None:
    """Write a start frame and the frame predicted under every code, each with its change from the start frame and a close-up.

    clip: (T, C, H, W) in [0, 1]; the start frame is clip[-2], and the real next frame is clip[-1]. The close-up shows, at twice
    the size, the half-size window in which the predictions differ most from each other. ball: (x, y), enlarged in every frame.
    """
    predicted = next_frames_under_every_code(model, clip)  # (K, C, H, W)
    inferred = int(model.encode(clip[None]).indices[0, -1])
    rows, columns = close_up(predicted.std(dim=0).amax(dim=0)[None])
    start, real, *frames = to_frames(torch.stack([clip[-2], clip[-1], *predicted])[None])[0]

    def row(label: str, frame: np.ndarray) -> tuple[str, np.ndarray]:
        whole = enlarge(frame, scale) if ball is None else with_ball(frame, ball, scale)
        change, enlarged = enlarge(difference(frame, start, GAIN), scale), enlarge(frame[rows, columns], 2 * scale)
        return label, np.stack([whole, change, enlarged[: whole.shape[0], : whole.shape[1]]])

    scale = 2 if start.shape[1] <= 64 else 1  # two halves of three pictures
    names = list(code_names) or [""] * len(frames)
    labels = [f"action {code}{' *' if code == inferred else ''}\n{name}".strip() for code, name in enumerate(names)]
    entries = [row("start frame", start), row("real next", real), *(row(*entry) for entry in zip(labels, frames, strict=True))]
    titles = ["frame", f"change x{GAIN:.0f}", "close-up"]
    half = -(-len(entries) // 2)
    caption = f"{caption} * marks the one inferred for the real next frame.".strip()
    if ball is not None:
        caption += " Yellow insets show the ball enlarged and twice as bright."
    parts = [image_grid(part, "", titles, scale=1) for part in (entries[:half], entries[half:])]
    save_picture(path, beside(parts, caption), num_colors=256)


def beside(pictures: Sequence[np.ndarray], caption: str = "") -> np.ndarray:
    """Pictures of different heights side by side, on white, with one caption below."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    return image_grid([("", np.concatenate(padded, axis=1)[None])], caption, scale=1)


def save_swap_test(path: Path | str, model, video: Tensor, caption: str = "") -> None:
    """Write the next frames of two clips, each predicted with its own last action and with that of the other clip.

    video: (B, T, C, H, W) in [0, 1], B >= 2. Among all pairs of neighboring clips, the one whose predictions change most is
    shown.
    """
    with torch.no_grad():
        past, indices = video[:, :-1], model.encode(video).indices
        swapped = [torch.cat([indices[:, :-1], indices[:, -1:].roll(shift, dims=0)], dim=1) for shift in (0, -1, 1)]
        own, of_next, of_previous = (model.decode_indices(past, each)[:, -1].float() for each in swapped)  # (B, C, H, W)
    effect = (of_next - own).square().sum(dim=(1, 2, 3)) + (of_previous - own).square().sum(dim=(1, 2, 3)).roll(-1)
    first = int(effect.argmax())
    second = (first + 1) % len(video)
    entries = []
    for name, clip, other, borrowed in (("A", first, second, of_next[first]), ("B", second, first, of_previous[second])):
        pictures = torch.stack([video[clip, -2], video[clip, -1], own[clip], borrowed])
        window = close_up((pictures - pictures[:1]).abs().amax(dim=1))
        frames = to_frames(pictures[None])[0]  # (4, H, W, 3)
        enlarged = frames[:, window[0], window[1]].repeat(2, axis=1).repeat(2, axis=2)
        codes = f"own action {int(indices[clip, -1])}, other's {int(indices[other, -1])}"
        entries += [(f"clip {name}", frames), (f"close-up\n{codes}", enlarged)]
    titles = ["before", "real next", "predicted with\nits own action", "predicted with\nthe other action"]
    save_picture(path, image_grid(entries, caption, titles))


def save_samples(path: Path | str, model, clips: Any, device: torch.device | str) -> None:
    """Write the action gallery of the middle clip of the validation set."""
    clip = clips.__getitems__([len(clips) // 2])
    save_action_gallery(path, model, to_video(clip["frames"], device)[0])
