"""Opens any source of video as a clip store: a store, a folder of videos or images, one video, or HDF5 files.

Anything but a store is converted once. The new store lies beside the source (`<folder>/.clip_store-64x64`), or in the user's
cache folder where the source is read-only, and is reused until a name, size or time of the source files changes. Other settings
than the defaults make a store of another name; where several processes want the same store, one decodes and the others wait.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store
from video_tokenizer.data.filter_static import StaticFilter
from video_tokenizer.data.hdf5_files import HDF5_ENDINGS, convert_hdf5, hdf5_frame_size, natural_order
from video_tokenizer.data.video_files import (
    VIDEO_ENDINGS,
    BadVideo,
    count_pictures,
    describe_fit,
    image_size,
    in_chunks,
    open_video,
    read_image,
    read_pictures,
    read_video,
    video_frame_rate,
)
from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import one_at_a_time

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff",
                 ".jfif", ".jpe", ".dib", ".apng", ".avif", ".jp2", ".ppm", ".pgm", ".pnm")  # fmt: skip
ENDINGS = {"folder": VIDEO_ENDINGS, "h5": HDF5_ENDINGS, "images": IMAGE_ENDINGS}
DATA_TYPES = ("auto", "store", *ENDINGS)
SYSTEM_FOLDERS = {"@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "lost+found"}
"""thumbnails, deleted files and resource forks, which a NAS, Windows or macOS keeps beside the reader's own files"""
USUAL_SETTINGS = {"frame_step": 1, "filter_static": False, "fit": "crop"}
"""a store made with others has them in its name"""
CHUNK_BYTES = 2**26
"""how much is decoded at a time"""
LARGEST_DEFAULT_SIDE = 128
"""longer side of decoded frames when no size was asked for and the files are at least as large, in pixels"""


def open_clips_source(
    data_path: str | Path,
    data_type: str = "auto",
    frame_size: tuple[int, int] | None = (64, 64),
    frame_step: int = 1,
    filter_static: bool = False,
    fit: str = "crop",
    frames_key: str | None = None,
) -> ClipStore:
    """Open `data_path` as a clip store, converting it first where needed.

    data_type: store, folder (of videos, or one video), images (one folder, or one subfolder per episode), h5, or auto.
    frame_size: (height, width) of the frames of a converted source, None for `default_size`; a store keeps its own.
    fit: what happens to frames of another shape, see `fit_frame`; it is printed. frames_key: which array of an HDF5 file holds
    the frames, see hdf5_files.py.
    frame_step: keep every n-th frame. filter_static: drop black, static and repeated stretches and report how much that was.
    Raises InputError, one sentence, for a source that is missing, empty or unusable. Bad files among good ones are reported and
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
    files = [path] if path.is_file() else _ending_in(_files_below(path), ENDINGS[data_type])
    if not files:
        kind = {"folder": "video", "images": "image", "h5": "HDF5 file"}[data_type]
        raise InputError(f"{path} contains no {kind}; give a folder that does, or another --data-type")
    if filter_static and data_type == "h5":
        raise InputError(f"{path} is an HDF5 source, which is never filtered for static stretches; turn the filter off")
    sizes = _sizes_of(files, frames_key) if frame_size is None else []
    frame_size = frame_size or default_size(sizes)
    settings = {"frame_size": list(frame_size), "frame_step": frame_step, "filter_static": filter_static, "fit": fit}
    if frames_key is not None:
        settings["frames_key"] = frames_key
    fingerprint = _source_fingerprint(path, files, settings)
    store_path = _store_path(path, settings)
    with one_at_a_time(store_path):
        if _is_current(store_path, fingerprint):
            print(f"using the frames decoded earlier in {store_path}")
        else:
            sizes = sizes or _sizes_of(files, frames_key)
            if sizes and (described := describe_fit(sizes[0], frame_size, fit)):
                print(described)
            _convert(path, data_type, files, store_path, {"source_fingerprint": fingerprint, **settings})
        return open_clip_store(store_path)


def _convert(path: Path, data_type: str, files: list[Path], store_path: Path, settings: dict) -> None:
    """Write the store of a source and say what is in it."""
    names = ("frame_size", "frame_step", "filter_static", "fit")
    frame_size, frame_step, filter_static, fit = (settings[name] for name in names)
    info = {"source": data_type, "source_path": str(path), "env_id": None, "linear_light": True, **settings}
    with ClipStoreWriter(store_path, frame_size, info, overwrite=True) as writer:
        static_filter = StaticFilter() if filter_static else None
        if data_type == "h5":
            skipped = _convert_hdf5_files(files, writer, frame_step, fit, settings.get("frames_key"))
            _report(path, files, skipped, writer, static_filter)
        else:
            convert = _convert_videos if data_type == "folder" else _convert_images
            _report(path, files, convert(files, writer, static_filter, frame_step, fit), writer, static_filter)
    print(f"decoded {writer.num_frames:,} frames of {len(files)} {'file' if len(files) == 1 else 'files'} into {store_path}")


def guess_data_type(path: Path) -> str:
    """store, folder, images or h5, from the files at `path`. Raises InputError when there is nothing usable."""
    if path.is_file():
        for data_type, endings in ENDINGS.items():
            if path.suffix.lower() in endings:
                return data_type
        raise InputError(f"{path} is neither a clip store, a video, an image nor an HDF5 file; give a path to one of these")
    if any((path / name).is_file() for name in ("clip_store.json", "frames.npy")):
        return "store"
    files = _files_below(path)
    found = {data_type: usable for data_type, endings in ENDINGS.items() if (usable := _ending_in(files, endings))}
    if len(found) > 1:
        counts = ", ".join(
            f"{len(usable):,} for --data-type {data_type} ({usable[0].name})" for data_type, usable in found.items()
        )
        raise InputError(f"{path} holds files of several kinds: {counts}; choose one of them with its --data-type")
    if found:
        return next(iter(found))
    raise InputError(f"{path} contains no clip store, no videos, no images and no HDF5 files; give a folder that does")


def default_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The shape of the files, (height, width) each of which the median counts, at most 128 pixels long.

    Both sides are rounded to a multiple of 8, the largest patch of the presets: 1080x1920 becomes 72x128.
    """
    if not sizes:
        return LARGEST_DEFAULT_SIDE, LARGEST_DEFAULT_SIDE  # no file can be read: decoding reports each of them
    height, width = (sorted(sides)[len(sides) // 2] for sides in zip(*sizes, strict=True))
    scale = min(1.0, LARGEST_DEFAULT_SIDE / max(height, width))
    rows, columns = (max(8, min(side // 8, round(scale * side / 8)) * 8) for side in (height, width))
    return rows, columns


def _sizes_of(files: list[Path], frames_key: str | None) -> list[tuple[int, int]]:
    """(height, width) of each of the first 20 files that can be read."""
    return [size for file in files[:20] if (size := _size_of(file, frames_key)) is not None]


def _size_of(path: Path, frames_key: str | None = None) -> tuple[int, int] | None:
    """(height, width) of a file's frames in pixels; None where they cannot be read."""
    if path.suffix.lower() in HDF5_ENDINGS:
        return hdf5_frame_size(path, frames_key)
    if path.suffix.lower() in IMAGE_ENDINGS:
        return image_size(path)
    capture = open_video(path)
    size = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    capture.release()
    return size if min(size) > 0 else None


def _files_below(path: Path) -> list[Path]:
    """The files below a folder in natural order (frame_2 before frame_10), or the one file; without hidden and system files."""
    if path.is_file():
        return [path]

    def shown(names: list[str]) -> list[str]:
        return [name for name in names if not name.startswith(".") and name not in SYSTEM_FOLDERS]

    files = []
    for folder, folders, names in os.walk(path):
        folders[:] = shown(folders)  # never into hidden folders, which another process may just be replacing
        files += [file for name in shown(names) if (file := Path(folder) / name).is_file()]
    return sorted(files, key=lambda file: natural_order(str(file).lower()))


def _ending_in(files: list[Path], endings: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in endings]


def _convert_videos(
    files: list[Path], writer: ClipStoreWriter, static_filter: StaticFilter | None, frame_step: int, fit: str
) -> dict[Path, str]:
    """One episode per video, or per kept stretch of it. Returns the skipped files with the reasons."""
    skipped: dict[Path, str] = {}
    for file in tqdm(files, desc="decoding", unit="video", disable=None):
        start = writer.num_frames
        try:
            _write(
                read_video(file, writer.frame_size, frame_step, _chunk_frames(writer, static_filter), fit), writer, static_filter
            )
            writer.info.setdefault("frames_per_second", video_frame_rate(file) / frame_step)
        except BadVideo as error:
            writer.drop_frames_from(start)
            _skip(file, error, skipped)
        writer.end_episode()
    return skipped


def _convert_images(
    files: list[Path], writer: ClipStoreWriter, static_filter: StaticFilter | None, frame_step: int, fit: str
) -> dict[Path, str]:
    """One episode per folder of images and per picture file of many frames, or per kept stretch of it. Returns the skipped files
    with the reasons."""
    skipped: dict[Path, str] = {}
    by_folder: dict[Path, list[Path]] = {}
    stacks = {file: None for file in files if count_pictures(file) > 1}  # in order
    for file in files:
        if file not in stacks:
            by_folder.setdefault(file.parent, []).append(file)
    chunk_frames = _chunk_frames(writer, static_filter)
    with tqdm(total=len(files), desc="reading", unit="image", disable=None) as progress:

        def read_one_by_one(images: list[Path]) -> Iterator[np.ndarray]:
            for number, file in enumerate(images):
                try:
                    if number % frame_step == 0:
                        yield read_image(file, writer.frame_size, fit)
                except BadVideo as error:
                    _skip(file, error, skipped)
                progress.update()

        for images in by_folder.values():
            _write(in_chunks(read_one_by_one(images), chunk_frames), writer, static_filter)
            writer.end_episode()
        for file in stacks:
            start = writer.num_frames
            try:
                frames = islice(read_pictures(file, writer.frame_size, fit), 0, None, frame_step)
                _write(in_chunks(frames, chunk_frames), writer, static_filter)
            except BadVideo as error:
                writer.drop_frames_from(start)
                _skip(file, error, skipped)
            writer.end_episode()
            progress.update()
    return skipped


def _convert_hdf5_files(
    files: list[Path], writer: ClipStoreWriter, frame_step: int, fit: str, frames_key: str | None
) -> dict[Path, str]:
    """The episodes of every file. Returns the skipped files with the reasons. Raises InputError where there is only one file."""
    skipped: dict[Path, str] = {}
    for file in files:
        start = writer.num_frames
        try:
            convert_hdf5(file, writer, frame_step, fit, frames_key)
        except InputError as error:
            if len(files) == 1:
                raise
            writer.drop_frames_from(start)
            skipped[file] = str(error).removeprefix(f"{file} ")
            tqdm.write(f"skipped {file.name}: it {skipped[file]}")
    return skipped


def _chunk_frames(writer: ClipStoreWriter, static_filter: StaticFilter | None) -> int:
    """Frames in memory at a time. The filter sees many at once, because it cuts at the end of each chunk."""
    height, width = writer.frame_size
    most, size = (512, CHUNK_BYTES) if static_filter is None else (4096, 4 * CHUNK_BYTES)
    return max(1, min(most, size // (3 * height * width)))


def _write(chunks: Iterator[np.ndarray], writer: ClipStoreWriter, static_filter: StaticFilter | None) -> None:
    """Write chunks of one video; what the filter keeps of them as episodes."""
    for chunk in chunks:
        if static_filter is None:
            writer.add_frames(chunk)
        else:
            for stretch in static_filter(chunk):
                writer.add_episode(stretch)


def _skip(file: Path, error: BadVideo, skipped: dict[Path, str]) -> None:
    skipped[file] = str(error)
    tqdm.write(f"skipped {file.name}: it {error}")


def _report(
    path: Path, files: list[Path], skipped: dict[Path, str], writer: ClipStoreWriter, static_filter: StaticFilter | None
) -> None:
    """Print what was left out. Raises InputError when nothing is left."""
    if static_filter is not None and static_filter.num_seen:
        print(static_filter.describe())
    if skipped and len(skipped) < len(files):
        print(f"skipped {len(skipped)} of {len(files)} files that cannot be used: {', '.join(file.name for file in skipped)}")
    if writer.num_frames == 0 and skipped:
        file, reason = next(iter(skipped.items()))
        rest = f", and none of the {len(skipped) - 1} other files can be used" if len(skipped) > 1 else ""
        raise InputError(f"{path} has no file that can be used: {file.name} {reason}{rest}")
    if writer.num_frames == 0:
        raise InputError(f"nothing in {path} is left after filtering static stretches; turn the filter off")
    endings = Counter(file.suffix.lower() or "no ending" for file in set(_files_below(path)) - set(files))
    if endings:
        others = ", ".join(f"{count:,} with {ending}" for ending, count in endings.most_common(5))
        print(f"not used: {endings.total():,} files of other kinds, {others}")
    writer.info["skipped_files"] = {file.name: reason for file, reason in skipped.items()}


def _source_fingerprint(path: Path, files: list[Path], settings: dict) -> str:
    """Changes with the settings and with the name, size or time of any file."""
    base = path if path.is_dir() else path.parent
    lines = [f"{file.relative_to(base)} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join([repr(sorted(settings.items())), *lines]).encode(errors="surrogateescape")).hexdigest()


def _store_path(path: Path, settings: dict) -> Path:
    """Beside the source, or in the user's cache folder, under a name made from its path, where the source is read-only."""
    name = path.name if len(os.fsencode(path.name)) < 120 else f"{path.name[:30]}-{_digest(path.name)}"  # at most 255 bytes fit
    folder, prefix = (path, ".clip_store") if path.is_dir() else (path.parent, f".{name}.clip_store")
    ending = f"-{settings['frame_size'][0]}x{settings['frame_size'][1]}"
    special = {key: value for key, value in settings.items() if key != "frame_size" and value != USUAL_SETTINGS.get(key)}
    ending += "".join(f"-{key}-{re.sub(r'[^a-zA-Z0-9_]', '.', str(value))[-40:]}" for key, value in special.items())
    if os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return folder / (prefix + ending)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "video-world-models"
    return cache / f"{name}-{_digest(str(path.resolve()))}{ending}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def _is_current(store_path: Path, fingerprint: str) -> bool:
    """Whether a sound store lies there that was made from exactly this source."""
    try:
        return open_clip_store(store_path).info.get("source_fingerprint") == fingerprint
    except InputError:
        return False
