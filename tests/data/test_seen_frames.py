"""Frames that validation shares with training: found bit for bit, and not scored."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import ClipStore, ClipStoreWriter, open_clip_store
from video_tokenizer.data.clips import Clips, split_episodes
from video_tokenizer.data.seen_frames import frame_hashes, seen_frames, unseen_clips
from video_tokenizer.data.training_data import open_training_data, split_clips
from video_tokenizer.data.validation import open_validation_data

EPISODES = [[1, 2, *range(10 * number, 10 * number + 6)] for number in range(1, 5)]  # all begin alike


def write_store(folder, episodes=EPISODES) -> ClipStore:
    """A store of 2x2 pictures; every pixel of a frame is the number given."""
    with ClipStoreWriter(folder, (2, 2), {}) as writer:
        for numbers in episodes:
            writer.add_episode(np.array(numbers, np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3))
    return open_clip_store(folder)


def test_equal_frames_have_equal_hashes_and_one_bit_makes_another():
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    frames[2] = frames[0]
    frames[2, 7, 7, 2] ^= 1
    hashes = frame_hashes(np.concatenate([frames, frames[:1]]))
    assert hashes.dtype == np.uint64 and hashes[0] == hashes[3] and len(np.unique(hashes)) == 3
    assert frame_hashes(frames[:0]).shape == (0,)


def test_a_clip_that_scores_a_training_frame_is_left_out(tmp_path):
    """Episode 2 shares frames 1 and 2 with training. Of its clips of 3, the first scores 2; the next begins with it at most."""
    store = write_store(tmp_path / "store")
    seen = seen_frames(store, training=[0, 1, 3], validation=[2])
    assert np.flatnonzero(seen).tolist() == [16, 17]  # the first two frames of episode 2, and none of the training episodes
    clips = unseen_clips(Clips(store, [2], num_frames=3), seen)
    assert clips.starts.tolist() == [17, 18, 19, 20, 21]  # a clip's first frame is not scored
    assert unseen_clips(Clips(store, [2], num_frames=4), seen, num_given=2).starts.tolist() == [16, 17, 18, 19, 20]


def test_all_clips_are_kept_where_training_has_every_frame(tmp_path):
    store = write_store(tmp_path / "store", [[1, 2, 3, 4]] * 3)
    clips = Clips(store, [1], num_frames=2)
    assert len(unseen_clips(clips, seen_frames(store, [0, 2], [1]))) == len(clips)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_validation_clip_scores_a_frame_of_training(tmp_path, seed):
    config = TokenizerConfig(num_frames=3, validation_share=0.3, seed=seed)
    store = write_store(tmp_path / "store")
    data = split_clips(config, store)
    trained = set(store.frames[data.training.starts[:, None] + np.arange(3), 0, 0, 0].ravel().tolist())
    scored = set(store.frames[data.validation.starts[:, None] + np.arange(1, 3), 0, 0, 0].ravel().tolist())
    assert not trained & scored
    training, validation = split_episodes(store, 0.3, seed)
    assert np.array_equal(data.training.starts, Clips(store, training, 3).starts)  # what is trained on stays as it was
    assert data.clips_left_out == len(Clips(store, validation, 3, stride=2)) - len(data.validation) > 0
    assert 0 < data.seen_share < 1 and f"{data.seen_share:.0%} of the frames" in data.describe_seen()


def test_another_store_is_held_against_the_one_that_was_trained_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained, other = write_store(tmp_path / "trained"), write_store(tmp_path / "other", [[40, 41, 42, 43], [40, 41, 2, 3]])
    config = TokenizerConfig(num_frames=2, frame_size=2, data_path="trained", validation_share=0.5)
    flags = SimpleNamespace(data_path=str(other.path), data_type="auto", use_dummy_data=False, trained_on=None)
    data = open_validation_data(flags, config, {"data_fingerprint": trained.fingerprint})
    chosen = np.concatenate([np.arange(*store_range) for store_range in other.episodes[split_episodes(other, 0.5, 0)[1]]])
    expected = np.isin(other.frames[chosen, 0, 0, 0], trained.frames[:, 0, 0, 0])
    assert np.array_equal(data.seen[chosen], expected)  # its own training episodes are nothing to this checkpoint
    another = {"data_fingerprint": "another"}
    unknown = open_validation_data(flags, replace(config, data_path="elsewhere"), another)
    assert "elsewhere does not exist" in capsys.readouterr().out
    assert np.isnan(unknown.seen_share) and not unknown.seen.any()
    told = open_validation_data(replace_flag(flags, str(trained.path)), replace(config, data_path="elsewhere"), another)
    assert np.array_equal(told.seen, data.seen)


def replace_flag(flags: SimpleNamespace, trained_on: str) -> SimpleNamespace:
    return SimpleNamespace(**vars(flags) | {"trained_on": trained_on})


def test_dummy_data_can_be_validated():
    """A moving square is in the same place again and again; enough clips are left."""
    data, _ = open_training_data(TokenizerConfig(use_dummy_data=True, frame_size=32))
    assert len(data.validation) >= 2 and "bit for bit" in data.describe_seen()
