"""Videos and pictures: broken, of odd kinds, or with headers that lie; and what a dream begins with."""

import base64
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from malformed.museum import NOISE, RANDOM, exhibit

TINY_AND_DAMAGED = (
    "UklGRsIpAABBVkkgTElTVBEAaOwAZHJsYXZpaDgAAACghgEAHgAAAAAAAAAQCQAAFAAAAAAAAAABAAAAAAAQAAIAAAACAAAAAAAAAAAAAAAAAA"
    "AAAAAAAExJU1SUEAAAc3RybHN0cmg4AAAAdmlkc01KUEcAAAAAAAAAAAAAAAABAAAACgAAAAAAAAAUAAAAAgEAAP////8AAAAAAAAAAAIAAgBz"
    "dHJmKAAAACgAAAACAAAAAgAAAAEAGAAAAAAAAAALAAAAwwAAAABM4i4+xGvwivc5Vnd/jSEv5y65c3mVs5CpjZ0YswLbferEWZlsNsQSritcjT"
    "ITiHiBIXQWStmyo/nf/9kAMDBkY+oDAAD/2P/+ABBMYXZjAAAAAAAAAAAABAIBAQEAAAAAAAAAAAAAAPQAAAACAQAAMDBkYxAAAAD+AQAA9QAA"
    "ADAwZGMQAAAA/AIAAPAAAAAwMGRjEAAAAPQDAADtAAAAMDBkYxAAAADqBAAA6gAAADAwZGMQAAAA3AUAAOIAAAAwMGRjHAAAAMZ2EQAA2QAAAA"
    "=="
)


def video(path: Path, frames: np.ndarray = NOISE, codec: str = "MJPG", color: bool = True) -> Path:
    """A film of frames (T, H, W, 3), or of grey ones (T, H, W)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, (frames.shape[2], frames.shape[1]), color)
    assert writer.isOpened(), codec
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def edited(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """The file with some bytes exchanged; they must be there."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))
    return path


@exhibit("source")
def video_without_a_frame(folder):
    return video(folder / "a.avi", NOISE[:0]), None


@exhibit("source")
def video_of_random_bytes(folder):
    (folder / "a.mp4").write_bytes(RANDOM.bytes(5_000))
    return folder, None


@exhibit("source")
def video_cut_after_its_header(folder):
    path = video(folder / "a.avi")
    path.write_bytes(path.read_bytes()[:300])
    return path, None


@exhibit("source")
def video_cut_in_half(folder):
    path = video(folder / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, None


@exhibit("source")
def video_whose_frames_are_garbage(folder):
    path = video(folder / "a.avi")
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : -len(content) // 4] = RANDOM.bytes(len(content[len(content) // 4 : -len(content) // 4]))
    path.write_bytes(bytes(content))
    return path, None


@exhibit("source")
def video_that_claims_gigantic_frames(folder):
    """65,535 x 65,535 pixels: one frame would take 12 GB."""
    path = video(folder / "a.avi", codec="FFV1")
    size, lie = struct.pack("<II", 64, 48), struct.pack("<II", 65_535, 65_535)
    return edited(path, size, lie), None


@exhibit("source")
def video_that_claims_ten_thousand_times_its_frames(folder):
    path = video(folder / "a.avi")
    return edited(path, struct.pack("<I", 20), struct.pack("<I", 200_000)), None


@exhibit("source")
def video_of_one_pixel(folder):
    return video(folder / "a.avi", NOISE[:, :2, :2]), None


@exhibit("source")
def video_whose_damaged_frames_write_beyond_their_end(folder):
    """Found by fuzz.py: 412 bytes that end a process in FFmpeg or OpenCV, "free(): invalid pointer", if they are decoded."""
    (folder / "a.avi").write_bytes(base64.b64decode(TINY_AND_DAMAGED))
    return folder / "a.avi", None


@exhibit("source")
def playlist_named_like_a_video(folder):
    """FFmpeg would open what it lists."""
    listed = video(folder / "listed.ts", codec="mp4v")
    (folder / "list").mkdir()
    (folder / "list" / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{listed}\n#EXT-X-ENDLIST\n")
    return folder / "list", None


@exhibit("source")
def video_of_odd_sizes(folder):
    return video(folder / "a.avi", np.ascontiguousarray(NOISE[:, :47, :33])), 20


@exhibit("source")
def grey_video(folder):
    return video(folder / "a.avi", np.ascontiguousarray(NOISE[..., 0]), color=False), 20


@exhibit("source")
def video_that_changes_its_size(folder):
    """From frame 10 on its JPEGs are of 32 x 32 pixels; all are shrunk to the size asked for."""
    path = video(folder / "a.avi")
    small = cv2.imencode(".jpg", np.ascontiguousarray(NOISE[0, :32, :32]))[1].tobytes()
    parts = path.read_bytes().split(b"00dc")
    for number in range(11, 21):  # the frames' chunks: their length, then a JPEG
        length = struct.unpack("<I", parts[number][:4])[0]
        assert parts[number][4:6] == b"\xff\xd8" and len(small) <= length
        parts[number] = parts[number][:4] + small.ljust(length, b"\0") + parts[number][4 + length :]
    path.write_bytes(b"00dc".join(parts))
    return path, 20


@exhibit("source")
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
    path.write_bytes(bytes(longer))
    return path, 20


@exhibit("source")
def folder_named_like_a_video(folder):
    (folder / "a.mp4").mkdir()
    return folder, None


@exhibit("source")
def link_to_nowhere(folder):
    (folder / "a.mp4").symlink_to(folder / "nowhere.mp4")
    return folder, None


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


@exhibit("source")
def grey_pictures(folder):
    return pictures(folder, NOISE[0, ..., 0]), 6


@exhibit("source")
def sixteen_bit_pictures(folder):
    return pictures(folder, NOISE[0].astype(np.uint16) * 257), 6


@exhibit("source")
def transparent_pictures(folder):
    return pictures(folder, np.dstack([NOISE[0], NOISE[0, ..., 0]])), 6


@exhibit("source")
def one_picture_of_another_size(folder):
    pictures(folder, NOISE[0])
    cv2.imwrite(str(folder / "9.png"), NOISE[0, :40, :20])
    return folder, 7


@exhibit("source")
def picture_that_claims_gigantic_size(folder):
    (folder / "a.png").write_bytes(png(60_000, 60_000))
    return folder, None


@exhibit("source")
def picture_with_a_wrong_checksum(folder):
    pictures(folder, NOISE[0], 1)
    path = folder / "0.png"
    content = bytearray(path.read_bytes())
    content[16:20] = struct.pack(">I", 5)  # another width
    path.write_bytes(bytes(content))
    return folder, None


@exhibit("source")
def picture_cut_short_to_its_name(folder):
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return folder, None


@exhibit("start")
def start_with_a_text(folder):
    (folder / "a.png").write_text("a picture, honestly")
    return folder / "a.png", None


@exhibit("start")
def start_with_a_picture_of_gigantic_size(folder):
    (folder / "a.png").write_bytes(png(60_000, 60_000))
    return folder / "a.png", None


@exhibit("start")
def start_with_a_picture_cut_short(folder):
    file = io.BytesIO()
    Image.fromarray(NOISE[0]).save(file, "PNG")
    (folder / "a.png").write_bytes(file.getvalue()[:-200])
    return folder / "a.png", None


@exhibit("start")
def start_with_a_program(folder):
    """PIL would hand PostScript to an interpreter."""
    (folder / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    return folder / "a.png", None


@exhibit("start")
def start_with_a_video_of_gigantic_frames(folder):
    return video_that_claims_gigantic_frames(folder)
