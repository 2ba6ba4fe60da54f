"""Whose answers are checked."""

from pathlib import Path

import pytest
from script_runner import load_script
from structure_checks import REPOSITORY


@pytest.fixture
def answers(request):
    """The reader's functions of the chapter, or the solutions; the chapter is the number in the name of the test file."""
    number = Path(request.module.__file__).stem[-1]
    own = request.config.getoption("--run-exercises")
    start = next(REPOSITORY.glob(f"{number}.*/exercises/start.py"))
    return load_script(start if own else Path(__file__).with_name(f"solutions_{number}.py"))
