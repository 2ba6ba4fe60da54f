"""Pictures, videos and names as people have them are read as they are meant, or refused with the file's name."""

import os
import struct
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.data.video_files import read_image, read_video, read_video_frames, write_video
from video_tokenizer.errors import InputError
from world_model.starts import read_picture


def moving_square(num_frames: int) -> np.ndarray:
    """(F, 48, 64, 3) with a red square that moves right by two pixels a frame."""
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[10:22, 2 * number % 52 : 2 * number % 52 + 12] = (220, 30, 10)
    return frames


def edges(frames: np.ndarray) -> list[int]:
    """The square's left edge in each frame."""
    return [int(np.flatnonzero(frame[15, :, 0] > 100)[0]) for frame in np.asarray(frames)]


# ---- videos -------------------------------------------------------------------------------------------------------------


def element(name: str, *parts: bytes) -> bytes:
    """A piece of a Matroska file: its number in hex, its length in 8 bytes, its content."""
    data = b"".join(parts)
    return bytes.fromhex(name) + struct.pack(">Q", len(data) | 1 << 56) + data


def matroska(path: Path, frames: np.ndarray, times: list[int], duration: float) -> Path:
    """A film whose frames are shown at these milliseconds."""
    track = element("AE", element("D7", b"\1"), element("73C5", b"\1"), element("83", b"\1"), element("86", b"V_MJPEG"),
                    element("E0", element("B0", bytes([64])), element("BA", bytes([48]))))  # fmt: skip
    jpegs = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in frames]
    blocks = [element("A3", b"\x81", struct.pack(">hB", time, 0x80), jpeg) for time, jpeg in zip(times, jpegs, strict=True)]
    info = element("1549A966", element("2AD7B1", (10**6).to_bytes(3, "big")), element("4489", struct.pack(">d", duration)))
    head = element("1A45DFA3", element("4282", b"matroska"), element("4287", b"\4"), element("4285", b"\2"))
    cluster = element("1F43B675", element("E7", b"\0"), *blocks)
    path.write_bytes(head + element("18538067", info, element("1654AE6B", track), cluster))
    return path


def count(path: Path) -> int:
    return sum(len(chunk) for chunk in read_video(path, (16, 16)))


def test_a_pause_a_missing_frame_and_an_uneven_clock_do_not_make_a_video_incomplete(tmp_path):
    """OpenCV announces duration times rate: 360, 60 and 1,000 frames."""
    frames = moving_square(60)
    times = [round(1000 * number / 30) for number in range(60)]
    later = times[:30] + [time + 10_000 for time in times[30:]]
    assert count(matroska(tmp_path / "pause.mkv", frames, later, 12_000.0)) == 60
    kept = [number for number in range(60) if number % 8]
    assert count(matroska(tmp_path / "camera.mkv", frames[kept], [times[number] for number in kept], 2_000.0)) == 52
    uneven = np.cumsum(np.random.default_rng(1).integers(14, 20, 60)).tolist()
    assert count(matroska(tmp_path / "clock.mkv", frames, uneven, uneven[-1] + 17.0)) == 60
    sound = matroska(tmp_path / "sound.mkv", frames, times, 4_100.0)  # sound goes on after the last frame
    assert count(sound) == 60
    sound.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    with pytest.raises(ValueError, match="ends after 30 of 123 frames"):
        count(sound)


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path):
    """As after cutting an MP4 without encoding it again: of 60 frames, the list shows the last third."""
    write_video(tmp_path / "cut.mp4", moving_square(60), 30.0)
    film = bytearray((tmp_path / "cut.mp4").read_bytes())
    edit, media = film.index(b"elst"), film.index(b"mdhd")
    ticks_a_second = struct.unpack(">I", film[media + 16 : media + 20])[0]
    duration = struct.unpack(">I", film[edit + 12 : edit + 16])[0]
    film[edit + 12 : edit + 20] = struct.pack(">II", duration // 3, 40 * ticks_a_second // 30)
    (tmp_path / "cut.mp4").write_bytes(film)
    assert count(tmp_path / "cut.mp4") == 20


def test_a_codec_that_opencv_lacks_is_named_with_a_way_out(tmp_path, monkeypatch):
    write_video(tmp_path / "av1.mp4", moving_square(8), 10.0)
    (tmp_path / "av1.mp4").write_bytes((tmp_path / "av1.mp4").read_bytes().replace(b"mp4v", b"av01").replace(b"esds", b"free"))
    monkeypatch.setitem(sys.modules, "av", None)  # not installed
    with pytest.raises(InputError, match=r"av1.mp4 has no frame that OpenCV can decode \(its codec is AV01\); install PyAV"):
        open_clips_source(tmp_path, frame_size=(16, 16))


def test_pyav_decodes_what_opencv_cannot(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "av1.mp4"), "w") as container:
        stream = container.add_stream("libsvtav1", rate=30, options={"preset": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(12):
            picture = np.full((64, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    store = open_clips_source(tmp_path / "av1.mp4", frame_size=(32, 32))
    assert np.abs(store.frames.mean(axis=(1, 2, 3)) - 20 * np.arange(12)).max() < 3
    assert read_video_frames(tmp_path / "av1.mp4", 5).shape == (5, 64, 64, 3)


# ---- pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tif", {}),
        ("a.webp", {"duration": 50, "lossless": True}),
        ("a.png", {"duration": 50}),
    ],
)
def test_a_picture_file_of_many_frames_is_an_episode(tmp_path, name, options):
    frames = moving_square(20)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **options)
    for number in range(8):
        pictures[0].save(tmp_path / f"single{number}{Path(name).suffix}")
    store = open_clips_source(tmp_path, frame_size=(48, 64))
    assert store.episodes.tolist() == [[0, 8], [8, 28]]
    assert np.array_equal(store.frames[8:], frames)
    assert edges(open_clips_source(tmp_path, frame_size=(48, 64), frame_step=2).frames[4:]) == edges(frames[::2])


def test_a_stack_of_16_bits_is_read_like_a_picture_of_16_bits(tmp_path):
    ramp = (np.linspace(0, 65_535, 64).astype(np.uint16))[None].repeat(48, axis=0)
    pages = [Image.fromarray(ramp), Image.fromarray(ramp[:, ::-1].copy()), Image.fromarray(ramp[:8, :8].copy())]  # a thumbnail
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    store = open_clips_source(tmp_path, frame_size=(48, 64))
    assert len(store.frames) == 2 and np.array_equal(store.frames[0], store.frames[1][:, ::-1])
    assert np.array_equal(store.frames[0], read_image(tmp_path / "a.tif", (48, 64)))


def test_a_stack_or_an_animation_cut_short_is_skipped_by_name(tmp_path, capsys):
    pictures = [Image.fromarray(frame) for frame in moving_square(20)]
    for name in ("a.tif", "b.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    for number in range(3):
        pictures[0].save(tmp_path / f"{number}.png")
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 3
    said = capsys.readouterr().out
    assert "skipped a.tif: it ends early, after" in said and "skipped b.png: it" in said


def test_a_video_without_compression_is_read(tmp_path):
    """Y4M, as ffmpeg and the codec test suites write it: a line of text, then planes of brightness and of two colors."""
    frames = [b"FRAME\n" + bytes([level]) * 32 * 32 + bytes([128]) * 2 * 16 * 16 for level in (40, 90, 140, 190)]
    (tmp_path / "grey.y4m").write_bytes(b"YUV4MPEG2 W32 H32 F10:1 Ip A1:1 C420jpeg\n" + b"".join(frames))
    levels = open_clips_source(tmp_path / "grey.y4m", frame_size=(16, 16)).frames[:, 8, 8, 0]
    assert len(levels) == 4 and (np.diff(levels.astype(int)) > 20).all()


def test_a_jpeg_cut_short_is_skipped_by_name(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), noise)
    whole = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) * 2 // 5])
    (tmp_path / "3.jpg").write_bytes(whole + b"what a phone appends")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(whole[:900]) + 4) + whole[:900] + b"\xff\xd9"  # has an end of its own
    (tmp_path / "1.jpg").write_bytes(whole[:2] + thumbnail + whole[2 : len(whole) // 2])
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 2
    said = capsys.readouterr().out
    assert "skipped 1.jpg: it ends early" in said and "skipped 2.jpg: it ends early" in said


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_damaged_in_the_middle_is_skipped_and_not_filled_with_grey(tmp_path, capfd, progressive):
    """libjpeg bridges the damage, says so on the screen only, and without the file's name."""
    blots = cv2.resize(np.random.default_rng(0).integers(0, 255, (25, 25, 3), dtype=np.uint8), (200, 200))
    whole = cv2.imencode(".jpg", blots, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    half, fifth = len(whole) // 2, len(whole) // 5
    damaged = {
        "hole": whole[: 2 * fifth] + whole[3 * fifth :],
        "zeros": whole[: 2 * fifth] + bytes(fifth) + whole[3 * fifth :],
        "half_with_an_end": whole[:half] + whole[-2:],
        "webcam": whole[:-2] + bytes(2) + whole[-2:],  # not damaged: its decoder finds two extraneous bytes
    }
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(whole)
    for name, data in damaged.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    frames = open_clips_source(tmp_path, frame_size=(16, 16)).frames
    assert len(frames) == 5 and len(np.unique(frames, axis=0)) == 1
    said, errors = capfd.readouterr()
    assert "skipped 3 of 8 files" in said and "Corrupt" not in errors
    assert all(f"{name}.jpg: it is damaged" in said for name in ("hole", "zeros", "half_with_an_end"))


def test_a_folder_of_two_kinds_is_a_question_with_the_counts(tmp_path, capsys):
    for number, frame in enumerate(moving_square(5)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    write_video(tmp_path / "preview.mp4", moving_square(9), 10.0)
    with h5py.File(tmp_path / "play.h5", "w") as file:
        file["frames"] = moving_square(4)
    with pytest.raises(InputError) as error:
        open_clips_source(tmp_path, frame_size=(16, 16))
    wanted = "1 for --data-type folder (preview.mp4), 1 for --data-type h5 (play.h5), 5 for --data-type images (0.png)"
    assert wanted in str(error.value)
    assert len(open_clips_source(tmp_path, "images", (16, 16)).frames) == 5
    assert "not used: 2 files of other kinds" in capsys.readouterr().out


def test_a_long_folder_of_images_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("video_tokenizer.data.sources.CHUNK_BYTES", 10 * 3 * 16 * 16)
    write, lengths = ClipStoreWriter.add_frames, []
    monkeypatch.setattr(ClipStoreWriter, "add_frames", lambda *parts: (lengths.append(len(parts[1])), write(*parts)))
    for number, frame in enumerate(moving_square(25)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 25
    assert lengths == [10, 10, 5]


# ---- names --------------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_or_hold_odd_digits_are_read_in_order(tmp_path):
    picture = cv2.imencode(".png", moving_square(1)[0])[1].tobytes()
    for name in (b"caf\xe9.png", "5\u00b21.png".encode(), "\u00b21.png".encode(), "10\u0664.png".encode(), b"9.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(picture)
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 5
    write_video(tmp_path / "videos" / "a.avi", moving_square(8), 10.0, "MJPG")
    film = os.fsdecode(os.fsencode(tmp_path / "videos") + b"/caf\xe9.avi")
    os.rename(tmp_path / "videos" / "a.avi", film)
    assert len(open_clips_source(film, frame_size=(16, 16)).frames) == 8


def test_a_name_of_250_bytes_leaves_room_for_the_names_made_from_it(tmp_path):
    film = tmp_path / ("\u65e5" * 82 + ".avi")
    write_video(tmp_path / "a.avi", moving_square(8), 10.0, "MJPG")
    (tmp_path / "a.avi").rename(film)
    assert len(open_clips_source(film, frame_size=(16, 16)).frames) == 8
    assert len(open_clips_source(film, frame_size=(16, 16)).frames) == 8  # found again


def test_a_picture_of_16_bits_starts_a_dream_as_it_is_trained_on(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint16)[None].repeat(64, axis=0)
    cv2.imwrite(str(tmp_path / "grey16.png"), ramp * 257)
    cv2.imwrite(str(tmp_path / "grey8.png"), ramp.astype(np.uint8))
    assert np.array_equal(read_picture(tmp_path / "grey16.png"), read_picture(tmp_path / "grey8.png"))
    assert np.abs(read_picture(tmp_path / "grey16.png") - read_image(tmp_path / "grey16.png", (64, 64)).astype(int)).max() <= 1
