"""Claims of papers as small experiments: every arm is a training that could start now, and the verdict is what it says."""

import json
import shlex
from dataclasses import replace

import pytest
from script_runner import call
from structure_checks import REPOSITORY

from tokenizer_lab.ablation_table import block_of
from tokenizer_lab.claims import (
    Experiment,
    all_experiments,
    as_markdown,
    as_text,
    formatted,
    heading_of,
    trainings_of,
    values_of,
)
from tokenizer_lab.comparison import PAGE
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import tokenizer_class
from video_tokenizer.training.command_line import parse_config, value_of_flag

SCRIPT = REPOSITORY / "1.video-tokenizer" / "lab" / "experiments.py"
ALL = list(all_experiments().values())
TOY = Experiment(
    "toy", "More is more.", "nowhere", {"less": "--size 1", "more": "--size 2", "most": "--size 3"}, "psnr_db", "rises"
)
PAIR = replace(TOY, arms={"without": "--model a", "with": "--model b --init-from {without}"})


def runs(*values: float) -> dict:
    """What the runner's file keeps of one training: the metric under seeds 0, 1, ..."""
    return {"runs": [{"seed": seed, "metrics": {"psnr_db": value}} for seed, value in enumerate(values)]}


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_every_arm_is_a_training_that_could_start(experiment):
    for flags in trainings_of([experiment]).values():
        words = shlex.split(flags)
        model = tokenizer_class(value_of_flag(words, "--model") or "st-fsq")
        replace(parse_config(model.config_class, model.presets, words), frame_size=64).check()


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_arms_differ_and_their_names_can_be_folders(experiment):
    assert len(set(experiment.arms.values())) == len(experiment.arms)
    names = (experiment.name, *experiment.arms, *trainings_of([experiment]))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in names)
    assert experiment.claim and experiment.source


def test_an_arm_that_experiments_share_is_trained_once():
    one, other = replace(TOY, name="one"), replace(TOY, name="other", arms={"same": "--size 2", "new": "--size 4"})
    assert trainings_of([one, other]) == {f"size-{size}": f"--size {size}" for size in (1, 2, 3, 4)}
    assert len(trainings_of(ALL)) < sum(len(one.arms) for one in ALL)


def test_an_arm_that_goes_on_from_another_is_trained_after_it():
    assert list(trainings_of([replace(PAIR, arms=dict(reversed(PAIR.arms.items())))]).items()) == [
        ("a", "--model a"),
        ("b-init-from-without", "--model b --init-from {a}"),
    ]


def test_a_claim_agrees_where_every_seed_lies_beyond_every_seed_of_the_arm_before():
    assert TOY.verdict({"less": [3, 4], "more": [5, 6], "most": [7, 9]}) == "agrees"
    assert TOY.verdict({"less": [3, 5], "more": [4, 6], "most": [7, 9]}) == "within the noise"
    assert TOY.verdict({"less": [3, 4], "more": [7, 9], "most": [5, 6]}) == "disagrees"
    assert TOY.verdict({"less": [3], "more": [3], "most": [9]}) == "disagrees, one seed"
    assert TOY.verdict({"less": [3], "more": [5], "most": []}) == "open"
    falls = replace(TOY, direction="falls")
    assert falls.verdict({"most": [1], "more": [2], "less": [3]}) == "agrees, one seed"


def test_what_stays_may_fall_by_the_tolerance():
    stays = replace(PAIR, direction="stays", tolerance=0.5)
    assert stays.verdict({"without": [10, 11], "with": [10, 10.2]}) == "agrees"
    assert stays.verdict({"without": [10, 11], "with": [9, 10.2]}) == "disagrees"


def test_a_single_arm_is_held_against_a_bound():
    alone = replace(TOY, arms={"only": ""}, direction="falls", bound=7.0)
    assert alone.verdict({"only": [3, 6]}) == "agrees" and alone.verdict({"only": [6, 7.5]}) == "within the noise"
    with pytest.raises(ValueError, match="experiment toy has 1 arms"):
        replace(alone, direction="stays")


def test_tables_show_only_seeds_that_all_arms_have():
    results = {"rows": {"a": runs(30.0, 31.0), "b-init-from-without": runs(32.0, 34.0, 90.0)}}
    assert as_text(PAIR, results).splitlines()[2:] == [
        "arm      PSNR, dB",
        "without  30.5 ± 0.5",
        "with     33.0 ± 1.0",
        "psnr_db should rise: agrees",
    ]
    assert "| with<br>`--model b --init-from {without}` | 33.0±1.0 |" in as_markdown(PAIR, results)


def test_headings_are_words():
    names = ("moving_psnr_db", "tokens_at_24_db", "prefix_gain_db_32_tokens", "codes_used")
    assert list(map(heading_of, names)) == ["moving PSNR, dB", "tokens at 24 dB", "prefix gain with 32 tokens, dB", "codes used"]


def test_numbers_are_shown_with_their_spread():
    assert formatted([1.0, 2.0, 3.0]) == "2.00 ± 1.00" and formatted([0.25]) == "0.250" and formatted([]) == ""


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--names no-such", "--names no-such: there is no such experiment; there are codebook-usage-64"),
        ("--num-steps 0", "--num-steps 0 "),
        ("--names dreamer4-context --data-path nowhere", "nowhere does not exist; record a game first"),
    ],
)
def test_a_wrong_request_is_one_sentence(flags, sentence, capsys):
    assert call(SCRIPT, *flags.split()) == 2
    assert sentence in capsys.readouterr().err


def test_an_experiment_trains_reads_and_goes_on(tmp_path, capfd):
    """Two arms, one seed, two steps: the smoke version of `make experiments`."""
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
    assert capfd.readouterr().out.count("finished before with the same command") == 2


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_the_table_in_the_text_is_that_of_the_numbers(experiment):
    found = [block_of(experiment.name).search(page.read_text()) for page in PAGE.parent.rglob("*.md")]
    shown = next((match for match in found if match), None)
    assert shown is not None, f"no page in {PAGE.parent} has a place for {experiment.name}"
    numbers = REPOSITORY / "assets" / "1.video-tokenizer" / "experiments.json"
    results = json.loads(numbers.read_text()) if numbers.exists() else {"rows": {}}
    measured = all(values_of(experiment, experiment.metric, results).values())
    assert shown[0] == (as_markdown(experiment, results) + "\n" if measured else ""), "refresh it: experiments.py --readme"
