"""The tree keeps its promises: chapters build on earlier chapters only, the lesson is short, nothing that is loaded runs code."""

import itertools
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import structure_checks as checks
import structure_table
from script_runner import load_script
from structure_checks import CHAPTERS, REPOSITORY, package_files, scripts

SOURCES = sorted({*package_files(), *scripts()})
LESSON = [path for path in SOURCES if not checks.room_of(path).startswith(("lab", "variants", "uses"))]
CONTRACT = {"world.py", "environment.py", "registry.py", "loading.py"}
"""what code outside the course calls"""


def name(path: Path) -> str:
    """How a file is called in the test report: its path from the root of the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def chapter_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).parts[0]


def complaints(check: Callable[[Path, str], list[str]], paths: list[Path]) -> dict[str, list[str]]:
    """What a check has to say about each file, without the files that pass it."""
    said = {name(path): check(path, path.read_text()) for path in paths}
    return {path: lines for path, lines in said.items() if lines}


# ---- imports and files --------------------------------------------------------------------------------------------------


def test_the_chapters_are_what_gets_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    packages = {f"{chapter}/{package}" for chapter, package in CHAPTERS.items()}
    extras = [path for chapter in CHAPTERS for where in ("*_variants", "uses") for path in (REPOSITORY / chapter).glob(where)]
    packages |= {name(path) for path in extras}
    assert set(project["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages
    assert all((REPOSITORY / package / "__init__.py").exists() for package in packages)
    folders = [*CHAPTERS, *(f"{chapter}/lab" for chapter in CHAPTERS)]
    assert project["hatch"]["build"]["dev-mode-dirs"] == folders
    assert project["pytest"]["ini_options"]["pythonpath"] == project["pyright"]["extraPaths"] == [*folders, "tests"]


def test_every_requirement_has_a_tested_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert [one for one in wanted if one.split(">=")[0].split("[")[0] not in pinned] == []


def test_a_chapter_imports_earlier_chapters_only_and_the_lesson_neither_variants_nor_labs():
    def check(path: Path, source: str) -> list[str]:
        return checks.import_complaints(source, CHAPTERS[chapter_of(path)], checks.room_of(path))

    assert complaints(check, SOURCES) == {}


def test_models_and_training_never_import_each_other():
    assert complaints(lambda path, source: checks.circle_complaints(source, checks.room_of(path)), LESSON) == {}


def test_no_chapter_reads_what_a_later_chapter_makes():
    assert complaints(lambda path, source: checks.data_complaints(source, chapter_of(path)), LESSON) == {}


def test_no_file_is_named_after_nothing():
    parts = {name(path): set(Path(name(path)).with_suffix("").parts) for path in SOURCES}
    assert [path for path, names in parts.items() if names & checks.FORBIDDEN_NAMES] == []


def test_models_and_the_contract_say_what_they_are():
    paths = [path for path in LESSON if checks.room_of(path) == "models" or path.name in CONTRACT]
    assert complaints(lambda _, source: checks.docstring_complaints(source) if source else [], paths) == {}


def test_every_flag_has_a_help_text():
    assert complaints(lambda _, source: checks.config_complaints(source), SOURCES) == {}


def test_no_file_that_is_loaded_can_run_code():
    assert complaints(lambda _, source: checks.loading_complaints(source), SOURCES) == {}


# ---- how much there is to read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chapter", "most_lines"),
    [
        ("1.video-tokenizer", 1_050),
        ("2.latent-action-model", 600),
        ("3.dynamics-model", 950),
        ("4.inference", 750),
    ],
)
def test_the_main_line_of_a_chapter_fits_its_budget(chapter, most_lines):
    lines, files = structure_table.size(structure_table.main_line(chapter))
    assert lines <= most_lines and files <= 9


@pytest.mark.parametrize("chapter", ["1.video-tokenizer", "2.latent-action-model", "3.dynamics-model"])
def test_a_loop_imports_few_names_and_names_its_model_and_its_loss(chapter):
    source = structure_table.entry_point(chapter).read_text()
    assert structure_table.imported_names(source) <= 22
    assert [structure_table.hops(source, used) for used in structure_table.MODEL_AND_LOSS[chapter]] == ["1", "1"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_begins_with_what_to_read_in_which_order(chapter):
    text = (REPOSITORY / chapter / "README.md").read_text()
    assert structure_table.START in text.split("\n## ")[0]
    assert structure_table.with_reading_order(text, chapter) == text, "run: python tests/structure_table.py --write"


# ---- scripts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", scripts(), ids=name)
def test_a_script_explains_itself_and_refuses_flags_that_it_does_not_have(script, monkeypatch, capsys):
    assert script.read_text().endswith('if __name__ == "__main__":\n    run_script(main)\n')
    module = load_script(script)
    model = {"tokenizer_variants": ["--model", "videogpt"], "dynamics_variants": ["--model", "gpt"]}.get(script.parent.name, [])
    for flags, code in ((["--help"], 0), (["--no-such-flag", "1"], 2)):
        monkeypatch.setattr(sys, "argv", [str(script), *model, *flags])
        with pytest.raises(SystemExit) as ended:
            module.run_script(module.main)
        assert ended.value.code == code
    printed = capsys.readouterr()
    assert "--help" in printed.out and "no-such-flag" in printed.err


# ---- the checks themselves, on strings short enough to see the answer ---------------------------------------------------


def test_the_import_check_knows_the_order_of_the_chapters():
    source = "from dynamics_model import load_dynamics"
    assert checks.import_complaints(source, "world_model") == []
    assert len(checks.import_complaints(source, "video_tokenizer")) == 2  # the package and the name in it


def test_the_import_check_keeps_variants_and_labs_out_of_the_lesson():
    variant, lab = "def build():\n    from tokenizer_variants.st_vq import model", "import tokenizer_lab.claims"
    for room, allowed in {"lesson": [], "models": [], "variants": [variant], "lab": [variant, lab]}.items():
        assert [source for source in (variant, lab) if not checks.import_complaints(source, "dynamics_model", room)] == allowed
    assert checks.import_complaints("from .models import fsq", "video_tokenizer")


def test_the_import_check_keeps_uses_apart():
    source = "from uses.sharpening.model import Sharpener"
    for room, allowed in {"lesson": False, "uses.planning": False, "uses.sharpening": True, "lab": True}.items():
        assert (checks.import_complaints(source, "world_model", room) == []) == allowed
    rooms = {"4.inference/uses/sharpening/model.py": "uses.sharpening", "4.inference/plan.py": "uses.planning"}
    assert {path: checks.room_of(REPOSITORY / path) for path in rooms} == rooms
    assert checks.import_complaints("import world_lab.drawings", "world_model", "uses.sharpening")


def test_the_checks_of_circles_and_data_tell_right_from_wrong():
    source = "from video_tokenizer.training.device import autocast"
    assert checks.circle_complaints(source, "models") and not checks.circle_complaints(source, "lesson")
    assert checks.data_complaints('"dynamics.pt"', "2.latent-action-model")
    assert not checks.data_complaints('"dynamics.pt"', "3.dynamics-model")


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


def test_the_table_counts_names_and_hops():
    source = "from a import b, c\nimport d\ndef main():\n    model = Tokenizer(config)\n    lossy(model).backward()"
    assert structure_table.imported_names(source) == 3
    assert structure_table.hops(source, "Tokenizer") == "1" and structure_table.hops(source, "Other") == "2 or more"
