"""A recording of another game, of other pixels or of another light is refused by every use that learns from one."""

from pathlib import Path

import numpy as np
import pytest
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store
from video_tokenizer.errors import InputError
from world_model.recordings import check_recording
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"


def recorded(folder: Path, size: int, **info: object) -> ClipStore:
    """Three black frames of Breakout, with rewards and half a second of silence."""
    columns = {"rewards": [0] * 3, "ends": [False] * 3, "lives": [5] * 3, "sound": np.full((3, 4 * 512), 128, np.uint8)}
    with ClipStoreWriter(folder, (size, size), {"env_id": BREAKOUT, "linear_light": True} | info, overwrite=True) as writer:
        writer.add_episode(np.zeros((3, size, size, 3), np.uint8), **columns)
    return open_clip_store(folder)


@pytest.fixture
def world(tmp_path) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path / "world", linear_light=True), "cpu", num_steps=1)


def test_only_recordings_like_those_of_the_world_are_taken(world, tmp_path):
    check_recording(recorded(tmp_path / "store", 32), world)
    check_recording(recorded(tmp_path / "store", 32, env_id="ale_py:ALE/Breakout-v5"), world)
    check_recording(recorded(tmp_path / "store", 64), world, same_size=False)
    for size, info, reason in (
        (24, {}, "store has frames of --frame-size 24, not 32 like the world"),
        (32, {"env_id": "ALE/Pong-v5"}, "store was recorded from ALE/Pong-v5, not ALE/Breakout-v5"),
        (32, {"linear_light": False}, "was trained on frames that were shrunk by averaging light"),
    ):
        with pytest.raises(InputError, match=reason):
            check_recording(recorded(tmp_path / "store", size, **info), world)


@pytest.mark.parametrize("use", ["imagination", "sharpening", "sound"])
def test_every_use_refuses_a_recording_of_another_game(world, tmp_path, capsys, use):
    if use == "imagination":
        pytest.importorskip("stable_baselines3")
    recorded(tmp_path / "pong", 64 if use == "sharpening" else 32, env_id="ALE/Pong-v5")
    script = REPOSITORY / "4.inference/uses" / use / "train.py"
    run = () if use == "imagination" else ("--checkpoint-dir", tmp_path / "run", "--device", "cpu")
    assert call(script, "--world", tmp_path / "world", "--data-path", tmp_path / "pong", *run) == 2
    assert "pong was recorded from ALE/Pong-v5, not ALE/Breakout-v5" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
