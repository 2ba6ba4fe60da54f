"""Videos and pictures: broken, of odd kinds, or with headers that lie."""

import base64
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from malformed.registry import NOISE, RANDOM, add, case, cut, written

TINY_AND_DAMAGED = (
    "UklGRsIpAABBVkkgTElTVBEAaOwAZHJsYXZpaDgAAACghgEAHgAAAAAAAAAQCQAAFAAAAAAAAAABAAAAAAAQAAIAAAACAAAAAAAAAAAAAAAAAA"
    "AAAAAAAExJU1SUEAAAc3RybHN0cmg4AAAAdmlkc01KUEcAAAAAAAAAAAAAAAABAAAACgAAAAAAAAAUAAAAAgEAAP////8AAAAAAAAAAAIAAgBz"
    "dHJmKAAAACgAAAACAAAAAgAAAAEAGAAAAAAAAAALAAAAwwAAAABM4i4+xGvwivc5Vnd/jSEv5y65c3mVs5CpjZ0YswLbferEWZlsNsQSritcjT"
    "ITiHiBIXQWStmyo/nf/9kAMDBkY+oDAAD/2P/+ABBMYXZjAAAAAAAAAAAABAIBAQEAAAAAAAAAAAAAAPQAAAACAQAAMDBkYxAAAAD+AQAA9QAA"
    "ADAwZGMQAAAA/AIAAPAAAAAwMGRjEAAAAPQDAADtAAAAMDBkYxAAAADqBAAA6gAAADAwZGMQAAAA3AUAAOIAAAAwMGRjHAAAAMZ2EQAA2QAAAA"
    "=="
)


def video(path: Path, frames: np.ndarray = NOISE, codec: str = "MJPG") -> Path:
    """A film of frames (T, H, W, 3), or of grey ones (T, H, W)."""
    size = frames.shape[2], frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, size, isColor=frames.ndim == 4)
    assert writer.isOpened(), codec
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    return path


def edited(path: Path, old: bytes, new: bytes) -> Path:
    """The file with some bytes exchanged; they must be there."""
    content = path.read_bytes()
    assert old in content
    return written(path, content.replace(old, new))


@case("source")
def video_whose_frames_are_garbage(folder):
    path = video(folder / "a.avi")
    content, quarter = path.read_bytes(), path.stat().st_size // 4
    return written(path, content[:quarter] + RANDOM.bytes(len(content) - 2 * quarter) + content[-quarter:])


@case("source")
def video_that_claims_gigantic_frames(folder):
    """65,535 x 65,535 pixels: one frame would take 12 GB."""
    path = video(folder / "a.avi", codec="FFV1")
    size, lie = struct.pack("<II", 64, 48), struct.pack("<II", 65_535, 65_535)
    return edited(path, size, lie)


@case("source")
def playlist_named_like_a_video(folder):
    """FFmpeg would open what it lists."""
    listed = video(folder / "listed.ts", codec="mp4v")
    (folder / "list").mkdir()
    (folder / "list" / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{listed}\n#EXT-X-ENDLIST\n")
    return folder / "list"


@case("source", frames=20)
def video_that_changes_its_size(folder):
    """From frame 10 on its JPEGs are of 32 x 32 pixels; all are shrunk to the size asked for."""
    path = video(folder / "a.avi")
    small = cv2.imencode(".jpg", np.ascontiguousarray(NOISE[0, :32, :32]))[1].tobytes()
    parts = path.read_bytes().split(b"00dc")
    for number in range(11, 21):  # the frames' chunks: their length, then a JPEG
        length = struct.unpack("<I", parts[number][:4])[0]
        assert parts[number][4:6] == b"\xff\xd8" and len(small) <= length
        parts[number] = parts[number][:4] + small.ljust(length, b"\0") + parts[number][4 + length :]
    return written(path, b"00dc".join(parts))


@case("source", frames=20)
def video_whose_frames_come_unevenly(folder):
    """Its first ten frames last half as long as the others; every frame is kept once."""
    path = video(folder / "a.mp4", codec="mp4v")
    content = path.read_bytes()
    place = content.index(b"stts") - 4
    count, duration = struct.unpack(">II", content[place + 16 : place + 24])
    assert count == 20 and content.index(b"mdat") < content.index(b"moov")  # so that no place in the film changes
    table = struct.pack(">I4sIIIIII", 32, b"stts", 0, 2, 10, duration // 2, 10, duration)
    longer = bytearray(content[:place] + table + content[place + 24 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):  # all that lies around the table has grown by one line
        start = longer.index(box) - 4
        longer[start : start + 4] = struct.pack(">I", struct.unpack(">I", longer[start : start + 4])[0] + 8)
    return written(path, bytes(longer))


@case("source")
def folder_named_like_a_video(folder):
    (folder / "a.mp4").mkdir()
    return folder


@case("source")
def link_to_nowhere(folder):
    (folder / "a.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


def pictures(folder: Path, picture: np.ndarray, count: int = 6) -> Path:
    """A folder of equal PNGs."""
    for number in range(count):
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1_000))) + chunk(b"IEND", b"")


def png_file(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


add(
    "source",
    {
        "video_without_a_frame": lambda folder: video(folder / "a.avi", NOISE[:0]),
        "video_of_random_bytes": lambda folder: written(folder / "a.mp4", RANDOM.bytes(5_000)).parent,
        "video_cut_after_its_header": lambda folder: cut(video(folder / "a.avi"), 300),
        "video_cut_in_half": lambda folder: cut(video(folder / "a.avi")),
        "video_that_claims_ten_thousand_times_its_frames": lambda folder: edited(
            video(folder / "a.avi"), struct.pack("<I", 20), struct.pack("<I", 200_000)
        ),
        "video_of_one_pixel": lambda folder: video(folder / "a.avi", NOISE[:, :2, :2]),
        # found by fuzz.py: 412 bytes that end a process in FFmpeg or OpenCV, "free(): invalid pointer", if they are decoded
        "video_whose_damaged_frames_write_beyond_their_end": lambda folder: written(
            folder / "a.avi", base64.b64decode(TINY_AND_DAMAGED)
        ),
        "picture_that_claims_gigantic_size": lambda folder: written(folder / "a.png", png(60_000, 60_000)).parent,
        "picture_with_a_wrong_checksum": lambda folder: (
            edited(written(folder / "0.png", png_file(NOISE[0])), struct.pack(">II", 64, 48), struct.pack(">II", 5, 48)).parent
        ),
        "picture_cut_short_to_its_name": lambda folder: written(folder / "a.jpg", b"\xff\xd8\xff\xe0").parent,
    },
)
add(
    "source",
    {
        "video_of_odd_sizes": lambda folder: video(folder / "a.avi", NOISE[:, :47, :33]),
        "grey_video": lambda folder: video(folder / "a.avi", NOISE[..., 0]),
    },
    frames=20,
)
add(
    "source",
    {
        "grey_pictures": lambda folder: pictures(folder, NOISE[0, ..., 0]),
        "sixteen_bit_pictures": lambda folder: pictures(folder, NOISE[0].astype(np.uint16) * 257),
        "transparent_pictures": lambda folder: pictures(folder, np.dstack([NOISE[0], NOISE[0, ..., 0]])),
        "one_picture_of_another_size": lambda folder: (
            written(pictures(folder, NOISE[0], 5) / "9.png", png_file(NOISE[0, :40, :20])).parent
        ),
    },
    frames=6,
)
add(
    "start",
    {
        "start_with_a_text": lambda folder: written(folder / "a.png", "a picture, honestly"),
        "start_with_a_picture_of_gigantic_size": lambda folder: written(folder / "a.png", png(60_000, 60_000)),
        "start_with_a_picture_cut_short": lambda folder: cut(written(folder / "a.png", png_file(NOISE[0])), -200),
        # PIL would hand PostScript to an interpreter
        "start_with_a_program": lambda folder: written(folder / "a.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        "start_with_a_video_of_gigantic_frames": video_that_claims_gigantic_frames,
    },
)
