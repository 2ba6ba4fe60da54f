"""Tokenizers side by side: equal processor minutes become steps, equal parameters are equal, and plot and gallery are drawn."""

import io
import json
import os
import shlex
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from script_runner import call, load_script
from structure_checks import REPOSITORY

from tokenizer_lab import comparison
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import TOKENIZERS, build_tokenizer

COMPARE = REPOSITORY / "1.video-tokenizer" / "lab" / "compare.py"


def test_a_budget_becomes_the_steps_that_fit_and_each_tokenizer_is_timed_once(monkeypatch, tmp_path):
    """9 s to start and to validate do not count; of a step of 0.25 s, 480 fit into two minutes."""
    timed = []

    def pretend(study, command, environment):
        words = shlex.split(command)
        flags = dict(zip(words[2::2], words[3::2], strict=True))
        timed.append(flags["--model"])
        folder = Path(flags["--checkpoint-dir"])
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"cpu_minutes": (9 + 0.25 * int(flags["--num-steps"])) / 60}))

    monkeypatch.setattr(comparison, "run_command", pretend)
    script = load_script(COMPARE)
    config = script.CompareConfig(models=("st-fsq", "st-vq"), minutes=2.0)
    for _ in range(2):
        rows = script.rows_of(config, tmp_path, ["--data-path", "data"])
        assert rows == {name: f"--model {name} --num-steps 480" for name in ("st-fsq", "st-vq")}
        assert timed == ["st-fsq", "st-fsq", "st-vq", "st-vq"]


def test_equal_minutes_are_spent_by_the_processor(tmp_path, monkeypatch):
    def seen(*_):
        raise InputError(f"the GPUs are {os.environ['CUDA_VISIBLE_DEVICES']!r}")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(load_script(COMPARE), "rows_of", seen)
    for equal, gpus in (("parameters", "0"), ("minutes", "")):
        with redirect_stderr(io.StringIO()) as said:
            assert call(COMPARE, "--equal", equal, "--data-path", tmp_path) == 2
        assert f"the GPUs are '{gpus}'" in said.getvalue()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_equal_parameters_are_equal_within_5_percent(name):
    def parameters(name: str) -> int:
        config = comparison.read_flags(["--model", name, "--frame-size", "64", *comparison.EQUAL_PARAMETERS[name].split()])
        return sum(parameter.numel() for parameter in build_tokenizer(config).parameters())

    assert parameters(name) == pytest.approx(parameters("st-fsq"), rel=0.05)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_tokenizer_has_a_script_that_trains_it(name):
    assert (REPOSITORY / comparison.train_script(name)).exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--models", "st-fsq", "vqvae"], "--models vqvae: there is no such tokenizer; choose from st-fsq, "),
        (["--minutes", "0"], "--minutes 0.0 leaves no time to train"),
        (["--data-path", "nowhere"], "nowhere does not exist; record a game first"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(flags, sentence, capsys):
    assert call(COMPARE, *flags) == 2
    assert sentence in capsys.readouterr().err


def test_two_tokenizers_are_trained_scored_and_drawn(tmp_path, capfd):
    """With as many steps for both, two, and as many parameters."""
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    flags = ("--models", "st-fsq", "dreamer4", "--equal", "parameters", "--num-steps", 2, "--seeds", 0, "--data-path", data)
    assert call(COMPARE, *flags, "--output", tmp_path / "runs", "--json", tmp_path / "table.json") == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["flags"] for row in rows.values()] == [f"--model {name} --num-steps 2" for name in ("st-fsq", "dreamer4")]
    scores = [row["runs"][0]["metrics"] for row in rows.values()]
    assert [round(one["bits_per_frame"]) for one in scores] == [40, 2048]
    assert scores[0]["psnr_db"] > 0 and scores[1]["codes_used"] == 0
    assert (tmp_path / "table_dark.svg").exists() and (tmp_path / "table_frames.png").exists()
    assert "moving PSNR, dB ↑" in capfd.readouterr().out
