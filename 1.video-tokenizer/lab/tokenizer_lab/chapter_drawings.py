"""The drawings of chapter 1: its architecture and its ideas, as SVG in light and dark, with real frames and real numbers."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tokenizer_lab.drawing import RING, Drawing, few_colors
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.games.emulator import Game
from video_tokenizer.models.base import centered
from video_tokenizer.models.fsq import FiniteScalarQuantizer
from video_tokenizer.models.video_tokenizer import VideoTokenizer

NOTE = "Yellow insets show the ball enlarged and twice as bright."


def frame_with_ball(drawing: Drawing, x: float, y: float, frame: np.ndarray, ball: np.ndarray, scale: float, zoom: float) -> None:
    """A frame with its ball enlarged in the free field, on the side where the ball is not; without a ball, the frame alone."""
    drawing.frame(x, y, frame, scale)
    if np.isfinite(ball).all():
        columns, side = frame.shape[1], 9 * zoom
        left = 0.09 * columns * scale if ball[0] > columns / 2 else 0.91 * columns * scale - side
        drawing.magnifier(frame, (ball[0], ball[1]), (x + left, y + 0.56 * len(frame) * scale), zoom, source=(x, y, scale))


# ---- architecture -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def save_architecture(path: Path, tokenizer: VideoTokenizer, clip: np.ndarray, env_id: str) -> None:
    """Encoder on the left, decoder on the right, tokens between them. clip: uint8 (T, H, W, 3), whose last frame is shown."""
    title = "The video tokenizer. Left, the encoder: minus the background, patches, positions, two space-time blocks, and four "
    title += "latents, which FSQ makes one token. Right, the decoder: the same way back. " + NOTE
    drawing = Drawing(830, 838, title)
    ball = detect_ball(clip[-1:], env_id)[0]
    redrawn = few_colors(to_frames(tokenizer(to_video(clip[None])).reconstruction)[0, -1], 48)
    left, right, width, height = 20, 450, 360, 62

    for x, name, frame in ((left, "video", clip[-1]), (right, "reconstruction", redrawn)):
        middle = x + width / 2
        drawing.text(middle, 14, name, 18, bold=True)
        drawing.text(x, 253, "encoder" if x == left else "decoder", 18, "accent" if x == left else "good", "start", bold=True)
        frame_with_ball(drawing, middle - 96, 32, frame, ball, 3, 6)
    drawing.line([(left + width / 2 + 102, 128), (right + width / 2 - 102, 128)], "bad", dash="6 5")
    drawing.box(352, 98, 126, 60, "loss", "solution 10", "bad_pale", "bad")

    def box(x: float, y: float, number: str, idea: str, fill: str, line: str) -> None:
        drawing.rect(x, y, width, height, fill, line, radius=8)
        drawing.text(x + 12, y + height / 2, number, 16, line, "start", bold=True)
        drawing.text(x + (width + 34) / 2, y + height / 2, idea, 17)

    down = (
        ("8", "subtract the background", "(B, T, 3, 64, 64)"),
        ("3", "look across the borders,\ncut into 8 × 8 patches", "(B, T, 64, 128)"),
        ("4", "add waves: where and when", "(B, T, 64, 128)"),
        ("5–7", "2 blocks: look around,\nthen look back in time", "(B, T, 64, 128)"),
        ("8", "128 numbers become 4 latents", "(B, T, 64, 4)"),
    )
    up = (
        ("8", "add the background", "(B, T, 3, 64, 64)"),
        ("9", "a vector becomes 8 × 8 pixels", "(B, T, 64, 128)"),
        ("5–7", "2 blocks: look around,\nthen look back in time", "(B, T, 64, 128)"),
        ("4", "add waves: where and when", "(B, T, 64, 128)"),
        ("9", "4 numbers become 128", "(B, T, 64, 4)"),
    )
    for row, ((number, idea, _), (number_up, idea_up, _)) in enumerate(zip(down, up, strict=True)):
        y = 270 + row * 96
        box(left, y, number, idea, "pale", "accent")
        box(right, y, number_up, idea_up, "good_pale", "good")
        before, center = y - 34, left + width / 2
        drawing.arrow(center, before + 2, center, y - 2, "(B, T, 3, 64, 64)" if row == 0 else down[row - 1][2], 15)
        center = right + width / 2
        drawing.arrow(center, y - 2, center, before + 2, "(B, T, 3, 64, 64)" if row == 0 else up[row - 1][2], 15)
    bottom = 270 + 4 * 96 + height
    drawing.box(left, bottom + 52, 250, 64, "8: FSQ", "four dials, one number", "warm_pale", "warm", 18)
    drawing.line([(left + width / 2 - 60, bottom + 2), (left + width / 2 - 60, bottom + 50)], "muted", arrow=True)
    drawing.text(left + width / 2 - 50, bottom + 26, "(B, T, 64, 4)", 15, "muted", "start")
    drawing.arrow(left + 252, bottom + 84, 330, bottom + 84)
    drawing.rect(332, bottom + 52, 478, 64, "paper", "warm", 3, radius=8)
    drawing.text(571, bottom + 72, "tokens (B, T, 64), integers from 0 to 999", 17, bold=True)
    drawing.text(571, bottom + 98, "all that chapter 3 sees", 15, "muted")
    drawing.line([(right + width / 2, bottom + 50), (right + width / 2, bottom + 2)], "muted", arrow=True)
    drawing.text(right + width / 2 + 10, bottom + 26, "their codes (B, T, 64, 4)", 15, "muted", "start")
    drawing.save(path)


# ---- solution 2: the picture delay ---------------------------------------------------------------------------------------

PLACES = slice(184, 197), slice(44, 130)
"""rows and columns of Breakout's screen in which the paddle moves here"""
PADDLE = (200, 72, 72)


def paddle_strips(game: Game, next_key: str) -> tuple[np.ndarray, list[int]]:
    """The paddle at rest, then LEFT for a step, then `next_key` for a step: strips uint8 (9, h, w, 3), and how far left it is."""
    names = game.action_names
    game.reset(seed=0)
    for _ in range(6):
        game.step(names.index("NOOP"))
    screens = [game.screen().copy()]
    for key in ["LEFT"] * game.frame_skip + [next_key] * game.frame_skip:
        game.advance(names.index(key))
        screens.append(game.screen().copy())
    strips = np.stack(screens)[:, PLACES[0], PLACES[1]]
    lefts = [int(np.flatnonzero((strip == PADDLE).all(axis=-1).any(axis=0))[0]) for strip in strips]
    return strips, [lefts[0] - left for left in lefts]


def save_picture_delay(path: Path) -> None:
    """Emulator frames after LEFT, with three different next keys: how late a picture can be taken that is the same for all."""
    game = Game("ALE/Breakout-v5")
    title = "The paddle in nine frames of the emulator: at rest, in four with LEFT held, and in four with nothing, LEFT or RIGHT "
    title += "held. At delay 0 it has made half of LEFT's way, at delay 1 most of it and the same under all three next keys, "
    title += "at delay 2 a different part under each."
    drawing = Drawing(830, 496, title)
    columns = {"NOOP": "then nothing", "LEFT": "then LEFT", "RIGHT": "then RIGHT"}
    delays = {4: ("delay 0: about half of what LEFT does is still to come", "warm"),
              5: ("delay 1: most of it is there, and no picture shows the next key", "good"),
              6: ("delay 2: the three pictures differ, so they reveal the next key", "bad")}  # fmt: skip
    played = {key: paddle_strips(game, key) for key in columns}
    game.close()
    lefts = [136 + 232 * number for number in range(3)]
    for x, label in zip(lefts, columns.values(), strict=True):
        drawing.text(x + 86, 15, f"LEFT, {label}", 17, bold=True)
    y = 34
    for number in range(9):
        label, color = delays.get(number, ("", "ink"))
        if label:
            drawing.rect(2, y - 4, 826, 62, f"{color}_pale", color, 1.5, radius=8)
        frame = (number - 1) % 4 + 1
        name = "at rest" if number == 0 else f"LEFT {frame}" if number < 5 else f"next key {frame}"
        drawing.text(122, y + 13, name, 16, "ink", "end")
        for x, (strips, moved) in zip(lefts, played.values(), strict=True):
            drawing.frame(x, y, strips[number], 2)
            start = x + 2 * int(np.flatnonzero((strips[0] == PADDLE).all(axis=-1).any(axis=0))[0])
            drawing.line([(start, y + 1), (start, y + 25)], RING, 1, "3 2")
            drawing.text(x + 200, y + 13, str(moved[number]), 17, color, bold=bool(label))
        if label:
            drawing.text(136, y + 43, label, 16, color, "start", bold=True)
            y += 30
        y += 36
    drawing.text(136, y + 10, "The numbers say how many pixels of the screen the paddle has moved left.", 15, "muted", "start")
    drawing.save(path)


# ---- solution 3: patches --------------------------------------------------------------------------------------------------


@torch.no_grad()
def save_patch_to_vector(path: Path, tokenizer: VideoTokenizer, frame: np.ndarray, env_id: str) -> None:
    """One patch, what its vector knows, and the vector. frame: uint8 (H, W, 3) with a ball."""
    title = "A frame cut into 64 patches; the patch with the ball and the 16 by 16 pixels around it, enlarged; "
    title += "its 192 numbers become a vector of 128 numbers, and the frame becomes 64 such vectors."
    drawing = Drawing(830, 340, title)
    side, (x, y) = tokenizer.config.patch_size, detect_ball(frame[None], env_id)[0]
    column, row = int(x) // side, int(y) // side

    drawing.text(124, 16, "64 patches", 17, bold=True)
    drawing.frame(28, 40, frame, 3)
    for number in range(1, 8):
        for ends in (((28, 40 + 24 * number), (220, 40 + 24 * number)), ((28 + 24 * number, 40), (28 + 24 * number, 232))):
            drawing.line(ends, "#8b949e", 0.7)
    small = 28 + 24 * column, 40 + 24 * row
    drawing.rect(small[0] - 12, small[1] - 12, 48, 48, line=RING, stroke=1.5, stroke_dasharray="4 3")
    drawing.rect(*small, 24, 24, line=RING, stroke=2.5)

    drawing.text(382, 16, "one of them, enlarged", 17, bold=True)
    near = frame[(row * side - 4) : (row + 1) * side + 4, (column * side - 4) : (column + 1) * side + 4]
    drawing.frame(286, 40, (near * 2.0).clip(0, 255).astype(np.uint8), 12, RING)
    drawing.rect(286 + 48, 40 + 48, 96, 96, line=RING, stroke=3)
    for start, end in (((small[0] + 36, small[1] - 12), (286, 40)), ((small[0] + 36, small[1] + 36), (286, 232))):
        drawing.line([start, end], RING, 1)
    drawing.text(382, 254, "the patch: 8 × 8 × 3 = 192 numbers", 16)
    drawing.text(382, 288, "its vector also knows 4 pixels\nacross every border", 16, "muted")
    drawing.text(382, 324, "(drawn twice as bright)", 15, "muted")

    video = to_video(frame[None, None])
    vectors = tokenizer.patch_embedding(centered(video, tokenizer.background))[0, 0].numpy()  # (N, E)
    vector = vectors[row * 8 + column]
    drawing.arrow(486, 136, 608, 136, "convolutions,\nlinear map", 16, "accent")
    drawing.text(716, 16, "its vector: 128 numbers", 17, bold=True)
    largest = np.abs(vector).max()
    for number, value in enumerate(vector):
        left, top = 620 + number % 16 * 12, 88 + number // 16 * 12
        strength = abs(value) / largest
        drawing.rect(left, top, 12, 12, "box", "faint", 0.5)
        drawing.rect(left, top, 12, 12, "warm" if value > 0 else "accent", fill_opacity=f"{strength:.2f}")
    drawing.text(716, 204, "orange above 0, blue below", 15, "muted")
    drawing.text(716, 254, "a frame is 64 of these:", 16)
    drawing.text(716, 280, "(3, 64, 64) → (64, 128)", 17, bold=True)
    drawing.save(path)


# ---- solution 7: space and time -------------------------------------------------------------------------------------------


def save_space_time_attention(path: Path) -> None:
    """A clip as 4 grids of 8 x 8 patches, twice: what a patch sees in its frame, and what it sees in time."""
    title = "A clip of four frames with 8 by 8 patches each. In space attention a patch sees all 64 patches of its frame; in "
    title += "time attention it sees the same place in this frame and in the three before it."
    drawing = Drawing(830, 392, title)
    row, column, cell, shift, frames = 5, 1, 22, (56, 36), 4  # a place that no nearer frame covers
    for left, name, note in (
        (14, "first, look around (space)", "a patch sees all 64 of its frame"),
        (434, "then, look back (time)", "it sees its own place in up to 4 frames"),
    ):
        drawing.text(left + 190, 18, name, 19, bold=True)
        drawing.text(left + 190, 372, note, 17, "muted")
        in_time = left > 100
        corners = [(left + shift[0] * t, 48 + shift[1] * t) for t in range(frames)]
        for t, (x, y) in enumerate(corners):
            newest = t == frames - 1
            if in_time:
                fill = {(row, column): "warm" if newest else "warm_pale"}
            else:
                fill = {place: "pale" for place in np.ndindex(8, 8)} | {(row, column): "accent"} if newest else {}
            drawing.rect(x, y, 8 * cell, 8 * cell, "paper", "line", 1)
            lit = newest or in_time
            drawing.grid(x, y, 8, 8, cell, fill, line=("accent" if not in_time else "line") if lit and newest else "faint")
            drawing.rect(x, y, 8 * cell, 8 * cell, line="muted", stroke=1.5)
            label = "t" if newest else f"t - {frames - 1 - t}"
            drawing.text(x + 8 * cell + 6, y + 9, label, 15, "muted", "start")
        if in_time:
            for t, (x, y) in enumerate(corners):
                place = x + (column + 0.5) * cell, y + (row + 0.5) * cell
                drawing.rect(
                    place[0] - cell / 2, place[1] - cell / 2, cell, cell, "warm" if t == frames - 1 else "warm_pale", "warm", 2.5
                )
                if t < frames - 1:  # the newest frame looks at each earlier one directly, up its column and then to the left
                    newest_x, newest_y = (corners[-1][0] + (column + 0.5) * cell, corners[-1][1] + row * cell)
                    bend = [(newest_x, newest_y), (newest_x, place[1]), (place[0] + cell / 2 + 2, place[1])]
                    drawing.line(bend, "warm", 2.5, arrow=True)
    drawing.save(path)


# ---- solution 8: a vector becomes an integer ------------------------------------------------------------------------------

LATENTS, LEVELS = (0.9, -0.3, 0.0, 1.5), (8, 5, 5, 5)
"""the chapter's worked example"""


def fsq_by_hand(latents: tuple[float, ...] = LATENTS, levels: tuple[int, ...] = LEVELS) -> list[tuple[float, int, int]]:
    """(bounded value, digit, place value) of every latent; the digits times their place values add up to the token."""
    quantizer = FiniteScalarQuantizer(levels)
    bounded = torch.tanh(torch.tensor(latents) + quantizer.shift) * quantizer.half_width - quantizer.offset
    digits = bounded.round().long() + quantizer.levels_tensor // 2
    return list(zip(bounded.tolist(), digits.tolist(), quantizer.basis.tolist(), strict=True))


def save_fsq_dials(path: Path) -> None:
    """The four dials of the chapter's example: a latent, the position it points to, the nearest one, and the token they make."""
    rows = fsq_by_hand()
    token = sum(digit * place for _, digit, place in rows)
    title = "Four dials with 8, 5, 5 and 5 positions. A dashed hand points to the bounded latent, a thick one to the nearest "
    title += f"position: {', '.join(str(digit) for _, digit, _ in rows)}. Read as one number they are token {token}."
    drawing = Drawing(830, 372, title)
    for number, (latent, levels, (bounded, digit, place)) in enumerate(zip(LATENTS, LEVELS, rows, strict=True)):
        x, y, radius = 105 + 207 * number, 172, 64
        lowest = -(levels // 2)

        def at(value: float, length: float, x=x, y=y, lowest=lowest, levels=levels) -> tuple[float, float]:
            angle = math.radians(-125 + 250 * (value - lowest) / (levels - 1))
            return x + length * math.sin(angle), y - length * math.cos(angle)

        drawing.text(x, 16, f"latent {latent:g}", 18, bold=True)
        drawing.text(x, 42, f"bounded: {bounded:.2f}", 16, "accent")
        drawing.add("circle", cx=x, cy=y, r=radius, fill="box", stroke="line", stroke_width=1.5)
        for position in range(levels):
            ends = at(lowest + position, radius - 7), at(lowest + position, radius + 4)
            chosen = position == digit
            drawing.line(ends, "warm" if chosen else "muted", 3 if chosen else 2)
            drawing.text(
                *at(lowest + position, radius + 20),
                str(position),
                18 if chosen else 15,
                "warm" if chosen else "muted",
                bold=chosen,
            )
        drawing.line([(x, y), at(lowest + digit, radius - 10)], "warm", 5, arrow=True)
        drawing.line([(x, y), at(bounded, radius - 4)], "accent", 2, "5 3")
        drawing.add("circle", cx=x, cy=y, r=6, fill="ink")
        drawing.text(x, 272, f"{digit} × {place}", 20, "warm", bold=True)
        if number:
            drawing.text(x - 103, 272, "+", 20, "muted")
    drawing.line([(60, 296), (770, 296)], "faint")
    drawing.text(415, 322, f"= token {token}", 24, bold=True)
    drawing.text(415, 356, "dashed: where the latent points; thick: the nearest position, which is what counts", 15, "muted")
    drawing.save(path)


def save_straight_through(path: Path, latent: float = -0.3, levels: int = 5) -> None:
    """Forward, the staircase of rounding; backward, the slope of the curve that it was made of, at the same latent."""
    quantizer = FiniteScalarQuantizer((levels,))
    half = float(quantizer.half_width)

    def curve(value: float) -> float:
        return math.tanh(value) * half

    largest = levels // 2  # codes are positions divided by this
    slope = half * (1 - math.tanh(latent) ** 2) / largest
    title = "Codes over latents. Left, the forward pass: a staircase, flat on every step, so that its slope is 0. Right, the "
    title += f"backward pass: the curve before it was rounded, whose slope at the same latent is {slope:.2f}."
    drawing = Drawing(830, 392, title)
    width, height, span = 330, 250, 2.6
    for left, name, note in (
        (62, "forward: round", "the step is flat: slope 0,\nnothing would learn"),
        (482, "backward: as if not rounded", f"the curve's slope, {slope:.2f},\nis the gradient we pass on"),
    ):
        forward = left < 100

        def at(value: float, level: float, left=left) -> tuple[float, float]:
            return left + (value + span) / (2 * span) * width, 50 + height / 2 - level * height / 5

        drawing.text(left + width / 2, 18, name, 19, bold=True)
        for level in range(-2, 3):
            drawing.line([at(-span, level), at(span, level)], "faint", 1)
            drawing.text(left - 12, at(0, level)[1], f"{level / largest:g}", 15, "muted", "end")
            drawing.text(*at(level, -2.72), str(level), 15, "muted")
        drawing.line([at(0, -2.5), at(0, 2.5)], "faint", 1)
        drawing.text(left - 12, at(0, 2.5)[1], "code", 15, "muted", "end")
        drawing.text(at(span, 0)[0] + 4, at(0, 0)[1] + 16, "latent", 15, "muted", "end")
        values = [span * (2 * i / 240 - 1) for i in range(241)]
        edges = [math.atanh((level + 0.5) / half) for level in range(-2, 2)]
        corners = [(-span, -2), *((edge, level + up) for level, edge in enumerate(edges, start=-2) for up in (0, 1)), (span, 2)]
        stairs = [at(*corner) for corner in corners], "warm"
        smooth = [at(value, curve(value)) for value in values], "accent"
        drawing.line(*(smooth if forward else stairs), 1.5, "5 4")
        drawing.line(*(stairs if forward else smooth), 4)
        level = round(curve(latent)) if forward else curve(latent)
        rise = 0.0 if forward else slope * largest
        before, after = (edges[0] - latent, edges[1] - latent) if forward else (-0.8, 0.8)
        drawing.line([at(latent + before, level + before * rise), at(latent + after, level + after * rise)], "ink", 3)
        x, y = at(latent, level)
        drawing.add("circle", cx=x, cy=y, r=7, fill="warm" if forward else "accent", stroke="paper", stroke_width=2)
        drawing.text(x + 14, y + 18, f"latent {latent:g}", 16, "ink", "start")
        drawing.text(left + width / 2, 50 + height + 54, note, 17, "bad" if forward else "good")
    drawing.save(path)


# ---- solution 11: learning ------------------------------------------------------------------------------------------------


def save_learning(path: Path, original: np.ndarray, redrawn: Mapping[int, np.ndarray], env_id: str) -> None:
    """One frame as it is, uint8 (H, W, 3), and as a tokenizer draws it after some steps: `redrawn` is step -> such a frame."""
    steps = ", ".join(f"{step:,}" for step in redrawn)
    title = (
        f"One frame that the tokenizer never trained on, drawn from its tokens after {steps} steps, and the frame itself. {NOTE}"
    )
    drawing = Drawing(830, 542, title)
    place = detect_ball(original[None], env_id)[0]
    shown = {f"{step:,} steps": frame for step, frame in redrawn.items()} | {"the frame itself": original}
    for number, (label, frame) in enumerate(shown.items()):
        x, y = 30 + 289 * (number % 3), 34 + 276 * (number // 3)
        error = float(np.square(frame / 255.0 - original / 255.0).mean())
        drawing.text(x + 96, y - 18, label, 18, bold=True)
        frame_with_ball(drawing, x, y, few_colors(frame, 128) if error else frame, place, 3, 7)
        note = f"PSNR {-10 * math.log10(error):.0f} dB" if error else "kept from training"
        drawing.text(x + 96, y + 211, note, 16, "muted")
    drawing.save(path)
