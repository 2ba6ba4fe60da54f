"""Rooms that are left and entered again: what the recordings promise, and what is measured on them."""

import json

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_dynamics import built

from dynamics_lab.room_claims import fits
from dynamics_lab.room_recall import BINS, Episodes, FrameScore, by_bin, margin, predictions
from dynamics_lab.rooms import NUM_ROOMS, PALETTE, draw_room, gaps, rooms_episode, rooms_store
from video_tokenizer.data.clips import Clips

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "rooms.py"
CLAIMS = REPOSITORY / "3.dynamics-model" / "lab" / "room_claims.py"
README = REPOSITORY / "3.dynamics-model" / "dynamics_variants" / "teco" / "README.md"


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


def toy_episodes(num_episodes: int = 8, num_frames: int = 20) -> Episodes:
    """Random tokens of 2 x 3 a frame; what they show does not matter."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (num_episodes, num_frames, 6), generator=random)
    actions = torch.randint(4, (num_episodes, num_frames), generator=random)
    return Episodes(tokens, actions, np.zeros((num_episodes, num_frames, 16, 24, 3), np.uint8))


@pytest.mark.parametrize(("name", "length", "reaches"), [("teco", 20, True), ("teco", 8, False), ("maskgit", 8, False)])
def test_a_prediction_from_8_frames_knows_nothing_of_earlier_ones_and_one_from_an_episode_does(name, length, reaches):
    """Two layers that look back 7 frames each would reach 14 frames back if the clips were not cut."""
    model, data = built(name, num_frames=length, context_frames=length), toy_episodes()
    other = data._replace(tokens=data.tokens.clone())
    other.tokens[:, :3] = (other.tokens[:, :3] + 7) % 20
    real, changed = (predictions(model, one) for one in (data, other))  # of frames 7 to 19
    assert real.shape == (8, 13, 6) and not torch.equal(real[:, 0], changed[:, 0])
    assert torch.equal(real[:, 3:], changed[:, 3:]) != reaches  # frame 10 and later ones do not see frames 0 to 2


def test_scores_are_pooled_by_how_long_ago_a_room_was_entered():
    """Gaps 0, 3, 5, 9 and 16; squared errors 0.1, 0.01 and 0.03 (mean 0.02, 17 dB), 0.001 and 0.01."""
    found = FrameScore(np.array([[0.1, 1.0, 0.5, 0.25, 0]]), np.array([[0.1, 0.01, 0.03, 0.001, 0.01]]))
    rows = by_bin(found, np.array([[0, 3, 5, 9, 16]]))
    assert [rows[name]["accuracy"] for name in BINS] == pytest.approx([0.1, 0.75, 0.25, 0])
    assert [rows[name]["psnr_db"] for name in BINS] == pytest.approx([10, 16.99, 30, 20], abs=0.01)


def test_the_margin_is_that_of_the_worst_seed_at_the_worst_gap():
    def arm(far: list[float], farther: list[float]) -> dict:
        return {"bins": {"8-15": {"accuracy": far}, "16+": {"accuracy": farther}}}

    rows = {"whole": arm([0.9, 0.8], [0.9, 0.7]), "short": arm([0.1, 0.3], [0.2, 0.1]), "main": arm([0.2, 0.1], [0.1, 0.1])}
    assert margin(rows, "accuracy") == pytest.approx(0.5)  # 0.8 - 0.3 from 8 frames on, 0.7 - 0.2 from 16 on


def test_a_small_measurement_scores_every_arm_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- rooms: begin -->\n<!-- rooms: end -->\n")
    small = ("--minutes", 0.002, "--seeds", 0, "--num-episodes", 16, "--tokenizer-steps", 2, "--folder", tmp_path / "data")
    files = ("--json", tmp_path / "rooms.json", "--output", tmp_path, "--page", page)
    assert call(SCRIPT, *small, *files) == 0
    fresh = json.loads((tmp_path / "rooms.json").read_text())
    assert fresh["frames"]["first"] > 0 and all(len(row["steps"]) == 1 for row in fresh["arms"].values())
    assert page.read_text().count("\n| ") == 5 and (tmp_path / "rooms_recall_dark.svg").exists()
    assert call(SCRIPT, *small, *files) == 0  # everything is there already
    again = json.loads((tmp_path / "rooms.json").read_text())
    assert again["arms"] == fresh["arms"]
    models = {path: path.read_bytes() for path in (tmp_path / "data").rglob("models/*.pt")}
    assert call(SCRIPT, *small, *files, "--num-episodes", 24) == 0  # models of other data are not taken for those of these
    assert models and all(path.read_bytes() != content for path, content in models.items())
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr(load_script(SCRIPT), "REPOSITORY", tmp_path)  # the folder that is meant where there is no such one here
    assert call(SCRIPT, *small, *files, "--num-episodes", 24, "--output", "pictures") == 0
    assert {path.suffix for path in (tmp_path / "pictures").iterdir()} == {".png", ".svg"}
    next(iter(models)).write_bytes(b"half a file")
    assert call(SCRIPT, *small, *files, "--num-episodes", 24) == 2 and "is truncated" in capsys.readouterr().err
    assert call(SCRIPT, "--num-episodes", 2) == 2 and "num-episodes 2" in capsys.readouterr().err


def test_a_room_is_told_from_a_mixture_of_two():
    """Every room fits. The upper half of a 1 above the lower half of an 8 is no digit, and two inks or two walls are too many."""
    for wall, ink, digit in ((0, 1, 0), (6, 3, 7), (5, 7, 8)):
        assert fits(draw_room(PALETTE[wall], PALETTE[ink], digit)) == (True, True)
    eight, one, ink, wall = (
        draw_room(PALETTE[a], PALETTE[b], digit) for a, b, digit in ((0, 1, 8), (0, 1, 1), (0, 4, 8), (2, 1, 8))
    )
    for upper, lower, two_colors in ((one, eight, True), (eight, ink, False), (eight, wall, False)):
        assert fits(np.concatenate([upper[:32], lower[32:]])) == (two_colors, False)
    assert fits(np.broadcast_to(PALETTE[2], (64, 64, 3))) == (False, False)  # a wall without a digit


def test_the_claims_are_measured_and_the_tables_come_from_the_file(tmp_path, capsys):
    page, file = tmp_path / "page.md", tmp_path / "claims.json"
    page.write_text("".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in ("drop-loss", "room-prior")))
    small = ("--num-steps", 2, "--seeds", 0, "--num-episodes", 16, "--tokenizer-steps", 2, "--repeats", 1)
    assert call(CLAIMS, *small, "--folder", tmp_path / "data", "--json", file, "--page", page) == 0
    arms = json.loads(file.read_text())["arms"]
    assert len(arms) == 6 and all(row["loss"][0] > 1 and row["ms_a_step"][0] > 0 for row in arms.values())
    assert arms["none"]["loss"] != arms["half"]["loss"]  # every arm changes the training
    assert page.read_text().count("\n| none | ") == 3 and "| half | and a digit | " in page.read_text()
    page.write_text(README.read_text())
    assert call(CLAIMS, "--page", page, "--readme") == 0 and page.read_text() == README.read_text()  # the course's own tables


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--num-steps", 0), "--num-steps 0 is too small"),
        (("--seeds", 0, 0), "--seeds 0 is given twice; give each seed once"),
        (("--seeds", 2**63), f"--seeds {2**63} is no seed; give numbers"),
        (("--extra-seeds",), "--extra-seeds is empty"),
        (("--page", "gone.md"), "gone.md does not exist; give a Markdown file with a place for the table"),
        (("--page", REPOSITORY / "README.md"), "README.md has no line <!-- drop-loss: begin -->"),
        (("--readme", "--json", "gone.json"), "gone.json holds no numbers of this command yet"),
        (
            ("--readme", "--json", "assets/3.dynamics-model/variants/rooms.json"),
            "rooms.json holds no numbers of this command yet",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_recorded(flags, sentence, tmp_path, capsys):
    assert call(CLAIMS, "--folder", tmp_path / "data", *flags) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "data").exists()
