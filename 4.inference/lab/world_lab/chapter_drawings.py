"""The drawings of chapter 4: how a key becomes a frame, and what is where on the play page."""

from pathlib import Path

import numpy as np

from tokenizer_lab.drawing import Drawing, few_colors
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball, game_facts
from world_model.world import WorldModel

BUTTONS = ("Pause", "One step", "Restart", "Next start", "Resync")
CARDS = {
    "Start": "where the dream starts",
    "Sampling": "how tokens are chosen",
    "Inspector": "what the model is unsure of",
    "Film": "everything since the start",
    "For agents": "the same world in three lines",
}
"""what the page writes on its buttons and cards (a test compares them)"""


def find_ball(frame: np.ndarray, env_id: str | None) -> tuple[float, float] | None:
    """(x, y) of the ball, if the game has one and it is seen. frame: uint8 (H, W, 3)."""
    known = game_facts(env_id or "")
    if not env_id or known is None or known.ball is None:
        return None
    x, y = detect_ball(frame[None], env_id)[0]
    return (float(x), float(y)) if np.isfinite([x, y]).all() else None


def step_under(world: WorldModel, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A step of a start clip under `key`: the frames before it, then the next one, dreamed and real.

    It is the latest such step, among those with a ball if there are any.
    Raises InputError if the key was pressed in none of the clips.
    """
    steps = np.argwhere(world.start_actions[:, 1:] == world.action_map[key]).tolist()
    if not steps:
        raise InputError(f"--key {key}: it was pressed in no start clip of this world")
    seen = [find_ball(world.start_frames[clip, before + 1], world.metadata.env_id) is not None for clip, before in steps]
    _, before, clip = max((ball, before, clip) for ball, (clip, before) in zip(seen, steps, strict=True))
    frames, actions = world.start_frames[clip], world.start_actions[clip]
    world.reset(frames[: before + 1], actions[: before + 1])
    return frames[: before + 1], few_colors(world.step(world.action_map[key]), 64), frames[before + 1]


def draw_frame(drawing: Drawing, place: tuple[float, float], frame: np.ndarray, side: float, env_id: str | None) -> None:
    """A frame, `side` wide, with a ring around its ball."""
    scale = side / frame.shape[1]
    drawing.frame(*place, frame, scale)
    ball = find_ball(frame, env_id)
    if ball:
        drawing.ring(place[0] + scale * (ball[0] + 0.5), place[1] + scale * (ball[1] + 0.5), 10)


def save_architecture(path: Path, world: WorldModel, key: str) -> None:
    """Reset and step as boxes, with shapes on the arrows, and the emulator that judges the result."""
    before, dream, real = step_under(world, key)
    env_id = world.metadata.env_id
    drawing = Drawing(700, 590, "A key becomes a latent action, the dynamics model predicts tokens under it, and the decoder "
                      "draws them. The tokens go back to the dynamics model")  # fmt: skip
    drawing.text(12, 16, "reset", 17, "accent", "start", bold=True)
    drawing.badge(72, 16, "1")
    for number in range(3):
        frame = before[min(number, len(before) - 1)]
        drawing.frame(12 + 10 * number, 36 + 5 * number, frame, 64 / frame.shape[1])
    drawing.text(12, 124, "(T, H, W, 3)", 15, "muted", "start", mono=True)
    drawing.text(12, 144, "or of a film", 15, "muted", "start")
    drawing.badge(112, 143, "6")
    for y, text, shape in ((26, "tokenizer: encode", "tokens (1, T, N)"), (84, "latent action model", "latent actions (1, T)")):
        drawing.arrow(102, 73, 164, y + 22)
        drawing.box(166, y, 186, 44, text, line="accent", size=16)
        drawing.line([(352, y + 22), (580, y + 22)])
        drawing.text(466, y + 8, shape, 15, "muted", mono=True)
    drawing.line([(580, 48), (580, 178)], arrow=True)
    drawing.text(592, 148, "prompt", 15, "muted", "start")

    drawing.text(12, 168, "step", 17, "warm", "start", bold=True)
    drawing.badge(64, 168, "2", "warm")
    drawing.text(92, 168, "you", 15, anchor="start")
    drawing.badge(132, 168, "7", "warm")
    drawing.text(150, 168, "or an agent", 15, anchor="start")
    drawing.badge(244, 168, "4", "warm")
    drawing.box(12, 196, 78, 48, key, line="ink")
    drawing.arrow(90, 220, 126, 220)
    drawing.box(128, 196, 120, 48, "action map", line="warm", size=16)
    drawing.badge(246, 198, "3", "warm")
    drawing.arrow(248, 220, 404, 220, "latent action")
    drawing.text(326, 234, "(1,)", 15, "muted", mono=True)
    drawing.box(406, 180, 282, 76, "dynamics model", f"KV cache: the last {world.context_frames - 1} frames", line="warm")

    drawing.arrow(470, 256, 470, 342)
    drawing.text(458, 276, "tokens (1, N)", 15, "muted", "end", mono=True)
    drawing.line([(470, 296), (640, 296), (640, 258)], "good", 3, arrow=True)
    drawing.text(556, 314, "back as tokens", 15, "good", bold=True)
    drawing.box(406, 344, 282, 64, "tokenizer: decode", "cache of its last frames", line="accent")
    drawing.arrow(404, 376, 314, 376)
    drawing.text(358, 362, "(H, W, 3)", 14, "muted", mono=True)
    draw_frame(drawing, (204, 324), dream, 104, env_id)
    drawing.text(256, 310, "the dream", 15, bold=True)

    drawing.line([(51, 244), (51, 338)], "muted", 2, "5 5", arrow=True)
    drawing.text(62, 290, "the same key", 15, "muted", "start")
    drawing.box(12, 340, 150, 64, "emulator", line="violet", fill="violet_pale")
    drawing.arrow(87, 404, 87, 440)
    draw_frame(drawing, (35, 442), real, 104, env_id)
    drawing.line([(139, 512), (404, 512)], arrow=True)
    drawing.line([(256, 428), (256, 472), (404, 472)], arrow=True)
    drawing.text(150, 530, "the real game", 15, anchor="start", bold=True)
    drawing.box(406, 448, 282, 88, "scores", "obedience, player error, ball", line="violet", fill="violet_pale")
    drawing.badge(684, 450, "5", "violet")
    words = "The emulator only judges. In a step, nothing flows from it into the dream. Numbers mark the solutions."
    drawing.text(12, 574, words, 14, "muted", "start")
    drawing.save(path)


def save_play_page(path: Path, world: WorldModel, key: str) -> None:
    """A plan of the play page, with a letter on each of its parts."""
    _, dream, real = step_under(world, key)
    drawing = Drawing(700, 592, "A plan of the play page: two games on the left, with controls and charts below, actions, start "
                      "and sampling on the right, inspector, film and agents at the end")  # fmt: skip
    drawing.rect(2, 2, 696, 588, "box", "line", radius=10)
    drawing.text(18, 26, "Play the dream", 18, anchor="start", bold=True)
    for x, frame, name in ((18, dream, "dream"), (216, real, "real game")):
        draw_frame(drawing, (x, 46), frame, 184, world.metadata.env_id)
        drawing.text(x, 246, name, 15, anchor="start", bold=True)
    drawing.badge(400, 46, "A")

    def card(letter: str, x: float, y: float, width: float, height: float, title: str, note: str = "") -> None:
        drawing.rect(x, y, width, height, "paper", "line", 1.5, 8)
        drawing.text(x + 12, y + 20, title, 16, anchor="start", bold=True)
        drawing.text(x + width - 34, y + 20, note, 14, "muted", "end")
        drawing.badge(x + width - 16, y + 20, letter)

    x = 18.0
    for name in BUTTONS:
        width = 17 + 7.6 * len(name)
        drawing.box(x, 264, width, 32, name, size=14)
        x += width + 4
    drawing.text(18, 316, "Speed", 15, anchor="start")
    drawing.box(68, 302, 96, 28, "real time", size=14)
    drawing.badge(384, 316, "B")
    card("C", 18, 342, 382, 40, "moving PSNR", "player in dream and game")
    card("D", 18, 390, 382, 40, "frames per second", "ms of each part")
    rows = (world.num_actions + 1) // 2
    card("E", 414, 46, 270, 46 + 36 * rows, "Actions", "hold one or its digit")
    for number, name in enumerate(world.action_names):
        keys = [key for key, action in world.action_map.items() if action == number]
        label = f"{number} {', '.join(keys) or name}"
        drawing.box(424 + 128 * (number % 2), 84 + 36 * (number // 2), 122, 31, fit(label), size=14)
    y = 100 + 36 * rows
    places = ((414, y, 270), (414, y + 48, 270), (18, 438, 382), (18, 486, 382), (18, 534, 382))
    for letter, (x, y, width), (title, note) in zip("FGHIJ", places, CARDS.items(), strict=True):
        card(letter, x, y, width, 40, title, note)
    drawing.text(414, 554, "letters: the rows of the table", 14, "muted", "start")
    drawing.save(path)


def fit(label: str, longest: int = 14) -> str:
    """A label that is not longer than a button."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def save_drawings(folder: Path, world: WorldModel, key: str) -> tuple[str, str]:
    """Both drawings, with what a step under this key leads to; returns their names."""
    save_architecture(folder / "architecture", world, key)
    save_play_page(folder / "play_page", world, key)
    return "architecture", "play_page"
