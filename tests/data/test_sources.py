"""Videos, images and HDF5 files become clip stores, and are decoded again only when the source changes."""

import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.data.filter_static import StaticFilter, runs_of_true
from video_tokenizer.data.sources import guess_data_type, open_clips_source
from video_tokenizer.data.video_files import fit_frame, read_video, read_video_frames, write_video
from video_tokenizer.games.moving_square import SQUARE_ACTIONS, SQUARE_COLOR, SQUARE_MOVES, dummy_clip_store

SAMPLES = Path(os.environ.get("SAMPLE_VIDEOS", Path(__file__).parents[3] / "shared" / "data"))
needs_samples = pytest.mark.skipif(not (SAMPLES / "videos").is_dir(), reason="the sample videos are not on this machine")


def moving_bar(num_frames: int, size: int = 32, first: int = 0) -> np.ndarray:
    """Frames (F, size, size, 3) with a broad red bar that steps down by one row per frame, from row `first`."""
    frames = np.zeros((num_frames, size, size, 3), dtype=np.uint8)
    for f in range(num_frames):
        top = (first + f) % (size - 8)
        frames[f, top : top + 8] = (200, 40, 0)
    return frames


def bar_rows(frames: np.ndarray) -> np.ndarray:
    """The bar's mean row in each frame, (F,)."""
    red = np.asarray(frames)[..., 0].mean(axis=2)
    return red @ np.arange(red.shape[1]) / red.sum(axis=1)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "clip_2.mp4", moving_bar(20), 10.0)
    write_video(folder / "more" / "clip_10.mp4", moving_bar(12), 10.0)
    return folder


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN"])
def test_what_a_system_keeps_in_a_folder_is_no_episode(tmp_path, folder):
    for place in (tmp_path, tmp_path / folder / "SYNOPHOTO_THUMB_M.png"):
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / "1.png"), np.full((16, 16, 3), 9, np.uint8))
        cv2.imwrite(str(place / "2.png"), np.full((16, 16, 3), 9, np.uint8))
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 2


def test_small_videos_are_decoded_at_their_own_size_unless_another_is_asked_for(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, 72, 68, 3), dtype=np.uint8)
    write_video(tmp_path / "small.mp4", frames, 10.0)
    assert open_clips_source(tmp_path, "folder", None).frame_size == (72, 64)  # the largest multiples of 8 that they fill
    write_video(tmp_path / "small.mp4", frames.repeat(3, axis=1).repeat(3, axis=2), 10.0)
    assert open_clips_source(tmp_path, "folder", None).frame_size == (128, 120)  # 216x204 pixels, 1.7 times as long


def test_videos_keep_their_shape_unless_another_is_asked_for(tmp_path, capsys):
    write_video(tmp_path / "wide.mp4", np.zeros((12, 144, 256, 3), np.uint8), 10.0)
    assert open_clips_source(tmp_path, "folder", None).frame_size == (72, 128)
    assert "--fit" not in capsys.readouterr().out
    assert open_clips_source(tmp_path, "folder", (64, 64)).frame_size == (64, 64)
    assert "frames of 256x144 become 64x64: --fit crop cuts off 44% of each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fit", "row"),
    [
        ("crop", [200, 200, 200, 200]),  # the middle 4 of 8 columns
        ("pad", [100, 200, 200, 100]),  # all 8 columns in two rows, with a black row above and below
        ("stretch", [100, 200, 200, 100]),
    ],
)
def test_a_wide_picture_is_cropped_padded_or_stretched_to_a_square(fit, row):
    picture = np.full((4, 8, 3), 200, np.uint8)
    picture[:, :2] = picture[:, -2:] = 100
    square = fit_frame(picture, (4, 4), fit)
    assert square[2, :, 0].tolist() == row
    assert square[0, :, 0].tolist() == ([0] * 4 if fit == "pad" else row)


def test_the_dummy_square_moves_as_its_actions_say(tmp_path):
    store = dummy_clip_store(tmp_path / "square", num_episodes=2, episode_frames=30, frame_size=(32, 32), seed=1)
    assert store.action_names == list(SQUARE_ACTIONS)
    for start, stop in store.episodes:
        bright = (store.frames[start:stop] == SQUARE_COLOR).all(axis=-1)  # (F, H, W)
        corners = np.stack([bright.any(axis=2).argmax(axis=1), bright.any(axis=1).argmax(axis=1)], axis=1)  # top, left
        for f in range(1, stop - start):
            wanted = corners[f - 1] + 2 * SQUARE_MOVES[store.actions[start + f]]  # 2 pixels: a sixteenth of 32
            assert corners[f].tolist() == np.clip(wanted, 0, 24).tolist()


def test_the_seed_decides_the_dummy_square(tmp_path):
    first, again = (dummy_clip_store(tmp_path / name, frame_size=(16, 16), seed=4) for name in ("a", "b"))
    assert first.fingerprint == again.fingerprint
    assert dummy_clip_store(tmp_path / "c", frame_size=(16, 16), seed=5).fingerprint != first.fingerprint


def test_a_folder_of_videos_becomes_one_episode_per_video_in_natural_order(videos):
    store = open_clips_source(videos, frame_size=(16, 16))
    assert store.episodes.tolist() == [[0, 20], [20, 32]]  # clip_2 before clip_10
    assert store.frame_size == (16, 16) and store.frames_per_second == 10.0 and store.env_id is None
    assert (store.actions == -1).all() and store.action_names == []
    assert np.diff(bar_rows(store.frames[:8])) == pytest.approx(0.5, abs=0.15)  # one row of 32 is half a row of 16
    assert store.frames[3, :, :, 0].max() > 150 > 60 > store.frames[3, :, :, 2].max()  # red stays red: RGB, not BGR


def test_a_folder_is_decoded_once_until_it_changes(videos, capsys):
    first = open_clips_source(videos, frame_size=(16, 16))
    stamp = (first.path / "frames.npy").stat().st_mtime_ns
    again = open_clips_source(videos, frame_size=(16, 16))
    assert (again.path / "frames.npy").stat().st_mtime_ns == stamp and "decoded earlier" in capsys.readouterr().out
    assert open_clips_source(videos, frame_size=(8, 8)).path != first.path
    write_video(videos / "third.mp4", moving_bar(9), 10.0)
    assert open_clips_source(videos, frame_size=(16, 16)).episodes.tolist() == [[0, 20], [20, 32], [32, 41]]


def test_a_read_only_source_is_decoded_into_the_cache_folder(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    videos.chmod(0o555)
    try:
        store = open_clips_source(videos, frame_size=(16, 16))
    finally:
        videos.chmod(0o755)
    assert store.path.is_relative_to((tmp_path / "cache").resolve()) and len(store.frames) == 32


def test_every_nth_frame_can_be_kept(videos):
    store = open_clips_source(videos, frame_size=(16, 16), frame_step=3)
    assert store.episodes.tolist() == [[0, 7], [7, 11]]
    assert store.frames_per_second == pytest.approx(10.0 / 3)


def test_a_long_video_is_read_in_chunks_without_losing_a_frame(tmp_path):
    write_video(tmp_path / "long.mp4", moving_bar(50), 10.0)
    chunks = list(read_video(tmp_path / "long.mp4", (16, 16), chunk_frames=16))
    assert [len(chunk) for chunk in chunks] == [16, 16, 16, 2]


def test_one_video_file_is_split_into_two_parts(tmp_path):
    write_video(tmp_path / "one.mp4", moving_bar(50), 10.0)
    assert open_clips_source(tmp_path / "one.mp4", frame_size=(16, 16)).episodes.tolist() == [[0, 25], [25, 50]]
    assert read_video_frames(tmp_path / "one.mp4", 7).shape == (7, 32, 32, 3)


def test_images_are_frames_and_subfolders_are_episodes(tmp_path):
    frames = moving_bar(12)
    for f, frame in enumerate(frames):
        path = tmp_path / "images" / ("first" if f < 7 else "second") / f"frame_{f}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame[..., ::-1])
    store = open_clips_source(tmp_path / "images", "images", frame_size=(32, 32))
    assert store.episodes.tolist() == [[0, 7], [7, 12]]
    assert np.array_equal(store.frames, frames)  # frame_9 before frame_10, and colours exact


def test_every_source_is_shrunk_by_averaging_light_and_the_store_says_so(tmp_path):
    """Columns of black and white average to 188, half of white's light, in videos, images and HDF5 files alike."""
    frames = np.zeros((9, 32, 32, 3), dtype=np.uint8)
    frames[:, :, ::2] = 255
    write_video(tmp_path / "films" / "stripes.avi", frames, 10.0, codec="FFV1")
    (tmp_path / "images").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), frame)
    with h5py.File(tmp_path / "stripes.h5", "w") as file:
        file["frames"] = frames
    for source in ("films", "images", "stripes.h5"):
        store = open_clips_source(tmp_path / source, frame_size=(16, 16))
        assert store.linear_light and (store.frames == 188).all(), source


def test_an_hdf5_file_may_hold_one_long_video_with_actions(tmp_path):
    with h5py.File(tmp_path / "play.h5", "w") as file:
        file["frames"] = moving_bar(10)
        file["actions"] = np.arange(10) % 3
        file["episodes"] = np.array([[0, 6], [6, 10]])
    store = open_clips_source(tmp_path / "play.h5", frame_size=(32, 32))
    assert np.array_equal(store.frames, moving_bar(10))
    assert store.episodes.tolist() == [[0, 6], [6, 10]]
    assert store.actions.tolist() == [-1, 1, 2, 0, 1, 2, -1, 1, 2, 0] and store.num_actions == 3


def test_an_hdf5_file_may_hold_floats_with_one_row_per_episode(tmp_path):
    frames = moving_bar(12).reshape(3, 4, 32, 32, 3)
    with h5py.File(tmp_path / "play.hdf5", "w") as file:
        file["observations"] = frames / 255.0
    store = open_clips_source(tmp_path / "play.hdf5", "h5", frame_size=(32, 32))
    assert store.episodes.tolist() == [[0, 4], [4, 8], [8, 12]]
    assert np.array_equal(store.frames, frames.reshape(12, 32, 32, 3))


def test_the_type_of_a_source_is_seen_from_its_files(tmp_path, videos):
    with ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_episode(np.zeros((2, 8, 8, 3), np.uint8))
    (tmp_path / "film.MKV").write_bytes(b"")
    (tmp_path / "data.h5").write_bytes(b"")
    found = {name: guess_data_type(tmp_path / name) for name in ("store", "videos", "film.MKV", "data.h5")}
    assert found == {"store": "store", "videos": "folder", "film.MKV": "folder", "data.h5": "h5"}


def test_a_bad_video_among_good_ones_is_named_skipped_and_counted(videos, capsys):
    (videos / "notes.mp4").write_text("this is no video")
    write_video(videos / "tiny.mp4", moving_bar(5, size=8 + 2), 10.0)
    store = open_clips_source(videos, frame_size=(16, 16))
    said = capsys.readouterr().out
    assert store.episodes.tolist() == [[0, 20], [20, 32]]
    assert "skipped 2 of 4 files that cannot be used: notes.mp4, tiny.mp4" in said
    assert "tiny.mp4: it has frames of 10x10 pixels, smaller than the 16x16 asked for" in said
    assert set(store.info["skipped_files"]) == {"notes.mp4", "tiny.mp4"}


def test_the_filter_cuts_black_static_and_repeated_stretches():
    moving, other = moving_bar(20), moving_bar(20, first=3) // 2
    black, still = np.zeros((6, 32, 32, 3), np.uint8), np.repeat(moving[19:], 10, axis=0)
    static_filter = StaticFilter()
    kept = static_filter(np.concatenate([moving, still, black, other, moving]))
    assert [len(stretch) for stretch in kept] == [20, 20]
    assert np.array_equal(kept[1], other)
    assert static_filter.dropped == {"static": 10, "black": 6, "repeated": 20}
    assert static_filter.describe() == "the static filter dropped 36 of 76 frames: 20 repeated, 10 static, 6 black"
    assert static_filter(other) == []  # frames of earlier videos are remembered


def test_the_filter_leaves_a_short_rest_alone():
    frames = np.concatenate([moving_bar(10), np.repeat(moving_bar(10)[9:], 5, axis=0), moving_bar(20)[10:]])
    assert [len(stretch) for stretch in StaticFilter()(frames)] == [25]


def test_a_cut_of_the_filter_ends_an_episode(tmp_path, capsys):
    frames = np.concatenate([moving_bar(20), np.zeros((10, 32, 32, 3), np.uint8), moving_bar(20, first=2)])
    write_video(tmp_path / "film.mp4", frames, 10.0)
    store = open_clips_source(tmp_path / "film.mp4", frame_size=(32, 32), filter_static=True)
    assert store.episodes.tolist() == [[0, 20], [20, 40]]
    assert "dropped 10 of 50 frames: 10 black" in capsys.readouterr().out


def test_runs_of_true():
    assert runs_of_true(np.array([False, True, True, False, True])) == [(1, 3), (4, 5)]


@needs_samples
def test_real_videos_decode_to_their_full_length(tmp_path):
    for name, num_frames in {"carphone.mp4": 120, "bikes.mp4": 250}.items():
        shutil.copy(SAMPLES / "videos" / name, tmp_path / name)
        assert sum(len(chunk) for chunk in read_video(tmp_path / name, (64, 64))) == num_frames


@needs_samples
@pytest.mark.parametrize(
    ("name", "quarter_turns"), [("video_0.mov", 0), ("video_180.mov", 2), ("video_90.mov", 3), ("video_270.mov", 1)]
)
def test_a_video_filmed_with_a_turned_camera_is_turned_back(name, quarter_turns):
    """The file stores unrotated pixels and notes the orientation of the camera."""
    capture = cv2.VideoCapture(str(SAMPLES / "awkward_videos" / name))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    as_stored = capture.read()[1][..., ::-1]  # BGR to RGB
    upright = read_video_frames(SAMPLES / "awkward_videos" / name, 1)[0]
    assert np.array_equal(upright, np.rot90(as_stored, quarter_turns))


@needs_samples
def test_ten_bit_and_unordered_videos_decode_and_a_corrupted_one_is_skipped(tmp_path, capsys):
    for file in (SAMPLES / "awkward_videos").iterdir():
        shutil.copy(file, tmp_path / file.name)
    store = open_clips_source(tmp_path, frame_size=(32, 32))
    said = capsys.readouterr().out
    assert "skipped corrupted.mp4: it ends after 28 of 50 frames" in said
    assert "h264_10bits.mp4" not in said and "h265_10bits.mp4" not in said and "unordered.mov" not in said
    assert len(store.episodes) >= 8
