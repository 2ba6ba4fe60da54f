"""The pictures of chapter 1, drawn from a trained tokenizer: what its parts compute, what tokens are, and how PSNR misleads.

The first section holds what the picture makers of all chapters share.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from tokenizer_lab.drawing import Drawing
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.figures import ACCENT, BAD, DARK, GOOD, PLAIN, enlarge, font, image_grid, save_figure, save_picture
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.metrics import VideoScores
from video_tokenizer.models.base import centered
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import causal_mask
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.registry import load_tokenizer
from video_tokenizer.training.checkpoint import REPOSITORY, load_checkpoint, resolve_path
from video_tokenizer.training.results import read_json

# ---- shared by all chapters -------------------------------------------------------------------------------------------


def read_world(folder: Path | str) -> tuple[VideoTokenizer, dict[str, Any]]:
    """The tokenizer of a world and the contents of its dynamics checkpoint, which holds real start frames.

    Raises InputError if the tokenizer is not the main line's, whose parts the pictures show.
    """
    tokenizer = load_tokenizer(Path(folder) / "tokenizer.pt")
    if not isinstance(tokenizer, VideoTokenizer):
        raise InputError(f"{folder} has a {tokenizer.config.model} tokenizer; choose a world with an st-fsq tokenizer")
    return tokenizer, load_checkpoint(Path(folder) / "dynamics.pt", "dynamics")


def scores_of(world: str, scores: Path, needed: Sequence[str], picture: str) -> dict[str, Any]:
    """What validate.py --json measured on this world; {}, and a line that says why the picture is left out, if it did not."""
    found = read_json(scores)
    missing = [name for name in needed if name not in found]
    if missing:
        print(f"{picture} is left out: {scores} holds no {missing[0]}; validate.py --json writes it")
    elif resolve_path(found.get("checkpoint", ""), REPOSITORY).parent.resolve() != resolve_path(world, REPOSITORY).resolve():
        print(f"{picture} is left out: {scores} was measured on {found.get('checkpoint')} and not on a model in {world}")
    else:
        return found
    return {}


def check_clip(clip: int, count: int) -> None:
    """Raise InputError unless `clip` is the number of one of `count` start clips."""
    if not 0 <= clip < count:
        raise InputError(f"--clip {clip} is out of range; this world has start clips 0 to {count - 1}")


def bare(axes: Axes, title: str = "") -> None:
    """Remove the ticks and put a title above."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9)


def write_cells(axes: Axes, values: np.ndarray, text: Callable[[float], str], white: np.ndarray, size: float) -> None:
    """Write a number into each cell of a heat map, in white where `white` is true. values, white: (rows, columns)."""
    for (row, column), value in np.ndenumerate(values):
        color = "white" if white[row, column] else DARK
        axes.text(column, row, text(value), fontsize=size, ha="center", va="center", color=color)


def draw_pair(axes: Axes, values: Sequence[float], names: Sequence[str], top: float, decimals: int) -> None:
    """Two numbers as bars: the misleading one grey, the meaningful one blue; "no error" if a number is infinite."""
    axes.set_xticks((0, 1), names, fontsize=9)
    axes.set_xlim(-0.7, 1.7)
    axes.set_ylim(0, top)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not np.isfinite(values).all():
        axes.text(0.5, top / 3, "no error", fontsize=9, ha="center")
        return
    axes.bar((0, 1), values, width=0.8, color=(PLAIN, ACCENT))
    for place, value in enumerate(values):
        axes.text(place, value + top / 60, f"{value:.{decimals}f}", fontsize=9, ha="center", va="bottom")


def figure_picture(figure: Figure) -> np.ndarray:
    """Render a matplotlib figure at 110 dots per inch: uint8 (height, width, 3)."""
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures, each uint8 (height, width, 3), below each other and centered on white."""
    width = max(picture.shape[1] for picture in pictures)
    lefts = [(width - picture.shape[1]) // 2 for picture in pictures]
    margins = [((0, 0), (left, width - picture.shape[1] - left), (0, 0)) for left, picture in zip(lefts, pictures, strict=True)]
    return np.concatenate([np.pad(p, margin, constant_values=255) for p, margin in zip(pictures, margins, strict=True)])


# ---- patches, positions, attention, quantizer -------------------------------------------------------------------------


def differing_filters(responses: Tensor, count: int) -> list[int]:
    """The filter whose response varies most, and then, again and again, of the half that varies more the one whose response is
    least correlated with those chosen before. responses: (F, H, W)."""
    correlation = torch.corrcoef(responses.flatten(1)).nan_to_num().abs()  # (F, F)
    lively = responses.flatten(1).std(dim=1).argsort(descending=True)[: max(count, len(responses) // 2)]
    chosen = [int(lively[0])]
    while len(chosen) < count:
        chosen.append(int(lively[correlation[lively][:, chosen].amax(dim=1).argmin()]))
    return chosen


@torch.no_grad()
def save_patches(path: Path, tokenizer: VideoTokenizer, frame: np.ndarray, num_filters: int = 3) -> None:
    """A frame cut into patches, the responses of the stem's most variable filter and of those least like the ones before it, and
    the patch vectors.

    frame: uint8 (H, W, 3).
    """
    video = centered(to_video(frame[None, None]), tokenizer.background)  # (1, 1, 3, H, W), as the encoder sees it
    responses = tokenizer.patch_embedding.stem(video[0])[0]  # (F, H/2, W/2)
    filters = differing_filters(responses, num_filters)
    vectors = tokenizer.patch_embedding(video)[0, 0]  # (N, E)
    figure = Figure(figsize=(8.0, 2.3), layout="constrained")
    charts = figure.subplots(1, num_filters + 2)
    charts[0].imshow(frame)
    for edge in range(tokenizer.config.patch_size, frame.shape[0], tokenizer.config.patch_size):
        charts[0].axvline(edge - 0.5, color="white", linewidth=0.5, alpha=0.7)
        charts[0].axhline(edge - 0.5, color="white", linewidth=0.5, alpha=0.7)
    bare(charts[0], f"{len(vectors)} patches")
    for axes, number in zip(charts[1:-1], filters, strict=True):
        axes.imshow(responses[number].numpy(), cmap="Blues", interpolation="nearest")
        bare(axes, f"what filter {number} sees")
    strength = float(vectors.abs().max())
    _signed_map(charts[-1], vectors, strength, "the patch vectors", f"{vectors.shape[1]} values", "patch")
    save_figure(path, figure)


def _signed_map(axes: Axes, values: Tensor, strength: float, title: str, xlabel: str, ylabel: str) -> None:
    axes.imshow(values.numpy(), cmap="RdBu", vmin=-strength, vmax=strength, aspect="auto", interpolation="nearest")
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title(title, fontsize=9)


def save_positions(path: Path, positions: SpaceTimePositions, grid_size: tuple[int, int], row: int = 3, column: int = 4) -> None:
    """The positional codes as heat maps, and the cosine similarity of one place, and of one frame, to all others."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    charts = figure.subplots(2, 2, width_ratios=(2, 1))
    space, time = positions.space, positions.time  # (N, E), (T, E)
    _signed_map(charts[0, 0], space, 1, f"code of x and y: {space.shape[0]} x {space.shape[1]}", "value", "patch")
    _signed_map(charts[1, 0], time, 1, f"code of t: {time.shape[0]} x {time.shape[1]}", "value", "frame")
    space, time = (code / code.norm(dim=-1, keepdim=True) for code in (space, time))
    similarity = (space @ space[row * grid_size[1] + column]).view(grid_size).numpy()
    charts[0, 1].imshow(similarity, cmap="Blues", vmin=0, vmax=1)
    write_cells(charts[0, 1], similarity, "{:.1f}".format, similarity > 0.6, 6)
    bare(charts[0, 1], f"how alike row {row}, column {column}\nand the other places are")
    charts[1, 1].plot((time @ time[10]).numpy(), color=ACCENT, linewidth=1.2)
    charts[1, 1].set_title("how alike frame 10 and the others are", fontsize=9)
    charts[1, 1].set_xlabel("frame", fontsize=8)
    charts[1, 1].tick_params(labelsize=7)
    save_figure(path, figure)


MOST_ATTENTION = 0.2
"""share of a head's attention at the dark end of the color scale; larger ones are as dark"""


@torch.no_grad()
def spatial_attention(tokenizer: VideoTokenizer, clip: Tensor, block: int) -> Tensor:
    """Attention weights in space of an encoder block on the last frame. clip: (1, T, C, H, W). Returns (heads, N, N)."""
    seen: dict[str, Tensor] = {}
    chosen: Any = tokenizer.encoder.blocks[block]
    hook = chosen.space_norm.register_forward_hook(lambda _module, _given, output: seen.update(frames=output))
    tokenizer.encode(clip)
    hook.remove()
    attention = chosen.space_attention
    last = seen["frames"][-1:].float()  # (1, N, E)
    queries, keys, _ = rearrange(attention.to_qkv(last), "1 n (three h d) -> three h n d", three=3, h=attention.num_heads)
    return (queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(dim=-1)


def save_attention(path: Path, tokenizer: VideoTokenizer, clip: Tensor, frame: np.ndarray, queries: dict[str, int]) -> None:
    """Where chosen patches attend: one row per patch and block, one column per head, one color scale for all.

    clip: (1, T, C, H, W) in [0, 1]; frame: its last frame, uint8 (H, W, 3). queries: label -> number of the patch.
    """
    patch_size, heads = tokenizer.config.patch_size, tokenizer.config.num_heads
    rows = [(label, patch, block) for label, patch in queries.items() for block in range(len(tokenizer.encoder.blocks))]
    figure = Figure(figsize=(1.5 * (heads + 1), 1.6 * len(rows)), layout="constrained")
    charts = figure.subplots(len(rows), heads + 1, squeeze=False)
    grey = np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1) / 255 * 0.5 + 0.4
    for line, (label, patch, block) in zip(charts, rows, strict=True):
        row, column = divmod(patch, tokenizer.grid_size[1])
        line[0].imshow(frame)
        corner = column * patch_size - 0.5, row * patch_size - 0.5
        line[0].add_patch(Rectangle(corner, patch_size, patch_size, fill=False, edgecolor="#ff4d4d", linewidth=1.5))
        bare(line[0], f"{label}, block {block + 1}")
        weights = spatial_attention(tokenizer, clip, block)[:, patch].reshape(heads, *tokenizer.grid_size)
        for head, (axes, map_of_head) in enumerate(zip(line[1:], weights, strict=True), start=1):
            axes.imshow(grey)
            map_of_head = map_of_head.repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1)  # (H, W)
            alpha = (map_of_head / MOST_ATTENTION).clamp(0, 0.9)
            axes.imshow(map_of_head.numpy(), cmap="Oranges", vmin=0, vmax=MOST_ATTENTION, alpha=alpha.numpy())
            bare(axes, f"head {head}: up to {float(map_of_head.max()):.0%}")
    even = f"Even attention would be {1 / tokenizer.tokens_per_frame:.1%} on each."
    caption = f"Darkest: {MOST_ATTENTION:.0%} or more of a head's attention on one patch. {even}"
    figure.supxlabel(caption, fontsize=9, color=DARK)
    save_figure(path, figure)


def save_causal_mask(path: Path, num_frames: int = 8, window: int = 4, cell: int = 36) -> None:
    """The causal mask: a row for each frame that attends, a column for each frame attended to."""
    mask, left, top = causal_mask(num_frames, window).int().numpy(), 64, 40
    title = f"Causal mask of {num_frames} frames with a window of {window}"
    drawing = Drawing(left + cell * num_frames + 8, top + cell * num_frames + 60, title)
    drawing.text(left + cell * num_frames / 2, 20, f"{num_frames} frames, window {window}", 17, bold=True)
    colors = {place: "accent" if mask[place] else "pale" for place in np.ndindex(mask.shape)}
    drawing.grid(left, top, num_frames, num_frames, cell, colors, line="paper")
    for row, column in np.ndindex(mask.shape):
        color = "paper" if mask[row, column] else "muted"
        drawing.text(left + cell * (column + 0.5), top + cell * (row + 0.5), str(mask[row, column]), 16, color)
    for frame in range(num_frames):
        drawing.text(left + cell * (frame + 0.5), top + cell * num_frames + 16, str(frame))
        drawing.text(left - 8, top + cell * (frame + 0.5), str(frame), anchor="end")
    drawing.text(left + cell * num_frames / 2, top + cell * num_frames + 44, "is looked at")
    middle = top + cell * num_frames / 2
    drawing.text(18, middle, "frame that looks", transform=f"rotate(-90 18 {middle:g})")
    drawing.save(path)


# ---- tokens -----------------------------------------------------------------------------------------------------------

CHANGED = "#ffd60a"
"""color of tokens that differ from the frame before"""
ZOOM, PATCH_ZOOM = 6, 11
"""enlargement of frames and of single patches"""


def most_changing_step(indices: Tensor) -> int:
    """Number of the frame in which most tokens differ from the frame before. indices: (T, N), T at least 2."""
    return int((indices[1:] != indices[:-1]).sum(dim=-1).argmax()) + 1


def write_tokens(frame: np.ndarray, tokens: np.ndarray, changed: np.ndarray | None = None) -> np.ndarray:
    """Enlarge a frame and write each patch's token into it; given `changed`, frame those that changed and dim the others.

    frame: uint8 (H, W, 3); tokens: (N,); changed: (N,) bool. Returns uint8 (ZOOM*H, ZOOM*W, 3).
    """
    columns = round((len(tokens) * frame.shape[1] / frame.shape[0]) ** 0.5)
    side = ZOOM * frame.shape[1] // columns
    canvas = Image.fromarray(enlarge(frame, ZOOM))
    pen = ImageDraw.Draw(canvas)
    corners = [(place % columns * side, place // columns * side) for place in range(len(tokens))]
    for place, (left, top) in enumerate(corners):
        ink = "white" if changed is None else CHANGED if changed[place] else "#9aa4af"
        pen.rectangle((left, top, left + side, top + side), outline="#4a525b")
        label = (left + side // 2, top + side - 4), str(tokens[place])
        pen.text(*label, ink, font(13), anchor="mb", stroke_width=1, stroke_fill="black")
    for place in [] if changed is None else np.flatnonzero(changed):
        left, top = corners[place]
        pen.rectangle((left, top, left + side - 1, top + side - 1), outline=ImageColor.getrgb(CHANGED), width=2)
    return np.asarray(canvas)


class DecodedPatches:
    """What the decoder draws for each token at each patch position, over many frames."""

    def __init__(self, indices: Tensor, decoded: Tensor, patch_size: int) -> None:
        """indices: int64 (B, T, N); decoded: (B, T, C, H, W) in [0, 1], the frames decoded from them."""
        self.tokens = indices.flatten(0, 1).numpy()  # (F, N)
        cut = rearrange(to_frames(decoded), "b t (y p) (x q) c -> (b t) (y x) p q c", p=patch_size, q=patch_size)
        self.patches = cut.astype(np.float32)  # (F, N, P, P, 3)

    def most_used(self, count: int) -> list[tuple[int, float]]:
        """The tokens used most and their shares of all tokens."""
        tokens, counts = np.unique(self.tokens, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:count]
        return [(int(tokens[i]), float(counts[i] / counts.sum())) for i in order]

    def usual_place(self, token: int) -> int:
        """The patch where the token occurs most often; the middle one of several."""
        counts = (self.tokens == token).sum(axis=0)  # (N,)
        most = np.flatnonzero(counts == counts.max())
        return int(most[len(most) // 2])

    def mean_patch(self, token: int, place: int) -> np.ndarray:
        """Mean of what is drawn at patch `place` when this token is there: uint8 (P, P, 3)."""
        return self.patches[self.tokens[:, place] == token, place].mean(axis=0).round().astype(np.uint8)

    def least_alike(self, token: int, place: int) -> tuple[float, int]:
        """Where the token looks least like it does at `place`: mean difference in levels, 0 to 255, and that patch."""
        first = self.mean_patch(token, place).astype(float)
        places = np.flatnonzero((self.tokens == token).any(axis=0)).tolist()
        distances = [float(np.abs(self.mean_patch(token, other) - first).mean()) for other in places]
        return max(distances), places[int(np.argmax(distances))]


@torch.no_grad()
def save_tokens(path: Path, tokenizer: VideoTokenizer, starts: np.ndarray, clip: int, num_pairs: int = 4) -> None:
    """A frame with its tokens, the next frame with those that changed, the 16 tokens used most, and some that mean two things.

    starts: uint8 (S, T, H, W, 3). Shows the step of start clip `clip` in which most tokens change.
    """
    indices = tokenizer.encode(to_video(starts)).indices  # (S, T, N)
    step = most_changing_step(indices[clip])
    before, now = indices[clip, step - 1].numpy(), indices[clip, step].numpy()
    frames = np.stack([write_tokens(starts[clip, step - 1], before), write_tokens(starts[clip, step], now, now != before)])
    titles = f"a frame: {len(now)} tokens", f"the next frame: {int((now != before).sum())} of {len(now)} changed"

    patches = DecodedPatches(indices, tokenizer.decode_indices(indices), tokenizer.config.patch_size)
    used = patches.most_used(16)
    usual = {token: patches.usual_place(token) for token, _ in used}
    other = {token: patches.least_alike(token, place) for token, place in usual.items()}
    twice = sorted(usual, key=lambda token: -other[token][0])[:num_pairs]
    pairs = [(token, place) for token in twice for place in (usual[token], other[token][1])]
    entries = [(f"{token}: {share:.1%}", patches.mean_patch(token, usual[token])) for token, share in used]
    entries += [(f"{token} in row {place // tokenizer.grid_size[1]}", patches.mean_patch(token, place)) for token, place in pairs]

    total = sum(share for _, share in used)
    caption = f"The {len(used)} tokens used most make {total:.0%} of all. Last row: the same token in two places."
    rows = [image_grid([("", frames)], "", titles, scale=1)]
    for first in range(0, len(entries), 8):
        labels, pictures = zip(*entries[first : first + 8], strict=True)
        below = caption if first + 8 >= len(entries) else ""
        rows.append(image_grid([("", np.stack(pictures))], below, labels, PATCH_ZOOM, 12))
    save_picture(path, stacked(rows))


# ---- how PSNR misleads ------------------------------------------------------------------------------------------------

BRIGHTER = 4
"""levels of 255 added to every pixel, an invisible change that costs every pixel the same: 20 * log10(255 / 4) = 36.1 dB"""
ORIGINAL, NO_BALL, TOKENS, REPEATED = "original", "ball painted over", "drawn from tokens", "copy-last"
LIGHTER = f"{BRIGHTER}/255 brighter"
ERRORS = LogNorm(3e-5, 1e-1)
"""color scale of squared errors, from invisible to a missing ball"""


def ringed(frames: np.ndarray, places: np.ndarray, scale: int = 2) -> np.ndarray:
    """Enlarge frames (T, H, W, 3) uint8 and ring the ball at places (T, 2), or write that none is seen if NaN."""
    pictures = []
    for frame, place in zip(enlarge(frames, scale), places, strict=True):
        picture = Image.fromarray(frame)
        pen = ImageDraw.Draw(picture)
        if np.isfinite(place).all():
            x, y = scale * (place + 0.5)
            pen.ellipse((x - 9, y - 9, x + 9, y + 9), outline="#7ee787", width=2)
        else:
            pen.text((picture.width / 2, picture.height * 0.62), "none seen", "#ff7b72", font(14), anchor="mm")
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def without_ball(frames: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """The clip with its temporal median painted over the 5x5 pixels around each ball.

    frames: uint8 (T, H, W, 3); ball: (T, 2), x and y in pixels, NaN where absent.
    """
    empty = np.median(frames, axis=0).astype(np.uint8)
    painted = frames.copy()
    for frame, place in zip(painted, ball, strict=True):
        if np.isfinite(place).all():
            columns, rows = (slice(max(0, round(center) - 2), round(center) + 3) for center in place.tolist())
            frame[rows, columns] = empty[rows, columns]
    return painted


def frames_with_ball(ball: np.ndarray) -> np.ndarray:
    """Numbers of the frames that have a ball and a frame before them. ball: (T, 2), NaN where absent."""
    return np.flatnonzero(np.isfinite(ball[:, 0]) & (np.arange(len(ball)) > 0))


@torch.no_grad()
def five_versions(tokenizer: VideoTokenizer, frames: np.ndarray, ball: np.ndarray) -> dict[str, Tensor]:
    """A clip and four imperfect versions of it, label -> float (1, T, C, H, W) in [0, 1].

    frames: uint8 (T, H, W, 3); ball: (T, 2), where it is in each frame.
    """
    video = to_video(frames[None])
    return {
        ORIGINAL: video,
        NO_BALL: to_video(without_ball(frames, ball)[None]),
        TOKENS: tokenizer(video).reconstruction,
        REPEATED: torch.cat([video[:, :1], video[:, :-1]], dim=1),
        LIGHTER: (video + BRIGHTER / 255).clamp(0, 1),
    }


def score(version: Tensor, video: Tensor, chosen: np.ndarray, scores: VideoScores | None = None) -> VideoScores:
    """Add the scores of some frames to `scores`. version, video: (1, T, C, H, W); chosen: frame numbers above 0."""
    scores = scores or VideoScores()
    scores.update(version[:, chosen], video[:, chosen], video[:, chosen - 1])
    return scores


def pooled_scores(tokenizer: VideoTokenizer, starts: np.ndarray, env_id: str) -> tuple[dict[str, dict[str, float]], int]:
    """Scores of every version over all frames with a ball and a frame before them, and the number of these frames.

    starts: uint8 (S, T, H, W, 3). Returns label -> the numbers of `VideoScores.result`, and the count.
    """
    totals: dict[str, VideoScores] = {}
    for frames in starts:
        ball = detect_ball(frames, env_id)
        chosen = frames_with_ball(ball)
        if len(chosen):
            versions = five_versions(tokenizer, frames, ball)
            totals = {name: score(version, versions[ORIGINAL], chosen, totals.get(name)) for name, version in versions.items()}
    return {name: total.result() for name, total in totals.items()}, next(iter(totals.values())).num_frames


def save_psnr_trap(path: Path, tokenizer: VideoTokenizer, starts: np.ndarray, clip: int, env_id: str) -> None:
    """A frame with a ball in five versions: how it looks, where its squared error is, and its two PSNRs.

    starts: uint8 (S, T, H, W, 3). Shows the middle one of the frames of starts[clip] that have a ball; InputError without any.
    """
    ball = detect_ball(starts[clip], env_id)
    chosen = frames_with_ball(ball)
    if not len(chosen):
        raise InputError(f"--clip {clip}: no frame of this start clip has a ball; choose another one")
    shown = int(chosen[len(chosen) // 2])
    versions = five_versions(tokenizer, starts[clip], ball)
    figure = Figure(figsize=(7.4, 5.0), layout="constrained")
    charts = figure.subplots(3, len(versions), height_ratios=(1, 1, 0.85))
    for column, (label, version) in zip(charts.T, versions.items(), strict=True):
        picture = to_frames(version)[0, shown]
        _draw_with_close_up(column[0], picture, ball[shown])
        bare(column[0], label)
        distance = float(np.linalg.norm(detect_ball(picture[None], env_id)[0] - ball[shown]))  # NaN if no ball is found
        note = "no ball" if np.isnan(distance) else "ball there" if distance < 1 else f"ball {distance:.1f} pixels off"
        column[0].set_xlabel(note, fontsize=9, color=GOOD if distance < 1 else BAD, weight="bold")
        errors = (version - versions[ORIGINAL])[0, shown].square().mean(dim=0)  # (H, W)
        column[1].imshow(errors.clamp(min=ERRORS.vmin).numpy(), cmap="Reds", norm=ERRORS, interpolation="nearest")
        bare(column[1])
        scores = score(version, versions[ORIGINAL], np.array([shown])).result()
        draw_pair(column[2], (scores["psnr_db"], scores["moving_psnr_db"]), ("all", "moving"), top=60, decimals=1)
    charts[1, 0].set_ylabel("squared error", fontsize=9)
    charts[2, 0].set_ylabel("PSNR of pixels, dB", fontsize=9)
    pooled, count = pooled_scores(tokenizer, starts, env_id)
    imperfect = [pooled[name] for name in pooled if name != ORIGINAL]
    psnr, moving = (" / ".join(f"{row[name]:.1f}" for row in imperfect) for name in ("psnr_db", "moving_psnr_db"))
    caption = f"The four over {count} frames with a ball, in {len(starts)} early clips: all {psnr} dB, moving {moving} dB."
    figure.supxlabel(caption, fontsize=9, color=DARK)
    save_figure(path, figure)


def _draw_with_close_up(axes: Axes, picture: np.ndarray, ball: np.ndarray, reach: int = 5) -> None:
    """A frame, with a close-up of the ball on the side where the ball is not."""
    x, y = round(ball[0]), round(ball[1])
    axes.imshow(picture, interpolation="nearest")
    inset = axes.inset_axes((0.6 if ball[0] < picture.shape[1] / 2 else 0.07, 0.14, 0.33, 0.33))
    inset.imshow(picture, interpolation="nearest")
    inset.set_xlim(x - reach - 0.5, x + reach + 0.5)
    inset.set_ylim(y + reach + 0.5, y - reach - 0.5)
    bare(inset)
    inset.spines[:].set_color("white")
    corner, side = (x - reach - 0.5, y - reach - 0.5), 2 * reach + 1
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.8))
