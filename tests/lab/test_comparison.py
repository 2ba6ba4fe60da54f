"""Tokenizers side by side: equal processor minutes become steps, and the table and the plot show what was measured."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_tokenizers import tiny_config

from tokenizer_lab import comparison
from tokenizer_lab.ablation_table import block_of, format_markdown
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import TOKENIZERS, build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint

COMPARE = REPOSITORY / "1.video-tokenizer" / "lab" / "compare.py"


def study():
    """The comparison of the script, with one row."""
    return load_script(COMPARE).study_of({"st-fsq": "--model st-fsq"})


@pytest.fixture
def timed_trainings(monkeypatch):
    """Instead of training: 9 s for starting and validating, and 0.25 s a step. Returns the commands."""
    commands = []

    def pretend(study, command, environment, what):
        commands.append(list(command))
        flags = dict(zip(command[1::2], command[2::2], strict=False))
        folder = Path(flags["--checkpoint-dir"])
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"cpu_minutes": (9 + 0.25 * int(flags["--num-steps"])) / 60}))
        return 1.0

    monkeypatch.setattr(comparison, "run_script_of", pretend)
    return commands


def test_a_budget_becomes_the_steps_that_fit_and_what_starting_costs_is_not_counted(timed_trainings):
    steps, seconds = comparison.steps_for(study(), ["--model", "st-vq"], 2.0, {})  # 120 s / 0.25 s
    assert (steps, seconds) == (480, 0.25)
    assert [command[1:3] for command in timed_trainings] == [["--model", "st-vq"]] * 2


def test_a_tokenizer_is_timed_once_for_a_folder_of_runs(timed_trainings, tmp_path):
    script = load_script(COMPARE)
    config = script.CompareConfig(models=("st-fsq", "st-vq"), minutes=1.0)
    rows = script.rows_of(config, tmp_path, "data")
    assert rows == {name: f"--model {name} --num-steps 240" for name in ("st-fsq", "st-vq")}
    assert len(timed_trainings) == 4 and script.rows_of(config, tmp_path, "data") == rows and len(timed_trainings) == 4


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--models", "st-fsq", "vqvae"], "--models vqvae: there is no such tokenizer; there are st-fsq, "),
        (["--minutes", "0"], "--minutes 0.0 leaves nothing to do"),
        (["--data-path", "nowhere"], "--data-path nowhere does not exist; record a game first"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(flags, sentence, capsys):
    assert call(COMPARE, *flags) == 2
    assert sentence in capsys.readouterr().err


def test_every_tokenizer_is_a_row_unless_told_otherwise():
    assert load_script(COMPARE).CompareConfig().models == tuple(TOKENIZERS)


def test_the_plot_has_a_point_for_every_tokenizer(tmp_path):
    def row(bits: float, *values: float) -> dict:
        return {"scores": {"bits_per_frame": {"mean": bits}, "moving_psnr_db": {"values": list(values)}}}

    results = {"rows": {"a": row(600, 20.0, 22.0)}, "controls": {"copy-last-frame": {"moving_psnr_db": 11.5}}}
    blue = []
    for _ in range(2):
        comparison.save_quality_against_bits(tmp_path / "plot.png", results)
        picture = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
        blue.append(int((np.abs(picture - [11, 102, 195]).sum(axis=-1) < 30).sum()))
        results["rows"]["b"] = row(64, 15.0)
    assert 0 < blue[0] < blue[1]


def test_equal_parameters_are_equal_to_one_part_in_twenty():
    def parameters(name: str) -> int:
        words = ["--model", name, "--frame-size", "64", *comparison.EQUAL_PARAMETERS[name].split()]
        config = study().read_flags(words)
        return sum(parameter.numel() for parameter in build_tokenizer(config).parameters())

    assert comparison.EQUAL_PARAMETERS.keys() == TOKENIZERS.keys()
    assert all(parameters(name) == pytest.approx(parameters("st-fsq"), rel=0.05) for name in TOKENIZERS)


def test_with_equal_parameters_all_take_the_same_steps(tmp_path):
    config = load_script(COMPARE).CompareConfig(models=("st-fsq", "videogpt"), equal="parameters", num_steps=7)
    rows = load_script(COMPARE).rows_of(config, tmp_path, "data")
    assert rows == {"st-fsq": "--model st-fsq --num-steps 7", "videogpt": "--model videogpt --inner-channels 16 --num-steps 7"}


def test_few_rows_with_many_scores_are_shown_as_columns():
    scores = {"psnr_db": {"values": [30.0, 31.0], "mean": 30.5, "spread": 0.5}}
    row = {"flags": "--model st-fsq", "seeds": [0, 1], "seconds": 1.0, "scores": scores}
    results = {"chapter": "1.video-tokenizer", "common_flags": "--data-path data", "rows": {"st-fsq": row}, "controls": {}}
    table = format_markdown(study(), results).splitlines()
    assert table[0].endswith(" The flags: `--model st-fsq`.")
    assert table[2:] == ["| row | st-fsq |", "|---|---|", "| PSNR, dB ↑ | 30.5<br>±0.5 |"]


def test_the_gallery_has_a_row_for_the_video_and_one_for_each(tmp_path):
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    checkpoints = {}
    for name in ("st-fsq", "dreamer4"):
        tokenizer = build_tokenizer(tiny_config(name, data_path=str(data)))
        checkpoints[name] = tmp_path / f"{name}.pt"
        save_checkpoint(checkpoints[name], "tokenizer", name, asdict(tokenizer.config), tokenizer.state_dict(), 0, {}, "")
    comparison.save_gallery(tmp_path / "one.png", {"st-fsq": checkpoints["st-fsq"]}, 2)
    comparison.save_gallery(tmp_path / "two.png", checkpoints, 2)
    assert 1.3 < Image.open(tmp_path / "two.png").height / Image.open(tmp_path / "one.png").height < 1.7  # 3 rows for 2


def test_labels_keep_their_order_and_their_distance():
    assert comparison.spread_apart([1.0, 1.1, 5.0], 1.0) == [1.0, 2.0, 5.0]
    assert comparison.spread_apart([5.0, 1.1, 1.0], 1.0) == [5.0, 2.0, 1.0]


def test_two_tokenizers_are_trained_scored_and_drawn(tmp_path, capfd):
    """Two steps each: the smoke version of the tables, without the clock."""
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    flags = ("--models", "st-fsq", "dreamer4", "--equal", "parameters", "--num-steps", 2, "--seeds", 0, "--data-path", data)
    files = ("--output", tmp_path / "runs", "--json", tmp_path / "table.json")
    assert call(COMPARE, *flags, *files) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [round(rows[name]["scores"]["bits_per_frame"]["mean"]) for name in ("st-fsq", "dreamer4")] == [40, 2048]
    assert rows["dreamer4"]["scores"]["codes_used"]["mean"] == 0 and rows["st-fsq"]["scores"]["psnr_db"]["mean"] > 0
    assert (tmp_path / "table.png").exists() and (tmp_path / "table_frames.png").exists()
    assert "moving PSNR, dB ↑" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["comparison", "comparison_parameters"])
def test_the_table_in_the_text_is_that_of_the_numbers(name):
    shown, numbers = (
        block_of(name).search(comparison.PAGE.read_text()),
        REPOSITORY / "assets" / comparison.CHAPTER / f"{name}.json",
    )
    assert shown is not None
    if not numbers.exists():
        assert shown[0] == ""  # nothing is claimed before it is measured
        return
    results = json.loads(numbers.read_text())
    rows = load_script(COMPARE).study_of({row: entry["flags"] for row, entry in results["rows"].items()})
    assert shown[0] == format_markdown(rows, results) + "\n", "refresh it: compare.py --readme"
