"""The tree keeps its promises: chapters build on earlier chapters only, files stay readable, nothing unpickles code."""

import itertools
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import structure_checks as checks
from script_runner import load_script
from structure_checks import CHAPTERS, REPOSITORY, package_files, scripts

SOURCES = package_files() + scripts()
EVERY_PYTHON_FILE = SOURCES + sorted((REPOSITORY / "tests").rglob("*.py"))


def name(path: Path) -> str:
    """How a file is called in the test report: its path from the root of the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def complaints(check: Callable[[Path, str], list[str]], paths: list[Path]) -> dict[str, list[str]]:
    """What a check has to say about each file, without the files that pass it."""
    said = {name(path): check(path, path.read_text()) for path in paths}
    return {path: lines for path, lines in said.items() if lines}


def test_the_chapters_are_what_gets_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = [f"{chapter}/{package}" for chapter, package in CHAPTERS.items()]
    packages.insert(1, "1.video-tokenizer/tokenizer_variants")
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == packages
    assert all((REPOSITORY / package / "__init__.py").exists() for package in packages)
    folders = [*CHAPTERS, *(f"{chapter}/lab" for chapter in CHAPTERS)]
    assert project["tool"]["hatch"]["build"]["dev-mode-dirs"] == folders
    assert project["tool"]["pytest"]["ini_options"]["pythonpath"] == [*folders, "tests"]
    assert project["tool"]["pyright"]["extraPaths"] == [*folders, "tests"]


def test_every_requirement_has_a_tested_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert [one for one in wanted if one.split(">=")[0].split("[")[0] not in pinned] == []


def test_a_chapter_imports_only_from_itself_and_earlier_chapters():
    def check(path: Path, source: str) -> list[str]:
        package = CHAPTERS[path.relative_to(REPOSITORY).parts[0]]
        return checks.import_complaints(source, package, checks.room_of(path))

    assert complaints(check, SOURCES) == {}


def test_no_file_is_named_after_nothing():
    parts = {name(path): {part.removesuffix(".py") for part in Path(name(path)).parts} for path in EVERY_PYTHON_FILE}
    assert [path for path, names in parts.items() if names & checks.FORBIDDEN_NAMES] == []


def test_everything_public_says_what_it_is():
    assert complaints(lambda _, source: checks.docstring_complaints(source), SOURCES) == {}


def test_every_flag_has_a_help_text():
    assert complaints(lambda _, source: checks.config_complaints(source), SOURCES) == {}


def test_no_file_that_is_loaded_can_run_code():
    assert complaints(lambda _, source: checks.loading_complaints(source), SOURCES) == {}


@pytest.mark.parametrize("script", scripts(), ids=name)
def test_a_script_explains_itself(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--help" in done.stdout


@pytest.mark.parametrize("script", scripts(), ids=name)
def test_an_unknown_flag_ends_with_code_2(script, monkeypatch, capsys):
    module = load_script(script)
    monkeypatch.setattr(sys, "argv", [str(script), "--no-such-flag", "1"])
    with pytest.raises(SystemExit) as ended:
        module.run_script(module.main)
    assert ended.value.code == 2
    assert "no-such-flag" in capsys.readouterr().err


# ---- the checks themselves, on strings short enough to see the answer ---------------------------------------------------


def test_the_import_check_knows_the_order_of_the_chapters():
    source = "from dynamics_model import load_dynamics"
    assert checks.import_complaints(source, "world_model") == []
    assert len(checks.import_complaints(source, "video_tokenizer")) == 2  # the package and the name in it


def test_the_import_check_keeps_variants_and_laboratories_out_of_the_lesson():
    variant, lab = "def build():\n    from tokenizer_variants.st_vq import model", "import tokenizer_lab.claims"
    assert checks.import_complaints(variant, "dynamics_model") and checks.import_complaints(lab, "dynamics_model")
    assert checks.import_complaints(variant, "dynamics_model", "variants") == []
    assert checks.import_complaints(lab, "dynamics_model", "variants")
    assert checks.import_complaints(lab, "dynamics_model", "lab") == []
    assert checks.import_complaints("from .models import fsq", "video_tokenizer")


def test_the_docstring_check_finds_the_silent_function():
    source = '"""M."""\ndef said():\n    """S."""\ndef silent(): pass\ndef _private(): pass\n'
    assert checks.docstring_complaints(source) == ["silent has no docstring"]


def test_the_config_check_finds_the_flag_without_help():
    source = '@dataclass(frozen=True)\nclass AConfig:\n    """A."""\n    x: int = 1\n    """help"""\n    y: int = 2\n'
    assert checks.config_complaints(source) == ["AConfig.y has no help text below it"]


def test_the_loading_check_finds_what_could_run_code():
    assert checks.loading_complaints("torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)") == []
    assert checks.loading_complaints("torch.load(p)") == ["line 1: torch.load without weights_only=True"]
    assert len(checks.loading_complaints("import pickle\nnp.load(p, allow_pickle=True)")) == 2
    assert len(checks.loading_complaints("eval(x)\nos.system(x)\nsubprocess.run(x, shell=True)\narchive.extractall()")) == 4
    assert checks.loading_complaints("model.eval()\nsubprocess.run([x], check=True)\nre.compile(x)") == []
