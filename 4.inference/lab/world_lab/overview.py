"""The two drawings that stand before the chapters: one step of a world as an animation, and its three networks on one page."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynamics_model.models.base import DecodingPass
from tokenizer_lab.drawing import Drawing, few_colors
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball, detect_player
from world_model.world import WorldModel

SECONDS = 6.0
"""length of the animation"""
CELL, PIXEL = 24, 3
"""sides of a token's cell and of a pixel in the animation: 8 cells are as wide as 64 pixels"""


class Step(NamedTuple):
    """One step of a world, with everything that the drawings show of it."""

    frame: np.ndarray
    """uint8 (H, W, 3), a real frame"""
    tokens: np.ndarray
    """(N,), its tokens"""
    key: str
    action: int
    """the action that the key stands for in this world"""
    passes: list[DecodingPass]
    """how the next frame's tokens were decoded"""
    after: np.ndarray
    """(N,), the next frame's tokens"""
    predicted: np.ndarray
    """uint8 (H, W, 3), the next frame, decoded"""
    ball: np.ndarray
    """(2, 2): x and y of the ball in both frames"""


def clear_step(world: WorldModel, key: str = "LEFT") -> Step:
    """The latest moment of a start clip in which this key clearly moves the paddle, with a ball in the free field before and
    after."""
    env_id, action = world.metadata.env_id or "", world.action_map[key]
    clips = [*zip(world.start_frames, world.start_actions, strict=True)]
    for clip, actions in ((frames[:stop], keys[:stop]) for stop in range(len(clips[0][0]), 1, -1) for frames, keys in clips):
        state, passes = world.start_rollouts(clip[None], actions[None]), list[DecodingPass]()
        tokens = state.latest[0].numpy().copy()
        predicted = world.step_rollouts(state, np.array([action]), passes)[0]
        both = np.stack([clip[-1], predicted])
        ball, player = detect_ball(both, env_id), detect_player(both, env_id)  # (2, 2), (2,)
        middle = (np.abs(ball - [32, 43]) < [26, 7]).all()  # NaN, no ball, is not
        if middle and abs(player[1] - player[0]) > 4:
            return Step(clip[-1], tokens, key, action, passes, state.latest[0].numpy(), few_colors(predicted, 48), ball)
    raise InputError(f"no start clip of this world shows what {key} does; choose another world")


# ---- one step, as an animation ------------------------------------------------------------------------------------------

HOLD, ENCODED, PRESSED, GUESSED, DECODED, RETURNED, LEAVES = 0.5, 0.7, 1.4, (1.9, 2.4, 2.9, 3.4), 3.9, 4.5, 5.75
"""seconds at which the parts of the story begin; until HOLD the whole picture is there, as it is where nothing moves"""
STORY = {
    ENCODED: "The tokenizer turns\na frame into 64\ntokens.",
    PRESSED: "You press a key.",
    GUESSED[0]: "The dynamics model\nguesses the tokens\nof the next frame,\nthe surest first.",
    DECODED: "The tokenizer draws\nthem as pixels.",
    RETURNED: "They go back in, as\ntokens, for the frame\nafter that.",
}


def timeline(name: str, *events: tuple[float, str | float]) -> str:
    """CSS that gives class `name` these styles, or opacities, at these seconds of the loop."""
    events = tuple((second, style if isinstance(style, str) else f"opacity:{style:g}") for second, style in events)
    stops = "".join(f"{100 * second / SECONDS:.4g}%{{{style}}}" for second, style in events)
    return f"@keyframes {name}{{{stops}}}.{name}{{animation:{name} {SECONDS:g}s infinite}}\n"


def shown(name: str, begin: float, fade: float = 0.15) -> str:
    """CSS of a part that goes after HOLD and comes back at second `begin`."""
    return timeline(name, (0, 1), (HOLD, 1), (HOLD + 0.15, 0), (begin, 0), (begin + fade, 1), (SECONDS, 1))


def story_css() -> str:
    """The whole animation: which class appears when. Whoever asked for reduced motion sees the picture of second 0."""
    css = [shown(f"row{row}", ENCODED + 0.08 * row) for row in range(8)]
    css += [shown(f"pass{number}", begin) for number, begin in enumerate(GUESSED)]
    for number, begin in enumerate(GUESSED):
        css.append(timeline(f"flash{number}", (0, 0), (begin, 0), (begin + 0.1, 1), (begin + 0.5, 0), (SECONDS, 0)))
    css += [shown("pressed", PRESSED), shown("drawn", DECODED, 0.4)]
    up, there = f"transform:translate(0,{TOP - BELOW}px)", RETURNED + 0.7
    css.append(timeline("back", (0, 0), (RETURNED, "opacity:0;transform:none"), (RETURNED + 0.1, "opacity:1;transform:none"),
                        (there, f"opacity:1;{up}"), (there + 0.1, f"opacity:0;{up}"), (SECONDS, 0)))  # fmt: skip
    css.append(timeline("renewed", (0, 0), (there, 0), (there + 0.1, 1), (LEAVES, 1), (SECONDS, 0)))
    ends = [*list(STORY)[1:], LEAVES]
    for number, (begin, end) in enumerate(zip(STORY, ends, strict=True)):
        css.append(timeline(f"told{number}", (0, 1), (HOLD, 1), (HOLD + 0.15, 0.3), (begin, 0.3), (begin + 0.15, 1), (end, 1),
                            (end + 0.15, 0.3), (SECONDS - 0.05, 0.3), (SECONDS, 1)))  # fmt: skip
    return "".join(css) + "@media (prefers-reduced-motion:reduce){*{animation:none!important}}"


LEFT, RIGHT, TOP, BELOW, SIDE = 16, 338, 34, 330, 8 * CELL
"""corners and side of the two frames (left) and the two grids of tokens (right), above and below"""


def save_pipeline(path: Path, step: Step) -> None:
    """One step of a world as a loop of `SECONDS`: frame, tokens, key, masked tokens filled in by passes, next frame, and back."""
    places = [(number // 8, number % 8) for number in range(len(step.tokens))]
    changed = {place for place, old, new in zip(places, step.tokens, step.after, strict=True) if old != new}
    title = "One step of the world: a frame becomes 64 tokens, a key is pressed, the next frame's tokens are filled in over four "
    title += (
        "passes, drawn as the next frame, and go back in as tokens. Yellow insets show the ball enlarged and twice as bright."
    )
    drawing = Drawing(830, 556, title, story_css())

    for top, label, frame, ball, class_ in (
        (TOP, "a real frame", step.frame, step.ball[0], None),
        (BELOW, "the next frame", step.predicted, step.ball[1], "drawn"),
    ):
        drawing.text(LEFT + SIDE / 2, top - 16 if class_ is None else top + SIDE + 18, label, 17, bold=True)
        drawing.rect(LEFT, top, SIDE, SIDE, "box", "line", 1)
        with drawing.group(class_=class_):
            drawing.frame(LEFT, top, frame, PIXEL)
            inset = LEFT + (18 if ball[0] > 32 else 120), top + 108
            drawing.magnifier(frame, (ball[0], ball[1]), inset, 6, source=(LEFT, top, PIXEL))

    drawing.text(RIGHT + SIDE / 2, TOP - 16, "its 64 tokens", 17, bold=True)
    drawing.text(RIGHT + SIDE / 2, BELOW + SIDE + 18, "the next 64 tokens", 17, bold=True)
    drawing.grid(RIGHT, TOP, 8, 8, CELL, "box", line="faint")
    for row in range(8):
        with drawing.group(class_=f"row{row}"):
            for column in range(8):
                write_token(drawing, RIGHT + CELL * column, TOP + CELL * row, step.tokens[8 * row + column])
    drawing.grid(RIGHT, BELOW, 8, 8, CELL, "faint", line="line")
    before = np.zeros(len(places), bool)
    for number, decoding in enumerate(step.passes):
        now = decoding.unmasked[0].numpy()
        with drawing.group(class_=f"pass{number}"):
            for place in np.flatnonzero(now & ~before):
                put_token(drawing, BELOW, places[place], step.after[place], places[place] in changed)
        with drawing.group(class_=f"flash{number}", opacity=0):
            for row, column in (places[place] for place in np.flatnonzero(now & ~before)):
                drawing.rect(RIGHT + CELL * column + 1, BELOW + CELL * row + 1, CELL - 2, CELL - 2, line="warm", stroke=3)
        before = now

    drawing.arrow(LEFT + SIDE + 6, TOP + 96, RIGHT - 6, TOP + 96, "tokenizer\nencodes", 16, "accent")
    drawing.arrow(RIGHT - 6, BELOW + 96, LEFT + SIDE + 6, BELOW + 96, "tokenizer\ndecodes", 16, "accent")
    middle = (TOP + SIDE + BELOW) / 2
    drawing.box(RIGHT, middle - 26, SIDE, 52, "dynamics model", fill="warm_pale", line="warm", size=18)
    for x1, y1, x2, y2 in ((0, TOP + SIDE + 3, 0, middle - 28), (0, middle + 27, 0, BELOW - 3)):
        drawing.arrow(RIGHT + SIDE / 2 + x1, y1, RIGHT + SIDE / 2 + x2, y2, color="warm")
    draw_keys(drawing, LEFT + 30, middle - 22, step.key)
    drawing.arrow(LEFT + 136, middle, RIGHT - 4, middle, f"{step.key} = latent action {step.action}", 15)
    turn = RIGHT + SIDE + 30
    drawing.line(
        [(RIGHT + SIDE + 4, BELOW + 96), (turn, BELOW + 96), (turn, TOP + 96), (RIGHT + SIDE + 5, TOP + 96)], "good", arrow=True
    )
    drawing.text(turn + 15, middle, "back as tokens", 16, "good", transform=f"rotate(90 {turn + 15} {middle})")
    with drawing.group(class_="back", opacity=0):
        drawing.grid(turn - 20, BELOW + 76, 8, 8, 5, "paper", line="good")
    with drawing.group(class_="renewed", opacity=0):
        for place, token in zip(places, step.after, strict=True):
            put_token(drawing, TOP, place, token, place in changed)

    top = TOP + 14
    for number, text in enumerate(STORY.values()):
        lines = text.count("\n")
        with drawing.group(class_=f"told{number}"):
            drawing.add("circle", cx=619, cy=top, r=13, fill="accent")
            drawing.text(619, top, str(number + 1), 16, "paper", bold=True)
            drawing.text(640, top + lines * 10.6, text, 17, anchor="start")
        top += 21.25 * lines + 76
    drawing.save(path)


def write_token(drawing: Drawing, x: float, y: float, token: int, color: str = "ink") -> None:
    drawing.text(x + CELL / 2, y + CELL / 2, str(token), 11.5, color, mono=True)


def put_token(drawing: Drawing, top: float, place: tuple[int, int], token: int, changed: bool) -> None:
    """A cell of the lower grid with its token, colored if it differs from the token of the frame before."""
    x, y = RIGHT + CELL * place[1], top + CELL * place[0]
    drawing.rect(x, y, CELL, CELL, "warm_pale" if changed else "paper", "warm" if changed else "faint", 1)
    write_token(drawing, x, y, token, "warm" if changed else "ink")


def draw_keys(drawing: Drawing, x: float, y: float, pressed: str) -> None:
    """Two arrow keys, one of them pressed."""
    for name, left, way in (("LEFT", x, -1), ("RIGHT", x + 52, 1)):
        drawing.rect(left, y, 44, 44, "box", "line", radius=8)
        drawing.line([(left + 22 - 9 * way, y + 22), (left + 22 + 10 * way, y + 22)], "muted", 3, arrow=True)
        if name == pressed:
            with drawing.group(class_="pressed"):
                drawing.rect(left, y, 44, 44, "accent", "accent", radius=8)
                drawing.line([(left + 22 - 9 * way, y + 22), (left + 22 + 10 * way, y + 22)], "paper", 3, arrow=True)


# ---- the three networks -------------------------------------------------------------------------------------------------


class Transition(NamedTuple):
    """Two real frames, one after the other, and what a world's three networks make of them."""

    frames: np.ndarray
    """uint8 (2, H, W, 3)"""
    tokens: np.ndarray
    """(2, N)"""
    redrawn: np.ndarray
    """uint8 (H, W, 3), the first frame, decoded from its tokens"""
    latent_action: int
    predicted: np.ndarray
    """(N,), the second frame's tokens as the dynamics model predicts them"""
    drawn: np.ndarray
    """uint8 (H, W, 3), these decoded"""
    balls: np.ndarray
    """(2, 2): x and y of the ball in both frames"""


def clear_transition(world: WorldModel) -> Transition:
    """The transition between stored real frames in which the paddle moves most while the ball is in the free field."""
    env_id, best = world.metadata.env_id or "", (0.0, 0, 0)
    for number, clip in enumerate(world.start_frames):
        ball, player = detect_ball(clip, env_id), detect_player(clip, env_id)
        for t in range(world.context_frames // 2, len(clip) - 1):
            if (np.abs(ball[t : t + 2] - [32, 43]) < [26, 7]).all():  # NaN, no ball, is not
                best = max(best, (float(np.nan_to_num(abs(player[t + 1] - player[t]))), number, t))
    if best[0] < 2:
        raise InputError("no stored frames of this world show the paddle and the ball move; choose another world")
    _, number, t = best
    clip = world.start_frames[number]
    action = int(world.infer_actions(to_video(clip[None, t : t + 2], world.device))[0, 1])
    state = world.start_rollouts(clip[None, : t + 1], world.start_actions[None, number, : t + 1])
    tokens, redrawn = state.latest[0].cpu().numpy().copy(), state.frames[0]
    drawn = world.step_rollouts(state, np.array([action]))[0]
    after = world.start_rollouts(clip[None, : t + 2], world.start_actions[None, number, : t + 2]).latest[0].cpu().numpy()
    frames, balls = clip[t : t + 2], detect_ball(clip[t : t + 2], env_id)
    return Transition(
        frames,
        np.stack([tokens, after]),
        few_colors(redrawn, 48),
        action,
        state.latest[0].cpu().numpy(),
        few_colors(drawn, 48),
        balls,
    )


def draw_tokens(drawing: Drawing, x: float, y: float, tokens: np.ndarray, cell: float, changed: np.ndarray | None = None) -> None:
    """Tokens as cells with a color for each number; those that `changed` are framed."""
    for number, token in enumerate(tokens):
        left, top = x + number % 8 * cell, y + number // 8 * cell
        hue, light = token * 137.5 % 360, 44 + 8 * (token // 144 % 4)  # after 144 tokens the hues repeat
        drawing.rect(left, top, cell, cell, f"hsl({hue:.0f} 42% {light}%)", "paper", 1)
    for number in np.flatnonzero(changed) if changed is not None else []:
        drawing.rect(x + number % 8 * cell, y + number // 8 * cell, cell, cell, line="ink", stroke=2.5)


def save_three_networks(path: Path, shown: Transition, num_actions: int) -> None:
    """What each network is given and what it returns, on one pair of real frames, with shapes."""
    title = (
        "The three networks. The tokenizer turns a frame into 64 tokens and back; the latent action model gives what happened "
    )
    title += (
        "between two frames one of 8 numbers; the dynamics model predicts the next frame's tokens from past tokens and such a "
    )
    title += "number. Yellow insets show the ball enlarged and twice as bright."
    drawing = Drawing(830, 640, title)
    side = 128
    first, second = shown.frames

    def frame(x: float, y: float, picture: np.ndarray, ball: np.ndarray, label: str) -> None:
        drawing.frame(x, y, picture, 2)
        drawing.magnifier(picture, (ball[0], ball[1]), (x + (12 if ball[0] > 32 else 71), y + 64), 5, source=(x, y, 2))
        if label:
            drawing.text(x + side / 2, y + side + 15, label, 15)

    bands = (
        ("1  Video tokenizer:", "what is in a frame?", "accent", 0),
        ("2  Latent action model:", "what was done between two frames?", "violet", 216),
        ("3  Dynamics model:", "what does the next frame look like?", "warm", 432),
    )
    for name, question, color, y in bands:
        drawing.rect(1, y + 1, 828, 204, "none", color, 1.5, radius=10)
        both = f'{name} <tspan font-weight="400" fill="$ink">{question}</tspan>'
        drawing.add("text", both, x=16, y=y + 27, font_size=18, fill=color, font_weight=600)

    y = 44
    frame(24, y, first, shown.balls[0], "frame (3, 64, 64)")
    drawing.box(198, y + 36, 108, 56, "encoder", fill="pale", line="accent")
    draw_tokens(drawing, 351, y, shown.tokens[0], 16)
    drawing.text(415, y + side + 15, "64 tokens (64,), colored by number", 15)
    drawing.box(524, y + 36, 108, 56, "decoder", fill="pale", line="accent")
    frame(678, y, shown.redrawn, shown.balls[0], "the same, redrawn")
    for x in (156, 310, 483, 636):
        drawing.arrow(x, y + 64, x + 38, y + 64, color="accent")

    y += 216
    frame(24, y, first, shown.balls[0], "")
    frame(164, y, second, shown.balls[1], "")
    drawing.text(158, y + side + 15, "two real frames (2, 3, 64, 64)", 15)
    drawing.arrow(296, y + 64, 334, y + 64, color="violet")
    drawing.box(338, y + 32, 160, 64, "latent\naction model", fill="violet_pale", line="violet")
    drawing.arrow(502, y + 64, 540, y + 64, color="violet")
    lit = {(0, shown.latent_action): "violet"}
    drawing.text(678, y + 26, "one of 8 latent actions", 15)
    drawing.grid(546, y + 48, 1, num_actions, 33, lit)
    for number in range(num_actions):
        bold = number == shown.latent_action
        drawing.text(562.5 + 33 * number, y + 64.5, str(number), 16, "paper" if bold else "muted", bold=bold)
    drawing.text(678, y + 102, f"here number {shown.latent_action}: nobody told it the key", 15)

    y += 216
    draw_tokens(drawing, 24, y, shown.tokens[0], 16)
    drawing.text(88, y + side + 15, "past tokens (T, 64)", 15)
    drawing.text(168, y + 64, "+", 22, "muted")
    drawing.rect(186, y + 47, 34, 34, "violet", "violet")
    drawing.text(203, y + 64, str(shown.latent_action), 17, "paper", bold=True)
    drawing.text(203, y + 106, "latent\naction", 15)
    drawing.box(272, y + 32, 140, 64, "dynamics\nmodel", fill="warm_pale", line="warm")
    changed = shown.predicted != shown.tokens[0]
    draw_tokens(drawing, 460, y, shown.predicted, 16, changed)
    drawing.text(524, y + side + 15, "next tokens (64,), changes framed", 15)
    frame(690, y, shown.drawn, shown.balls[1], "predicted frame")
    for x1, x2 in ((226, 268), (416, 456)):
        drawing.arrow(x1, y + 64, x2, y + 64, color="warm")
    drawing.arrow(592, y + 64, 686, y + 64, "1  decoder", 15, "accent")
    drawing.save(path)
