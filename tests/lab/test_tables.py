"""The tables that commands write into the texts are those in the texts, to the letter: `--readme` would change nothing."""

from pathlib import Path

import pytest
from script_runner import call
from structure_checks import REPOSITORY

from tokenizer_lab import sweep

COMMANDS = {
    "1.video-tokenizer/lab/ablate.py": "ablations",
    "1.video-tokenizer/lab/compare.py": "comparison",
    "1.video-tokenizer/lab/compare.py --equal parameters": "comparison_parameters",
    "1.video-tokenizer/lab/experiments.py": "experiments",
    "2.latent-action-model/lab/ablate.py": "ablations",
    "2.latent-action-model/lab/games.py": "games",
    "3.dynamics-model/lab/ablate.py": "ablations",
    "3.dynamics-model/lab/compare.py": "comparison",
    "3.dynamics-model/lab/context_noise.py": "context_noise",
    "3.dynamics-model/lab/experiments.py": "experiments",
}
"""command -> its numbers"""


@pytest.mark.parametrize(("command", "numbers"), COMMANDS.items(), ids=COMMANDS)
def test_a_table_of_the_texts_is_what_its_command_writes(command, numbers, monkeypatch):
    written: list[tuple[Path, str]] = []
    monkeypatch.setattr(sweep, "write_text_atomically", lambda page, text: written.append((page, text)))
    script, *flags = command.split()
    file = REPOSITORY / "assets" / script.partition("/")[0] / f"{numbers}.json"
    assert call(REPOSITORY / script, *flags, "--json", file, "--readme") == 0
    assert written and [page.name for page, text in written if text != page.read_text(encoding="utf-8")] == []
