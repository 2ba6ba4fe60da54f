"""What we know about single Atari games: their lag, where memory keeps the ball and the player, and how both look.

The memory addresses serve evaluation and the scripted player only, never training. The detectors read the same positions from
pixels, so that they also work on dreamed frames, which have no memory. All positions are in pixels of the recorded frame,
whatever its size: 0.0 is the centre of the first pixel.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from video_tokenizer.training.command_line import InputError

SCREEN_SIZE = (210, 160)  # the Atari's own picture, rows and columns
BALL_THRESHOLD = 0.08  # contrast of the faintest ball we believe, as a share of a pixel filled by it
Box = tuple[int, int, int, int]  # top, bottom, left, right in screen pixels; bottom and right are outside


@dataclass(frozen=True)
class Sprite:
    """One moving thing on the Atari's screen; all lengths in screen pixels."""

    color: tuple[int, int, int]
    background: tuple[int, int, int]
    boxes: tuple[Box, ...]
    """where to look for it; beyond, something else has its colour"""
    ram: tuple[int | None, int | None]
    """memory addresses of x and y; None for an axis on which it does not move"""
    offset: tuple[float, float] = (0.0, 0.0)
    """centre of the sprite = scale * memory + offset, for x and y"""
    scale: tuple[float, float] = (1.0, 1.0)
    lengths: tuple[float, ...] = ()
    """possible lengths along the axis it moves on; empty for a sprite that changes shape, whose centroid is taken instead"""
    fill: float = 1.0
    """share of its rectangle that the sprite covers"""
    contrast_with: tuple[float, float, float] | None = None
    """direction in RGB that tells it from the background; None: from background to color"""
    ignored: tuple[int, int] | None = None
    """rows of its box in which a still object has its colour"""


@dataclass(frozen=True)
class GameFacts:
    """What is known about one game. Parts that nobody has looked up are None."""

    picture_delay: int
    """emulator frames into the next step at which a step's picture is taken, from `calibrate_picture_delay`"""
    flickers: bool = False
    """whether the game draws its sprites in turn, so that two emulator frames are merged; from the same measurement"""
    player: Sprite | None = None
    player_axis: str = "x"
    """the axis whose position counts: "x" or "y" """
    player_keys: tuple[str, str] = ("LEFT", "RIGHT")
    """the actions that make the player's position smaller and larger"""
    player_step: float = 0.0
    """how far one step of such an action moves the player, in recorded pixels at 64x64"""
    player_glide: float = 0.0
    """how far it glides on during the next step, in the same pixels"""
    ball: Sprite | None = None
    ball_rows_in_ram: tuple[int, int] = (1, 256)
    """the ball can be seen while its y byte is in this range"""


GAMES = {
    "ALE/Breakout-v5": GameFacts(
        picture_delay=1,
        player=Sprite(
            (200, 72, 72), (0, 0, 0), ((189, 193, 8, 152),), (72, None), (-39.5, 190.5), lengths=(16.0, 20.0, 8.0, 12.0)
        ),
        ball=Sprite((200, 72, 72), (0, 0, 0), ((93, 189, 8, 152), (32, 57, 8, 152)), (99, 101), (-48.5, 10.5)),
        player_step=7.2,
        player_glide=2.0,
        ball_rows_in_ram=(1, 179),  # lower down it falls behind the frame; 0 before the serve
    ),
    "ALE/Pong-v5": GameFacts(
        picture_delay=2,  # one later than measured: Pong glides for so long that at 1 every movement blends two actions
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
            contrast_with=(1, 1, -2),  # yellow against any grey
            ignored=(101, 107),  # the yellow line in the middle of the road
        ),
        player_axis="y",
        player_keys=("UP", "DOWN"),
    ),
    "ALE/MsPacman-v5": GameFacts(picture_delay=1, flickers=True),  # the ghosts are drawn in turn
}


def game_facts(env_id: str) -> GameFacts | None:
    """The facts of a known game, None for any other."""
    return GAMES.get(env_id)


def ball_position(ram: np.ndarray, env_id: str, frame_size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Where the memory says the ball is. ram: uint8 (..., 128). Returns float (..., 2): x, y in pixels; NaN when it is absent."""
    facts = _facts_with(env_id, "ball")
    assert facts.ball is not None and facts.ball.ram[1] is not None
    row_byte = ram[..., facts.ball.ram[1]]
    absent = (row_byte < facts.ball_rows_in_ram[0]) | (row_byte >= facts.ball_rows_in_ram[1])
    return np.where(absent[..., None], np.nan, _sprite_position(ram, facts.ball, frame_size))


def player_position(ram: np.ndarray, env_id: str, frame_size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Where the memory says the player is. ram: uint8 (..., 128). Returns float (...): pixels along `player_axis`."""
    facts = _facts_with(env_id, "player")
    assert facts.player is not None
    return _sprite_position(ram, facts.player, frame_size)[..., 0 if facts.player_axis == "x" else 1]


def detect_ball(frames: np.ndarray, env_id: str) -> np.ndarray:
    """Find the ball in pixels. frames: uint8 (T, H, W, 3). Returns float (T, 2): x, y in pixels; NaN where none is seen.

    The strongest contrast to the background marks it, the centroid of the 5x5 pixels around it gives its place: an area-resized
    ball is spread over up to nine pixels, of which none may be brighter than a quarter of its colour.
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


def detect_player(frames: np.ndarray, env_id: str) -> np.ndarray:
    """Find the player in pixels. frames: uint8 (T, H, W, 3). Returns float (T,): pixels along `player_axis`, NaN where not found.

    The strip in which the player moves is folded into one profile along the axis, and compared with the profile that the sprite
    would have at every place; the closest wins if the profile has at least half its contrast.
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
    places, energy, match, best, _ = _compare_with_templates(contrast, sprite, along)
    found = match[np.arange(len(frames)), best] > 0.5 * energy[best]
    return np.where(found, places[best], np.nan)


def player_distortion(frames: np.ndarray, env_id: str) -> np.ndarray:
    """How little the player looks like itself: 0 a whole one, of any length that it may have, 1 none at all or one that is drawn
    twice. frames: uint8 (T, H, W, 3). Returns float (T,), the squared distance from the sprite at its likeliest place over
    the sprite's own square. Raises InputError for a player that changes its shape.
    """
    facts = _facts_with(env_id, "player")
    assert facts.player is not None
    if not facts.player.lengths:
        raise InputError(f"the player of {env_id} changes its shape; its distortion cannot be measured")
    along = 1 if facts.player_axis == "x" else 0
    _, energy, match, best, square = _compare_with_templates(_contrast(frames, facts.player), facts.player, along)
    return (square + energy[best] - 2 * match[np.arange(len(frames)), best]) / energy[best]


def _compare_with_templates(contrast: np.ndarray, sprite: Sprite, along: int) -> tuple[np.ndarray, ...]:
    """The strip in which the sprite moves, folded into one profile along the axis, beside the sprite's profile at every place.

    Returns the places (P,), the templates' squares (P,), their products with the profiles (T, P), the index of the closest
    (T,) and the profiles' squares (T,).
    """
    frame_size = contrast.shape[1:3]
    across = _coverage(*_span(sprite.boxes[0], 1 - along), frame_size[1 - along], SCREEN_SIZE[1 - along])
    profile = np.tensordot(contrast, across, axes=([2 - along], [0])) / (across @ across)  # (T, positions), 1 where filled
    places, templates = _templates(sprite, along, frame_size[along])
    seen = (templates > 0).any(axis=0)
    match = profile[:, seen] @ templates[:, seen].T  # (T, P)
    energy = (templates**2).sum(axis=1)
    best = (energy - 2 * match).argmin(axis=1)  # squared distance, up to a constant
    return places, energy, match, best, (profile[:, seen] ** 2).sum(axis=1)


def _facts_with(env_id: str, part: str) -> GameFacts:
    facts = game_facts(env_id)
    if facts is None or getattr(facts, part) is None:
        known = ", ".join(name for name, candidate in GAMES.items() if getattr(candidate, part) is not None)
        raise InputError(f"the place of the {part} in {env_id} is not known; it is for {known}")
    return facts


def _to_recorded(position, recorded: int, screen: int):
    """From screen pixels to recorded pixels, both counted from the centre of the first one."""
    return (position + 0.5) * recorded / screen - 0.5


def _sprite_position(ram: np.ndarray, sprite: Sprite, frame_size: tuple[int, int]) -> np.ndarray:
    """float (..., 2): x and y of the sprite's centre in recorded pixels."""
    axes = []
    for axis, address in enumerate(sprite.ram):
        memory = np.zeros(ram.shape[:-1]) if address is None else ram[..., address].astype(float)
        on_screen = sprite.scale[axis] * memory + sprite.offset[axis]
        axes.append(_to_recorded(on_screen, frame_size[1 - axis], SCREEN_SIZE[1 - axis]))
    return np.stack(axes, axis=-1)


def _contrast(frames: np.ndarray, sprite: Sprite) -> np.ndarray:
    """float32 (T, H, W): 0 for the background's colour, 1 for the sprite's, clipped to that range."""
    background = np.array(sprite.background, dtype=np.float32)
    color = np.array(sprite.color, dtype=np.float32)
    direction = color - background if sprite.contrast_with is None else np.array(sprite.contrast_with, dtype=np.float32)
    return np.clip((frames.astype(np.float32) - background) @ direction / ((color - background) @ direction), 0.0, 1.0)


def _span(box: Box, axis: int) -> tuple[int, int]:
    """The box's first and last edge along rows (axis 0) or columns (axis 1)."""
    return (box[0], box[1]) if axis == 0 else (box[2], box[3])


def _coverage(start: float, stop: float, recorded: int, screen: int) -> np.ndarray:
    """float (recorded,): which share of each recorded pixel the screen interval [start, stop) covers."""
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
    """The profile of the sprite at every quarter of a screen pixel: (places,) in recorded pixels and (places, recorded)."""
    screen = SCREEN_SIZE[along]
    first, last = _span(sprite.boxes[0], along)
    visible = _coverage(first, last, recorded, screen)
    if sprite.ignored is not None:
        visible = visible * (_coverage(*sprite.ignored, recorded, screen) == 0.0)
    places, profiles = [], []
    for length in sprite.lengths:
        for centre in np.arange(first, last + 0.01, 0.25):  # edges of the sprite: centre - length / 2 and centre + length / 2
            profile = _coverage(max(first, centre - length / 2), min(last, centre + length / 2), recorded, screen)
            places.append(_to_recorded(centre - 0.5, recorded, screen))
            profiles.append(sprite.fill * profile * (visible > 0))
    return np.array(places), np.stack(profiles)
