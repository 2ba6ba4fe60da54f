"""Reading and writing video files with OpenCV: decoded once, frame by frame, in RGB."""

from pathlib import Path

import cv2
import numpy as np

from video_tokenizer.command_line import InputError


def write_video(path: Path, frames: np.ndarray, frames_per_second: float) -> None:
    """Write uint8 (T, H, W, 3) RGB as an .mp4 file; its folder is made. Raises InputError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, (width, height))
    if not writer.isOpened():
        raise InputError(f"video {path} cannot be written; check the folder and that OpenCV can encode mp4")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
