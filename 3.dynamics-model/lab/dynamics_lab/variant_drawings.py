"""The drawings of the variants' pages: tokens one after the other and a draft, attention block by block and around a ring, what
TECO remembers, and how Dreamer 4 forms a frame."""

from pathlib import Path

from dynamics_variants.dreamer4.config import Dreamer4Config
from dynamics_variants.ring.blockwise import causal_layout, needed_blocks
from dynamics_variants.teco.config import TECOConfig
from dynamics_variants.teco.model import TECOSampling
from tokenizer_lab.drawing import Drawing

BEFORE, SAMPLED = (3, 3, 7, 7, 1, 1, 1, 4), (3, 3, 7, 2, 1, 1, 1, 4)
"""tokens of two frames in a row; only the fourth has changed"""


def kept_by_calls(draft: tuple[int, ...], sampled: tuple[int, ...]) -> list[int]:
    """How many tokens each call of the network keeps: all up to the first that differs from the draft, that one included."""
    kept, place = [], 0
    while place < len(sampled):
        differs = [number for number in range(place, len(sampled)) if sampled[number] != draft[number]]
        kept.append((differs[0] + 1 if differs else len(sampled)) - place)
        place += kept[-1]
    return kept


def save_gpt(path: Path) -> None:
    """The right shift and who sees whom above, two calls with a draft below."""
    calls = kept_by_calls(BEFORE, SAMPLED)
    title = "Two frames of four tokens as one sequence: position q reads token q - 1 and predicts token q from all before it. "
    title += f"Below, {len(calls)} calls of the network sample a frame of {len(SAMPLED)} tokens, because a draft, the frame "
    drawing = Drawing(700, 568, title + "before, is right at all places but one")
    cell, pitch, left = 50, 68, 128
    drawing.text(8, 18, "Each token from all tokens before it", 17, anchor="start", bold=True)
    above, below = 78, 216
    for number, token in enumerate("abcdefgh"):
        x, asking = left + pitch * number, number == 5
        drawing.box(x, above, cell, cell, token, fill="warm_pale" if asking else "box", line="warm" if asking else "line")
        seen = number <= 5
        drawing.box(x, below, cell, cell, "^abcdefg"[number], fill="pale" if seen else "box", line="accent" if seen else "line")
        if seen and not asking:
            drawing.line([(x + cell / 2, below - 2), (left + pitch * 5 + cell / 2, above + cell + 10)], "accent", 1.5)
        drawing.line([(x + cell / 2, below - 2), (x + cell / 2, above + cell + 4)], "warm" if asking else "faint", 2, arrow=True)
    for frame in range(2):
        x, width = left + 4 * pitch * frame - 6, 4 * pitch - cell / 2 + 18
        drawing.text(x + width / 2 - 6, 46, f"frame {frame}, led to by action {frame}", 15, "muted")
        drawing.line([(x, 60), (x + width - 12, 60)], "muted", 1.5)
    drawing.text(8, above + cell / 2, "predicts", 16, "warm", "start", bold=True)
    drawing.text(8, below + cell / 2, "reads", 16, "accent", "start", bold=True)
    drawing.text(
        left,
        below + cell + 24,
        "The first position reads a learned start, and nobody reads the last token.",
        15,
        "muted",
        "start",
    )
    drawing.line([(8, 318), (692, 318)], "faint", 1.5)

    drawing.text(8, 344, "A call reads a draft, and keeps what has read the truth", 17, anchor="start", bold=True)
    rows = [("draft", BEFORE, 0, 0)]
    for number, kept in enumerate(calls):
        start = sum(calls[:number])
        rows.append((f"call {number + 1}", SAMPLED, start, start + kept))
    for row, (name, tokens, start, stop) in enumerate(rows):
        y = 368 + 52 * row
        drawing.text(8, y + 20, name, 16, "muted" if row == 0 else "warm", "start", bold=True)
        for number, token in enumerate(tokens):
            x = left + pitch * number
            if row and number < start:
                continue  # known since an earlier call
            kept = row == 0 or number < stop
            differs = row > 0 and kept and token != BEFORE[number]
            fill = "box" if row == 0 else "good_pale" if not differs else "warm_pale"
            line = "line" if row == 0 else "good" if not differs else "warm"
            if kept:
                drawing.box(x, y, cell, 40, str(token), fill=fill, line=line)
            else:
                drawing.rect(x, y, cell, 40, "none", "faint", 1.5, 8, stroke_dasharray="5 4")
    drawing.text(left, 538, "green: as drafted", 15, "good", "start")
    drawing.text(left + 176, 538, "orange: differs, kept", 15, "warm", "start")
    drawing.text(left + 384, 538, "dashed: thrown away", 15, "muted", "start")
    drawing.save(path)


def save_ring(path: Path, num_blocks: int = 6, num_devices: int = 4) -> None:
    """The blocks of a causal score matrix above, who holds which keys in each round below."""
    size = 2
    layout = causal_layout(num_blocks * size)
    blocks = {
        (block.queries.start // size, block.keys.start // size): block.mask for block in needed_blocks(layout, layout, size)
    }
    skipped = num_blocks**2 - len(blocks)
    title = f"Of {num_blocks**2} blocks of a causal score matrix, {skipped} above the diagonal are never computed. Below, "
    title += f"{num_devices} devices in a ring: their queries stay, keys and values travel, and after {num_devices} rounds every "
    drawing = Drawing(700, 604, title + "query has met every key")
    cell, left, top = 34, 92, 62
    drawing.text(8, 18, "One block of scores at a time", 17, anchor="start", bold=True)
    drawing.text(left + cell * num_blocks / 2, 46, "keys", 15, "muted")
    drawing.text(8, top + cell * num_blocks / 2, "queries", 15, "muted", "start")
    fill = {place: "accent" if mask is None else "warm" for place, mask in blocks.items()}
    drawing.grid(left, top, num_blocks, num_blocks, cell, fill, line="faint")
    row = 3
    y = top + cell * row
    drawing.rect(left - 3, y - 3, cell * (row + 1) + 6, cell + 6, line="ink", stroke=2.5, radius=4)
    drawing.line([(left + cell * (row + 1) + 8, y + cell / 2), (406, y + cell / 2)], "muted", arrow=True)
    drawing.box(
        410,
        y - 28,
        282,
        106,
        "maximum, sum, mixture",
        "of the values, for each query of\nthe row; a larger maximum\nshrinks all before it",
        "good_pale",
        "good",
        16,
    )
    for number, (color, name) in enumerate(
        (("accent", "computed"), ("warm", "computed, partly hidden"), ("none", f"never computed: {skipped} of {num_blocks**2}"))
    ):
        drawing.rect(410, 58 + 26 * number, 16, 16, color, "faint", 1)
        drawing.text(434, 66 + 26 * number, name, 15, "muted", "start")
    drawing.line([(8, 284), (692, 284)], "faint", 1.5)

    drawing.text(8, 310, "Around the ring: queries stay, keys and values travel", 17, anchor="start", bold=True)
    pitch, cell, first, top = 130, 38, 178, 338
    for device in range(num_devices):
        x = first + pitch * device
        drawing.text(x + 45, top, f"device {device}", 16, bold=True)
        for turn in range(num_devices):
            y, keys = top + 20 + 46 * turn, (device - turn) % num_devices
            needed = keys <= device
            drawing.box(
                x,
                y,
                90,
                cell,
                f"keys {keys}",
                fill="pale" if needed else "none",
                line="accent" if needed else "faint",
                size=15,
                color="ink" if needed else "muted",
            )
            if turn + 1 < num_devices and device + 1 < num_devices:
                drawing.line([(x + 92, y + cell - 4), (x + pitch - 4, y + cell + 12)], "warm", 2, arrow=True)
    for turn in range(num_devices):
        drawing.text(8, top + 39 + 46 * turn, f"round {turn + 1}", 16, "muted", "start")
    drawing.text(
        8,
        572,
        "Device 3 passes its keys on to device 0. Gray boxes hold nothing that a causal query may see:\n"
        "with one stretch for each device, the first is soon idle. Stripes share the work.",
        15,
        "muted",
        "start",
    )
    drawing.save(path)


def save_teco(path: Path) -> None:
    """Three rows: what was new in a frame becomes a few codes, all of them become a memory, and both become the next frame."""
    config, sampling = TECOConfig(), TECOSampling()
    (rows, columns), (side, width) = config.grid_size, config.change_grid
    codes, calls = side * width, sampling.draft_chunks * (1 + sampling.revise_rounds)
    title = f"An encoder reads two frames of {rows} x {columns} tokens and writes what is new in the second as {codes} codes. A "
    title += "transformer over time reads one token for each frame and says what is known of the next one. In a rollout a prior "
    drawing = Drawing(700, 590, title + "samples the next codes, and a decoder draws the frame from codes and memory")

    def change(x: float, y: float, color: str = "warm") -> None:
        drawing.grid(x, y, side, width, 12, f"{color}_pale", line=color)

    def heading(y: float, text: str) -> None:
        drawing.text(8, y, text, 17, anchor="start", bold=True)

    heading(18, "Read a frame: what is new in it?")
    tokens = f"{rows} × {columns} tokens"
    drawing.box(8, 42, 150, 54, "frame t - 1", tokens, "pale", "accent", 16)
    drawing.box(8, 108, 150, 54, "frame t", tokens, "pale", "accent", 16)
    drawing.box(232, 75, 120, 54, "encoder", size=16)
    drawing.line([(160, 69), (230, 95)], arrow=True)
    drawing.line([(160, 135), (230, 109)], arrow=True)
    drawing.arrow(354, 102, 424, 102)
    change(428, 78)
    drawing.text(484, 92, "z, the change of frame t", 16, "warm", "start", bold=True)
    drawing.text(484, 114, f"{side} × {width} codes out of {config.change_codes}", 15, "muted", "start")
    drawing.line([(8, 186), (692, 186)], "faint", 1.5)

    heading(212, "Remember: one token for each frame")
    for number, name in enumerate(("t - 3", "t - 2", "t - 1")):
        x = 28 + 96 * number
        change(x, 240)
        drawing.text(x + 24, 302, f"z of {name}", 15, "warm")
        drawing.line([(x + 24, 314), (x + 24, 338)], "muted", arrow=True)
    drawing.text(8, 326, "...", 16, "muted", "start")
    drawing.box(8, 342, 290, 54, "transformer over time", "reads the actions as well", size=16)
    drawing.arrow(300, 366, 424, 366)
    drawing.grid(428, 342, side, width, 12, "good_pale", line="good")
    drawing.text(484, 356, "h, what is known of frame t", 16, "good", "start", bold=True)
    drawing.text(484, 378, f"{side} × {width} cells of {config.change_channels} numbers", 15, "muted", "start")
    drawing.line([(8, 414), (692, 414)], "faint", 1.5)

    heading(440, "Go on: sample the change, then draw the frame")
    drawing.grid(24, 488, side, width, 12, "good_pale", line="good")
    drawing.text(48, 554, "h", 16, "good", bold=True)
    drawing.arrow(78, 512, 120, 512)
    drawing.box(124, 484, 130, 56, "prior", f"{calls} calls", size=16)
    drawing.arrow(256, 512, 306, 512)
    change(310, 488)
    drawing.text(334, 554, "z of frame t", 15, "warm")
    drawing.arrow(364, 512, 408, 512)
    drawing.box(412, 484, 112, 56, "decoder", "one call", size=16)
    drawing.arrow(526, 512, 548, 512)
    drawing.box(552, 484, 140, 56, "frame t", tokens, "pale", "accent", 16)
    drawing.line([(48, 486), (48, 464), (468, 464), (468, 482)], "good", 2, arrow=True)
    drawing.text(8, 578, "In training the encoder gives z, and the prior learns to guess it.", 15, "muted", "start")
    drawing.save(path)


def save_dreamer4(path: Path, num_latents: int = 16, passes: int = 4) -> None:
    """The tokens of two past steps and of the one that is being formed above, the steps from noise to a frame below."""
    config = Dreamer4Config()
    title = f"A step of time is a token for the action, one for signal level and step size, {num_latents} latents and "
    title += f"{config.num_registers} registers, which look at each other, and in time each at its own past. Below, a "
    drawing = Drawing(700, 470, title + f"frame comes out of noise in {passes} steps")
    drawing.text(8, 18, "Who looks at whom", 17, anchor="start", bold=True)
    kinds = (("action", 92, "violet"), ("level and\nstep size", 112, "warm"),
             (f"{num_latents} latents\n{config.code_length} numbers each", 196, "accent"),
             (f"{config.num_registers} registers", 112, "line"))  # fmt: skip
    for step, (name, level) in enumerate((("frame t - 1", "signal 0.9"), ("frame t", "signal 0 to 1"))):
        y, x = 44 + 112 * step, 128.0
        drawing.text(8, y + 18, name, 16, "ink", "start", bold=True)
        drawing.text(8, y + 40, level, 15, "muted", "start")
        for label, width, color in kinds:
            fill = "box" if color == "line" else f"{color}_pale" if color != "accent" else "pale"
            drawing.rect(x, y, width, 58, fill, color, radius=8)
            drawing.text(x + width / 2, y + 29, label, 15)
            if step:
                drawing.line([(x + width / 2, y - 4), (x + width / 2, y - 50)], "muted", 2, arrow=True)
            x += width + 16
    drawing.text(
        8,
        240,
        f"One layer in {config.time_every} looks back in time. The others look at all tokens of their own frame.",
        15,
        "muted",
        "start",
    )
    drawing.line([(8, 264), (692, 264)], "faint", 1.5)
    drawing.text(8, 290, "A frame comes out of noise", 17, anchor="start", bold=True)
    for step in range(passes + 1):
        x, signal = 8 + 150 * step, step / passes
        name = ("noise", "the frame")[step == passes] if step in (0, passes) else "less noise"
        fill, line = ("box", "line") if step == 0 else ("pale", "accent")
        drawing.box(x, 326, 86, 60, name, size=15, fill=fill, line=line)
        drawing.text(x + 43, 402, f"signal {signal:g}", 15, "muted")
        if step < passes:
            drawing.arrow(x + 88, 356, x + 148, 356)
            drawing.text(x + 118, 340, f"call {step + 1}", 14, "warm")
    drawing.text(
        8,
        444,
        "Each call is told how clean its frame is and how far it may go, sees the past, and predicts the\nclean frame. "
        "One more call reads the finished frame, to remember it.",
        15,
        "muted",
        "start",
    )
    drawing.save(path)


def save_drawings(folder: Path) -> None:
    """One for each page, into a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    save_gpt(folder / "gpt")
    save_ring(folder / "ring")
    save_teco(folder / "teco")
    save_dreamer4(folder / "dreamer4")
