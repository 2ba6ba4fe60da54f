"""Finds the ball and the player in known Atari games, in RAM and in pixels.

RAM positions serve evaluation and the scripted player only, never training. The detectors read the same positions from pixels, so
that they also work on generated frames, which have no RAM. All positions are in pixels of the recorded frame, whatever its size;
0.0 is the center of the first pixel.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from video_tokenizer.data.video_files import LINEAR_LIGHT
from video_tokenizer.errors import InputError

SCREEN_SIZE = (210, 160)  # of the Atari, rows and columns
BALL_THRESHOLD = 0.08  # minimum contrast of a detected ball, as a share of a pixel that it fills
Box = tuple[int, int, int, int]  # top, bottom, left, right in screen pixels; bottom and right are outside


@dataclass(frozen=True)
class Sprite:
    """A moving object on the Atari's screen; all lengths in screen pixels."""

    color: tuple[int, int, int]
    background: tuple[int, int, int]
    boxes: tuple[Box, ...]
    """where to search for it; elsewhere other objects have its color"""
    ram: tuple[int | None, int | None]
    """RAM addresses of x and y; None for an axis on which it does not move"""
    offset: tuple[float, float] = (0.0, 0.0)
    """center of the sprite = scale * RAM + offset, for x and y"""
    scale: tuple[float, float] = (1.0, 1.0)
    lengths: tuple[float, ...] = ()
    """possible lengths along the axis it moves on; empty for a sprite that changes shape, which is located by its centroid"""
    fill: float = 1.0
    """share of its rectangle that the sprite covers"""
    contrast_with: tuple[float, float, float] | None = None
    """RGB direction that separates it from the background; None: from background to color"""
    ignored: tuple[int, int] | None = None
    """rows of its box in which a static object has its color"""
    among_wider_things: bool = False
    """whether other objects look like it but are wider across its axis; what is beside its box, too, is then not counted"""


@dataclass(frozen=True)
class GameFacts:
    """What is known about a game. Unknown parts are None."""

    picture_delay: int
    """emulator frames into the next step at which a step's picture is taken, from `calibrate_picture_delay`"""
    flickers: bool = False
    """whether the game draws its sprites in turn, so that two emulator frames must be merged; from the same measurement"""
    player: Sprite | None = None
    player_axis: str = "x"
    """the axis on which the player moves: "x" or "y" """
    player_keys: tuple[str, str] = ("LEFT", "RIGHT")
    """the actions that decrease and increase the player's position"""
    player_step: float = 0.0
    """how far one step of such an action moves the player, in recorded pixels at 64x64"""
    player_glide: float = 0.0
    """how far it keeps gliding during the next step, in the same pixels"""
    ball: Sprite | None = None
    ball_rows_in_ram: tuple[int, int] = (1, 256)
    """the ball is visible while its y byte is in this range"""


GAMES = {
    "ALE/Breakout-v5": GameFacts(
        picture_delay=1,
        player=Sprite(
            (200, 72, 72), (0, 0, 0), ((189, 193, 8, 152),), (72, None), (-39.5, 190.5), lengths=(16.0, 20.0, 8.0, 12.0)
        ),
        ball=Sprite((200, 72, 72), (0, 0, 0), ((93, 189, 8, 152), (32, 57, 8, 152)), (99, 101), (-48.5, 10.5)),
        player_step=7.2,
        player_glide=2.0,
        ball_rows_in_ram=(1, 179),  # further down it has left the field; 0 before the serve
    ),
    "ALE/Pong-v5": GameFacts(
        picture_delay=2,  # one more than measured: Pong glides so long that at 1 every movement blends two actions
        player=Sprite((92, 186, 92), (144, 72, 17), ((34, 194, 140, 144),), (None, 51), (141.5, -6.0), lengths=(16.0, 20.0)),
        player_axis="y",
        player_keys=("RIGHT", "LEFT"),  # the Atari's RIGHT moves Pong's paddle up
        player_step=4.3,
        player_glide=1.5,
        ball=Sprite(
            (236, 236, 236),
            (144, 72, 17),
            ((34, 194, 20, 140), (34, 194, 0, 16), (34, 194, 144, 160)),  # between the paddles and behind them
            (49, 54),
            (-48.5, -12.5),
        ),
        ball_rows_in_ram=(46, 208),
    ),
    "ALE/Boxing-v5": GameFacts(
        picture_delay=1,
        player=Sprite((214, 214, 214), (110, 156, 66), ((36, 178, 30, 132),), (32, 34), (11.4, 61.0), contrast_with=(0, 0, 1)),
    ),
    "ALE/Freeway-v5": GameFacts(
        picture_delay=0,
        player=Sprite(
            (252, 252, 84),
            (142, 142, 142),
            ((14, 196, 43, 51),),
            (None, 14),
            (46.5, 196.8),
            scale=(1.0, -1.0),
            lengths=(8.0,),
            fill=0.33,
            contrast_with=(1, 1, 0),  # brighter than any car in red and green
            ignored=(101, 107),  # the yellow line in the middle of the road
            among_wider_things=True,  # cars
        ),
        player_axis="y",
        player_keys=("UP", "DOWN"),
    ),
    "ALE/MsPacman-v5": GameFacts(picture_delay=1, flickers=True),  # the ghosts are drawn in turn
}


def game_facts(env_id: str) -> GameFacts | None:
    """What is known about a game; None for a game that is not in GAMES."""
    return GAMES.get(env_id.removeprefix("ale_py:"))


def ball_position(ram: np.ndarray, env_id: str, frame_size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """The ball's position according to RAM. ram: uint8 (..., 128). Returns float (..., 2): x, y in pixels; NaN if absent."""
    facts = _facts_with(env_id, "ball")
    assert facts.ball is not None and facts.ball.ram[1] is not None
    row_byte = ram[..., facts.ball.ram[1]]
    absent = (row_byte < facts.ball_rows_in_ram[0]) | (row_byte >= facts.ball_rows_in_ram[1])
    return np.where(absent[..., None], np.nan, _sprite_position(ram, facts.ball, frame_size))


def player_position(ram: np.ndarray, env_id: str, frame_size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """The player's position according to RAM. ram: uint8 (..., 128). Returns float (...): pixels along `player_axis`."""
    facts = _facts_with(env_id, "player")
    assert facts.player is not None
    return _sprite_position(ram, facts.player, frame_size)[..., 0 if facts.player_axis == "x" else 1]


def detect_ball(frames: np.ndarray, env_id: str) -> np.ndarray:
    """Find the ball in pixels. frames: uint8 (T, H, W, 3). Returns float (T, 2): x, y in pixels; NaN where none is found.

    The pixel of strongest contrast marks it, and the centroid of the 5x5 pixels around gives its position: an area-resized ball
    covers up to nine pixels, possibly each with a quarter of its contrast or less.
    """
    facts = _facts_with(env_id, "ball")
    assert facts.ball is not None
    contrast = _contrast(frames, facts.ball) * _inside_boxes(facts.ball, frames.shape[1:3])
    padded = np.pad(contrast, ((0, 0), (2, 2), (2, 2)))  # (T, H+4, W+4)
    positions = np.full((len(frames), 2), np.nan)
    steps = np.arange(-2, 3)
    for t, frame in enumerate(contrast):
        row, column = np.unravel_index(int(frame.argmax()), frame.shape)
        if frame[row, column] > BALL_THRESHOLD:
            window = padded[t, row : row + 5, column : column + 5]
            weights = np.where(window > BALL_THRESHOLD / 2, window, 0.0)
            shift = weights.sum(0) @ steps / weights.sum(), weights.sum(1) @ steps / weights.sum()
            positions[t] = column + shift[0], row + shift[1]
    return positions


def ball_lights(frames: np.ndarray, env_id: str) -> np.ndarray:
    """How bright the two brightest spots are that look like a ball. frames: uint8 (T, H, W, 3). Returns float (T, 2).

    The light of a spot is its contrast summed over 2x2 pixels, since between two pixels a ball has half its contrast in each. The
    second spot lies at least three pixels beside the first: closer by, the two are one.
    """
    facts = _facts_with(env_id, "ball")
    assert facts.ball is not None
    contrast = _contrast(frames, facts.ball) * _inside_boxes(facts.ball, frames.shape[1:3])
    light = np.pad(contrast[:, :-1] + contrast[:, 1:], ((0, 0), (2, 2), (2, 2)))
    light = light[..., :-1] + light[..., 1:]  # (T, H+3, W+3), no spot in the two outermost rows and columns
    lights = np.zeros((len(frames), 2))
    for t, spots in enumerate(light):
        for number in range(2):
            row, column = np.unravel_index(int(spots.argmax()), spots.shape)
            lights[t, number] = spots[row, column]
            spots[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 0.0
    return lights


def detect_player(frames: np.ndarray, env_id: str) -> np.ndarray:
    """Find the player in pixels. frames: uint8 (T, H, W, 3). Returns float (T,): pixels along `player_axis`, NaN where not found.

    Template matching in one dimension: the strip in which the player moves is averaged into a profile along the axis and compared
    with the profile of the sprite at every position. The closest one wins if the profile has at least half its contrast.
    """
    facts = _facts_with(env_id, "player")
    assert facts.player is not None
    sprite, along = facts.player, 1 if facts.player_axis == "x" else 0
    contrast = _contrast(frames, sprite)
    frame_size = frames.shape[1:3]
    if not sprite.lengths:
        weights = (contrast * _inside_boxes(sprite, frame_size)).sum(axis=1 if along == 1 else 2)  # (T, positions)
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 1.0, weights @ np.arange(weights.shape[1]) / total, np.nan)
    positions, energy, match, best, _ = _compare_with_templates(contrast, sprite, along)
    found = match[np.arange(len(frames)), best] > 0.5 * energy[best]
    return np.where(found, positions[best], np.nan)


def player_distortion(frames: np.ndarray, env_id: str, linear_light: bool = False) -> np.ndarray:
    """How much the player's picture deviates from its sprite. frames: uint8 (T, H, W, 3). Returns float (T,).

    The squared distance from the sprite at its best position, divided by the square of the sprite: 0 for a complete player of any
    valid length, 1 for none at all or one that appears twice. linear_light: whether frames were shrunk so, which makes a pixel
    that the player half covers look fuller than half. Raises InputError for a player that changes its shape.
    """
    facts = _facts_with(env_id, "player")
    assert facts.player is not None
    if not facts.player.lengths:
        raise InputError(f"the player of {env_id} changes its shape; its distortion cannot be measured")
    along = 1 if facts.player_axis == "x" else 0
    contrast = _contrast(frames, facts.player, linear_light)
    _, energy, match, best, square = _compare_with_templates(contrast, facts.player, along)
    return (square + energy[best] - 2 * match[np.arange(len(frames)), best]) / energy[best]


def _compare_with_templates(contrast: np.ndarray, sprite: Sprite, along: int) -> tuple[np.ndarray, ...]:
    """Compare the profile along the axis, (T, positions), with the sprite's profile at P positions.

    Returns the positions (P,), the squares of the templates (P,), their products with the profiles (T, P), the index of the
    closest template (T,) and the squares of the profiles (T,).
    """
    frame_size = contrast.shape[1:3]

    def profile_of(start: float, stop: float) -> np.ndarray:
        across = _coverage(start, stop, frame_size[1 - along], SCREEN_SIZE[1 - along])
        return np.tensordot(contrast, across, axes=([2 - along], [0])) / (across @ across)  # (T, positions), 1 where filled

    start, stop = _span(sprite.boxes[0], 1 - along)
    profile = profile_of(start, stop)
    if sprite.among_wider_things:
        width = stop - start
        profile = profile - np.maximum(profile_of(start - width, start), profile_of(stop, stop + width))
    positions, templates = _templates(sprite, along, frame_size[along])
    seen = (templates > 0).any(axis=0)
    match = profile[:, seen] @ templates[:, seen].T  # (T, P)
    energy = (templates**2).sum(axis=1)
    best = (energy - 2 * match).argmin(axis=1)  # squared distance, up to a constant
    return positions, energy, match, best, (profile[:, seen] ** 2).sum(axis=1)


def _facts_with(env_id: str, part: str) -> GameFacts:
    facts = game_facts(env_id)
    if facts is None or getattr(facts, part) is None:
        known = ", ".join(name for name, candidate in GAMES.items() if getattr(candidate, part) is not None)
        raise InputError(f"the position of the {part} in {env_id} is not known, only in {known}")
    return facts


def _to_recorded(position, recorded: int, screen: int):
    """From screen pixels to recorded pixels, both counted from the center of the first one."""
    return (position + 0.5) * recorded / screen - 0.5


def _sprite_position(ram: np.ndarray, sprite: Sprite, frame_size: tuple[int, int]) -> np.ndarray:
    """float (..., 2): x and y of the sprite's center in recorded pixels."""
    axes = []
    for axis, address in enumerate(sprite.ram):
        value = np.zeros(ram.shape[:-1]) if address is None else ram[..., address].astype(float)
        on_screen = sprite.scale[axis] * value + sprite.offset[axis]
        axes.append(_to_recorded(on_screen, frame_size[1 - axis], SCREEN_SIZE[1 - axis]))
    return np.stack(axes, axis=-1)


def _contrast(frames: np.ndarray, sprite: Sprite, linear_light: bool = False) -> np.ndarray:
    """float32 (T, H, W): 0 for the background's color, 1 for the sprite's, clipped to that range. linear_light: in light, where
    half a sprite gives 0.5 in frames that were shrunk so; else in sRGB values."""
    scale = LINEAR_LIGHT if linear_light else np.arange(256, dtype=np.float32)
    background, color = scale[list(sprite.background)], scale[list(sprite.color)]
    direction = color - background if sprite.contrast_with is None else np.array(sprite.contrast_with, dtype=np.float32)
    channels = ((scale - background[c]) * direction[c] for c in range(3))  # looked up: an eighth of the time of a product
    along = sum(channel[frames[..., c]] for c, channel in enumerate(channels))
    return np.clip(along / ((color - background) @ direction), 0.0, 1.0)


def _span(box: Box, axis: int) -> tuple[int, int]:
    """The box's first and last edge along rows (axis 0) or columns (axis 1)."""
    return (box[0], box[1]) if axis == 0 else (box[2], box[3])


def _coverage(start: float, stop: float, recorded: int, screen: int) -> np.ndarray:
    """float (recorded,): the share of each recorded pixel that the screen interval [start, stop) covers."""
    edges = np.arange(recorded + 1) * screen / recorded
    overlap = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    return np.clip(overlap, 0.0, None) * recorded / screen


@lru_cache
def _inside_boxes(sprite: Sprite, frame_size: tuple[int, int]) -> np.ndarray:
    """float (H, W): 1 for recorded pixels that lie entirely in one of the sprite's boxes."""
    inside = np.zeros(frame_size, dtype=np.float32)
    for box in sprite.boxes:
        rows = _coverage(box[0], box[1], frame_size[0], SCREEN_SIZE[0]) > 0.999
        columns = _coverage(box[2], box[3], frame_size[1], SCREEN_SIZE[1]) > 0.999
        inside[np.ix_(rows, columns)] = 1.0
    return inside


@lru_cache
def _templates(sprite: Sprite, along: int, recorded: int) -> tuple[np.ndarray, np.ndarray]:
    """The profile of the sprite at every quarter of a screen pixel: positions (P,), profiles (P, recorded)."""
    screen = SCREEN_SIZE[along]
    first, last = _span(sprite.boxes[0], along)
    visible = _coverage(first, last, recorded, screen)
    if sprite.ignored is not None:
        visible = visible * (_coverage(*sprite.ignored, recorded, screen) == 0.0)
    positions, profiles = [], []
    for length in sprite.lengths:
        for center in np.arange(first, last + 0.01, 0.25):  # its edges: center - length / 2 and center + length / 2
            profile = _coverage(max(first, center - length / 2), min(last, center + length / 2), recorded, screen)
            positions.append(_to_recorded(center - 0.5, recorded, screen))
            profiles.append(sprite.fill * profile * (visible > 0))
    return np.array(positions), np.stack(profiles)
