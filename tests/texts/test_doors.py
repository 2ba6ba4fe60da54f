"""Other ways into the course work too: the notebook, the page for AI assistants, the container.

The notebook's cells are run in order in an empty folder, but for three things that take minutes or a network: cloning and
installing are only compared with the front page, and the build of a world is replaced by files of the names that it writes.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
import readme_checks as checks
from script_runner import call, load_script, parse_only
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

PAGES = ["README.md", "start.ipynb"]
CELLS = json.loads((REPOSITORY / "start.ipynb").read_text())["cells"]
GAME = "ALE/Breakout-v5"
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture
def shown(monkeypatch):
    """What the notebook displays: a list of files, which must exist at that moment. Replaces IPython."""
    files = []

    def image(name: str) -> Path:
        assert Path(name).is_file(), f"there is nothing to show: {name}"
        return Path(name)

    display = ModuleType("IPython.display")
    vars(display).update(Image=image, display=files.append)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return files


def call_from_the_notebook(words: list[str]) -> None:
    """Run a script as a cell does, four frames of a dream at most; a build only writes what it would have written."""
    script = REPOSITORY / words[1]
    if script.name == "build_world.py":
        build, config = load_script(script), parse_only(script, words[2:])
        with mock.patch.object(build, "REPOSITORY", Path.cwd()):
            steps = build.all_steps(config, None, GAME, build.choose_folders(config, None, GAME))
        for output in (output for step in steps for output in step.outputs):
            assert not output.is_absolute()  # in the temporary folder, not in the reader's repository
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
    else:
        assert call(script, *words[2:], "--num-frames", 4) == 0


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, shown):
    save_tiny_world(tmp_path / "assets/worlds/breakout")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in CODE:
        for line in re.findall(r"^[!%](.+)$", cell, re.MULTILINE):
            words = shlex.split(line)
            if words[0] == "python":
                call_from_the_notebook(words)
            else:
                assert words[:2] in (["git", "clone"], ["cd", "video-world-models"], ["pip", "install"])
        exec(re.sub(r"^[!%].*$", "", cell, flags=re.MULTILINE), names)
    assert [path.as_posix() for path in shown] == ["dream.gif", "worlds/breakout/beside.gif"]


def test_the_notebook_holds_no_outputs_and_no_versions():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
    assert not re.search(r"\d\.\d|==|>=", re.sub(r"\d\.inference", "", " ".join(CODE)))


def test_all_pages_clone_the_same_address():
    addresses = {page: set(re.findall(r"git clone .*?(https://\S+\.git)", (REPOSITORY / page).read_text())) for page in PAGES}
    assert all(len(found) == 1 for found in addresses.values()) and addresses["README.md"] == addresses["start.ipynb"]


def test_the_container_is_made_by_commands_that_exist():
    container = SimpleNamespace(**json.loads((REPOSITORY / ".devcontainer/devcontainer.json").read_text()))
    block = f"```bash\n{container.postCreateCommand}\n```"
    assert checks.command_complaints(block, REPOSITORY / "README.md", REPOSITORY, parse_only) == []
    play = parse_only(REPOSITORY / "4.inference/play.py", [])
    assert container.forwardPorts == [play.port]


def test_what_assistants_are_told_to_open_exists():
    text = (REPOSITORY / "AGENTS.md").read_text()
    paths = {path for path in re.findall(r"`([^`\s]+)`", text) if re.search(r"/|\.(py|md|json)$", path)}
    paths |= set(re.findall(r"(?<![\w/])tests/[\w./-]+", text))
    in_chapters = {path for path in paths if any(REPOSITORY.glob(f"[1-9].*/**/{path.rstrip('/')}"))}
    assert [path for path in paths - in_chapters - {".venv/bin/python"} if not (REPOSITORY / path).exists()] == []
