"""What `make exercises` says about an answer."""

from pathlib import Path

import pytest
from script_runner import load_script, run
from structure_checks import REPOSITORY

SCRIPT = Path(__file__).with_name("check.py")
check = load_script(SCRIPT)


def said_about(answer) -> list[str]:
    """The lines on a check that expects the number 22 from an answer."""

    def asks() -> None:
        assert answer() == 22

    with pytest.raises(BaseException) as raised:
        asks()
    return [line.strip() for line in check.complaint(raised).splitlines()]


def test_an_answer_that_nobody_has_begun_is_not_started():
    def answer():
        raise NotImplementedError

    assert said_about(answer) == ["not started"]


def test_a_wrong_answer_is_shown_with_what_was_expected():
    first, expected, found = said_about(lambda: 21)
    assert (first, expected) == ("not yet", "expected answer() == 22") and found.startswith("found    21 == 22")


def test_an_answer_that_stops_says_why():
    assert said_about(lambda: [][0]) == ["stopped with IndexError: list index out of range"]


def test_every_exercise_that_has_a_check_gets_a_line():
    result = run(SCRIPT, 2, folder=REPOSITORY)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if " ..." in line] == ["1", "2", "3", "4", "5", "8"]


def test_a_chapter_that_does_not_exist_is_refused(capsys):
    assert check.main(["7"]) == 2 and "choose from 1 2 3 4" in capsys.readouterr().out
