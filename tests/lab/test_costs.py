"""Claims about the table of costs: its operations and hours can be computed by hand."""

import json

import pytest
from script_runner import call
from structure_checks import REPOSITORY

SCRIPT = REPOSITORY / "3.dynamics-model" / "lab" / "costs.py"


def test_the_numbers_follow_from_their_formulas(tmp_path):
    """One GPU of 1,000 TFLOP/s at half its peak does 5e14 operations a second."""
    flags = ("--gpu-tflops", 1000, "--gpu-gib", 80, "--utilisation", 0.5, "--json", tmp_path / "costs.json")
    assert call(SCRIPT, *flags) == 0
    rows = json.loads((tmp_path / "costs.json").read_text())["rows"]
    small = rows["small"]
    assert small["hours_on_1"] == pytest.approx(small["tflop_of_a_step"] * 1e12 * 60_000 / 5e14 / 3600)
    assert small["hours_on_8"] == pytest.approx(small["hours_on_1"] / 8)
    # 32 clips, 15 frames in either stream, 256 tokens; what attention adds to 6 operations a parameter and token is little
    by_hand = 6 * small["parameters"] * 2 * 32 * 15 * 256 / 1e12
    assert by_hand < 1.1 * small["tflop_of_a_step"] < 1.3 * by_hand
    # the paper's own number for the largest model is 6.6e22 operations
    genie = rows["genie"]
    assert genie["tflop_of_a_step"] * 1e12 * genie["steps"] == pytest.approx(6.6e22, rel=0.15)
    assert genie["fits_on_1"] == "no" and rows["tiny"]["fits_on_1"] == "yes"


def test_a_share_that_is_none_is_refused(capsys):
    assert call(SCRIPT, "--utilisation", 1.5) == 2
    assert "--utilisation 1.5 is no share of the peak" in capsys.readouterr().err
