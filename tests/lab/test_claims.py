"""Claims of papers as small experiments: every arm is a training that could start now, and the verdict is what the seeds say."""

import json
import shlex
from dataclasses import replace

import pytest
from script_runner import call
from structure_checks import REPOSITORY

from tokenizer_lab.claims import Experiment, reading, runs_of_arms, trainings_of
from tokenizer_lab.claims_of_papers import EXPERIMENTS
from tokenizer_lab.comparison import read_flags
from video_tokenizer.games.moving_square import dummy_clip_store

SCRIPT = REPOSITORY / "1.video-tokenizer" / "lab" / "experiments.py"
TOY = Experiment("toy", "More is more.", "nowhere", {"less": "--size 1", "more": "--size 2", "most": "--size 3"}, "psnr_db")
PAIR = replace(TOY, arms={"without": "--model a", "with": "--model b --init-from {without}"})


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_arm_is_a_training_that_could_start_and_has_a_name_fit_for_a_folder(experiment):
    names = (experiment.name, *experiment.arms, *trainings_of([experiment]))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in names)
    for flags in trainings_of([experiment]).values():
        replace(read_flags(shlex.split(flags)), frame_size=64).check()


def test_a_training_that_experiments_share_is_done_once_and_before_those_that_start_from_it():
    one, other = replace(TOY, name="one"), replace(TOY, name="other", arms={"same": "--size 2", "new": "--size 4"})
    assert trainings_of([one, other]) == {f"size-{size}": f"--size {size}" for size in (1, 2, 3, 4)}
    backwards = replace(PAIR, arms=dict(reversed(PAIR.arms.items())))
    assert list(trainings_of([backwards]).items()) == [("a", "--model a"), ("b-init-from-without", "--model b --init-from {a}")]


def test_a_claim_agrees_if_every_seed_lies_beyond_every_seed_of_the_arm_before():
    assert TOY.verdict({"less": [3, 4], "more": [5, 6], "most": [7, 9]}) == "agrees"
    assert TOY.verdict({"less": [3, 5], "more": [4, 6], "most": [7, 9]}) == "agrees seed by seed"
    assert TOY.verdict({"less": [3, 5], "more": [6, 4], "most": [7, 9]}) == "within the noise"
    assert TOY.verdict({"less": [3, 4], "more": [7, 9], "most": [5, 6]}) == "disagrees"
    assert TOY.verdict({"less": [3], "more": [3], "most": [9]}) == "disagrees, one seed"
    assert TOY.verdict({"less": [3], "more": [5], "most": []}) == "open"
    assert replace(TOY, direction="falls").verdict({"most": [1], "more": [2], "less": [3]}) == "agrees, one seed"


def test_what_stays_may_fall_by_the_tolerance():
    stays = replace(PAIR, direction="stays", tolerance=0.5)
    assert stays.verdict({"without": [10, 11], "with": [10, 10.2]}) == "agrees"
    assert stays.verdict({"without": [10, 11], "with": [9, 10.2]}) == "disagrees"


def test_a_single_arm_is_compared_with_a_bound():
    alone = replace(TOY, arms={"only": ""}, direction="falls", bound=7.0)
    assert alone.verdict({"only": [3, 6]}) == "agrees" and alone.verdict({"only": [6, 7.5]}) == "within the noise"
    with pytest.raises(ValueError, match="experiment toy has 1 arms"):
        replace(alone, direction="stays")


def test_only_seeds_that_all_arms_have_are_read():
    def runs(*values):
        return {"runs": [{"seed": seed, "metrics": {"psnr_db": value}} for seed, value in enumerate(values)]}

    found = runs_of_arms(PAIR, {"rows": {"a": runs(30.0, 31.0), "b-init-from-without": runs(32.0, 34.0, 90.0)}})
    assert found["psnr_db"].tolist() == [30.0, 31.0, 32.0, 34.0]
    assert reading(PAIR, found) == "psnr_db should rise: agrees"
    assert reading(PAIR, runs_of_arms(PAIR, {"rows": {"a": runs(30.0)}})) == "psnr_db should rise: open"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--names no-such", "--names no-such: there is no such experiment; choose from codebook-usage-64"),
        ("--num-steps 0", "--num-steps 0 "),
        ("--names dreamer4-context --data-path nowhere", "nowhere does not exist; record a game first"),
    ],
)
def test_a_wrong_request_is_one_sentence(flags, sentence, capsys):
    assert call(SCRIPT, *flags.split()) == 2
    assert sentence in capsys.readouterr().err


def test_an_experiment_trains_reads_and_resumes(tmp_path, capfd):
    """Two arms, one seed, two steps."""
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    sizes = "--embed-dim 32 --num-layers 2 --num-heads 2 --num-latents 4 --batch-size 2"
    flags = ("--names", "dreamer4-masking", "--num-steps", 2, "--seeds", 0, f"--flags={sizes}", "--data-path", data)
    files = ("--output", tmp_path / "runs", "--json", tmp_path / "numbers.json")
    assert call(SCRIPT, *flags, *files) == 0
    shown = capfd.readouterr().out
    assert "half_hidden_psnr_db should rise:" in shown and "one seed" in shown
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    scores = [rows[name]["runs"][0]["metrics"] for name in ("dreamer4", "dreamer4-largest-hidden-share-0")]
    assert scores[0]["half_hidden_psnr_db"] != scores[1]["half_hidden_psnr_db"]
    assert call(SCRIPT, *flags, *files) == 0
    assert capfd.readouterr().out.count("already finished") == 2
