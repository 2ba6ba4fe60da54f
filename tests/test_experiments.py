"""Claims of papers as small experiments: every arm is a training that could start now, and the reading rule is what it says."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from video_tokenizer import variants
from video_tokenizer.command_line import parse_config
from video_tokenizer.experiments import Experiment
from video_tokenizer.loading import chosen_tokenizer

FILES = sorted(path.stem for path in Path(variants.__file__).parent.glob("experiments_*.py"))
ALL: list[Experiment] = [one for file in FILES for one in import_module(f"video_tokenizer.variants.{file}").EXPERIMENTS]
METRICS = {"psnr_db", "moving_psnr_db", "ssim", "foreground_recall", "object_recall", "ghost_share", "codes_used", "perplexity",
           "parameters"}  # fmt: skip
TOY = Experiment(
    "toy", "More is more.", "nowhere", {"less": "--size 1", "more": "--size 2", "most": "--size 3"}, "psnr_db", "rises"
)


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_every_arm_is_a_training_that_could_start(experiment):
    for arm in experiment.arms:
        words = experiment.flags(arm)
        model = chosen_tokenizer(words)
        replace(parse_config(model.config_class, model.presets, words), frame_size=64).check()


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_arms_differ_and_their_names_can_be_folders(experiment):
    assert len({experiment.arms[arm] for arm in experiment.arms}) == len(experiment.arms)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in (experiment.name, *experiment.arms))
    assert {experiment.metric, *experiment.also_shown} <= METRICS and experiment.claim and experiment.source


def test_names_are_unique():
    assert len({one.name for one in ALL}) == len(ALL)


def test_a_claim_agrees_when_every_arm_moves_the_right_way():
    assert TOY.agrees({"less": 3, "more": 5, "most": 9})
    assert not TOY.agrees({"less": 3, "more": 9, "most": 5})
    assert not TOY.agrees({"less": 3, "more": 3, "most": 9})
    falls = replace(TOY, direction="falls")
    assert falls.agrees({"most": 1, "more": 2, "less": 3}) and not falls.agrees({"less": 3, "more": 5, "most": 9})


def test_a_comparison_needs_a_control():
    with pytest.raises(ValueError, match="experiment toy has 1 arms"):
        replace(TOY, arms={"only": ""})
