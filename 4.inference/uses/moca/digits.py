"""Clips of one digit that moves over a plain background, their captions and their optical flow; reading and editing a frame.

The digits are those of a seven-segment display, so nothing is downloaded, and they stand at any place between the pixels.
"""

from dataclasses import dataclass, replace

import numpy as np

SIZE, NUM_FRAMES = 32, 8
COLORS = {"red": (225, 50, 45), "green": (60, 200, 80), "blue": (70, 120, 255), "yellow": (250, 220, 60),
          "pink": (240, 90, 220), "white": (240, 240, 240)}  # fmt: skip
BACKGROUNDS = {"black": (15, 15, 20), "gray": (110, 110, 115), "brown": (90, 55, 30), "purple": (60, 25, 100)}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOCABULARY = ("", *COLORS, *DIGITS, "moves", "up", "down", "left", "right", "on", *BACKGROUNDS)
MAX_WORDS = 7
"""words of the longest caption, "red seven moves up left on gray"; shorter ones end with empty words"""
SPEEDS = (0.5, 2.4)
"""least and largest speed in pixels per frame"""
WIDTH, HEIGHT = 8.0, 13.0
TOP, MIDDLE, BOTTOM = (0, 0, 8, 2.5), (0, 5.25, 8, 7.75), (0, 10.5, 8, 13)
SEGMENTS = np.array([TOP, (5.5, 0, 8, 7.75), (5.5, 5.25, 8, 13), BOTTOM, (0, 5.25, 2.5, 13), (0, 0, 2.5, 7.75), MIDDLE])
"""left, top, right, bottom of the segments A to G: the top one, then clockwise, and the middle one last"""
SHINE = "1111110 0110000 1101101 1111001 0110011 1011011 1011111 1110000 1111111 1111011"
LIT = np.array([[int(bit) for bit in bits] for bits in SHINE.split()])
"""which segments of each digit shine"""


@dataclass(frozen=True)
class Scenes:
    """What happens in B clips, one entry per clip in every array."""

    digit: np.ndarray
    """(B,) 0 to 9"""
    color: np.ndarray
    """(B,) place in COLORS"""
    background: np.ndarray
    """(B,) place in BACKGROUNDS"""
    start: np.ndarray
    """(B, 2) x and y of the digit's top left corner in the first frame, in pixels"""
    velocity: np.ndarray
    """(B, 2) pixels per frame"""
    is_camera: np.ndarray
    """(B,) whether the camera turns, so that the wall moves with the digit. In the picture one can't tell; in the flow one can"""

    def __len__(self) -> int:
        return len(self.digit)

    def __getitem__(self, chosen: np.ndarray | slice) -> "Scenes":
        return Scenes(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def corners(self) -> np.ndarray:
        """(B, T, 2) the top left corner in every frame."""
        return self.start[:, None] + self.velocity[:, None] * np.arange(NUM_FRAMES)[:, None]


def draw_scenes(count: int, rng: np.random.Generator) -> Scenes:
    """Random scenes in which the digit never touches the edge."""
    speed, angle = rng.uniform(*SPEEDS, count), rng.uniform(0, 2 * np.pi, count)
    velocity = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (B, 2)
    way = velocity * (NUM_FRAMES - 1)
    lowest = np.maximum(0, -way)
    room = np.array([SIZE - WIDTH, SIZE - HEIGHT]) - np.abs(way)
    return Scenes(
        rng.integers(10, size=count), rng.integers(len(COLORS), size=count), rng.integers(len(BACKGROUNDS), size=count),
        lowest + rng.random((count, 2)) * room, velocity, rng.random(count) < 0.5,
    )  # fmt: skip


def has_room(scenes: Scenes) -> np.ndarray:
    """Whether the digit stays inside in all frames, (B,) bool."""
    corners, last = scenes.corners, [SIZE - WIDTH, SIZE - HEIGHT]
    return np.all((corners >= 0) & (corners <= last), axis=(1, 2))


# ---- pictures -----------------------------------------------------------------------------------------------------------


def strokes(digit: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """How much of each pixel a digit covers: digit (...), corner (..., 2) -> (..., H, W) in [0, 1]."""
    pixels = np.arange(SIZE)
    low, high = SEGMENTS[:, :2] + corner[..., None, :], SEGMENTS[:, 2:] + corner[..., None, :]  # (..., 7, 2)
    overlap = np.minimum(high[..., None], pixels + 1) - np.maximum(low[..., None], pixels)  # (..., 7, 2, SIZE)
    covered = overlap.clip(0, 1) * LIT[digit][..., None, None]
    return (covered[..., 1, :, None] * covered[..., 0, None, :]).max(axis=-3)


def paint(digit: np.ndarray, color: np.ndarray, background: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Frames (..., H, W, 3) uint8 of a digit. All arguments have the shape (...), corner has (..., 2)."""
    cover = strokes(digit, corner)[..., None]
    ink, paper = np.array([*COLORS.values()])[color], np.array([*BACKGROUNDS.values()])[background]
    return np.round(cover * ink[..., None, None, :] + (1 - cover) * paper[..., None, None, :]).astype(np.uint8)


def film(scenes: Scenes) -> np.ndarray:
    """The clips (B, T, H, W, 3) uint8."""
    shape = len(scenes), NUM_FRAMES
    digit, color, background = (np.broadcast_to(of[:, None], shape) for of in (scenes.digit, scenes.color, scenes.background))
    return paint(digit, color, background, scenes.corners)


def flow(scenes: Scenes) -> np.ndarray:
    """Displacement in pixels from frame t - 1 to frame t, at the pixels of frame t - 1: (B, T, 2, H, W).

    Eight frames have seven flows, so the first is zero, in training as in editing.
    """
    digit = np.broadcast_to(scenes.digit[:, None], (len(scenes), NUM_FRAMES))
    moves = (strokes(digit, scenes.corners) > 0.5) | scenes.is_camera[:, None, None, None]  # (B, T, H, W)
    moves = np.concatenate([np.zeros_like(moves[:, :1]), moves[:, :-1]], axis=1)
    return moves[:, :, None] * scenes.velocity[:, None, :, None, None]


def captions(scenes: Scenes, tells_motion: np.ndarray) -> np.ndarray:
    """The captions as places in VOCABULARY, (B, MAX_WORDS). tells_motion: (B,) whether the direction is named."""
    words = np.zeros((len(scenes), MAX_WORDS), np.int64)
    for row, scene in enumerate(zip(scenes.color, scenes.digit, scenes.background, scenes.velocity, tells_motion, strict=True)):
        color, digit, background, velocity, tells = scene
        motion = ["moves", *direction(velocity)] if tells else []
        sentence = [[*COLORS][color], DIGITS[digit], *motion, "on", [*BACKGROUNDS][background]]
        words[row, : len(sentence)] = [VOCABULARY.index(word) for word in sentence]
    return words


def direction(velocity: np.ndarray) -> list[str]:
    """The words for a velocity (2,), the nearest of eight directions: ["left"], or ["up", "left"]. y grows downwards."""
    x, y = velocity / max(np.hypot(*velocity), 1e-9)
    words = (("up" if y < 0 else "down", y), ("left" if x < 0 else "right", x))
    return [word for word, part in words if abs(part) > np.sin(np.pi / 8)]


# ---- reading a frame, and the first-frame editor --------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What a frame shows, one entry per frame; everything is a guess where `found` is False."""

    found: np.ndarray
    digit: np.ndarray
    color: np.ndarray
    background: np.ndarray
    center: np.ndarray
    """(F, 2) x and y of the middle of the digit's ink"""
    corner: np.ndarray
    """(F, 2) where its top left corner would be"""


def read(frames: np.ndarray) -> Reading:
    """Look at frames (F, H, W, 3) uint8 as a detector does, without knowing the scene."""
    pixels = frames.reshape(len(frames), -1, 3).astype(np.float64)
    paper = np.median(pixels, axis=1)  # (F, 3): a digit covers a small part of the frame
    distance = np.linalg.norm(pixels - paper[:, None], axis=-1)  # (F, H*W)
    inkiest = distance.argsort(axis=1)[:, -10:]
    ink = np.take_along_axis(pixels, inkiest[..., None], axis=1).mean(axis=1)  # (F, 3)
    strength = np.take_along_axis(distance, inkiest, axis=1).mean(axis=1)
    cover = (distance / np.maximum(strength, 1)[:, None]).clip(0, 1)
    cover = np.where(cover > 0.2, cover, 0.0)  # (F, H*W), without what a decoder leaves in the background
    center = middle(cover.reshape(-1, SIZE, SIZE))
    offsets = middle(strokes(np.arange(10), np.full((10, 2), 8.0))) - 8.0  # (10, 2): from a digit's corner to its middle
    corners = center[:, None] - offsets  # (F, 10, 2)
    templates = strokes(np.broadcast_to(np.arange(10), corners.shape[:2]), corners).reshape(*corners.shape[:2], -1)
    digit = np.square(templates - cover[:, None]).sum(axis=-1).argmin(axis=1)
    return Reading(
        strength > 40, digit, nearest(ink, COLORS), nearest(paper, BACKGROUNDS), center, corners[np.arange(len(digit)), digit]
    )


def middle(cover: np.ndarray) -> np.ndarray:
    """Center of mass of (..., H, W): x and y in pixels, (..., 2)."""
    places, mass = np.arange(SIZE) + 0.5, np.maximum(cover.sum(axis=(-2, -1)), 1e-9)
    x, y = ((cover.sum(axis=axis) * places).sum(axis=-1) / mass for axis in (-2, -1))
    return np.stack([x, y], axis=-1)


def mean_of(values: np.ndarray) -> float:
    """NaN where there are none."""
    return float(values.mean()) if len(values) else np.nan


def nearest(colors: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> np.ndarray:
    """The place in a palette of the nearest color, (F, 3) -> (F,)."""
    return np.linalg.norm(colors[:, None] - np.array([*palette.values()]), axis=-1).argmin(axis=1)


def edit_frames(frames: np.ndarray, target: Scenes) -> np.ndarray:
    """The first-frame editor: (F, H, W, 3) uint8 with the digit, color and background of `target`, where the old digit stood.

    It knows of the frame what `read` sees, and nothing of the motion. Any other image editor could take its place.
    """
    old = read(frames)
    return paint(target.digit, target.color, target.background, old.corner)


def changed(scenes: Scenes, kind: str, rng: np.random.Generator) -> Scenes:
    """The scenes that an edit asks for. kind: "color", "digit", "background", "several" (all three), or "motion" (turn round)."""
    counts = {"color": len(COLORS), "digit": 10, "background": len(BACKGROUNDS)}
    if kind == "motion":
        return replace(scenes, velocity=-scenes.velocity)
    names = list(counts) if kind == "several" else [kind]
    others = {name: (getattr(scenes, name) + rng.integers(1, counts[name], len(scenes))) % counts[name] for name in names}
    return replace(scenes, **others)
