"""Reading and writing video files and images with OpenCV, as uint8 RGB frames."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: we report a bad file ourselves, in one sentence
# A file may be a playlist under another name. Without this, FFmpeg would open what it lists, on this machine or on the network.
os.environ.setdefault(
    "OPENCV_FFMPEG_CAPTURE_OPTIONS",
    "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif",
)
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(4096 * 4096))

import cv2
import numpy as np

from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import write_atomically

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".ts", ".gif")
MOST_PIXELS = int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"])
"""limit for a frame or an image: a file of a few kilobytes may claim to unpack to gigabytes"""
SMALLEST_SIDE = 8
"""of a video's frame, in pixels: FFmpeg's conversion of damaged frames writes out of bounds when they are smaller"""
SMALLEST_SHARE = 0.9
"""of the announced frames; a video that yields fewer was truncated (some containers only estimate the number)"""


class BadVideo(ValueError):
    """A file that cannot be used as a video. The message says why, without the file's name."""


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a file with FFmpeg only: OpenCV's other readers would open numbered pictures beside it, or cameras."""
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)


def resize_by_area(frame: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Resize a picture, uint8 (H, W, 3), to frame_size = (height, width). Each new pixel is the average of the area it covers.

    Taking the nearest pixel instead loses Breakout's 2x4 ball in one 64x64 frame of five, because it falls between samples.
    """
    height, width = frame_size
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def fit_frame(frame: np.ndarray, frame_size: tuple[int, int], fit: str = "crop") -> np.ndarray:
    """Shrink a picture, uint8 (H, W, 3), of any shape to frame_size = (height, width).

    fit: "crop" keeps the largest centered part that has the new shape, "pad" keeps all and adds black bars, "stretch" distorts.
    Raises BadVideo for a picture that would have to be enlarged.
    """
    scales = frame.shape[0] / frame_size[0], frame.shape[1] / frame_size[1]
    scale = max(scales) if fit == "pad" else min(scales)
    if scale < 1:
        raise BadVideo(
            f"has frames of {frame.shape[1]}x{frame.shape[0]} pixels, smaller than the {frame_size[1]}x{frame_size[0]} asked for"
        )
    if fit == "crop":
        height, width = (min(side, round(scale * wanted)) for side, wanted in zip(frame.shape, frame_size, strict=False))
        top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
        frame = frame[top : top + height, left : left + width]
    if fit == "pad":
        height, width = (min(wanted, round(side / scale)) for side, wanted in zip(frame.shape, frame_size, strict=False))
        top, left = (frame_size[0] - height) // 2, (frame_size[1] - width) // 2
        padded = np.zeros((*frame_size, 3), frame.dtype)
        padded[top : top + height, left : left + width] = resize_by_area(frame, (height, width))
        return padded
    return resize_by_area(frame, frame_size)


def describe_fit(source_size: tuple[int, int], frame_size: tuple[int, int], fit: str) -> str:
    """One sentence on what `fit_frame` does to frames of source_size (height, width); "" where the shape stays."""
    height, width = source_size
    kept = height * frame_size[1] / (width * frame_size[0])  # of the wider one's width, where the other is as high
    kept = min(kept, 1 / kept)
    if kept > 0.99:
        return ""
    done = {"crop": f"crop cuts off {1 - kept:.0%} of each", "pad": f"pad fills {1 - kept:.0%} with black bars",
            "stretch": "stretch distorts them"}  # fmt: skip
    others = ", ".join(f"--fit {name}" for name in done if name != fit)
    return f"frames of {width}x{height} become {frame_size[1]}x{frame_size[0]}: --fit {done[fit]}; there are also {others}"


def read_video(
    path: Path, frame_size: tuple[int, int], frame_step: int = 1, chunk_frames: int = 512, fit: str = "crop"
) -> Iterator[np.ndarray]:
    """Decode a video in chunks of up to `chunk_frames` frames, uint8 (T, H, W, 3) RGB, shrunk by `fit_frame` to frame_size.

    Keeps every `frame_step`-th frame and applies the rotation noted in the file. Raises BadVideo, possibly after some chunks, for
    a file that is no video, cannot be decoded, ends early, or is smaller than `frame_size`.
    """
    capture = open_video(path)
    try:
        if not capture.isOpened():
            raise BadVideo("cannot be opened as a video")
        _check_size(capture)
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        decoded, chunk = 0, []
        while True:
            found, frame = capture.read()  # uint8 (H, W, 3) in BGR, upright
            if not found:
                break
            if decoded % frame_step == 0:
                chunk.append(cv2.cvtColor(fit_frame(frame, frame_size, fit), cv2.COLOR_BGR2RGB))
            decoded += 1
            if len(chunk) == chunk_frames:
                yield np.stack(chunk)
                chunk = []
        if decoded == 0:
            raise BadVideo("has no frame that can be decoded (a codec that OpenCV lacks?)")
        if decoded < SMALLEST_SHARE * announced:
            raise BadVideo(f"ends after {decoded} of {announced:.0f} frames")
        if chunk:
            yield np.stack(chunk)
    except cv2.error as error:
        raise BadVideo(f"cannot be decoded ({str(error).strip().splitlines()[0][:100]})") from None
    finally:
        capture.release()


def read_video_frames(path: Path, num_frames: int) -> np.ndarray:
    """The first `num_frames` frames, or all if there are fewer, at their original size: uint8 (T, H, W, 3) RGB.

    Raises InputError for a file that is no video or cannot be decoded.
    """
    capture = open_video(path)
    frames: list[np.ndarray] = []
    try:
        if capture.isOpened():
            _check_size(capture)
        while len(frames) < num_frames:
            found, frame = capture.read()
            if not found or (frames and frame.shape != frames[0].shape):
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    except (BadVideo, cv2.error) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be used as a video ({reason[:100]}); give another file") from None
    finally:
        capture.release()
    if not frames:
        raise InputError(f"{path} cannot be decoded as a video; give another file")
    return np.stack(frames)


def _check_size(capture: cv2.VideoCapture) -> None:
    """Raise BadVideo for frames that are too large for memory or too small for FFmpeg, before the first one is decoded."""
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if min(width, height) < SMALLEST_SIDE:
        raise BadVideo(f"has frames of {width:.0f}x{height:.0f} pixels, less than {SMALLEST_SIDE} a side")
    if width * height > MOST_PIXELS:
        raise BadVideo(f"has frames of {width:.0f}x{height:.0f} pixels, more than {MOST_PIXELS:,}")


def read_image(path: Path, frame_size: tuple[int, int], fit: str = "crop") -> np.ndarray:
    """Read an image as uint8 (H, W, 3) RGB, shrunk by `fit_frame`. Raises BadVideo for a damaged file or a small one."""
    try:
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # more than OPENCV_IO_MAX_IMAGE_PIXELS
        raise BadVideo(f"cannot be read as an image of at most {MOST_PIXELS:,} pixels") from None
    if frame is None:
        raise BadVideo("cannot be read as an image")
    return cv2.cvtColor(fit_frame(frame, frame_size, fit), cv2.COLOR_BGR2RGB)


def video_frame_rate(path: Path) -> float:
    """Frames per second as noted in the file, 25 where it notes none."""
    capture = open_video(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return float(rate) if 0.0 < rate < 1000.0 else 25.0


def write_video(path: Path, frames: Iterable[np.ndarray], frames_per_second: float, codec: str = "mp4v") -> None:
    """Write frames, each uint8 (H, W, 3) RGB, as a video file; creates its folder. Raises InputError when it cannot be written.

    codec: a four-character code: mp4v for .mp4, FFV1 for a lossless .avi.
    """
    write_atomically(path, lambda temporary: _encode(temporary, path, frames, frames_per_second, codec))


def _encode(temporary: Path, path: Path, frames: Iterable[np.ndarray], frames_per_second: float, codec: str) -> None:
    writer = None
    for frame in frames:
        if writer is None:
            height, width = frame.shape[:2]
            writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*codec), frames_per_second, (width, height))
            if not writer.isOpened():
                raise InputError(
                    f"video {path} cannot be written; check that the folder is writable and that OpenCV can encode {codec}"
                )
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if writer is not None:
        writer.release()
