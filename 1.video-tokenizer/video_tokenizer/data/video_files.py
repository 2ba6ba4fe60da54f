"""Reading and writing video files and images with OpenCV, as uint8 RGB frames."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: we report a bad file ourselves, in one sentence
# A file may be a playlist under another name. Without this, FFmpeg would open what it lists, on this machine or on the network.
os.environ.setdefault(
    "OPENCV_FFMPEG_CAPTURE_OPTIONS",
    "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif,yuv4mpegpipe",
)
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(4096 * 4096))

import cv2
import numpy as np
from PIL import Image, ImageSequence

from video_tokenizer.errors import InputError, first_line
from video_tokenizer.training.atomic_files import write_atomically

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".ts", ".gif",
                 ".m2ts", ".mts", ".vob", ".y4m", ".f4v", ".asf", ".3g2")  # fmt: skip
STACK_ENDINGS = (".tif", ".tiff", ".webp", ".png", ".apng", ".avif")
"""of picture files that may hold many frames"""
MOST_PIXELS = int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"])
"""limit for a frame or an image: a file of a few kilobytes may claim to unpack to gigabytes"""
GREY_PARTS = re.compile(rb"premature end|bad Huffman code|instead of RST|\d{3,} extraneous bytes")
"""what libjpeg prints about a picture that it fills up with grey; webcams write a few extraneous bytes, which is harmless"""
SMALLEST_SIDE = 8
"""of a video's frame, in pixels: FFmpeg's conversion of damaged frames writes out of bounds when they are smaller"""
SMALLEST_SHARE = 0.9
"""of the announced frames; a video that yields fewer may have been truncated: `_check_end` looks closer"""


def _linear_light() -> np.ndarray:
    """(256,) float32: the light that each sRGB value stands for, as a share of white's. 128 stands for 0.216, 188 for 0.5."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _srgb_values() -> np.ndarray:
    """(65536,) uint8: the inverse, the sRGB value of each light in 65,535 equal steps; the darkest value fills 20 of them."""
    light = np.arange(65_536) / 65_535
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * values).astype(np.uint8)


LINEAR_LIGHT, SRGB_VALUES = _linear_light(), _srgb_values()


class BadVideo(ValueError):
    """A file that cannot be used as a video. The message says why, without the file's name."""


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a file with FFmpeg only: OpenCV's other readers would open numbered pictures beside it, or cameras."""
    return cv2.VideoCapture(os.fsencode(path), cv2.CAP_FFMPEG)  # type: ignore[call-overload]  # bytes: names need not be UTF-8


def resize_by_area(frame: np.ndarray, frame_size: tuple[int, int], linear_light: bool = True) -> np.ndarray:
    """Resize a picture, uint8 (H, W, 3), to frame_size = (height, width). Each new pixel is the average of the area it covers.

    It averages light, as an eye does from a distance: half black and half white is as bright as the value 188, not 128.
    linear_light=False averages the sRGB values themselves, as older recordings do. That darkens whatever is small and bright.
    Taking the nearest pixel instead loses Breakout's 2x4 ball in one 64x64 frame of five, because it falls between samples.
    """
    height, width = frame_size
    if frame.shape[:2] == (height, width):
        return frame
    if not linear_light or frame.shape[0] < height or frame.shape[1] < width:  # an enlarged picture is interpolated
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    light = cv2.resize(cv2.LUT(frame, LINEAR_LIGHT), (width, height), interpolation=cv2.INTER_AREA)  # float32 (h, w, 3)
    return SRGB_VALUES[(light * 65_535 + 0.5).astype(np.uint16)]


def fit_frame(frame: np.ndarray, frame_size: tuple[int, int], fit: str = "crop", linear_light: bool = True) -> np.ndarray:
    """Shrink a picture, uint8 (H, W, 3), of any shape to frame_size = (height, width).

    fit: "crop" keeps the largest centered part that has the new shape, "pad" keeps all and adds black bars, "stretch" distorts.
    linear_light: see `resize_by_area`.
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
        padded[top : top + height, left : left + width] = resize_by_area(frame, (height, width), linear_light)
        return padded
    return resize_by_area(frame, frame_size, linear_light)


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
    kept = islice(_decode(path), 0, None, frame_step)
    yield from in_chunks((cv2.cvtColor(fit_frame(frame, frame_size, fit), cv2.COLOR_BGR2RGB) for frame in kept), chunk_frames)


def in_chunks(frames: Iterator[np.ndarray], chunk_frames: int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3), stacked into chunks (T, H, W, 3) of up to `chunk_frames`."""
    while chunk := list(islice(frames, chunk_frames)):
        yield np.stack(chunk)


def _decode(path: Path) -> Iterator[np.ndarray]:
    """All frames of a video, uint8 (H, W, 3) in BGR, upright. Raises BadVideo, possibly after some frames.

    Every frame is yielded once, whatever its time: a screen recorder leaves out frames while nothing moves.
    """
    capture = open_video(path)
    try:
        if not capture.isOpened():
            raise BadVideo("cannot be opened as a video")
        _check_size(capture)
        decoded, first_ms, last_ms = 0, 0.0, 0.0
        while True:
            found, frame = capture.read()
            if not found:
                break
            last_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            first_ms = last_ms if decoded == 0 else first_ms
            decoded += 1
            yield frame
        if decoded == 0:
            yield from _decode_with_pyav(path, capture)
        elif decoded < SMALLEST_SHARE * capture.get(cv2.CAP_PROP_FRAME_COUNT):
            _check_end(path, capture, decoded, first_ms, last_ms)
    except cv2.error as error:
        raise BadVideo(f"cannot be decoded ({first_line(error, 100)})") from None
    finally:
        capture.release()


def _decode_with_pyav(path: Path, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of a video whose codec OpenCV lacks, such as AV1, if the optional PyAV is installed."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
    codec = code.decode() if code.isalnum() else "unknown"
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadVideo(
            f"has no frame that OpenCV can decode (its codec is {codec}); install PyAV, which may (pip install av), "
            "or convert it (ffmpeg -i IN -c:v libx264 OUT.mp4)"
        ) from None
    decoded = 0
    try:
        options = dict(part.split(";") for part in os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"].split("|"))
        with av.open(os.fspath(path), options=options) as container:
            for frame in container.decode(video=0):
                decoded += 1
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90)))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise BadVideo(f"cannot be decoded after {decoded} frames, by OpenCV or PyAV ({str(error)[:100]})") from None
    if decoded == 0:
        raise BadVideo(f"has no frame that OpenCV or PyAV can decode (its codec is {codec})")


def _check_end(path: Path, capture: cv2.VideoCapture, decoded: int, first_ms: float, last_ms: float) -> None:
    """Raise BadVideo if a video was damaged or cut short. That it has fewer frames than announced does not say so.

    Matroska, WebM, FLV and MPEG-TS only note a duration, which OpenCV multiplies by a rate it guesses: a pause counts as frames.
    AVI counts frames that a capture card dropped, and MP4 those that its edit list hides.
    """
    announced, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    seconds, whole = _edited_seconds(path), _has_announced_size(path)
    missed = first_ms / 1000 * rate  # a broadcast recording begins anywhere, and is decoded from the first whole picture on
    if seconds is None and decoded + missed < SMALLEST_SHARE * (packets := _count_packets(path)):
        raise BadVideo(f"ends after {decoded} of {packets} frames: the others are damaged")
    if whole is None:
        seconds = seconds or announced / rate
        whole = last_ms / 1000 + 1 / rate >= SMALLEST_SHARE * seconds
    if not whole:
        raise BadVideo(f"ends after {decoded} of {announced:.0f} frames")


def _count_packets(path: Path) -> int:
    """How many encoded frames a video holds."""
    capture = cv2.VideoCapture(os.fsencode(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])  # type: ignore[call-overload]
    packets = 0
    while capture.grab():
        packets += 1
    capture.release()
    return packets


def _has_announced_size(path: Path) -> bool | None:
    """Whether a Matroska file is as long as its header says; None for other files, and for one that does not say it."""
    with path.open("rb") as file:
        head = file.read(4096)
    place = head.find(b"\x18\x53\x80\x67") + 4  # the segment, which holds everything
    if head[:4] != b"\x1a\x45\xdf\xa3" or place < 4:
        return None
    width = 9 - head[place].bit_length()  # a number of 1 to 8 bytes, of which the leading zero bits say how many
    size = int.from_bytes(head[place : place + width], "big") - (1 << 7 * width)
    unknown = (1 << 7 * width) - 1  # all ones, as in a stream
    return None if size == unknown else path.stat().st_size >= place + width + size


def _edited_seconds(path: Path) -> float | None:
    """How many seconds of an MP4 its edit list shows; None without one."""
    movie = b""
    with path.open("rb") as file:
        while not movie and len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], "big") - 8
            size = int.from_bytes(file.read(8), "big") - 16 if size == 1 - 8 else size
            if head[4:] == b"moov":
                movie = file.read(min(max(size, 0), 2**26))
            file.seek(max(size, 0), os.SEEK_CUR)
    header = movie.find(b"mvhd")
    track = next((part for part in movie.split(b"trak")[1:] if b"vide" in part), b"")
    edits = track.find(b"elst")
    if header < 0 or edits < 0 or movie[header + 4] or track[edits + 4]:
        return None  # no MP4, or one that writes its times in 8 bytes
    ticks_a_second = int.from_bytes(movie[header + 16 : header + 20], "big")
    count = int.from_bytes(track[edits + 8 : edits + 12], "big")
    entries = [track[edits + 12 * k : edits + 12 * k + 8] for k in range(1, min(count, 1000) + 1)]  # duration, first tick shown
    shown = sum(int.from_bytes(entry[:4], "big") for entry in entries if entry[4:] != b"\xff" * 4)  # no first tick: a pause
    return shown / ticks_a_second if ticks_a_second and shown else None


def read_video_frames(path: Path, num_frames: int) -> np.ndarray:
    """The first `num_frames` frames, or all if there are fewer, at their original size: uint8 (T, H, W, 3) RGB.

    Raises InputError for a file that is no video or cannot be decoded.
    """
    frames: list[np.ndarray] = []
    try:
        for frame in islice(_decode(path), num_frames):
            if frames and frame.shape != frames[0].shape:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    except BadVideo as error:
        if not frames:
            raise InputError(f"{path} cannot be used as a video: it {error}; give another file") from None
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
    return cv2.cvtColor(fit_frame(_decode_image(path), frame_size, fit), cv2.COLOR_BGR2RGB)


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels; None for a file that cannot be read."""
    try:
        height, width = _decode_image(path).shape[:2]
    except (BadVideo, OSError):
        return None
    return height, width


def _decode_image(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) in BGR, upright. Raises BadVideo for a file that is damaged or too large."""
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8" and not _ends_with_its_picture(data):
        raise BadVideo("ends early")
    try:
        frame, printed = _decode_and_listen(data) if data else (None, b"")
    except cv2.error:  # more than OPENCV_IO_MAX_IMAGE_PIXELS
        raise BadVideo(f"cannot be read as an image of at most {MOST_PIXELS:,} pixels") from None
    if frame is None:
        raise BadVideo("cannot be read as an image")
    if data[:2] == b"\xff\xd8" and GREY_PARTS.search(printed):
        raise BadVideo("is damaged: a part of the picture would be grey")
    return frame


def _decode_and_listen(data: bytes) -> tuple[np.ndarray | None, bytes]:
    """The picture, and what its decoder printed to stderr, the only place where libjpeg reports damage that it bridges."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is none, as under `2>&-`
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), b""
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        printed.seek(0)
        return frame, printed.read()


def _ends_with_its_picture(jpeg: bytes) -> bool:
    """Whether the picture of a JPEG has an end. What is missing would be filled with grey, with a warning on the screen only."""
    place = 2
    while 0 < place < len(jpeg) - 4 and jpeg[place] == 0xFF and jpeg[place + 1] != 0xDA:  # segments, such as a thumbnail
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big") if jpeg[place + 1] != 0xFF else 1
    return jpeg.find(b"\xff\xd9", place) > 0


def count_pictures(path: Path) -> int:
    """How many frames a picture file holds: more than one in a TIFF stack, an animated WebP or an APNG."""
    if path.suffix.lower() not in STACK_ENDINGS:
        return 1
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return cv2.imcount(str(path))
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1)
    except (cv2.error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # read_image says what is wrong with it


def read_pictures(path: Path, frame_size: tuple[int, int], fit: str = "crop") -> Iterator[np.ndarray]:
    """The frames of a picture file with many, each as `read_image` returns it. Those of another size than the first are left out:
    they are thumbnails. Raises BadVideo, possibly after some frames."""
    shape = None
    try:
        for frame in _tiff_pages(path) if path.suffix.lower() in (".tif", ".tiff") else _animation_frames(path):
            shape = shape or frame.shape
            if frame.shape == shape:
                yield fit_frame(frame, frame_size, fit)
    except (cv2.error, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, BadVideo):
            raise
        raise BadVideo(f"cannot be read as pictures ({first_line(error, 100)})") from None


def _tiff_pages(path: Path, at_once: int = 16) -> Iterator[np.ndarray]:
    _check_tiff_end(path)
    for start in range(0, cv2.imcount(str(path)), at_once):
        found, pages = cv2.imreadmulti(str(path), start, at_once, flags=cv2.IMREAD_COLOR)
        if not found:
            raise BadVideo("cannot be read to its end")
        yield from (cv2.cvtColor(page, cv2.COLOR_BGR2RGB) for page in pages)


def _check_tiff_end(path: Path) -> None:
    """Raise BadVideo if the chain of a TIFF's pages leads beyond its end. OpenCV would count the pages before that."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order: Literal["little", "big"] = "little" if (head := file.read(8))[:2] == b"II" else "big"
        if int.from_bytes(head[2:4], order) != 42:
            return  # a BigTIFF
        place, pages = int.from_bytes(head[4:8], order), 0
        while place and pages < 2**20:
            file.seek(place)
            entries = int.from_bytes(file.read(2), order)
            if place + 6 + 12 * entries > size:
                raise BadVideo(f"ends early, after {pages} pages")
            file.seek(12 * entries, os.SEEK_CUR)
            place, pages = int.from_bytes(file.read(4), order), pages + 1


def _animation_frames(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as pictures:
        if pictures.width * pictures.height > MOST_PIXELS:
            raise BadVideo(f"has frames of {pictures.width}x{pictures.height} pixels, more than {MOST_PIXELS:,}")
        yield from (np.array(picture.convert("RGB")) for picture in ImageSequence.Iterator(pictures))


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
