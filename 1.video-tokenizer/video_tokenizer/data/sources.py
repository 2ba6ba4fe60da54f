"""Any source of video becomes a clip store, once: a store, a folder of videos or images, one video, or an HDF5 file.

The store lies beside the source (`<folder>/.clip_store-64x64`), or in the user's cache folder where the source cannot be written
to, and is reused as long as the names, sizes and times of the source files stay the same.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store
from video_tokenizer.data.hdf5_files import HDF5_ENDINGS, convert_hdf5
from video_tokenizer.data.natural_size import default_side
from video_tokenizer.data.quality import DullFilter
from video_tokenizer.data.video_files import VIDEO_ENDINGS, BadVideo, read_image, read_video, video_frame_rate
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.command_line import InputError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
DATA_TYPES = ("auto", "store", "folder", "images", "h5")

__all__ = ["DATA_TYPES", "dummy_clip_store", "guess_data_type", "open_clips_source"]


def open_clips_source(
    data_path: str | Path,
    data_type: str = "auto",
    frame_size: tuple[int, int] | None = (64, 64),
    frame_step: int = 1,
    filter_dull: bool = False,
) -> ClipStore:
    """Open `data_path` as a clip store, converting it first where needed.

    data_type: store, folder (of videos, or one video), images (one folder, or one subfolder per episode), h5, or auto.
    frame_size: (height, width) of the frames of a converted source, None for `default_side`; a store keeps its own.
    frame_step: keep every n-th frame. filter_dull: leave out black, static and repeated stretches, and say how much that was.
    Raises InputError, one sentence, for a source that is missing, empty or unusable. Bad files among good ones are named and
    skipped.
    """
    path = Path(data_path)
    if data_type not in DATA_TYPES:
        raise InputError(f"there is no data type {data_type!r}; choose one of {', '.join(DATA_TYPES)}")
    if not path.exists():
        raise InputError(
            f"data path {path} does not exist; record a game with 1.video-tokenizer/record.py or give a folder of videos"
        )
    if data_type == "auto":
        data_type = guess_data_type(path)
    if data_type == "store":
        return open_clip_store(path)
    convert, files = {
        "folder": (_convert_videos, _files_with(path, VIDEO_ENDINGS)),
        "images": (_convert_images, _files_with(path, IMAGE_ENDINGS)),
        "h5": (_convert_hdf5, [path] if path.is_file() else _files_with(path, HDF5_ENDINGS)),
    }[data_type]
    if not files:
        kind = {"folder": "video", "images": "image", "h5": "HDF5 file"}[data_type]
        raise InputError(f"{path} contains no {kind}; give a folder that does, or another --data-type")
    if frame_size is None:
        side = default_side(files)
        frame_size = (side, side)
    settings = {"frame_size": list(frame_size), "frame_step": frame_step, "filter_dull": filter_dull}
    fingerprint = _source_fingerprint(path, files, settings)
    place = _store_place(path, frame_size)
    if _is_current(place, fingerprint):
        print(f"using the frames decoded earlier in {place}")
        return open_clip_store(place)
    info = {"source": data_type, "source_path": str(path), "source_fingerprint": fingerprint, "env_id": None, **settings}
    with ClipStoreWriter(place, frame_size, info, overwrite=True) as writer:
        convert(path, files, writer, DullFilter() if filter_dull else None, frame_step)
    store = open_clip_store(place)
    print(f"decoded {len(store.frames):,} frames of {len(files)} {'file' if len(files) == 1 else 'files'} into {place}")
    return store


def guess_data_type(path: Path) -> str:
    """store, folder, images or h5, from what lies at `path`. Raises InputError when nothing usable does."""
    if path.is_file():
        ending = path.suffix.lower()
        for data_type, endings in (("folder", VIDEO_ENDINGS), ("h5", HDF5_ENDINGS), ("images", IMAGE_ENDINGS)):
            if ending in endings:
                return data_type
        raise InputError(f"{path} is neither a clip store, a video, an image nor an HDF5 file; give a path to one of these")
    if any((path / name).is_file() for name in ("clip_store.json", "frames.npy")):
        return "store"
    for data_type, endings in (("folder", VIDEO_ENDINGS), ("h5", HDF5_ENDINGS), ("images", IMAGE_ENDINGS)):
        if _files_with(path, endings):
            return data_type
    raise InputError(f"{path} contains no clip store, no videos, no images and no HDF5 files; give a folder that does")


def _files_with(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files below `path` with such an ending, in natural order (frame_2 before frame_10); hidden ones are left out."""
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(visible, key=_natural_order)


def _natural_order(path: Path) -> list:
    pieces = re.split(r"(\d+)", str(path).lower())
    return [int(piece) if piece.isdigit() else piece for piece in pieces]


def _convert_videos(path: Path, files: list[Path], writer: ClipStoreWriter, dull: DullFilter | None, frame_step: int) -> None:
    """One episode per video; with a filter, one per stretch that is kept."""
    skipped: dict[Path, str] = {}
    for file in tqdm(files, desc="decoding", unit="video", disable=None):
        start = writer.num_frames
        try:
            for chunk in read_video(file, writer.frame_size, frame_step, chunk_frames=512 if dull is None else 4096):
                if dull is None:
                    writer.add_frames(chunk)
                else:
                    for stretch in dull(chunk):
                        writer.add_episode(stretch)
            writer.info.setdefault("frames_per_second", video_frame_rate(file) / frame_step)
        except BadVideo as error:
            writer.drop_frames_from(start)
            _skip(file, error, skipped)
        writer.end_episode()
    _finish(path, files, skipped, writer, dull)


def _convert_images(path: Path, files: list[Path], writer: ClipStoreWriter, dull: DullFilter | None, frame_step: int) -> None:
    """One episode per folder that holds images; its images in natural order."""
    skipped: dict[Path, str] = {}
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    with tqdm(total=len(files), desc="reading", unit="image", disable=None) as progress:
        for images in by_folder.values():
            frames = []
            for file in images[::frame_step]:
                try:
                    frames.append(read_image(file, writer.frame_size))
                except BadVideo as error:
                    _skip(file, error, skipped)
            progress.update(len(images))
            if frames:
                for stretch in dull(np.stack(frames)) if dull is not None else [np.stack(frames)]:
                    writer.add_episode(stretch)
    _finish(path, files, skipped, writer, dull)


def _convert_hdf5(path: Path, files: list[Path], writer: ClipStoreWriter, dull: DullFilter | None, frame_step: int) -> None:
    if dull is not None:
        raise InputError(f"{path} is an HDF5 source, which is never filtered for dull stretches; leave --filter-dull out")
    for file in files:
        convert_hdf5(file, writer, frame_step)


def _skip(file: Path, error: BadVideo, skipped: dict[Path, str]) -> None:
    skipped[file] = str(error)
    tqdm.write(f"skipped {file.name}: it {error}")


def _finish(path: Path, files: list[Path], skipped: dict[Path, str], writer: ClipStoreWriter, dull: DullFilter | None) -> None:
    """Say what was left out. Raises InputError when nothing is left."""
    if dull is not None and dull.num_seen:
        print(dull.describe())
    if skipped and len(skipped) < len(files):
        print(f"skipped {len(skipped)} of {len(files)} files that could not be used: {', '.join(file.name for file in skipped)}")
    if writer.num_frames == 0 and skipped:
        file, reason = next(iter(skipped.items()))
        rest = f", and the {len(skipped) - 1} other files are no better" if len(skipped) > 1 else ""
        raise InputError(f"{path} has no file that can be used: {file.name} {reason}{rest}")
    if writer.num_frames == 0:
        raise InputError(f"nothing of {path} is left after the filter for dull stretches; leave --filter-dull out")
    writer.info["skipped_files"] = {file.name: reason for file, reason in skipped.items()}


def _source_fingerprint(path: Path, files: list[Path], settings: dict) -> str:
    """Changes with the settings and with the name, size or time of any file."""
    base = path if path.is_dir() else path.parent
    lines = [f"{file.relative_to(base)} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join([repr(sorted(settings.items())), *lines]).encode()).hexdigest()


def _store_place(path: Path, frame_size: tuple[int, int]) -> Path:
    """Beside the source, else, where it is read-only, in the user's cache folder under a name made from its path."""
    folder, prefix = (path, ".clip_store") if path.is_dir() else (path.parent, f".{path.name}.clip_store")
    name = f"{prefix}-{frame_size[0]}x{frame_size[1]}"
    if os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return folder / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "video-world-models"
    return cache / f"{path.name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}{name}"


def _is_current(place: Path, fingerprint: str) -> bool:
    """The store at `place` is sound and was made from exactly this source."""
    try:
        return open_clip_store(place).info.get("source_fingerprint") == fingerprint
    except InputError:
        return False
