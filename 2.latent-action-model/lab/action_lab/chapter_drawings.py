"""The drawings of chapter 2: the model and its shapes, the note game, and why all actions become one."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latent_action_model.models.latent_action_model import LatentActionModel
from tokenizer_lab.drawing import RING, Drawing, few_colors
from video_tokenizer.data.clips import to_frames
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts


def largest_move(frames: np.ndarray, env_id: str) -> tuple[int, int]:
    """(clip, t) of the step t -> t + 1, t at least 1, in which the player moves most while the ball can be seen.

    frames: uint8 (B, T, H, W, 3). (0, 1) if nothing is known about the game.
    """
    facts = game_facts(env_id)
    if facts is None or facts.player is None:
        return 0, 1
    flat = frames.reshape(-1, *frames.shape[2:])
    moves = np.abs(np.diff(detect_player(flat, env_id).reshape(frames.shape[:2])[:, 1:], axis=1))  # (B, T - 2)
    if facts.ball is not None:
        seen = np.isfinite(detect_ball(flat, env_id)[:, 0]).reshape(frames.shape[:2])
        moves = np.where(seen[:, 1:-1] & seen[:, 2:], moves, 0)
    clip, step = np.unravel_index(np.nan_to_num(moves).argmax(), moves.shape)
    return int(clip), int(step) + 1


@torch.no_grad()
def drawn_next(model: LatentActionModel, video: Tensor, t: int) -> tuple[int, np.ndarray]:
    """The latent action of t -> t + 1, and frame t + 1 as the decoder draws it: uint8 (H, W, 3). video: (1, T, C, H, W)."""
    output = model(video)
    return int(output.indices[0, t]), few_colors(to_frames(output.prediction)[0, t])


def save_architecture(path: Path, model: LatentActionModel, video: Tensor, t: int) -> None:
    """Encoder, quantizer and decoder as boxes; the shapes are those of the defaults. video: (1, T, C, H, W) in [0, 1]."""
    drawing = Drawing(700, 704, "The latent action model: the encoder compresses two frames into one of eight latent actions, "
                      "with which the decoder draws the second frame from the past")  # fmt: skip
    frames, (_, drawn) = to_frames(video)[0], drawn_next(model, video, t)
    left, right, width = 12, 418, 270
    drawing.text(left + width / 2, 18, "Encoder: sees frame t+1", 17, "accent", bold=True)
    drawing.text(right + width / 2, 18, "Decoder: sees only the past", 17, "warm", bold=True)
    for x, number in ((left + 66, t), (left + 140, t + 1), (right + 66, t - 1), (right + 140, t)):
        drawing.frame(x, 36, frames[number], 1)
    for x, name in ((left + 60, "t"), (left + 210, "t+1"), (right + 60, "t-1"), (right + 210, "t")):
        drawing.text(x, 68, name, 15, "muted", "end" if x < left + 100 or right < x < right + 100 else "start")

    def tower(x: float, boxes: tuple[tuple[str, str, str, str], ...], line: str) -> None:
        y = 100
        for text, note, badge, shape in boxes:
            drawing.arrow(x + 60, y + 2, x + 60, y + 26)
            drawing.box(x, y + 28, width, 56, text, note, line=line, size=16)
            if badge:
                drawing.badge(x + width - 4, y + 28, badge, line)
            y += 106
            drawing.line([(x + 60, y - 22), (x + 60, y + 4)])
            drawing.text(x + 72, y - 1, shape, 15, "muted", "start", mono=True)

    tower(left, (
        ("frame t+1 and its change", "one place per 4×4 pixels", "2", "(M, 96, 16, 16)"),
        ("convolution, residual block", "3×3", "", "(M, 64, 16, 16)"),
        ("weighted mean of 8×8 cells", "made with stride 2", "2", "(M, 64)"),
        ("two linear maps", "64 → 64 → 32", "", "(B, T-1, 32)"),
    ), "accent")  # fmt: skip
    tower(right, (
        ("frame t and its change", "one place per 4×4 pixels", "", "(M, 96, 16, 16)"),
        ("3×3 convolution", "", "", "(M, 64, 16, 16)"),
        ("3 residual blocks", "scaled and shifted by the action", "5", "(M, 64, 16, 16)"),
        ("convolution, pixel shuffle", "draws the change", "5", "(B, T-1, 3, 64, 64)"),
    ), "warm")  # fmt: skip
    top = 524
    drawing.arrow(left + 60, top + 4, left + 60, top + 24)
    note = "standardized; at first only noisy"
    drawing.box(left, top + 26, width, 62, "nearest of 8 codebook vectors", note, "good_pale", "good", 16)
    drawing.badge(left + width - 14, top + 26, "3, 4", "good")
    drawing.arrow(left + 60, top + 88, left + 60, top + 122)
    drawing.text(left + 72, top + 103, "(B, T-1)", 15, "muted", "start", mono=True)
    drawing.text(left + 10, top + 140, "latent action, 0 to 7", 16, anchor="start", bold=True)
    drawing.line([(left + width, top + 57), (304, top + 57), (304, 368), (right - 2, 368)], "good", 3, arrow=True)
    drawing.text(312, 418, "its vector", 16, "good", "start", bold=True)
    drawing.text(312, 440, "(B, T-1, 32)", 14, "good", "start", mono=True)
    drawing.arrow(right + 60, top + 4, right + 60, top + 24)
    drawing.frame(right + 28, top + 28, drawn, 1)
    drawing.text(right + 102, top + 61, "frame t + change =\nframe t+1, as drawn", 15, anchor="start")
    drawing.text(right, top + 112, "loss: 100 × squared error", 16, anchor="start", bold=True)
    drawing.text(right, top + 133, "against the real frame t+1", 15, "muted", "start")
    drawing.badge(right + width - 4, top + 112, "1", "warm")
    drawing.text(350, top + 168, "M = B·(T-1) steps. Numbered marks: the solutions.", 14, "muted")
    drawing.save(path)


def eye(drawing: Drawing, x: float, y: float, color: str) -> None:
    drawing.add(
        "path",
        d=f"M{x - 22} {y}Q{x} {y - 24} {x + 22} {y}Q{x} {y + 24} {x - 22} {y}Z",
        fill="paper",
        stroke=color,
        stroke_width=2.5,
    )
    drawing.add("circle", cx=x, cy=y, r=8, fill=color)


def save_note_game(path: Path, model: LatentActionModel, video: Tensor, t: int, env_id: str) -> None:
    """The guessing game: one eye sees both frames and passes a note of three bits, the other must draw the second frame."""
    drawing = Drawing(700, 460, "The note game: one eye sees both frames and may pass a note of three bits; the other sees only "
                      "the past and must draw the next frame")  # fmt: skip
    frames, (action, drawn) = to_frames(video)[0], drawn_next(model, video, t)

    def shown(x: float, y: float, frame: np.ndarray, label: str, ball_is_sharp: bool = True) -> None:
        drawing.frame(x, y, frame, 1.9)
        if label:
            drawing.text(x + 61, y + 135, label, 15, "muted")
        facts = game_facts(env_id)
        if facts is not None and facts.ball is not None and facts.player_axis == "x":
            ball, player = detect_ball(frame[None], env_id)[0], detect_player(frame[None], env_id)[0]
            if ball_is_sharp and np.isfinite(ball).all():
                drawing.ring(x + 1.9 * (ball[0] + 0.5), y + 1.9 * (ball[1] + 0.5), 8, width=1.5)
            if np.isfinite(player):
                drawing.rect(x + 1.9 * (player - 5), y + 108, 1.9 * 11, 13, line=RING, radius=6)

    drawing.rect(8, 8, 272, 222, "pale", "accent", radius=10)
    drawing.rect(420, 8, 272, 444, "warm_pale", "warm", radius=10)
    for x, color, name in ((40, "accent", "The encoder\nsees both frames"), (452, "warm", "The decoder\nsees only the past")):
        eye(drawing, x, 36, color)
        drawing.text(x + 34, 36, name, 16, color, "start", bold=True)
    shown(18, 68, frames[t], "frame t")
    shown(148, 68, frames[t + 1], "frame t+1")
    shown(430, 68, frames[t - 1], "frame t-1")
    shown(560, 68, frames[t], "frame t")

    drawing.text(350, 62, "a note", 16, "good", bold=True)
    drawing.line([(282, 110), (418, 110)], "good", 3, arrow=True)
    drawing.rect(304, 80, 88, 60, "paper", "good", 2.5, 4)
    drawing.line([(304, 82), (348, 108), (392, 82)], "good", 2.5)
    drawing.text(348, 124, str(action), 18, "good", bold=True)
    drawing.text(350, 176, "1 of 8 latent\nactions, so\nthree bits", 16, "good")

    drawing.arrow(556, 216, 556, 268, "draws", 16, "warm")
    shown(495, 274, drawn, "", ball_is_sharp=False)  # this decoder smears it over several pixels
    drawing.text(556, 420, "frame t+1, as drawn\nby the decoder", 15, "muted")
    shown(83, 274, frames[t + 1], "")
    drawing.text(144, 420, "frame t+1,\nas it really was", 15, "muted")
    drawing.line([(212, 335), (300, 335)], "muted", 2)
    drawing.line([(488, 335), (400, 335)], "muted", 2)
    drawing.text(350, 335, "how far\napart?", 16, bold=True)
    drawing.text(350, 412, "The error trains\nboth. Nobody\ntells them\nthe key.", 15, "muted")
    drawing.save(path)


def save_collapse_circle(path: Path, noisy_steps: int) -> None:
    """How latent actions collapse, as a circle of cause and effect, and where each of the three remedies cuts it."""
    drawing = Drawing(700, 500, "The collapse as a circle: notes that mean nothing are ignored, what is ignored gets "
                      "no gradient, and without one all notes become alike; three remedies cut the circle")  # fmt: skip
    width, height = 240, 76
    boxes = (
        (230, 12, "Notes mean nothing", "at first they are random"),
        (452, 194, "Decoder ignores them", "and draws the average future"),
        (230, 376, "Encoder learns nothing", "no gradient says what to write"),
        (8, 194, "All notes become alike", "whatever the transition is"),
    )
    for x, y, text, note in boxes:
        drawing.box(x, y, width, height, text, note, "bad_pale", "bad", 16)
    drawing.curve((472, 50), (572, 60), (572, 190), "bad", 3)
    drawing.curve((572, 272), (572, 405), (474, 414), "bad", 3)
    drawing.curve((228, 414), (128, 405), (128, 274), "bad", 3)
    drawing.curve((128, 192), (128, 60), (226, 50), "bad", 3)
    drawing.text(350, 218, "collapse", 24, "bad", bold=True)
    drawing.text(350, 256, "the loss falls a little\nand looks like learning", 15, "muted")
    remedies = (
        (545, 366, 1, 1, 580, "Noise first", f"for {noisy_steps} steps\nnothing is\nrounded: exact\ngradients"),
        (155, 366, -1, 1, 10, "Standardize", "latents cannot\nshrink to\na point"),
        (155, 98, -1, -1, 10, "Restart", "an idle vector\nmoves to where\nlatents are"),
    )
    for x, y, right, down, left, name, text in remedies:
        drawing.line([(x - 14 * right, y - 14 * down), (x + 14 * right, y + 14 * down)], "good", 5)
        top = 380 if down > 0 else 24
        drawing.text(left, top, name, 17, "good", "start", bold=True)
        drawing.text(left, top + 14 + 9.4 * (text.count("\n") + 1), text, 15, "muted", "start")
    drawing.save(path)


def save_drawings(folder: Path, model: LatentActionModel, video: Tensor, env_id: str) -> list[str]:
    """All drawings of this chapter; returns their names. video: (B, T, C, H, W) in [0, 1], real clips of the world's game."""
    clip, t = largest_move(to_frames(video), env_id)
    one = video[clip : clip + 1]
    save_architecture(folder / "architecture", model, one, t)
    save_note_game(folder / "note_game", model, one, t, env_id)
    save_collapse_circle(folder / "collapse_circle", model.config.noisy_steps)
    return ["architecture", "note_game", "collapse_circle"]
