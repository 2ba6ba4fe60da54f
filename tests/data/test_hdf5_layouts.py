"""HDF5 files as robotics and reinforcement learning have them: frames are found, episodes end, discrete actions are kept."""

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
STEPS = np.arange(40)
ENDS = STEPS % 10 == 9
EVERY_TEN = [[0, 10], [10, 20], [20, 30], [30, 40]]


def written(folder: Path, **arrays: Any) -> Path:
    """A file with these arrays; __ in a name stands for a slash."""
    with h5py.File(folder / "play.h5", "w") as file:
        for name, value in arrays.items():
            file[name.replace("__", "/")] = value
    return folder / "play.h5"


def read(folder: Path, key: str | None = None, **arrays: Any) -> ClipStore:
    return open_clips_source(written(folder, **arrays), frame_size=(16, 16), frames_key=key)


@pytest.mark.parametrize("key", ["terminals", "dones", "timeouts", "truncations"])
def test_ends_of_episodes_and_images_beside_a_vector_of_observations(tmp_path, key):
    """As in D4RL, where actions[t] was chosen at frame t: it is stored with the frame that it led to."""
    arrays = {"observations": np.zeros((40, 17), np.float32), "images": FRAMES, "actions": STEPS % 3, key: ENDS[:, None]}
    store = read(tmp_path, **arrays)
    assert store.episodes.tolist() == EVERY_TEN and np.array_equal(store.frames, FRAMES)
    assert store.actions[:12].tolist() == [-1, 0, 1, 2, 0, 1, 2, 0, 1, 2, -1, 1]  # frame 11 is where the action of frame 10 led


def test_several_kinds_of_ends_count_together(tmp_path):
    store = read(tmp_path, frames=FRAMES, terminals=(STEPS == 9), timeouts=(STEPS == 29).astype(np.float32))
    assert store.episodes.tolist() == [[0, 10], [10, 30], [30, 40]]


@pytest.mark.parametrize(
    "actions",
    [STEPS % 3, (STEPS % 3)[:, None], (STEPS % 3).astype(np.float32), np.eye(3)[STEPS % 3], np.eye(3, dtype=bool)[STEPS % 3],
     (STEPS % 3).astype(">i8"), (STEPS[1:] % 3), np.eye(3)[STEPS[1:] % 3]],
    ids=["numbers", "column", "floats", "one-hot", "bool", "big-endian", "between-frames", "one-hot-between-frames"],
)  # fmt: skip
def test_discrete_actions_of_any_type_are_kept(tmp_path, actions):
    store = read(tmp_path, frames=FRAMES, actions=actions)
    assert store.actions.tolist() == [-1, *(STEPS[1:] % 3)] and store.num_actions == 3


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        (np.zeros((40, 7), np.float32), "actions has 7 numbers for each frame, which are no one-hot choice"),
        (np.eye(4)[STEPS % 4] + np.eye(4)[STEPS * 3 % 4], "no one-hot choice"),
        (np.linspace(-1, 1, 40), "holds fractions"),
        (STEPS * 1000, "holds 0 to 39000"),
        (STEPS[:30], "is int64 of shape (30,), but the frames need one number each, (40,)"),
        (np.full(40, b"left"), "is |S4 of shape (40,)"),
    ],
)
def test_other_actions_are_left_out_with_a_sentence(tmp_path, capsys, actions, reason):
    store = read(tmp_path, frames=FRAMES, actions=actions)
    assert (store.actions == -1).all() and store.action_names == [] and len(store.frames) == 40
    said = capsys.readouterr().out
    assert "the actions of play.h5 are left out" in said and reason in said


def test_robomimic_has_a_group_for_each_demonstration(tmp_path, capsys):
    demos = {f"data__demo_{n}__obs__agentview_image": FRAMES[3 * n : 3 * n + 3] for n in range(12)}
    hands = {f"data__demo_{n}__obs__robot0_eye_in_hand_image": FRAMES[::-1][:3] for n in range(12)}
    nexts = {f"data__demo_{n}__next_obs__agentview_image": FRAMES[::-1][:3] for n in range(12)}
    actions = {f"data__demo_{n}__actions": np.array([n % 5, 1, 2]) for n in range(12)}
    store = read(tmp_path, **nexts, **hands, **demos, **actions)
    assert np.array_equal(store.frames, FRAMES[:36]) and store.episodes[:3].tolist() == [[0, 3], [3, 6], [6, 9]]  # 2 before 10
    assert store.actions[3:9].tolist() == [-1, 1, 1, -1, 2, 1]
    said = capsys.readouterr().out
    assert "frames are /data/demo_0/obs/agentview_image" in said and "robot0_eye_in_hand_image" in said
    assert np.array_equal(read(tmp_path, "robot0_eye_in_hand_image", **demos, **hands).frames[:3], FRAMES[::-1][:3])


def test_aloha_has_a_file_for_each_episode_and_several_cameras(tmp_path, capsys):
    arrays = {"observations__images__cam_high": FRAMES, "observations__images__cam_low": FRAMES[::-1],
              "observations__qpos": np.zeros((40, 14)), "action": np.zeros((40, 14))}  # fmt: skip
    assert np.array_equal(read(tmp_path, **arrays).frames, FRAMES)
    assert "there are also observations/images/cam_low for --frames-key" in capsys.readouterr().out
    assert np.array_equal(read(tmp_path, "cam_low", **arrays).frames, FRAMES[::-1])
    with pytest.raises(InputError, match="no array 'cam_left' for --frames-key, only action, observations/images/cam_high"):
        read(tmp_path, "cam_left", **arrays)


def test_minari_has_a_group_for_each_episode_with_one_action_less(tmp_path):
    frames = {f"episode_{n}__observations": FRAMES[4 * n : 4 * n + 4] for n in range(10)}
    rest = {f"episode_{n}__actions": np.array([1, 0, 2]) for n in range(10)}
    ends = {f"episode_{n}__terminations": np.array([False, True, True]) for n in range(10)}
    store = read(tmp_path, **frames, **rest, **ends)
    assert np.array_equal(store.frames, FRAMES) and len(store.episodes) == 10
    assert store.actions[:8].tolist() == [-1, 1, 0, 2, -1, 1, 0, 2]


def test_a_refusal_stays_short_however_many_arrays_there_are(tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, **{f"episode_{n}__state": np.zeros((3, 4)) for n in range(300)})
    assert "episode_0/state" in str(error.value) and "and 294 more" in str(error.value) and len(str(error.value)) < 400


def test_a_bad_file_among_good_ones_is_skipped_by_name(tmp_path, capsys):
    for number in range(4):
        written(tmp_path, frames=FRAMES[:10]).rename(tmp_path / f"{number}.h5")
    content = (tmp_path / "2.h5").read_bytes()
    (tmp_path / "2.h5").write_bytes(content[: len(content) // 2])
    assert len(open_clips_source(tmp_path, frame_size=(16, 16)).frames) == 30
    assert "skipped 1 of 4 files that cannot be used: 2.h5" in capsys.readouterr().out


@pytest.mark.parametrize("key", [None, "cam_high"])
def test_compressed_pictures_are_called_so(tmp_path, key):
    """ALOHA's recorder can store each frame as a JPEG, filled up with zeros to the length of the longest."""
    jpegs = [cv2.imencode(".jpg", frame)[1].flatten() for frame in FRAMES[:3]]
    rows = np.stack([np.pad(jpeg, (0, 2_000 - len(jpeg))) for jpeg in jpegs])
    with pytest.raises(InputError, match="'observations/images/cam_high' holds compressed pictures; decode them"):
        read(tmp_path, key, observations__images__cam_high=rows, action=np.zeros((3, 14)))
