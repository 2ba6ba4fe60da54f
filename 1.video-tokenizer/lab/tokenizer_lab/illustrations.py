"""The pictures of the chapter's solutions, drawn from a trained tokenizer: what its parts see, add, look at and round."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from video_tokenizer.figures import ACCENT, DARK, save_figure
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import causal_mask
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.registry import load_tokenizer
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.command_line import InputError

PALE = "#c9d1d9"
SHADES = "Blues"
"""colour map of what is never negative; signs get RdBu"""


def read_beginnings(world: Path | str, clip: int) -> tuple[VideoTokenizer, dict[str, Any]]:
    """A world's tokenizer, and its dynamics checkpoint, which holds the frames with which dreams begin.

    Raises InputError where there is no beginning number `clip`.
    """
    tokenizer = load_tokenizer(Path(world) / "tokenizer.pt")
    if not isinstance(tokenizer, VideoTokenizer):
        raise InputError(f"{world} has a {tokenizer.config.model} tokenizer; the pictures show the main line's, st-fsq")
    content = load_checkpoint(Path(world) / "dynamics.pt", "dynamics")
    check_clip("--clip", clip, len(content["start_frames"]))
    return tokenizer, content


def check_clip(flag: str, clip: int, count: int) -> None:
    """Raises InputError unless `clip`, given by `flag`, is one of `count` beginnings."""
    if not 0 <= clip < count:
        raise InputError(f"{flag} {clip} is out of range; this world has beginnings 0 to {count - 1}")


def bare(axes: Axes, title: str) -> None:
    """A picture without ticks, with a title above."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9)


def grid_lines(axes: Axes, size: int, patch_size: int) -> None:
    """The borders between patches, over a picture of size x size pixels."""
    for edge in range(patch_size, size, patch_size):
        axes.axvline(edge - 0.5, color="white", linewidth=0.5, alpha=0.7)
        axes.axhline(edge - 0.5, color="white", linewidth=0.5, alpha=0.7)


@torch.no_grad()
def save_patches(path: Path, tokenizer: VideoTokenizer, frame: np.ndarray, num_filters: int = 3) -> None:
    """A frame cut into patches, what some filters of the convolutions before the cut answer to it, and the patch vectors.

    frame: uint8 (H, W, 3). The filters shown are those whose answers differ most from place to place.
    """
    video = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 - 0.5  # (1, 3, H, W)
    answers = tokenizer.patch_embedding.stem(video)[0]  # (F, H/2, W/2)
    liveliest = answers.flatten(1).std(dim=1).argsort(descending=True)[:num_filters]
    vectors = tokenizer.patch_embedding(video[:, None])[0, 0]  # (N, E)
    figure = Figure(figsize=(8.0, 2.3), layout="constrained")
    charts = figure.subplots(1, num_filters + 2)
    charts[0].imshow(frame)
    grid_lines(charts[0], frame.shape[0], tokenizer.config.patch_size)
    bare(charts[0], f"{len(vectors)} patches")
    for axes, number in zip(charts[1:-1], liveliest.tolist(), strict=True):
        axes.imshow(answers[number].numpy(), cmap=SHADES, interpolation="nearest")
        bare(axes, f"what filter {number} sees")
    strength = float(vectors.abs().max())
    charts[-1].imshow(vectors.numpy(), cmap="RdBu", vmin=-strength, vmax=strength, aspect="auto", interpolation="nearest")
    charts[-1].set_xlabel("128 values" if vectors.shape[1] == 128 else f"{vectors.shape[1]} values", fontsize=8)
    charts[-1].set_ylabel("patch", fontsize=8)
    charts[-1].tick_params(labelsize=7)
    charts[-1].set_title("the patch vectors", fontsize=9)
    save_figure(path, figure)


def save_positions(
    path: Path, positions: SpaceTimePositions, grid_size: tuple[int, int], place: tuple[int, int] = (3, 4)
) -> None:
    """The sine codes of place and time as heat maps, and how alike they make one place, and one frame, and all the others."""
    rows, columns = grid_size
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    charts = figure.subplots(2, 2, width_ratios=(2, 1))
    for axes, code, title, label in (
        (charts[0, 0], positions.space, "code of x and y", "patch"),
        (charts[1, 0], positions.time, "code of t", "frame"),
    ):
        axes.imshow(code.numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xlabel("value", fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{title}: {code.shape[0]} x {code.shape[1]}", fontsize=9)
    space = positions.space / positions.space.norm(dim=-1, keepdim=True)
    alike = (space @ space[place[0] * columns + place[1]]).view(rows, columns)
    charts[0, 1].imshow(alike.numpy(), cmap=SHADES, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(alike.numpy()):
        ink = "white" if value > 0.6 else DARK
        charts[0, 1].text(column, row, f"{value:.1f}", fontsize=6, ha="center", va="center", color=ink)
    bare(charts[0, 1], f"how alike row {place[0]}, column {place[1]}\nand the other places are")
    time = positions.time / positions.time.norm(dim=-1, keepdim=True)
    charts[1, 1].plot((time @ time[10]).numpy(), color=ACCENT, linewidth=1.2)
    charts[1, 1].set_title("how alike frame 10 and the others are", fontsize=9)
    charts[1, 1].set_xlabel("frame", fontsize=8)
    charts[1, 1].tick_params(labelsize=7)
    save_figure(path, figure)


@torch.no_grad()
def spatial_attention(tokenizer: VideoTokenizer, clip: Tensor, block: int) -> Tensor:
    """Weights of the encoder's attention in space on a clip's last frame. clip: (1, T, C, H, W). Returns (heads, N, N)."""
    seen: dict[str, Tensor] = {}
    chosen = tokenizer.encoder.blocks[block]
    hook = chosen.space_norm.register_forward_hook(lambda _module, _given, output: seen.update(frames=output))  # type: ignore[operator, union-attr]
    tokenizer.encode(clip)
    hook.remove()
    attention = chosen.space_attention
    last = seen["frames"][-1:].float()  # (1, N, E)
    queries, keys, _ = rearrange(attention.to_qkv(last), "1 n (three h d) -> three h n d", three=3, h=attention.num_heads)  # type: ignore[operator, union-attr]
    return (queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(dim=-1)


def save_attention(path: Path, tokenizer: VideoTokenizer, clip: Tensor, frame: np.ndarray, asking: dict[str, int]) -> None:
    """Where some patches of a real frame look: one row per patch and block, one column per head.

    clip: (1, T, C, H, W) in [0, 1]; frame: its last one, uint8 (H, W, 3). asking: label -> number of the patch.
    """
    size, patch_size = frame.shape[0], tokenizer.config.patch_size
    rows = [(label, patch, block) for label, patch in asking.items() for block in range(len(tokenizer.encoder.blocks))]
    heads = tokenizer.config.num_heads
    figure = Figure(figsize=(1.5 * (heads + 1), 1.6 * len(rows)), layout="constrained")
    charts = figure.subplots(len(rows), heads + 1, squeeze=False)
    grey = np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1) / 255 * 0.5 + 0.4
    for line, (label, patch, block) in zip(charts, rows, strict=True):
        row, column = divmod(patch, size // patch_size)
        line[0].imshow(frame)
        line[0].add_patch(_outline(column * patch_size, row * patch_size, patch_size))
        bare(line[0], f"{label}, block {block + 1}")
        weights = spatial_attention(tokenizer, clip, block)[:, patch].reshape(heads, size // patch_size, -1)
        for head, axes in enumerate(line[1:]):
            axes.imshow(grey)
            map_of_head = weights[head].repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1)
            axes.imshow(
                map_of_head.numpy(), cmap="Oranges", vmin=0, alpha=(map_of_head / map_of_head.max()).clamp(0, 0.9).numpy()
            )
            bare(axes, f"head {head + 1}: {float(weights[head].max()):.0%} at most")
    save_figure(path, figure)


def _outline(left: float, top: float, side: float):
    return Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="#ff4d4d", linewidth=1.5)


def save_causal_mask(path: Path, num_frames: int = 8, window: int = 4) -> None:
    """Which frame may look at which: every row is a frame that looks, every column one that is looked at."""
    mask = causal_mask(num_frames, window).numpy()
    figure = Figure(figsize=(3.4, 3.4))
    axes = figure.subplots()
    axes.imshow(mask, cmap=SHADES, vmin=-0.2, vmax=1.4)
    for (row, column), seen in np.ndenumerate(mask):
        axes.text(column, row, "1" if seen else "0", fontsize=8, ha="center", va="center", color="white" if seen else "#8b949e")
    axes.set_xticks(range(num_frames))
    axes.set_yticks(range(num_frames))
    axes.tick_params(labelsize=7, length=0)
    axes.set_xlabel("is looked at", fontsize=8)
    axes.set_ylabel("frame that looks", fontsize=8)
    axes.set_title(f"{num_frames} frames, window {window}", fontsize=9)
    save_figure(path, figure)


@torch.no_grad()
def save_quantizer_grid(path: Path, tokenizer: VideoTokenizer, video: Tensor, shown: int = 1_500) -> None:
    """The first three latent dimensions of real patches before and after rounding, and the grid they fall into.

    video: (B, T, C, H, W) in [0, 1].
    """
    quantizer = tokenizer.quantizer
    latents = tokenizer._latents(video, start=0).flatten(0, 2).float()  # (B*T*N, D)
    bounded = torch.tanh(latents + quantizer.shift) * quantizer.half_width - quantizer.offset
    counts = torch.unique(bounded.round()[:, :3], dim=0, return_counts=True)
    order = torch.randperm(len(bounded), generator=torch.Generator().manual_seed(0))[:shown]
    axis = [torch.arange(levels) - levels // 2 for levels in quantizer.levels[:3]]
    corners = torch.cartesian_prod(*axis)
    figure = Figure(figsize=(8.0, 3.9), layout="constrained")
    for number, title in ((1, "before rounding"), (2, "after rounding: size is frequency")):
        axes = figure.add_subplot(1, 2, number, projection="3d")
        axes.scatter(*corners.T.numpy(), s=3, color=PALE, depthshade=False)  # type: ignore[misc]
        if number == 1:
            axes.scatter(*bounded[order, :3].T.numpy(), s=5, color=ACCENT, alpha=0.4)  # type: ignore[misc]
        else:
            axes.scatter(*counts[0].T.numpy(), s=8 * np.log1p(counts[1].numpy()), color=ACCENT, alpha=0.6)  # type: ignore[misc]
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("dimension 1", fontsize=8)
        axes.set_ylabel("dimension 2", fontsize=8)
        axes.set_zlabel("dimension 3", fontsize=8)  # type: ignore[attr-defined]
    save_figure(path, figure)
