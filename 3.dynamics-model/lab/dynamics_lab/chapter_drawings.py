"""The drawings of chapter 3: the model and its shapes, the two streams, the schedules of unmasking, and the action prior."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamics_lab.draw import MASKED, decoding_passes
from dynamics_model.models.masking import random_mask, tokens_left_masked
from dynamics_model.rollouts import encode_video
from tokenizer_lab.drawing import Drawing
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_player
from video_tokenizer.models.st_transformer import causal_mask

FRAMES, WINDOW = 4, 3
"""length of the clip in two_streams, and how many frames its attention covers, the present one included"""


def with_holes(frame: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A frame, uint8 (H, W, 3), whose patches are grey where `hidden`, (rows, columns), is true."""
    height, width = frame.shape[0] // hidden.shape[0], frame.shape[1] // hidden.shape[1]
    return np.where(hidden.repeat(height, 0).repeat(width, 1)[..., None], np.uint8(MASKED), frame)


def some_hidden(count: int, grid_size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Which patches training hides in `count` frames: bool (count, rows, columns)."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return random_mask((1, count, grid_size[0] * grid_size[1]), 0.5)[0].view(count, *grid_size).numpy()


def save_architecture(path: Path, frames: np.ndarray, grid_size: tuple[int, int]) -> None:
    """Past and present stream as boxes. frames: uint8 (T, H, W, 3), T at least 4."""
    drawing = Drawing(700, 672, "The dynamics model: the past stream leaves keys and values, with which the present stream "
                      "predicts masked tokens")  # fmt: skip
    width, left, right = 274, 12, 414
    hidden = some_hidden(3, grid_size)
    drawing.text(left, 16, "Past stream", 17, "accent", "start", bold=True)
    drawing.text(right, 16, "Present stream", 17, "warm", "start", bold=True)
    for x, first, name in ((left, 0, "frames 0 to T-2,\nnearly complete"), (right, 1, "frames 1 to T-1, half\nor more masked")):
        for number in range(3):
            frame = frames[first + number]
            drawing.frame(x + 12 * number, 34 + 6 * number, with_holes(frame, hidden[number]) if first else frame, 1)
        drawing.text(x + 106, 72, name, 15, "muted", "start")
    drawing.badge(right + width - 22, 40, "2, 4", "warm")
    drawing.badge(left + 230, 40, "4", "accent")

    parts = ("attention inside a frame", "attention over time", "feed-forward (SwiGLU)")
    for x, line, action, time in ((left, "accent", "led", parts[1]), (right, "warm", "leads", "attention over past + itself")):
        middle = x + 60
        drawing.arrow(middle, 118, middle, 152)
        drawing.text(middle + 12, 133, "(B, T-1, N)", 15, "muted", "start", mono=True)
        drawing.box(x, 154, width, 56, "token embedding", "+ its place and time", line=line, size=16)
        drawing.arrow(middle, 210, middle, 246)
        drawing.text(middle + 12, 226, "(B, T-1, N, E)", 15, "muted", "start", mono=True)
        drawing.rect(x, 248, width, 206, "none", line, 1.5, 10)
        for number, text in enumerate((f"+ action that {action} here", parts[0], time, parts[2])):
            drawing.box(x + 10, 258 + 42 * number, width - 20, 34, line="faint" if number != 2 else line)
            drawing.text(x + width / 2, 275 + 42 * number, text, 15, bold=number == 2)
        drawing.text(x + width / 2, 440, "3 blocks like this", 15, "muted")
    drawing.badge(right + width - 4, 258, "6", "warm")
    drawing.badge(right + width - 4, 342, "3", "warm")
    drawing.badge(left + width - 4, 154, "7", "accent")
    drawing.line([(left + width - 10, 359), (right + 8, 359)], "good", 3, arrow=True)
    drawing.text(350, 338, "keys, values", 15, "good", bold=True)
    drawing.text(350, 390, "(B·N, heads,\nT-1, d)", 14, "good", mono=True)

    drawing.line([(left + 60, 454), (left + 60, 492)], "muted", 2, "5 5", arrow=True)
    drawing.box(left, 494, width, 58, "KV cache", "while dreaming: the last 7 frames", "good_pale", "good", 16)
    drawing.badge(left + width - 4, 494, "7", "good")
    middle = right + 60
    drawing.arrow(middle, 454, middle, 492)
    drawing.text(middle + 12, 472, "(B, T-1, N, E)", 15, "muted", "start", mono=True)
    drawing.box(right, 494, width, 40, "linear", line="warm", size=16)
    drawing.arrow(middle, 534, middle, 570)
    drawing.text(middle + 12, 550, "logits (B, T-1, N, K)", 14, "muted", "start", mono=True)
    drawing.box(right, 572, width, 44, fill="warm_pale", line="warm")
    drawing.text(right + 12, 594, "training: cross-entropy of masked\ntokens, changed ones count more", 14, anchor="start")
    drawing.badge(right + width - 4, 572, "5", "warm")
    drawing.box(right, 624, width, 44, fill="warm_pale", line="warm")
    drawing.text(right + 12, 646, "dreaming: sample all, keep the\nsure ones, mask the rest, repeat", 14, anchor="start")
    drawing.badge(right + width - 4, 624, "2", "warm")
    words = (
        "Both streams have the same weights.\nWhile dreaming, the present is one\n"
        "frame, and the past is in the cache.\nNumbered marks: the solutions."
    )
    drawing.text(left, 610, words, 14, "muted", "start")
    drawing.save(path)


def save_two_streams(path: Path, frames: np.ndarray, grid_size: tuple[int, int]) -> None:
    """Who looks back at whom: in one stream with holes, as Genie trains, and in two. frames: uint8 (T, H, W, 3), T >= 4."""
    drawing = Drawing(700, 630, "Genie looks back at masked frames; with two streams every masked frame looks back at "
                      "whole frames, and the last column is what a dream does")  # fmt: skip
    side, lefts = 96, [150 + 140 * number for number in range(FRAMES)]
    hidden, scale = some_hidden(FRAMES, grid_size), side / frames.shape[1]

    def show(number: int, y: float, holes: bool) -> None:
        drawing.frame(lefts[number], y, with_holes(frames[number], hidden[number]) if holes else frames[number], scale)
        drawing.badge(lefts[number], y, str(number), "ink")

    def arcs(y: float, count: int, color: str) -> None:
        for t, s in torch.nonzero(causal_mask(count, WINDOW)).tolist():
            if s < t:
                start, end = (lefts[s] + side * 0.62, y - 4), (lefts[t] + side * (0.4 - 0.18 * (t - s - 1)), y - 4)
                drawing.curve(start, ((start[0] + end[0]) / 2, y - 42 * (t - s)), end, color if s else "muted", 2.5)

    drawing.text(8, 16, "Genie: one stream, every frame but the first is masked", 17, anchor="start", bold=True)
    arcs(104, FRAMES, "bad")
    for number in range(FRAMES):
        show(number, 104, holes=number > 0)
    drawing.text(8, 66, "looks back at\na masked\nframe", 15, "bad", "start")
    drawing.text(8, 152, "predicts its\nmasked tokens", 15, "muted", "start")
    drawing.line([(8, 224), (692, 224)], "faint", 1.5)

    drawing.text(8, 250, "Two streams: whole frames to look back at, masked ones to fill", 17, anchor="start", bold=True)
    past, present = 328, 484
    arcs(past, FRAMES - 1, "muted")
    drawing.rect(lefts[-1] - 18, present - 18, side + 36, side + 32, "none", "good", 2, 8, stroke_dasharray="6 4")
    for number in range(FRAMES - 1):
        show(number, past, holes=False)
        show(number + 1, present, holes=True)
    for row, s in torch.nonzero(causal_mask(FRAMES - 1, WINDOW - 1)).tolist():  # as in MaskGIT.predict, row 0 for frame 1
        near = row == s
        start = lefts[s] + side * (0.7 if near else 0.88), past + side + 3
        drawing.line([start, (lefts[row + 1] + side * (0.55 if near else 0.25), present - 4)], "good", 2.5, arrow=True)
    drawing.text(8, past + 48, "past stream:\nframes as\nthey are", 15, "accent", "start")
    drawing.text(8, present + 48, "present stream:\npredicts its\nmasked tokens", 15, "warm", "start")
    drawing.text(lefts[0] + 52, present + 48, "no arrow goes\nstraight down:\nthat would be\nthe answer", 15, "muted")
    drawing.text(lefts[-1] + 48, past + 48, "a dream is the\nlast frame alone,\nwith the past in\nthe KV cache", 15, "good")
    drawing.text(
        8, 616, f"Every frame also looks at itself. Here attention covers {WINDOW} frames, itself included.", 14, "muted", "start"
    )
    drawing.save(path)


def save_masking_schedules(path: Path, traces: Mapping[str, Sequence], grid_size: tuple[int, int]) -> None:
    """Which tokens of a real frame are still hidden after each pass, for both schedules. traces: schedule -> its passes."""
    drawing = Drawing(700, 418, "Masked tokens after each of four passes: with the cosine schedule 64, 60, 46, 25, 0, with "
                      "halving 64, 4, 2, 1, 0")  # fmt: skip
    rows, columns = grid_size
    cell, total, names = 12, rows * columns, {"cosine": "MaskGIT's\nschedule", "halving": "ours: all\nsure ones"}
    lefts = [116 + 118 * number for number in range(5)]
    for x, title in zip(lefts, ("start", "pass 1", "pass 2", "pass 3", "pass 4"), strict=True):
        drawing.text(x + cell * columns / 2, 16, title, 16, bold=True)
    for y, (schedule, trace) in zip((36, 212), traces.items(), strict=True):
        drawing.text(8, y + 28, schedule, 18, "accent", "start", bold=True)
        drawing.text(8, y + 66, names[schedule], 15, "muted", "start")
        before = np.ones((rows, columns), bool)
        for number, x in enumerate(lefts):
            hidden = before if number == 0 else ~trace[number - 1].unmasked[0].view(rows, columns).numpy()
            left = total if number == 0 else tokens_left_masked(number, len(trace), total, schedule)
            assert left == hidden.sum()
            colors = np.where(hidden, "line", np.where(before, "warm", "warm_pale"))
            drawing.grid(
                x, y, rows, columns, cell, {place: str(colors[place]) for place in np.ndindex(rows, columns)}, line="faint"
            )
            drawing.text(x + cell * columns / 2, y + cell * rows + 18, f"{left} masked", 16, bold=True)
            if number:
                drawing.text(x + cell * columns / 2, y + cell * rows + 40, f"{int((before & ~hidden).sum())} settled", 15, "warm")
            before = hidden
    for x, color, text in ((116, "line", "masked"), (226, "warm", "settled in this pass"), (444, "warm_pale", "settled before")):
        drawing.rect(x, 394, 16, 16, color, "faint", 1)
        drawing.text(x + 24, 402, text, 15, "muted", "start")
    drawing.save(path)


@torch.no_grad()
def probabilities_along(
    model, tokenizer, latent_action_model, games: Sequence[np.ndarray], env_id: str
) -> tuple[np.ndarray, np.ndarray]:
    """The player's position (S,) in each situation of real games, and P(next latent action) there (S, A), from the action prior.

    games: uint8 (T, H, W, 3) each. Situations in which no player is found are left out.
    """
    places, priors = [], []
    for frames in games:
        if len(frames) < 3:
            continue
        video = to_video(frames[None])
        tokens, actions = encode_video(model, tokenizer, video)[0], latent_action_model.encode(video).indices[0]
        prior = model.action_prior(tokens[:-2], tokens[1:-1], actions[:-1]).softmax(dim=-1).numpy()
        place = detect_player(frames[1:-1], env_id)
        places.append(place[np.isfinite(place)])
        priors.append(prior[np.isfinite(place)])
    return np.concatenate(places), np.concatenate(priors)


def save_action_prior(
    path: Path, places: np.ndarray, shares: Mapping[str, np.ndarray], frame: np.ndarray, least: int = 15
) -> None:
    """P(a latent action of this key comes next) over the player's position, above the field in which it moves.

    places: (S,); shares: key -> (S,). frame: uint8 (H, W, 3), whose lowest rows are the field. least: situations for a point.
    """
    drawing = Drawing(700, 410, "How probable it is that the paddle goes left or right next, over its position: a quarter each "
                      "in the middle, and nearly zero where a wall is in the way")  # fmt: skip
    left, top, height, largest = 92, 56, 220, 0.4
    scale = 576 / frame.shape[1]

    def at(place: float, share: float) -> tuple[float, float]:
        return left + scale * (place + 0.5), top + height * (1 - share / largest)

    for share in (0.0, 0.1, 0.2, 0.3, 0.4):
        drawing.line([(left, at(0, share)[1]), (left + 576, at(0, share)[1])], "faint", 1)
        drawing.text(left - 10, at(0, share)[1], f"{share:.0%}", 15, "muted", "end")
    drawing.text(8, 18, "How probable is it that the paddle goes left or right next?", 17, anchor="start", bold=True)
    colors = ("bad", "accent")  # LEFT red and RIGHT blue, as among the latents of chapter 2
    bins = np.round(places / 3).astype(int)
    for share, color in zip(shares.values(), colors, strict=True):
        kept = [number for number in np.unique(bins) if (bins == number).sum() >= least]
        points = [at(float(places[bins == number].mean()), float(share[bins == number].mean())) for number in kept]
        drawing.line(points, color, 3)
        for x, y in points:
            drawing.add("circle", cx=x, cy=y, r=4.5, fill=color, stroke="paper", stroke_width=1.5)
    for key, color, x in zip(shares, colors, (left + 190, left + 386), strict=True):
        drawing.text(x, top + 22, f"P({key})", 18, color, bold=True)
    rows = frame.shape[0] // 8
    drawing.frame(left, top + height + 14, frame[-rows:], scale)
    y = top + height + 14 + scale * rows + 18
    drawing.text(left, y, "at the left wall", 15, "muted", "start")
    drawing.text(left + 288, y, "position of the paddle", 15, "muted")
    drawing.text(left + 576, y, "behind the right wall", 15, "muted", "end")
    drawing.save(path)


def save_drawings(
    folder: Path, tokenizer, model, tokens: Tensor, frames: np.ndarray, actions: Tensor, action: int, seed: int
) -> list[str]:
    """The drawings that need no game; returns their names. tokens: (1, T, N), those of frames, uint8 (T, H, W, 3), after which
    `action` is taken; actions: (1, T)."""
    save_architecture(folder / "architecture", frames, tokenizer.grid_size)
    save_two_streams(folder / "two_streams", frames, tokenizer.grid_size)
    traces = {name: decoding_passes(model, tokens, actions, action, 4, name, seed) for name in ("cosine", "halving")}
    save_masking_schedules(folder / "masking_schedules", traces, tokenizer.grid_size)
    return ["architecture", "two_streams", "masking_schedules"]
