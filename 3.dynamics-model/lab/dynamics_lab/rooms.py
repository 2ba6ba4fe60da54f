"""Rooms: an episode of rooms that are entered, left and entered again, to measure how far back a model remembers.

An episode has eight rooms. Each has a wall color, a digit of seven segments, and a digit color, drawn anew for every episode, so
that nothing can be known of a room before it is entered. Every frame shows one room, and the action is the number of the room
that is entered next. A room that is entered for the first time can only be guessed. One that was entered before can be recalled.
"""

from pathlib import Path

import numpy as np

from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store

NUM_ROOMS = 8
NUM_FRAMES = 64
"""of an episode"""
PALETTE = np.array([(24, 24, 27), (220, 50, 47), (38, 139, 80), (38, 100, 210), (240, 190, 40), (130, 60, 180), (240, 240, 235),
                    (60, 190, 200)], np.uint8)  # fmt: skip
SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""the lit segments of each digit: a above, b and c to the right, d below, e and f to the left (from below), g in the middle"""
BARS = {
    "a": (8, 16, 16, 48), "b": (8, 32, 40, 48), "c": (24, 48, 40, 48), "d": (40, 48, 16, 48), "e": (24, 48, 16, 24),
    "f": (8, 32, 16, 24), "g": (24, 32, 16, 48),
}  # fmt: skip
"""segment -> top, bottom, left and right edge in pixels; they fill patches of 8 pixels, so that a patch has one color"""
SHADES = 12
"""a room's two colors differ from those of the palette by up to this much in each channel, so that no two rooms are the same"""


def draw_room(wall: np.ndarray, ink: np.ndarray, digit: int) -> np.ndarray:
    """The frame, uint8 (64, 64, 3). wall, ink: colors, uint8 (3,)."""
    frame = np.empty((64, 64, 3), np.uint8)
    frame[:] = wall
    for segment in SEGMENTS[digit]:
        top, bottom, left, right = BARS[segment]
        frame[top:bottom, left:right] = ink
    return frame


def rooms_episode(random: np.random.Generator, num_frames: int = NUM_FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """frames uint8 (T, 64, 64, 3) and actions int16 (T,): actions[t] is the number of the room that frame t shows, -1 for t = 0.

    The next room is any but the present one, all with the same probability.
    """
    rooms = []
    for _ in range(NUM_ROOMS):
        colors = PALETTE[random.choice(len(PALETTE), 2, replace=False)] + random.integers(-SHADES, SHADES + 1, (2, 3))
        wall, ink = colors.clip(0, 255).astype(np.uint8)
        rooms.append(draw_room(wall, ink, int(random.integers(len(SEGMENTS)))))
    path = [int(random.integers(NUM_ROOMS))]
    while len(path) < num_frames:
        path.append(int(path[-1] + random.integers(1, NUM_ROOMS)) % NUM_ROOMS)
    actions = np.array(path, np.int16)
    actions[0] = -1
    return np.stack(rooms)[path], actions


def rooms_store(path: Path, num_episodes: int, seed: int = 0) -> ClipStore:
    """Write and open a clip store of this game. The same arguments give the same frames, actions and fingerprint."""
    info = {
        "source": "rooms",
        "env_id": None,
        "action_names": [f"ROOM {number}" for number in range(NUM_ROOMS)],
        "frame_skip": 1,
        "picture_delay": 0,
        "frames_per_second": 2.0,
        "linear_light": None,
        "seed": seed,
        "policy": "random",
    }
    random = np.random.default_rng(seed)
    with ClipStoreWriter(path, (64, 64), info, overwrite=True) as writer:
        for _ in range(num_episodes):
            writer.add_episode(*rooms_episode(random))
    return open_clip_store(path)


def gaps(actions: np.ndarray) -> np.ndarray:
    """How many frames ago each frame's room was last entered: int64 (T,), 0 where it was not.

    actions: (T,). The room of the first frame has no number yet, so nobody can know that it is entered again: that counts as new.
    """
    last: dict[int, int] = {}
    found = np.zeros(len(actions), np.int64)
    for number, room in enumerate(actions.tolist()):
        if room >= 0:
            found[number] = number - last.get(room, number)
            last[room] = number
    return found
