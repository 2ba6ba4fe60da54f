"""Frames that may lie anywhere on a circle: what is measured on them, and that the measurement runs."""

import json

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY

from dynamics_lab.circle import RADIUS, circle, decibels_from_circle

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "few_steps.py"
README = REPOSITORY / "3.dynamics-model" / "dynamics_variants" / "dreamer4" / "README.md"


def test_frames_lie_on_the_circle_with_no_direction_preferred():
    frames = circle(4_000, torch.Generator().manual_seed(0))
    assert torch.allclose(frames[:, 0].norm(dim=-1), torch.tensor(RADIUS)) and frames.mean(dim=0).abs().max() < 0.05
    assert frames.square().mean().item() == pytest.approx(1, abs=1e-5)  # as large as the noise


def test_the_mean_of_all_frames_scores_0_decibels_and_a_tenth_of_the_way_20():
    center, near = torch.zeros(3, 1, 2), torch.tensor([[[0.9 * RADIUS, 0.0]], [[0.0, -1.1 * RADIUS]]])
    assert decibels_from_circle(center) == pytest.approx(0, abs=1e-4)
    assert decibels_from_circle(near) == pytest.approx(20, abs=1e-4)  # 0.1 of the radius, squared 0.02, 0.01 per number


def test_both_arms_are_measured_and_the_table_comes_from_the_file(tmp_path, capsys):
    page, file = tmp_path / "page.md", tmp_path / "few.json"
    page.write_text("<!-- circle: begin -->\n<!-- circle: end -->\n")
    flags = ("--page", page, "--json", file)
    assert call(SCRIPT, *flags, "--num-steps", 2, "--seeds", 0) == 0
    found = json.loads(file.read_text())
    assert set(found["arms"]) == {"dreamer4", "flow"} and all(len(row["64"]) == 1 for row in found["arms"].values())
    found["arms"]["flow"]["4"] = [10.0, 14.0]
    file.write_text(json.dumps(found))
    for _ in range(2):  # written again, it is the same
        assert call(SCRIPT, *flags, "--readme") == 0
        assert page.read_text().count("circle: begin") == 1 and "| 12.0 ±2.0 |" in page.read_text()
    page.write_text(README.read_text())
    assert call(SCRIPT, "--page", page, "--readme") == 0 and page.read_text() == README.read_text()  # the course's own table
    assert call(SCRIPT, *flags, "--num-steps", 0) == 2 and "num-steps 0" in capsys.readouterr().err
