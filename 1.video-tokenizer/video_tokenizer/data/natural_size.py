"""How large to decode videos, images and .h5 files when nobody chose a size."""

from pathlib import Path

import cv2
import h5py

from video_tokenizer.data.hdf5_files import FRAME_KEYS, HDF5_ENDINGS

LARGEST_SIDE = 128
"""side of decoded frames unless the files themselves are smaller, in pixels"""
STEP = 8
"""a chosen side is a multiple of this, so that the default patch fits"""


def default_side(files: list[Path]) -> int:
    """128, or the multiple of 8 that most of the files still fill: a folder of 64x64 recordings is decoded at 64, not refused.

    files: videos, images or .h5 files; the first 20 that can be read decide.
    """
    sides = sorted(side for side in map(shorter_side, files[:20]) if side)
    if not sides:
        return LARGEST_SIDE  # nothing can be read: decoding will say so, file by file
    middle = sides[len(sides) // 2]
    return min(LARGEST_SIDE, max(STEP, middle // STEP * STEP))


def shorter_side(path: Path) -> int | None:
    """The shorter side of a file's frames in pixels; None where it cannot be read."""
    if path.suffix.lower() in HDF5_ENDINGS:
        try:
            with h5py.File(path, "r") as file:
                shapes = [value.shape for name in FRAME_KEYS if isinstance(value := file.get(name), h5py.Dataset)]
        except OSError:
            return None
        return min(shapes[0][-3:-1]) if shapes and len(shapes[0]) >= 4 else None
    capture = cv2.VideoCapture(str(path))  # reads images as well, as videos of one frame
    read, frame = capture.read()
    capture.release()
    return min(frame.shape[:2]) if read else None
