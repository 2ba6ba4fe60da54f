"""Rooms that are left and entered again: what the recordings promise."""

import numpy as np

from dynamics_lab.rooms import NUM_ROOMS, PALETTE, gaps, rooms_episode, rooms_store
from video_tokenizer.data.clips import Clips


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_rooms(tmp_path):
    stores = [rooms_store(tmp_path / name, 2, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    bytes_of = [(store.path / "frames.npy").read_bytes() for store in stores]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2] and stores[0].fingerprint == stores[1].fingerprint
    clip = Clips(stores[0], [1], 64)[0]["frames"]
    assert clip.shape[0] == 64 and stores[0].num_actions == NUM_ROOMS  # an episode is one clip


def test_a_room_looks_the_same_whenever_it_is_entered_and_the_action_is_its_number():
    frames, actions = rooms_episode(np.random.default_rng(0))
    looks = {room: frames[actions == room] for room in range(NUM_ROOMS)}
    assert actions[0] == -1 and (np.diff(actions) != 0).all()
    assert sum(len(look) for look in looks.values()) == 63 and min(len(look) for look in looks.values()) > 1
    assert all((look == look[0]).all() for look in looks.values())


def test_nothing_about_a_room_can_be_known_from_other_episodes():
    """Room 3 of 400 episodes: each of the 8 walls and of the 10 digits is there as often as chance has it."""
    random = np.random.default_rng(0)
    episodes = [rooms_episode(random, 40) for _ in range(400)]
    rooms = [frames[np.flatnonzero(actions == 3)[0]] for frames, actions in episodes if (actions == 3).any()]
    walls = np.bincount([np.square(PALETTE.astype(int) - room[0, 0]).sum(axis=1).argmin() for room in rooms])
    digits = [(room != room[0, 0]).any(axis=-1).tobytes() for room in rooms]
    counts = np.unique(np.array(digits), return_counts=True)[1]
    assert len(walls) == 8 and walls.min() > 25 and walls.max() < 75  # 50 each, a standard deviation is 6.6
    assert len(counts) == 10 and counts.min() > 20 and counts.max() < 62  # 40 each
    assert len(np.unique([room.tobytes() for room in rooms])) == len(rooms)


def test_a_gap_counts_the_frames_since_a_room_was_last_entered():
    assert gaps(np.array([-1, 5, 2, 5, 0, 2, 5])).tolist() == [0, 0, 0, 2, 0, 3, 3]
