"""Where a rollout starts: the world's own start frames, a clip store, a video, or a single picture."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from video_tokenizer.data.clip_store import check_light, open_clip_store
from video_tokenizer.data.video_files import MOST_PIXELS, read_video_frames
from video_tokenizer.errors import InputError
from world_model.world import WorldModel

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")


def read_start(world: WorldModel, start: str | None, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The prompt frames (T, H, W, 3) uint8 of a rollout, and the actions (T,) that led to them, None if unknown.

    start: None for the world's own start frames, of which index chooses a clip; else a clip store or a video, of which index is
    the first frame; or a picture. Raises InputError for anything else, and for an index out of range.
    """
    if start is None:
        frames, actions = world.start_frames, world.start_actions
        check_index(index, len(frames), "start clips in this world")
        return frames[index], actions[index]
    path = Path(start)
    if not path.exists():
        raise InputError(f"--start {path} does not exist; give a clip store, a video or a picture")
    if path.is_dir():
        store = open_clip_store(path)
        check_light("this world", world.metadata.linear_light, store)
        check_index(index, len(store.frames), f"frames of {path}")
        stop = min(index + world.context_frames, int(store.episodes[store.episodes[:, 0] <= index][-1, 1]))
        return np.array(store.frames[index:stop]), None  # action names differ; the world infers latent ones from the frames
    if path.suffix.lower() in PICTURES:
        return read_picture(path)[None], None
    frames = read_video_frames(path, index + world.context_frames)
    check_index(index, len(frames), f"frames of {path}")
    return frames[index:], None


def read_picture(path: Path) -> np.ndarray:
    """One picture as uint8 (H, W, 3). Raises InputError for a file that is not one."""
    try:
        return decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"--start {path} cannot be read as a picture ({error}); give a PNG or JPEG file") from None


def decode_picture(data: bytes) -> np.ndarray:
    """The picture in a file's bytes, uint8 (H, W, 3). Raises InputError for anything else, and for huge ones before unpacking."""
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:  # a file of a few kilobytes may claim gigabytes
                raise InputError(f"{picture.width}x{picture.height} pixels are too many; give a picture of at most 4096x4096")
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits, which PIL would clip at 255 instead of scaling
                upright = Image.fromarray((np.clip(np.array(upright), 0, 65_535) // 257).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        what = str(error).split(" <")[0].partition(" at 0x")[0] or type(error).__name__
        raise InputError(f"this is not a picture that can be read ({what})") from None


def frames_to_text(frames: np.ndarray) -> str:
    """Frames (T, H, W, 3) uint8 as one line of text: a PNG of all of them below each other, in base64."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames))).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def frames_from_text(text: str, frame_size: tuple[int, int]) -> np.ndarray:
    """The inverse of `frames_to_text`: (T, H, W, 3) uint8. Raises InputError for other text, and for frames of another size."""
    try:
        column = decode_picture(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise InputError(f"start_frames cannot be read ({error})") from None
    height, width = frame_size
    if column.shape[1] != width or len(column) % height:
        raise InputError(
            f"start_frames are {len(column)}x{column.shape[1]} pixels, which cannot be split into frames of {height}x{width}"
        )
    return column.reshape(-1, height, width, 3)


def check_index(index: int, count: int, what: str) -> None:
    """Raise InputError for an index outside 0 .. count - 1."""
    if not 0 <= index < count:
        raise InputError(f"--start-index {index} is out of range; there are {count} {what}")
