"""Pictures of latent actions: what each code means, what the model predicts under it, and what exchanging two actions does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import DARK, difference, image_grid, save_figure, save_picture

GAIN = 3.0
"""factor that makes small differences visible"""


def save_confusion(
    path: Path | str, counts: np.ndarray, action_names: Sequence[str], code_names: Sequence[str] = (), caption: str = ""
) -> None:
    """Write the confusion matrix of codes (rows) and true actions (columns). Color shows the share of a row, text the count.

    counts: (K, A), from `action_map.count_pairs`. code_names: K names of the codes, from `action_map.latent_names`.
    """
    num_codes, num_actions = counts.shape
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.85 * num_actions, 0.9 + 0.36 * num_codes))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for code in range(num_codes):
        for action in range(num_actions):
            color = "white" if shares[code, action] > 0.55 else DARK
            axes.text(action, code, f"{counts[code, action]:,}", ha="center", va="center", fontsize=8, color=color)
    names = list(code_names) or [""] * num_codes
    axes.set_yticks(range(num_codes), [f"{name}   code {code}" for code, name in enumerate(names)], fontsize=8)
    axes.set_xticks(range(num_actions), action_names, fontsize=8, rotation=30 if num_actions > 6 else 0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if caption:
        figure.text(0.02, -0.04, caption, fontsize=8, wrap=True)
    save_figure(path, figure)


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


def save_action_gallery(path: Path | str, model, clip: Tensor, caption: str = "", code_names: Sequence[str] = ()) -> None:
    """Write a start frame and the frame predicted under every code, each with its change from the start frame and a close-up.

    clip: (T, C, H, W) in [0, 1]; the start frame is clip[-2], and the real next frame is clip[-1]. The close-up shows, at twice
    the size, the half-size window in which the predictions differ most from each other.
    """
    predicted = next_frames_under_every_code(model, clip)  # (K, C, H, W)
    inferred = int(model.encode(clip[None]).indices[0, -1])
    rows, columns = close_up(predicted.std(dim=0).amax(dim=0)[None])
    start, real, *frames = to_frames(torch.stack([clip[-2], clip[-1], *predicted])[None])[0]

    def row(label: str, frame: np.ndarray) -> tuple[str, np.ndarray]:
        enlarged = frame[rows, columns].repeat(2, axis=0).repeat(2, axis=1)
        return label, np.stack([frame, difference(frame, start, GAIN), enlarged[: start.shape[0], : start.shape[1]]])

    names = list(code_names) or [""] * len(frames)
    labels = [f"code {code}{' *' if code == inferred else ''}\n{name}".strip() for code, name in enumerate(names)]
    entries = [row("start frame", start), row("real next", real), *(row(*entry) for entry in zip(labels, frames, strict=True))]
    titles = ["frame", f"change x{GAIN:.0f}", "close-up"]
    half = -(-len(entries) // 2)
    scale = 2 if start.shape[1] <= 64 else 1  # two halves of three pictures
    caption = f"{caption} * marks the code inferred for the real next frame.".strip()
    save_picture(path, beside([image_grid(part, "", titles, scale=scale) for part in (entries[:half], entries[half:])], caption))


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
        codes = f"own code {int(indices[clip, -1])}, other's {int(indices[other, -1])}"
        entries += [(f"clip {name}", frames), (f"close-up\n{codes}", enlarged)]
    titles = ["before", "real next", "predicted with\nits own action", "predicted with\nthe other action"]
    save_picture(path, image_grid(entries, caption, titles))


def save_samples(path: Path | str, model, clips: Any, device: torch.device | str) -> None:
    """Write the action gallery of the middle clip of the validation set."""
    clip = clips.__getitems__([len(clips) // 2])
    save_action_gallery(path, model, to_video(clip["frames"], device)[0])
