"""Claims about dynamics models: every arm could be trained now, and its bits are those of the same frames after two pasts."""

import json
import shlex
from dataclasses import replace

import pytest
from script_runner import call
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from dynamics_lab.claims_of_papers import EXPERIMENTS
from dynamics_lab.comparison import TEXTS, read_flags
from tokenizer_lab.claims import trainings_of
from tokenizer_lab.sweep import block_of
from video_tokenizer.games.moving_square import dummy_clip_store

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "experiments.py"


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_arm_could_be_trained_and_the_page_has_a_place_for_its_table(experiment):
    for flags in trainings_of([experiment]).values():
        config = replace(read_flags(shlex.split(flags)), frame_size=64)
        config.check()
        replace(config, num_frames=16, context_frames=16).check()  # as it is scored
    assert block_of(experiment.name).search((TEXTS / "gpt" / "README.md").read_text(encoding="utf-8"))


def test_an_experiment_trains_and_scores_the_same_frames_with_both_pasts(tmp_path, capfd):
    data = dummy_clip_store(tmp_path / "data", num_episodes=6, episode_frames=40, frame_size=(32, 32)).path
    save_tiny_world(tmp_path / "world", actions="none")
    tokenizer = ("--tokenizer-checkpoint", tmp_path / "world" / "tokenizer.pt")
    small = "--flags=--embed-dim 32 --num-blocks 1 --num-heads 2 --warmup-steps 1"
    files = ("--data-path", data, "--output", tmp_path / "runs", "--json", tmp_path / "numbers.json")
    assert call(SCRIPT, "--names", "twice-the-context", "--num-steps", 2, "--seeds", 0, small, *tokenizer, *files) == 0
    assert "bits_added_by_frames_before should fall:" in capfd.readouterr().out
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    found = {name: row["runs"][0]["metrics"] for name, row in rows.items()}
    assert len(found) == 3 and len({scores["copy_bits"] for scores in found.values()}) == 1
    for scores in found.values():
        added = scores["bits_at_twice_the_length"] - scores["bits_at_length_trained"]
        assert scores["bits_added_by_frames_before"] == pytest.approx(added) and added != 0
