"""The tables that commands write into the texts are those in the texts, to the letter: `--readme` would change nothing."""

from pathlib import Path

import pytest
from script_runner import call
from structure_checks import REPOSITORY

from tokenizer_lab import sweep

COMMANDS = (
    "1.video-tokenizer/lab/ablate.py",
    "1.video-tokenizer/lab/compare.py",
    "1.video-tokenizer/lab/compare.py --equal parameters",
    "1.video-tokenizer/lab/experiments.py",
    "2.latent-action-model/lab/ablate.py",
    "2.latent-action-model/lab/games.py",
    "3.dynamics-model/lab/ablate.py",
    "3.dynamics-model/lab/compare.py",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_of_the_texts_is_what_its_command_writes(command, monkeypatch):
    written: list[tuple[Path, str]] = []
    monkeypatch.setattr(sweep, "write_text_atomically", lambda page, text: written.append((page, text)))
    script, *flags = command.split()
    assert call(REPOSITORY / script, *flags, "--readme") == 0
    assert written and [page.name for page, text in written if text != page.read_text(encoding="utf-8")] == []
