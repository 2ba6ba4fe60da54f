"""Which of your answers to the exercises are right, a line for each: `make exercises`, or `make exercises CHAPTER=2`.

It runs the checks of this folder on what you wrote into <chapter>/exercises/start.py, and needs nothing but pytest.
"""

import re
import sys
import textwrap
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NAME = re.compile(r"test_exercise_(?P<number>\d+)_(?P<title>\w+)")


class Verdicts:
    """What the checks say about each exercise; pytest calls the method after each of their phases."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], list[str]] = {}
        """(chapter, number of the exercise) -> its title and what is wrong; some exercises have two checks"""

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Note what an exercise's check has found."""
        if (name := NAME.fullmatch(item.name)) is None:
            return
        lines = self.lines.setdefault((item.path.stem[-1], name["number"]), [name["title"].replace("_", " ")])
        if call.excinfo is not None and len(lines) == 1:
            lines.append(complaint(call.excinfo))

    def __str__(self) -> str:
        found = []
        for chapter in dict.fromkeys(chapter for chapter, _ in self.lines):
            found += [f"Chapter {chapter}"]
            for (_, number), (title, *wrong) in ((key, lines) for key, lines in self.lines.items() if key[0] == chapter):
                found += [f"  {number}  {title + ' ':.<56} {(wrong or ['passed'])[0]}"]
        return "\n".join(found)


def complaint(error: pytest.ExceptionInfo) -> str:
    """What an exception in a check says to the reader."""
    if error.errisinstance(NotImplementedError):
        return "not started"
    message = str(error.value).strip() or "no message"
    if not error.errisinstance(AssertionError):
        lines = [place.lineno + 1 for place in error.traceback if Path(place.path).name == "start.py"]
        return f"stopped with {error.typename}: {_short(message)}" + (f"\n      in start.py, line {lines[-1]}" if lines else "")
    if message.startswith("train into"):
        return f"not started: {message.splitlines()[0]}"
    expected = str(error.traceback[-1].statement).strip().removeprefix("assert ").partition("  #")[0]
    found = message.removeprefix("assert ").partition("\n" if not message.startswith("assert False") else "\0")[0]
    return f"not yet\n      expected {_short(expected)}\n      found    {_short(found)}"


def _short(text: str) -> str:
    """One line of it."""
    return textwrap.shorten(text, 110, placeholder=" ...")


def main(chapters: list[str]) -> int:
    """Check the chapters of these numbers, or all, and print what was found. Returns 0 unless the checks could not run."""
    files = sorted(FOLDER.glob("test_chapter_?.py"))
    chosen = [str(file) for file in files if not chapters or file.stem[-1] in chapters]
    if not chosen:
        print(f"there is no chapter {' '.join(chapters)}; choose from {' '.join(file.stem[-1] for file in files)}")
        return 2
    verdicts, output = Verdicts(), StringIO()
    with redirect_stdout(output):
        code = pytest.main([*chosen, "--run-exercises", "-p", "no:cacheprovider"], plugins=[verdicts])
    print(verdicts if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else output.getvalue())
    return 0 if verdicts.lines else int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
