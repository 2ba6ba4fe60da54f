"""Frames that may lie anywhere on a circle: what is measured on them, and that the measurement runs."""

import json

import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY

from dynamics_lab.circle import ARMS, LENGTHS, RADIUS, circle, decibels_from_circle, formed, plane, trained
from dynamics_variants.dreamer4.model import Dreamer4Sampling

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "few_steps.py"
README = REPOSITORY / "3.dynamics-model" / "dynamics_variants" / "dreamer4" / "README.md"


@pytest.mark.parametrize("length", LENGTHS)
def test_frames_lie_on_a_circle_in_a_plane_with_no_direction_preferred(length):
    frames = circle(4_000, torch.Generator().manual_seed(0), length)
    assert frames.shape == (4_000, 1, length) and torch.linalg.matrix_rank(frames[:, 0]) == 2
    assert torch.allclose(frames[:, 0].norm(dim=-1), torch.tensor(RADIUS))
    assert (frames.mean(dim=0) @ plane(length).T).abs().max() < 0.05
    assert (frames[:, 0] @ plane(length).T).square().mean().item() == pytest.approx(1, abs=1e-5)  # as large as the noise


def test_the_mean_of_all_frames_scores_0_decibels_and_a_tenth_of_the_way_20():
    """Inside the plane and out of it, a distance counts the same."""
    center, on_it = torch.zeros(3, 1, 128), circle(3, torch.Generator().manual_seed(0), 128)
    assert decibels_from_circle(center) == pytest.approx(0, abs=1e-4)
    assert decibels_from_circle(0.9 * on_it) == pytest.approx(20, abs=1e-4)  # 0.1 of the radius, squared 0.01
    directions = plane(128)
    out = torch.randn(128, generator=torch.Generator().manual_seed(1))
    out -= out @ directions.T @ directions
    assert decibels_from_circle(on_it + 0.1 * RADIUS * out / out.norm()) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("arm", ["dreamer4", "flow"])
def test_steps_of_unequal_size_include_those_of_equal_size(arm):
    model = trained(0, 1, 2, ARMS[arm])
    past, noise = circle(5, torch.Generator().manual_seed(1), 2), torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(0))
    equal = formed(model, past, (2, 2, 2, 2), noise)
    state, unknown = model.start(past[:, None]), torch.full((5,), -1)
    stepped = model.step(state, unknown, Dreamer4Sampling(num_steps=4), torch.Generator().manual_seed(0))
    assert torch.allclose(equal, stepped, atol=1e-5)
    assert not torch.allclose(formed(model, past, (2, 2, 2, 1, 1), noise), stepped, atol=1e-4)


def test_all_arms_are_measured_and_the_tables_come_from_the_file(tmp_path, capsys, monkeypatch):
    load_script(SCRIPT)  # whose text says 1,000
    monkeypatch.setattr("dynamics_lab.circle.SAMPLES", 10)
    page, file = tmp_path / "page.md", tmp_path / "few.json"
    page.write_text("<!-- circle: begin -->\n<!-- circle: end -->\n")
    flags = ("--page", page, "--json", file)
    assert call(SCRIPT, *flags, "--num-steps", 2, "--seeds", 0) == 0
    found = json.loads(file.read_text())
    assert set(found["lengths"]) == {"2", "128"}
    for arms in found["lengths"].values():
        assert set(arms) == set(ARMS) and all(len(row["64"]) == 1 for row in arms.values())
        assert len({row["64"][0] for row in arms.values()}) == len(ARMS)  # every arm changes the training
    found["lengths"]["128"]["flow"]["4"] = [10.0, 14.0]
    file.write_text(json.dumps(found))
    for _ in range(2):  # written again, it is the same
        assert call(SCRIPT, *flags, "--readme") == 0
        assert page.read_text().count("circle: begin") == 1 and "| 12.0 ±2.0 |" in page.read_text()
    page.write_text(README.read_text())
    assert call(SCRIPT, "--page", page, "--readme") == 0 and page.read_text() == README.read_text()  # the course's own tables
    assert call(SCRIPT, *flags, "--num-steps", 0) == 2 and "num-steps 0" in capsys.readouterr().err
