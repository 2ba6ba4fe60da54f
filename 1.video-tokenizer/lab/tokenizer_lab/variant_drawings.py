"""A drawing for each of the tokenizer variants: its two halves with their shapes, what is new in them, and its idea below."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tokenizer_lab.drawing import Drawing
from tokenizer_variants.dreamer4.config import Dreamer4Config
from tokenizer_variants.elastictok.config import ElasticConfig
from tokenizer_variants.magvit2.config import Magvit2Config
from tokenizer_variants.st_vq.config import VectorQuantizedConfig
from tokenizer_variants.videogpt.config import VideoGPTConfig

WIDTH, LEFT, RIGHT, COLUMN = 700, 8, 392, 300
"""width of a drawing; left edges of encoder and decoder, and their width"""
TOP, PITCH, BOX = 62, 92, 56
"""of the boxes of a half: where the first begins, from one to the next, and height"""
VIDEO = "(B, T, 3, 64, 64)"
HIDDEN = 128
"""gray value of a patch that is hidden"""


class Part(NamedTuple):
    """One box of a half, and the shape of what leaves it."""

    name: str
    note: str
    shape: str
    new: bool = True
    """whether it differs from chapter 1"""


def draw_halves(drawing: Drawing, encoder: Sequence[Part], decoder: Sequence[Part], middle: Part) -> float:
    """The encoder downwards, the decoder upwards, and between them what makes the codes. Returns the y below all that.

    The decoder's parts are given in the order in which they work, from the codes to the video.
    """
    rows = len(encoder)
    bottom = TOP + PITCH * rows
    for left, title, parts in ((LEFT, "encoder", encoder), (RIGHT, "decoder", decoder)):
        drawing.text(left + COLUMN, 16, title, 17, "muted", "end", bold=True)
        for number, part in enumerate(parts):
            row = number if left == LEFT else rows - 1 - number
            y = TOP + PITCH * row
            fill, line = ("warm_pale", "warm") if part.new else ("box", "line")
            drawing.box(left, y, COLUMN, BOX, part.name, part.note, fill, line, 16)
            if left == LEFT:
                arrow_with_shape(drawing, left + 30, y + BOX + 2, y + PITCH - 2, part.shape)
            else:
                arrow_with_shape(drawing, left + 30, y - 2, y - (PITCH - BOX) + 2, part.shape)
    arrow_with_shape(drawing, LEFT + 30, TOP - 36, TOP - 2, f"video {VIDEO}")
    arrow_with_shape(drawing, RIGHT + 30, bottom - 2, bottom - (PITCH - BOX) + 2, middle.shape)
    fill, line = ("warm_pale", "warm") if middle.new else ("box", "line")
    drawing.box(LEFT, bottom, RIGHT + COLUMN - LEFT, BOX, middle.name, middle.note, fill, line, 17)
    drawing.rect(LEFT, bottom + BOX + 16, 18, 18, "warm_pale", "warm", radius=4)
    drawing.text(LEFT + 28, bottom + BOX + 25, "differs from chapter 1", 15, "muted", "start")
    return bottom + BOX + 48


def arrow_with_shape(drawing: Drawing, x: float, start: float, end: float, shape: str) -> None:
    """An upright arrow with the shape of what it carries to its right."""
    drawing.line([(x, start), (x, end)], "muted", arrow=True)
    drawing.text(x + 14, (start + end) / 2, shape, 14, "muted", "start", mono=True)


def line_above(drawing: Drawing, y: float, title: str) -> float:
    """A thin line and the title of what follows. Returns the y below."""
    drawing.line([(LEFT, y), (RIGHT + COLUMN, y)], "faint", 1.5)
    drawing.text(LEFT, y + 24, title, 17, anchor="start", bold=True)
    return y + 48


def save_st_vq(path: Path) -> None:
    """Genie's tokenizer: a latent takes the nearest code, and both move toward each other."""
    config = VectorQuantizedConfig(frame_size=64)
    width, length = config.embed_dim, config.code_dim
    title = f"Genie's tokenizer: patches and space-time blocks as in chapter 1, latents of {length} numbers, and the nearest of "
    title += f"{config.num_codes:,} learned codes. Below, a latent between two codes: it takes the nearer one, and both move "
    drawing = Drawing(WIDTH, 628, title + "toward each other. A code that nobody chooses is moved onto a latent.")
    y = draw_halves(
        drawing,
        [Part("patches, positions,\n2 space-time blocks", "", f"(B, T, 64, {width})", False),
         Part("linear map", f"{width} numbers become {length}", f"latents (B, T, 64, {length})")],
        [Part("linear map", f"{length} numbers become {width}", f"(B, T, 64, {width})"),
         Part("2 space-time blocks,\npatches to pixels", "", VIDEO, False)],
        Part(f"the nearest of {config.num_codes:,} learned codes", "its number is the token: (B, T, 64)",
             f"codes (B, T, 64, {length})"),
    )  # fmt: skip
    y = line_above(drawing, y, "A latent of two numbers chooses a code")

    def at(first: float, second: float) -> tuple[float, float]:
        return 66 + 190 * first, y + 178 - 150 * second

    latent, codes, idle = (0.7, 0.2), ((0.0, 0.0), (1.0, 0.0)), (0.1, 0.95)
    squared = [sum((a - b) ** 2 for a, b in zip(latent, code, strict=True)) for code in codes]
    drawing.rect(LEFT, y - 8, 312, 236, "box", "faint", 1, 6)
    drawing.line([at(*latent), at(*codes[0])], "muted", 1.5, "5 4")
    drawing.line([at(*latent), at(*codes[1])], "accent", 3)
    drawing.text(at(*latent)[0] - 82, at(*latent)[1] - 4, f"{squared[0]:.2f}", 16, "muted")
    drawing.text(at(*latent)[0] + 50, at(*latent)[1] + 4, f"{squared[1]:.2f}", 16, "accent", bold=True)
    drawing.curve((at(*idle)[0] + 10, at(*idle)[1]), (at(*latent)[0] - 6, at(*idle)[1]), (at(*latent)[0], at(*latent)[1] - 12),
                  "good", 2, "6 4")  # fmt: skip
    for number, code in enumerate(codes):
        drawing.rect(at(*code)[0] - 8, at(*code)[1] - 8, 16, 16, "accent", "paper", 2)
        drawing.text(at(*code)[0], at(*code)[1] + 25, f"code {number}", 16, "accent", bold=True)
    drawing.rect(at(*idle)[0] - 8, at(*idle)[1] - 8, 16, 16, "line", "paper", 2)
    drawing.text(at(*idle)[0] - 10, at(*idle)[1] + 24, "idle code", 15, "muted")
    drawing.add("circle", cx=at(*latent)[0], cy=at(*latent)[1], r=8, fill="warm", stroke="paper", stroke_width=2)
    drawing.text(at(*latent)[0] + 12, at(*latent)[1] - 18, "latent", 16, "warm", "start", bold=True)
    for row, (color, name, note) in enumerate((
        ("muted", "squared distances", f"{squared[0]:.2f} and {squared[1]:.2f}, so the token is 1"),
        ("warm", "commitment loss", "moves the latent toward its code"),
        ("accent", "codebook loss", "moves the code toward its latents"),
        ("good", "restart", "an idle code jumps onto a latent"),
    )):  # fmt: skip
        drawing.text(344, y + 10 + 56 * row, name, 17, color, "start", bold=True)
        drawing.text(344, y + 33 + 56 * row, note, 16, "ink", "start")
    drawing.save(path)


def save_videogpt(path: Path) -> None:
    """VideoGPT: strided 3D convolutions, and attention along three axes, the future included."""
    config = VideoGPTConfig(frame_size=64)
    steps, rows, columns = config.latent_grid
    cells = f"(B, {config.channels}, T, {rows}, {columns})"
    title = "VideoGPT: strided 3D convolutions shrink a clip to a small grid, axial attention mixes it, and each cell takes the "
    title += (
        f"nearest of {config.num_codes} learned codes. Below, the {steps} by {rows} by {columns} grid: a cell looks along its "
    )
    drawing = Drawing(WIDTH, 610, title + "row, its column and its place in all frames, the later ones included.")
    y = draw_halves(
        drawing,
        [Part("strided 3D convolutions", "halve rows and columns 3 times", cells),
         Part(f"{config.num_blocks} residual blocks", "with axial attention", f"latents (B, T, 64, {config.code_dim})")],
        [Part(f"{config.num_blocks} residual blocks", "with axial attention", cells),
         Part("transposed 3D convolutions", "double rows and columns 3 times", VIDEO)],
        Part(f"the nearest of {config.num_codes} learned codes", "its number is the token: (B, T, 64)",
             f"codes (B, T, 64, {config.code_dim})"),
    )  # fmt: skip
    y = line_above(drawing, y, f"Axial attention: one cell looks at {steps} + {rows} + {columns} cells")
    cell, asking, row, column = 16, 1, 3, 5
    for frame in range(steps):
        x, later = 24 + 172 * frame, frame > asking
        fill = {(row, column): "bad" if later else "accent"}
        if frame == asking:
            fill |= {(row, other): "pale" for other in range(columns)} | {(other, column): "pale" for other in range(rows)}
            fill[row, column] = "warm"
        drawing.grid(x, y, rows, columns, cell, fill, line="line" if frame == asking else "faint")
        for other in range(rows if frame == asking else 0):
            if other != row:
                drawing.rect(x + column * cell, y + other * cell, cell, cell, "none", "accent", 1.5)
            if other != column:
                drawing.rect(x + other * cell, y + row * cell, cell, cell, "none", "accent", 1.5)
        name = "the cell that asks" if frame == asking else "a later frame" if later else "an earlier frame"
        drawing.text(
            x + cell * columns / 2, y + cell * rows + 20, name, 15, "warm" if frame == asking else "bad" if later else "accent"
        )
    drawing.text(WIDTH / 2, y + cell * rows + 52, "Because later frames count too, a stream cannot be encoded.", 16, "muted")
    drawing.save(path)


def save_magvit2(path: Path) -> None:
    """MAGVIT-2: convolutions that never look ahead, a decoder that reads the codes at every resolution."""
    config = Magvit2Config(frame_size=64)
    first, *_, last = config.channels
    title = (
        "MAGVIT-2 with FSQ: causal convolutions halve the picture three times, FSQ makes the tokens, and the decoder reads the "
    )
    title += (
        "codes at every resolution. Below, two causal convolutions in time: frame 5 is made of frames 2 to 5, and frame 1 of "
    )
    drawing = Drawing(WIDTH, 626, title + "itself and copies of itself.")
    y = draw_halves(
        drawing,
        [Part("causal convolution", f"3 colors become {first} channels", f"(B, {first}, T, 64, 64)"),
         Part("causal residual blocks", "64, 32, 16, 8: strided", f"(B, {last}, T, 8, 8)")],
        [Part("causal residual blocks", "8, 16, 32, 64: depth-to-space", f"(B, {first}, T, 64, 64)"),
         Part("causal convolution", f"{first} channels become 3 colors", VIDEO)],
        Part("FSQ as in chapter 1", "four numbers, one of 1,000 tokens: (B, T, 64)", "codes (B, T, 64, 4)", False),
    )  # fmt: skip
    drawing.line([(RIGHT + 228, TOP + PITCH * 2 - 2), (RIGHT + 228, TOP + PITCH + BOX + 2)], "warm", arrow=True)
    drawing.text(RIGHT + COLUMN, TOP + PITCH * 2 - 18, "to norms", 15, "warm", "end")
    y = line_above(drawing, y, "A residual block in time: nothing comes from the right")
    kernel, dilation = config.time_kernel, config.time_dilation
    first_x, pitch, heights = 300, 72, (y + 160, y + 90, y + 20)

    def at(level: int, frame: int) -> tuple[float, float]:
        return first_x + pitch * (frame - 1), heights[level]

    reads = {5: "warm", 1: "good"}
    used: dict[tuple[int, int], str] = {}
    for output, color in reads.items():
        used[2, output] = color
        for tap in range(kernel):
            inner = output - dilation * tap
            used.setdefault((1, inner), color)
            drawing.line([at(1, inner), at(2, output)], color, 2)
            for below in range(kernel if inner >= 1 else 0):
                used.setdefault((0, inner - below), color)
                drawing.line([at(0, inner - below), at(1, inner)], color, 2)
    earliest = (2 - kernel, 1 - dilation * (kernel - 1), 1)  # of each row, the padding included
    for level, start in enumerate(earliest):
        for frame in range(start, 6):
            (x, height), color, copied = at(level, frame), used.get((level, frame), "line"), frame < 1
            fill = "paper" if copied else {"warm": "warm_pale", "good": "good_pale"}.get(color, "box")
            drawing.add("circle", cx=x, cy=height, r=15, fill=fill, stroke=color, stroke_width=2,
                        stroke_dasharray="4 3" if copied else None)  # fmt: skip
            drawing.text(x, height, str(max(1, frame)), 15, "muted" if color == "line" else color, bold=not copied)
    for height, name in zip(heights, ("frames", "kernel of 2", "kernel of 2,\ndilation 2"), strict=True):
        drawing.text(LEFT, height, name, 15, "muted", "start")
    drawing.text(LEFT, y + 200, "dashed: copies of frame 1, put before it as padding", 15, "muted", "start")
    drawing.save(path)


def some_hidden(rows: int, columns: int, share: float = 0.5, seed: int = 3) -> np.ndarray:
    """Which patches are hidden, each with a probability of `share`: bool (rows, columns)."""
    return (torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share).numpy()


def save_dreamer4(path: Path, frame: np.ndarray) -> None:
    """Dreamer 4: a few latents read a partly hidden frame. frame: uint8 (64, 64, 3)."""
    config = Dreamer4Config(frame_size=64)
    number, length, width = config.num_latents, config.latent_channels, config.embed_dim
    title = f"Dreamer 4: {number} latents read the patches of a partly hidden frame and become {number} times {length} numbers, "
    title += "from which a second transformer draws every patch. Below, a frame with hidden patches, and who may look at whom. "
    title += "In the encoder patches cannot look at latents, and in the decoder latents cannot look at readouts."
    drawing = Drawing(WIDTH, 622, title)
    layers, everything = f"transformer of {config.num_layers} layers", f"(B, T, {number} + {config.num_registers} + 64, {width})"
    y = draw_halves(
        drawing,
        [Part("patches, some hidden", f"+ {number} latents, + {config.num_registers} registers", everything),
         Part(layers, "latents look at everything", f"latents (B, T, {number}, {width})")],
        [Part(layers, "a readout per patch looks at latents", f"(B, T, 64, {width})"),
         Part("linear map", "each readout becomes 8 × 8 pixels", VIDEO)],
        Part("linear map, tanh", f"{number * length} numbers between -1 and 1, and no codebook",
             f"codes (B, T, {number}, {length})"),
    )  # fmt: skip
    y = line_above(drawing, y, "A training frame, and who looks at whom")
    side = config.patch_size
    hidden = some_hidden(len(frame) // side, frame.shape[1] // side)
    covered = np.where(hidden.repeat(side, 0).repeat(side, 1)[..., None], np.uint8(HIDDEN), frame)
    drawing.frame(LEFT, y, covered, 2.5)
    drawing.text(LEFT + 80, y + 180, f"{hidden.sum()} of {hidden.size} patches hidden", 15, "muted")
    for left, name, others, sees in (
        (296, "encoder", "patches", ((1, 1), (0, 1))),
        (542, "decoder", "readouts", ((1, 0), (1, 1))),
    ):
        sizes, x = (44, 100), left
        drawing.text(left + 72, y + 180, name, 16, bold=True)
        for column, (wide, what) in enumerate(zip(sizes, ("latents", others), strict=True)):
            top = y + 16
            drawing.text(x + wide / 2 - (14 if column == 0 else 0), y + 2, what, 14, "muted")
            for row, high in enumerate(sizes):
                seen = bool(sees[row][column])
                drawing.rect(x, top, wide, high, "accent" if seen else "none", "muted", 1.5, fill_opacity=0.45 if seen else None)
                if not seen:
                    drawing.line([(x + 8, top + 8), (x + wide - 8, top + high - 8)], "bad", 2)
                top += high
            x += wide
        for row, what in enumerate(("latents", others)):
            drawing.text(left - 8, y + 16 + (22 if row == 0 else 94), what, 14, "muted", "end")
    drawing.text(RIGHT + COLUMN, y + 206, "rows look at columns where it is blue", 15, "muted", "end")
    drawing.save(path)


def save_elastictok(path: Path) -> None:
    """ElasticTok: the tail of a block's tokens is dropped, and the encoder knows."""
    config = ElasticConfig(frame_size=64)
    tokens = config.block_tokens
    title = f"ElasticTok: the encoder is told which of a frame's {tokens} tokens are kept, FSQ rounds them, and the dropped ones "
    title += f"become zero. Below, rows of {tokens} tokens of which the first 4, 17, 40 and all are kept."
    drawing = Drawing(WIDTH, 610, title)
    line, sight = f"(B, T·64, {config.embed_dim})", f"own frame and {config.context_blocks - 1} earlier ones"
    y = draw_halves(
        drawing,
        [Part("8 × 8 patches", "+ place, + \"kept\" or \"dropped\"", line),
         Part(f"{config.num_layers} layers of attention", sight, "latents (B, T, 64, 4)")],
        [Part(f"{config.num_layers} layers of attention", sight, line),
         Part("linear map, tanh", "each vector becomes 8 × 8 pixels", VIDEO)],
        Part("FSQ, and the tail becomes zero", "one of 1,000 tokens, or zero: (B, T, 64)", "codes (B, T, 64, 4)"),
    )  # fmt: skip
    y = line_above(drawing, y, f"How many of the {tokens} tokens are kept is drawn anew for every frame")
    for number, kept in enumerate((config.min_tokens, 17, 40, tokens)):
        top = y + 34 * number
        drawing.text(LEFT + 76, top + 11, f"keeps {kept}", 15, "warm", "end")
        for token in range(tokens):
            drawing.rect(
                LEFT + 88 + 9.3 * token,
                top,
                9.3,
                22,
                "warm" if token < kept else "paper",
                "faint" if token >= kept else "paper",
                1,
            )
    drawing.text(LEFT + 88, y + 146, "first: whatever must not be lost", 15, "warm", "start")
    drawing.text(RIGHT + COLUMN, y + 146, "last: kept once in 61 times", 15, "muted", "end")
    drawing.text(
        LEFT, y + 182, "Afterwards: 8 tokens, 32, or the fewest with which the error is below a threshold.", 16, anchor="start"
    )
    drawing.save(path)


def save_drawings(folder: Path, frame: np.ndarray) -> None:
    """All five, into a folder of their own. frame: uint8 (64, 64, 3), shown where a real frame is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for save in (save_st_vq, save_videogpt, save_magvit2, save_elastictok):
        save(folder / save.__name__.removeprefix("save_"))
    save_dreamer4(folder / "dreamer4", frame)
