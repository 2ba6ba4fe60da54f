"""The clip store: what goes in comes out, completely or not at all."""

import json
import pickle

import numpy as np
import pytest

from video_tokenizer.data.clip_store import ClipStoreWriter, check_light, cut_in_two, open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store

NAMES = ["NOOP", "LEFT", "RIGHT"]


def numbered_frames(first: int, count: int) -> np.ndarray:
    """Frames (count, 8, 8, 3) whose every pixel is the frame's number."""
    return np.repeat(np.arange(first, first + count, dtype=np.uint8), 8 * 8 * 3).reshape(count, 8, 8, 3)


@pytest.fixture
def store_path(tmp_path):
    """Two episodes of 3 and 4 frames, numbered 0 to 6. The first was cut, the second ended and its last frame was paid 2.5."""
    with ClipStoreWriter(tmp_path / "store", (8, 8), {"action_names": NAMES, "env_id": "Square-v0"}) as writer:
        writer.add_episode(numbered_frames(0, 3), np.array([2, 1, 0]), rewards=np.zeros(3), ends=np.zeros(3), lives=[5, 5, 4])
        writer.add_episode(numbered_frames(3, 4), rewards=[0, 0, 0, 2.5], ends=[0, 0, 0, 1], lives=[1, 1, 1, 0])
    return tmp_path / "store"


def test_a_store_gives_back_what_was_written(store_path):
    store = open_clip_store(store_path)
    assert np.array_equal(store.frames, numbered_frames(0, 7))
    assert store.actions.tolist() == [-1, 1, 0, -1, -1, -1, -1]  # nothing led to a first frame, the second episode is a video
    assert store.episodes.tolist() == [[0, 3], [3, 7]]
    assert (store.frame_size, store.action_names, store.num_actions, store.env_id) == ((8, 8), NAMES, 3, "Square-v0")


def test_frames_stay_on_disk_and_files_have_the_documented_types(store_path):
    store = open_clip_store(store_path)
    assert isinstance(store.frames, np.memmap)
    assert (store.frames.dtype, store.actions.dtype, store.episodes.dtype) == (np.uint8, np.int16, np.int64)
    assert np.array_equal(np.load(store_path / "frames.npy"), store.frames)  # plain numpy reads it too


def test_rewards_ends_and_lives_stand_beside_the_frames(store_path):
    store = open_clip_store(store_path)
    assert store.array("rewards").tolist() == [0, 0, 0, 0, 0, 0, 2.5] and store.array("rewards").dtype == np.float32
    assert store.array("ends").tolist() == [False] * 6 + [True]
    assert store.array("lives").tolist() == [5, 5, 4, 1, 1, 1, 0] and store.array("lives").dtype == np.uint8


def test_a_store_of_version_1_is_read_and_is_the_recording_that_checkpoints_know(store_path):
    new = open_clip_store(store_path)
    for name in new.info["arrays"]:
        (store_path / f"{name}.npy").unlink()
    info = {name: value for name, value in new.info.items() if name != "arrays"} | {"format_version": 1}
    (store_path / "clip_store.json").write_text(json.dumps(info))
    old = open_clip_store(store_path)
    assert np.array_equal(old.frames, new.frames) and old.fingerprint == new.fingerprint
    with pytest.raises(InputError, match=r"store holds no rewards; record the game again with .*record\.py"):
        old.array("rewards")


def test_frames_with_and_without_rewards_do_not_go_into_one_store(tmp_path):
    wrong = "came with actions, but earlier ones with actions, rewards"
    with pytest.raises(ValueError, match=wrong), ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_episode(numbered_frames(0, 2), rewards=[0, 1])
        writer.add_episode(numbered_frames(2, 2))
    with pytest.raises(ValueError, match="2 frames but 3 rewards"), ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_episode(numbered_frames(0, 2), rewards=[0, 1, 2])


def test_an_episode_added_in_parts_is_one_episode(tmp_path):
    with ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_frames(numbered_frames(0, 2))
        writer.add_frames(numbered_frames(2, 2))
        writer.end_episode()
        writer.add_episode(numbered_frames(4, 2))
    assert open_clip_store(tmp_path / "store").episodes.tolist() == [[0, 4], [4, 6]]


def test_frames_of_a_damaged_video_can_be_taken_back(tmp_path):
    with ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_episode(numbered_frames(0, 2), rewards=[0, 1])
        writer.add_frames(numbered_frames(50, 3), rewards=[7, 7, 7])
        writer.add_frames(numbered_frames(60, 3), rewards=[8, 8, 8])
        writer.drop_frames_from(2)
        writer.add_episode(numbered_frames(2, 2), rewards=[2, 3])
    store = open_clip_store(tmp_path / "store")
    assert store.array("rewards").tolist() == [0, 1, 2, 3]
    assert np.array_equal(store.frames, numbered_frames(0, 4))
    assert store.episodes.tolist() == [[0, 2], [2, 4]]


def test_a_failed_recording_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), ClipStoreWriter(tmp_path / "store", (8, 8), {}) as writer:
        writer.add_episode(numbered_frames(0, 3))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_replaced_only_on_request(store_path):
    with pytest.raises(InputError, match="already exists"):
        ClipStoreWriter(store_path, (8, 8), {})
    with ClipStoreWriter(store_path, (8, 8), {}, overwrite=True) as writer:
        writer.add_episode(numbered_frames(9, 4))
    assert store_path.is_dir() and open_clip_store(store_path).frames[0, 0, 0, 0] == 9


def test_a_folder_of_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not delete")
    with pytest.raises(InputError, match="no clip store"):
        ClipStoreWriter(tmp_path, (8, 8), {}, overwrite=True)


def test_a_single_video_is_cut_into_a_training_and_a_validation_part():
    assert cut_in_two(np.array([[0, 1000]])).tolist() == [[0, 900], [900, 1000]]  # the last tenth
    assert cut_in_two(np.array([[0, 100]])).tolist() == [[0, 68], [68, 100]]  # but at least 32 frames
    assert cut_in_two(np.array([[0, 20]])).tolist() == [[0, 10], [10, 20]]  # and at most half


def test_a_film_beside_trailers_is_cut_like_a_single_one_and_films_of_one_kind_stay_whole():
    assert cut_in_two(np.array([[0, 600], [600, 620]])).tolist() == [[0, 540], [540, 600], [600, 620]]
    for lengths in ([600, 70], [20, 12], [1000] * 9 + [40], [64, 20, 31, 12], [1, 1]):
        stops = np.cumsum(lengths)
        episodes = np.stack([stops - lengths, stops], axis=1)
        assert np.array_equal(cut_in_two(episodes), episodes)


def test_the_fingerprint_follows_the_content(store_path, tmp_path):
    first = open_clip_store(store_path).fingerprint
    assert first == open_clip_store(store_path).fingerprint
    with ClipStoreWriter(tmp_path / "other", (8, 8), {"action_names": ["a", "b", "c"]}) as writer:
        writer.add_episode(numbered_frames(0, 7), np.full(7, 2))
    assert open_clip_store(tmp_path / "other").fingerprint != first


def test_a_pickled_store_is_a_path_not_its_frames(store_path):
    """Loader workers that are spawned (macOS, Windows) receive the store by pickle."""
    pickled = pickle.dumps(open_clip_store(store_path))
    assert len(pickled) < 1000
    assert np.array_equal(pickle.loads(pickled).frames, numbered_frames(0, 7))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("frames.npy", lambda frames: frames.astype(np.float32), "holds float32 with 4 axes instead of uint8 with 4"),
        ("frames.npy", lambda frames: frames[..., :1], "has shape (7, 8, 8, 1) instead of (frames, height, width, 3)"),
        ("actions.npy", lambda actions: actions[:-1], "has 7 frames but 6 actions"),
        ("rewards.npy", lambda rewards: rewards[:-1], "has 7 frames but 6 rewards"),
        ("rewards.npy", lambda rewards: rewards + 1, "was changed after it was written: its checksum does not match"),
        ("ends.npy", lambda ends: ends.astype(np.uint8), "holds uint8 with 1 axes instead of bool with 1"),
        ("actions.npy", lambda actions: actions * 0 + 3, "holds actions from 3 to 3, but clip_store.json names 3"),
        ("episodes.npy", lambda episodes: np.array([[0, 3], [3, 8]]), "overlap or lie outside the 7 frames"),
        ("episodes.npy", lambda episodes: np.array([[0, 4], [3, 7]]), "overlap or lie outside the 7 frames"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_with_the_numbers(store_path, file, change, reason):
    np.save(store_path / file, change(np.load(store_path / file)))
    with pytest.raises(InputError) as error:
        open_clip_store(store_path)
    assert reason in str(error.value) and str(store_path) in str(error.value) and "\n" not in str(error.value)


def test_a_store_is_refused_where_a_file_is_truncated_or_missing(store_path):
    content = (store_path / "frames.npy").read_bytes()
    for kept in (0, len(content) - 100):
        (store_path / "frames.npy").write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"frames\.npy is damaged or truncated"):
            open_clip_store(store_path)
    for name in ("lives.npy", "actions.npy"):
        (store_path / name).unlink()
        with pytest.raises(InputError, match=rf"it lacks {name}"):
            open_clip_store(store_path)


def test_a_missing_store_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(InputError, match=r"does not exist; make one with .*record\.py"):
        open_clip_store(tmp_path / "nowhere")


def test_a_model_is_never_given_frames_that_were_shrunk_otherwise_than_those_of_its_training(tmp_path):
    """Stores and checkpoints that do not say how are older: they average sRGB values."""
    stores = []
    for name, info in (("old", {}), ("new", {"linear_light": True})):
        with ClipStoreWriter(tmp_path / name, (8, 8), info) as writer:
            writer.add_episode(np.zeros((4, 8, 8, 3), np.uint8))
        stores.append(open_clip_store(tmp_path / name))
    old, new = stores
    for alike in ((None, old), (False, old), (True, new)):
        check_light("the tokenizer", *alike)
    with pytest.raises(InputError, match=r"averaging sRGB values, those of .*new by averaging light; .* with --no-lin"):
        check_light("the tokenizer", None, new)
    with pytest.raises(InputError, match=r"averaging light, those of .*old by averaging sRGB values; .* with --linear"):
        check_light("the tokenizer", True, old)


def test_frames_drawn_at_their_size_fit_a_model_of_either_light(tmp_path):
    square = dummy_clip_store(tmp_path / "square", frame_size=(16, 16))
    assert square.linear_light is None
    for light in (None, False, True):
        check_light("the tokenizer", light, square)
