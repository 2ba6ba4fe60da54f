"""Clips, their split and their order: no clip crosses a reset, no frame is in both splits, a resumed run sees the same clips."""

from itertools import chain

import numpy as np
import pytest
import torch

from dynamics_model.data.frame_cache import cached
from video_tokenizer.data.augment import Augmentation
from video_tokenizer.data.clip_store import ClipStoreWriter, open_clip_store
from video_tokenizer.data.clips import Clips, ShuffledBatches, make_loader, split_episodes, to_frames, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store


@pytest.fixture
def store(tmp_path):
    """Three episodes of 5, 3 and 4 frames; every pixel of frame f is f, every known action is f too."""
    with ClipStoreWriter(tmp_path / "store", (2, 2), {}) as writer:
        first = 0
        for length in (5, 3, 4):
            numbers = np.arange(first, first + length)
            writer.add_episode(np.broadcast_to(numbers[:, None, None, None], (length, 2, 2, 3)).astype(np.uint8), numbers)
            first += length
    return open_clip_store(tmp_path / "store")


def frame_numbers(batch: dict) -> list[list[int]]:
    return batch["frames"][..., 0, 0, 0].tolist()


def test_no_clip_crosses_a_reset(store):
    """Episodes of 5, 3 and 4 frames hold 3, 1 and 2 clips of 3 frames; frames 4 and 5 never meet in one."""
    clips = Clips(store, [0, 1, 2], num_frames=3)
    batch = clips.__getitems__(range(len(clips)))
    assert frame_numbers(batch) == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [8, 9, 10], [9, 10, 11]]


def test_the_action_of_a_frame_is_the_one_that_led_to_it(store):
    clips = Clips(store, [0, 1, 2], num_frames=3)
    assert clips[1]["actions"].tolist() == [1, 2, 3]  # in the middle of an episode the first action is known too
    assert clips[3]["actions"].tolist() == [-1, 6, 7]  # nothing led to the first frame of an episode


def test_one_clip_and_a_batch_agree(store):
    clips = Clips(store, [0, 2], num_frames=2)
    batch = clips.__getitems__([4, 1])
    for row, index in enumerate([4, 1]):
        assert torch.equal(batch["frames"][row], clips[index]["frames"])
        assert torch.equal(batch["actions"][row], clips[index]["actions"])
    assert batch["index"].tolist() == [4, 1]
    assert (batch["frames"].dtype, batch["actions"].dtype) == (torch.uint8, torch.int64)


def test_stride_spaces_the_starts(store):
    assert Clips(store, [0, 1, 2], num_frames=2, stride=2).starts.tolist() == [0, 2, 5, 8, 10]


def test_clips_longer_than_every_episode_are_refused_with_the_numbers(store):
    with pytest.raises(InputError, match=r"no clip of 6 frames fits: the longest of 3 episodes has 5 frames, of 12 frames in "):
        Clips(store, [0, 1, 2], num_frames=6)


def test_the_split_is_by_episode_and_shares_no_frame():
    store = dummy_clip_store(num_episodes=20, episode_frames=10, frame_size=(16, 16))
    training, validation = split_episodes(store, validation_share=0.1, seed=3)
    assert len(validation) == 2 and sorted(training + validation) == list(range(20))
    seen = {frame for start in Clips(store, training, 4).starts for frame in range(start, start + 4)}
    held = {frame for start in Clips(store, validation, 4).starts for frame in range(start, start + 4)}
    assert seen.isdisjoint(held)
    assert split_episodes(store, 0.1, seed=3) == (training, validation)
    assert any(split_episodes(store, 0.1, seed=other)[1] != validation for other in range(4, 8))


def test_the_split_never_leaves_a_side_empty():
    store = dummy_clip_store(num_episodes=2, episode_frames=10, frame_size=(16, 16))
    for share in (0.01, 0.5, 0.99):
        training, validation = split_episodes(store, share)
        assert len(training) == len(validation) == 1


def of_lengths(folder, lengths: list[int]):
    """A store whose episodes have these lengths, as it is opened: a film beside trailers is cut in two."""
    with ClipStoreWriter(folder / "-".join(map(str, lengths)), (8, 8), {}) as writer:
        for length in lengths:
            writer.add_episode(np.zeros((length, 8, 8, 3), np.uint8))
    return open_clip_store(writer.path)


@pytest.mark.parametrize(
    ("lengths", "shares"),
    [
        ([600, 20], (0.08, 0.13)),  # a film and its trailer: the film is cut
        ([600, 5, 5, 5, 5], (0.08, 0.13)),
        ([600] + [5] * 16, (0.08, 0.13)),  # too short for clips, though they have a ninth of the frames
        ([600, 100], (0.14, 0.15)),
        ([600, 300], (0.33, 0.34)),  # whole films cannot come closer
        ([600, 50, 30], (0.07, 0.14)),
    ],
)
def test_about_a_tenth_is_held_out_and_fits_clips_however_unequal_the_films_are(tmp_path, lengths, shares):
    store = of_lengths(tmp_path, lengths)
    for seed in range(8):
        training, validation = split_episodes(store, 0.1, seed)
        assert sorted(training + validation) == list(range(len(store.episodes)))
        share = np.diff(store.episodes[validation]).sum() / len(store.frames)
        assert shares[0] <= share <= shares[1]
        assert len(Clips(store, training, 8)) > len(Clips(store, validation, 8)) > 0


def test_films_of_one_kind_are_split_as_they_always_were(tmp_path):
    """In shuffled order, until a tenth is reached: a recorded store keeps its split, and a checkpoint its validation clips."""
    store = of_lengths(tmp_path, [100, 90, 110, 64, 100, 100, 75, 100, 100, 36])
    assert [split_episodes(store, 0.1, seed)[1] for seed in range(4)] == [[4], [8], [2], [6, 9]]


def test_a_single_video_is_split_without_a_shared_frame():
    store = dummy_clip_store(num_episodes=1, episode_frames=100, frame_size=(16, 16))
    training, validation = split_episodes(store)
    ranges = sorted(store.episodes[training + validation].tolist())
    assert ranges == [[0, 68], [68, 100]]


def test_an_epoch_shows_every_clip_once():
    batches = list(ShuffledBatches(num_clips=12, batch_size=4, num_steps=6, seed=0))
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second  # the next epoch is shuffled differently


def test_a_resumed_run_sees_exactly_the_rest():
    """10 clips in batches of 4: a batch may span two epochs, and still step 7 is step 7."""
    whole = list(ShuffledBatches(10, 4, num_steps=20, seed=5))
    for k in (0, 1, 7, 20):
        assert list(ShuffledBatches(10, 4, num_steps=20, seed=5, start_step=k)) == whole[k:]
    assert len(ShuffledBatches(10, 4, 20, 5, start_step=7)) == 13
    assert list(ShuffledBatches(10, 4, 20, seed=6)) != whole


def test_two_processes_share_the_batches_of_one():
    whole = list(ShuffledBatches(10, 4, num_steps=8, seed=1))
    left, right = (list(ShuffledBatches(10, 4, 8, seed=1, rank=rank, world_size=2)) for rank in (0, 1))
    assert [a + b for a, b in zip(left, right, strict=True)] == whole


def test_a_batch_may_be_larger_than_the_store():
    (batch,) = ShuffledBatches(num_clips=3, batch_size=7, num_steps=1, seed=0)
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_do_not_change_the_batches(store, num_workers):
    clips = Clips(store, [0, 1, 2], num_frames=3)
    before = torch.get_rng_state()
    loaded = [batch["index"].tolist() for batch in make_loader(clips, 2, 5, seed=4, start_step=2, num_workers=num_workers)]
    assert loaded == list(ShuffledBatches(6, 2, 5, seed=4, start_step=2))
    assert torch.equal(torch.get_rng_state(), before)  # torch's global random state is left alone


def test_pixels_survive_the_conversion_to_video_and_back():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 4, 8, 8, 3)
    video = to_video(frames)
    assert video.shape == (1, 4, 3, 8, 8) and video.min() == 0.0 and video.max() == 1.0
    assert np.array_equal(to_frames(video), frames)
    outside = torch.tensor([-0.5, 0.2, 1.5]).reshape(1, 1, 3, 1, 1)
    assert to_frames(outside).ravel().tolist() == [0, 51, 255]  # clipped and rounded


def test_augmentation_treats_all_frames_of_a_clip_alike():
    clip = np.random.default_rng(0).integers(0, 256, (1, 1, 16, 16, 3)).astype(np.uint8).repeat(3, axis=1)  # a still
    for index in range(8):
        augmented = Augmentation()(clip, [index])
        assert augmented.shape == clip.shape and augmented.dtype == np.uint8
        assert (augmented == augmented[:, :1]).all()  # it stays a still


def test_augmentation_repeats_for_the_same_batch_and_differs_in_another():
    clip = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16, 3)).astype(np.uint8)
    augment = Augmentation(flip_probability=1.0, smallest_crop=1.0)
    assert np.array_equal(augment(clip, [3]), clip[:, :, :, ::-1])  # only the flip is left
    cropped = Augmentation(seed=1)
    pair = np.concatenate([clip, clip])
    assert np.array_equal(cropped(pair, [3, 4]), cropped(pair, [3, 4]))
    assert not np.array_equal(cropped(pair, [3, 4]), cropped(pair, [3, 5]))


def test_a_damaged_cache_is_rebuilt(tmp_path):
    store = dummy_clip_store(tmp_path / "data", frame_size=(32, 32))
    calls = []

    def encode() -> np.ndarray:
        calls.append(1)
        return np.arange(6, dtype=np.int32).reshape(3, 2)

    weights = {"a": torch.zeros(2)}
    for damage in (None, b"", b"\x93NUMPY half", None):
        if damage is not None:
            next((store.path / "token_cache").iterdir()).write_bytes(damage)
        assert cached(store, "tokens", weights, encode).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert len(calls) == 3
    assert cached(store, "tokens", {"a": torch.ones(2)}, encode) is not None and len(calls) == 4  # other weights, another cache
