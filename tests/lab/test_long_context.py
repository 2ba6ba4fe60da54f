"""Long contexts: every measurement runs, writes its part of one file, and refuses what it cannot measure."""

import json
from types import SimpleNamespace

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY

from dynamics_lab.recall import RecallTransformer
from video_tokenizer.training.optimizer import build_optimizer

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "long_context.py"


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    """What --measure NAME with these flags writes."""
    file = tmp_path_factory.mktemp("long") / "numbers.json"

    def measured(name, *flags):
        assert call(SCRIPT, "--measure", name, *flags, "--json", file) == 0
        return json.loads(file.read_text())

    return measured


def test_exactness_is_measured_for_every_layout_and_ring(measure):
    found = measure("exact", "--lengths", 64)["exact"]
    assert len(found["rows"]) == 4 + 2 * 4 * 2  # one process; rings of two and of four, each with two ways to part the tokens
    assert found["largest_output"] < 1e-5 and found["largest_gradients"] < 1e-4


def test_dense_attention_takes_the_most_memory(measure):
    found = measure("memory", "--lengths", 1024)["memory"]
    assert found["dense"]["1024"]["mib"] > 2 * max(found[backend]["1024"]["mib"] for backend in ("blockwise", "pytorch"))


def test_a_training_step_of_gpt_is_measured_with_both_attentions(measure):
    found = measure("training", "--lengths", 128)["training"]
    assert set(found) == {"dense", "blockwise"}
    assert all(row["128"]["mib"] > 100 and row["128"]["seconds"] > 0 for row in found.values())


def test_the_matrices_that_find_answers_are_trained_with_muon():
    """Two layers with two matrices for attention and two for the feed-forward network."""
    settings = SimpleNamespace(optimizer="muon", learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.98))
    _, muon = build_optimizer(RecallTransformer(), settings).optimizers
    assert isinstance(muon, torch.optim.Muon) and len(muon.param_groups[0]["params"]) == 2 * 4


def test_arms_are_trained_for_each_seed_and_share_a_file(measure):
    """Two steps teach nothing; chance stands beside what was learned."""
    few = ("--num-steps", 2)
    packing = measure("packing", *few, "--seeds", 0, 1)["packing"]
    assert set(packing) == {"masked-and-weighted", "masked-only", "naive", "chance"}
    assert all(len(packing[arm]["accuracy"]) == 2 and packing[arm]["steps_to_90"] == [None] * 2 for arm in [*packing][:3])
    found = measure("needle", *few, "--lengths", 160, "--batch-tokens", 160)
    assert found["packing"] == packing  # what was measured before stays
    scores = found["needle"]["160"]
    assert scores["eight_frames"] == pytest.approx(0.8 + 0.2 / 16) and scores["chance"] == 1 / 16  # 8 frames of 10
    assert {"depth_0", "depth_25", "depth_100", "2_needles_2_asked", "4_needles_2_asked"} <= set(scores)


def test_a_context_that_grows_is_asked_at_every_length(measure):
    flags = ("--lengths", 160, 320, "--batch-tokens", 320, "--minutes", 0.01)
    rows = measure("growth", *flags)["growth"]
    assert set(rows) == {"grown", "grown-fixed-base", "from-scratch", "chance"}
    for arm in ("grown", "grown-fixed-base", "from-scratch"):
        assert all(0 <= rows[arm][name] <= 1 for name in ("next_length_at_first", "160_tokens", "320_tokens"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--lengths", 2048, 1024), "--lengths 2048 1024 must grow"),
        (("--measure", "training", "--lengths", 100), "--lengths 100: gpt has 64 tokens a frame and needs at least two frames"),
        (("--measure", "needle", "--lengths", 128), "--lengths 128: a video needs at least 10 frames"),
        (("--num-steps", 0), "num-steps 0"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(flags, sentence, capsys):
    assert call(SCRIPT, *flags) == 2
    assert sentence in capsys.readouterr().err
