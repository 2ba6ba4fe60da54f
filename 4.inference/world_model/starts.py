"""Where a dream begins: the world's own beginnings, a clip store, a video, or a single picture."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from video_tokenizer.command_line import InputError
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.video_files import read_video_frames
from world_model.world import WorldModel

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_start(world: WorldModel, start: str | None, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames (T, H, W, 3) uint8 that a dream follows, and the actions (T,) that led to them, None where unknown.

    start: None for the world's own beginnings, of which index chooses one; else a clip store, of which index is the first
    frame; a video, likewise; or a picture. Raises InputError for anything else, and for an index out of range.
    """
    if start is None:
        frames, actions = world.start_frames, world.start_actions
        check_index(index, len(frames), "this world's own beginnings")
        return frames[index], actions[index]
    path = Path(start)
    if not path.exists():
        raise InputError(f"--start {path} does not exist; give a clip store, a video or a picture")
    if path.is_dir():
        store = open_clip_store(path)
        check_index(index, len(store.frames), f"frames of {path}")
        stop = int(store.episodes[store.episodes[:, 0] <= index][-1, 1])
        frames = np.array(store.frames[index : min(index + world.context_frames, stop)])
        return frames, None  # names of actions differ between stores; the world reads latent ones off the frames
    if path.suffix.lower() in PICTURES:
        return read_picture(path)[None], None
    frames = read_video_frames(path, index + world.context_frames)
    check_index(index, len(frames), f"frames of {path}")
    return frames[index:], None


def read_picture(path: Path) -> np.ndarray:
    """One picture as uint8 (H, W, 3). Raises InputError where it is none."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"--start {path} cannot be read as a picture ({error}); give a PNG or JPEG file") from None


def check_index(index: int, count: int, what: str) -> None:
    """Raise InputError for an index outside 0 .. count - 1."""
    if not 0 <= index < count:
        raise InputError(f"--start-index {index} is out of range; there are {count} {what}")
