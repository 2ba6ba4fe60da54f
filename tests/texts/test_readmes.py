"""The texts are true: links resolve, excerpts are verbatim, commands parse, papers have their titles, numbers were measured."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import readme_checks as checks
from script_runner import parse_only
from structure_checks import CHAPTERS, REPOSITORY, package_files, scripts

FOLDERS_WITH_TEXTS = ("*.md", "[1-9].*/**/*.md", "tests/*.md", "web/*.md")
TEXTS = [path for where in FOLDERS_WITH_TEXTS for path in REPOSITORY.glob(where) if "checkpoints" not in path.parts]
PAPERS = json.loads((Path(__file__).parent / "papers.json").read_text())


def name(path: Path) -> str:
    """How a text is called in the test report: its path from the root of the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def test_every_chapter_has_a_text():
    assert all((REPOSITORY / chapter / "README.md").exists() for chapter in CHAPTERS)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_link_leads_somewhere(page):
    complaints = checks.link_complaints(page.read_text(), page, REPOSITORY)
    assert not complaints, "\n".join(complaints)


def test_every_file_of_the_assets_is_shown_by_a_page_or_read():
    """Pictures are shown; weights and numbers are named by a page, or their name stands in quotes in a test that reads them."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("without git, nobody knows which files are part of the repository")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "assets"]
    files = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    pages = "\n".join(page.read_text(encoding="utf-8") for page in TEXTS)
    tests = "\n".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("tests/**/*.py"))
    unseen = [Path(file) for file in files if file not in pages]
    pictures = [path for path in unseen if path.suffix in (".png", ".gif", ".svg")]
    unread = [path for path in unseen if not re.search(rf'["/]({re.escape(path.name)}|{path.stem})"', tests)]
    assert len(files) > 100 and not pictures and not unread


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_excerpt_is_verbatim_in_the_cited_file(page):
    complaints = checks.excerpt_complaints(page.read_text(), page)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_quoted_command_is_accepted_by_its_script(page, capsys):
    complaints = checks.command_complaints(page.read_text(), page, REPOSITORY, parse_only)
    assert not complaints, "\n".join(complaints) + capsys.readouterr().err


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_paper_is_called_by_its_title(page):
    complaints = checks.reference_complaints(page.read_text(), PAPERS)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_number_marked_as_measured_is_in_the_metrics(page):
    complaints = checks.measured_complaints(page.read_text(), page)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("page", [page for page in TEXTS if ">>> " in page.read_text()], ids=name)
def test_every_python_session_prints_what_the_page_shows(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    complaints = checks.session_complaints(page.read_text(), page)
    assert not complaints, "\n".join(complaints)


def test_the_code_cites_papers_that_the_table_knows():
    cited = {path: set(checks.ARXIV.findall(path.read_text())) for path in package_files() + scripts()}
    assert {name(path): sorted(ids - PAPERS.keys()) for path, ids in cited.items() if ids - PAPERS.keys()} == {}


def test_the_commands_in_docstrings_are_accepted_too():
    complaints = {}
    for script in scripts():
        commands = re.findall(r"^ *(python \S+\.py .*)$", script.read_text(), re.MULTILINE)
        block = "```bash\n" + "\n".join(commands) + "\n```"
        complaints[name(script)] = checks.command_complaints(block, script, REPOSITORY, parse_only)
    assert {script: lines for script, lines in complaints.items() if lines} == {}


# ---- the checks themselves, on texts short enough to see the answer -----------------------------------------------------


@pytest.fixture
def page(tmp_path):
    """A README beside a small module, a metrics file and a Makefile."""
    (tmp_path / "fsq.py").write_text("import torch\n\n\ndef levels():\n    low = 1\n    high = 2\n    return low, high\n")
    (tmp_path / "metrics.json").write_text('{"tokenizer": {"psnr_db": 41.257, "recall": 0.9746}, "steps": [1, 12345]}')
    (tmp_path / "Makefile").write_text("world:\n\techo\n")
    (tmp_path / "README.md").write_text("# A title, with `code` & signs\n\n## Same\n\n## Same\n")
    return tmp_path / "README.md"


def test_a_heading_becomes_the_anchor_that_github_makes_of_it():
    text = "# A title, with `code` & signs\n```\n# no heading\n```\n## Same\n## Same\n## 1. [Why?](x.md)\n"
    assert checks.anchors(text) == {"a-title-with-code--signs", "same", "same-1", "1-why"}


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("[code](fsq.py) and [a line](fsq.py#L7) and `[no link](gone.py)`", True),
        ("[above](#same-1) and [outside](https://example.org/gone)", True),
        ("[![a picture](metrics.json)](README.md#same)", True),
        ("[code](gone.py)", False),
        ("[a line](fsq.py#L8)", False),
        ("[above](#other)", False),
        ('<img src="gone.png">', False),
        ("[out of the repository](../elsewhere.md)", False),
    ],
)
def test_the_link_check_tells_right_from_wrong(page, text, is_true):
    complaints = checks.link_complaints(text + "\n\n## Same\n\n## Same\n", page, page.parent)
    assert (complaints == []) == is_true, complaints


@pytest.mark.parametrize(
    ("code", "is_true"),
    [
        ("def levels():\n    low = 1\n", True),
        ("    high = 2\n", True),
        ("def levels():\n    # ...\n    return low, high\n", True),
        ("def levels():\n    low = 2\n", False),
        ("low = 1\nhigh = 2\n", True),  # without the indentation that all its lines have in the file
        ("low = 1\n    high = 2\n", False),  # the rest of the indentation is part of the line
        ("    low =\n", False),  # so is its end
        ("    high = 2\n    # ...\n    low = 1\n", False),  # the parts come in the order of the file
        ("# ...\ndef levels():\n        # ...\n    return low, high\n# ...\n", True),  # anything may be left out, anywhere
        ("low = 1\n    # ...\nreturn low, high\n", True),
    ],
)
def test_the_excerpt_check_tells_right_from_wrong(page, code, is_true):
    complaints = checks.excerpt_complaints(f"From [fsq.py](fsq.py):\n\n```python\n{code}```\n", page)
    assert (complaints == []) == is_true, complaints


def test_an_excerpt_needs_its_code_and_the_right_file(page):
    assert checks.excerpt_complaints("From [fsq.py](fsq.py):\n\nsome words\n", page)
    assert checks.excerpt_complaints("From [vq.py](fsq.py):\n\n```python\nimport torch\n```\n", page)


def test_commands_are_read_as_a_shell_reads_them():
    text = """
```bash
$ make world   # minutes
OMP_NUM_THREADS=2 uv run python a.py \\
    --x 1 && cd b
```
```python
not(a, command)
```
"""
    assert checks.quoted_commands(text) == [["make", "world"], ["python", "a.py", "--x", "1"], ["cd", "b"]]
    assert checks.quoted_commands("`python`, `N=1 python a.py`\nand `make it`") == [["python", "a.py"], ["make", "it"]]
    assert checks.script_call(["torchrun", "--nproc-per-node", "2", "a.py", "--x"]) == ("a.py", ["--x"])
    assert checks.script_call(["python", "-m", "venv", "a.py"]) is None


def test_the_command_check_tells_right_from_wrong(page):
    def parse(script: Path, arguments: list[str]) -> None:
        if arguments and arguments[0] != "--seed":
            raise SystemExit(2)

    def complaints(command: str) -> list[str]:
        return checks.command_complaints(f"```bash\n{command}\n```", page, page.parent, parse)

    assert complaints("make world GAME=pong") == complaints("python fsq.py --seed 1") == complaints("pip install x") == []
    assert complaints("make wrold") and complaints("python fsq.py --sede 1") and complaints("python gone.py")
    assert (
        complaints("pytest tests/gone.py") and complaints('make world X="tests/gone.py -x"') and complaints("cp assets/gone.pt")
    )
    inline = checks.command_complaints("so `make wrold` and `python fsq.py --sede 1`", page, page.parent, parse)
    assert len(inline) == 2


def test_the_reference_check_tells_right_from_wrong():
    papers = {"2309.15505": "Finite Scalar Quantization: VQ-VAE Made Simple"}
    right = "as in arXiv:2309.15505\n## References\n- Finite scalar quantization: VQ-VAE made simple, arXiv:2309.15505"
    assert checks.reference_complaints(right, papers) == []
    assert checks.reference_complaints("## References\n- MAGVIT-2, [paper](https://arxiv.org/abs/2309.15505)", papers)
    assert checks.reference_complaints("see arXiv:2310.05737", papers)


BLOCK = """It reaches 41.3 dB, and 97% of the balls are there.

| | tiny | big |
|---|---|---|
| `Steps` | 12,345 at most | 1 |
| A name | 1 | 41.26 dB |
| A name | 97.5% | |

<!-- measured
m = metrics.json

"It reaches 41.3 dB" = m tokenizer.psnr_db
"97% of the balls" = m tokenizer.recall
| Steps | = m steps.1 | m steps.0 |
| A name (1) | = - | m tokenizer.psnr_db |
| A name (2) | = m tokenizer.recall |
-->
"""


def test_the_numbers_of_the_block_at_the_end_of_a_page_are_those_of_the_files(page):
    assert checks.measured_complaints(BLOCK, page) == checks.measured_complaints("no block", page) == []
    assert checks.measured_complaints(f"```\n{BLOCK.replace('12,345', '1')}```\nshows how\n", page) == []


@pytest.mark.parametrize(
    ("true", "false", "complaint"),
    [
        ("reaches 41.3 dB", "reaches 41.2 dB", "tokenizer.psnr_db is 41.257, and 41.2 is shown"),
        ("41.26 dB |", "41.2 dB |", "tokenizer.psnr_db is 41.257, and 41.2 is shown"),
        ("12,345 at most", "12,346 at most", "steps.1 is 12345, and 12,346 is shown"),
        ("97% of the balls", "98% of the balls", "tokenizer.recall is 0.9746, and 98% is shown"),
        ("m steps.1", "n steps.1", "n is the name of no file in the block"),
        ("m steps.1", "m steps.9", "metrics.json holds no number called steps.9"),
        ("m = metrics.json", "m = gone.json", "gone.json holds no number called tokenizer.psnr_db"),
        ("m = metrics.json", "m = metrics.json\nn = metrics.json", "no number of the block is in metrics.json (n)"),
        ("97% of the balls are", "Most balls are", '"97% of the balls" stands 0 times in the page'),
        ("balls are there", "balls are there: 97% of the balls", '"97% of the balls" stands 2 times in the page'),
        ('"97% of the balls"', '"of the balls"', "no number stands in: of the balls"),
        ('"97% of the balls"', '"7% of the balls"', "this cuts a number in two: 7% of the balls"),
        ('"It reaches 41.3 dB"', '"It reaches 41"', "this cuts a number in two: It reaches 41"),
        ("| Steps | =", "| Stepz | =", "0 table rows begin with Stepz"),
        ("| A name (2) | =", "| A name | =", "2 table rows begin with A name"),
        ("| A name (2) | =", "| A name (3) | =", "2 table rows begin with A name (3)"),
        ("| A name (2) | =", "| A name (2) | = - | - |", "the row A name (2) has only 2 more cells"),
        ("| A name (1) | = -", "| A name (2) | = -", "no number stands in: "),
        ("| A name (1) | = -", "A name = -", "not an entry of measured numbers: A name = - | m tokenizer.psnr_db |"),
        ("\n-->\n", " -->\n", "the block of measured numbers has no line --> or no line <!-- measured"),
        (
            "<!-- measured\n",
            "<!-- measured: metrics.json steps.1 -->\n",
            "the block of measured numbers has no line --> or no line <!-- measured",
        ),
        ("-->\n", "-->\nmore text\n", "the measured numbers are not at the end of the page"),
    ],
)
def test_the_block_of_measured_numbers_is_read_strictly(page, true, false, complaint):
    assert true in BLOCK
    assert complaint in checks.measured_complaints(BLOCK.replace(true, false), page)


def test_a_name_with_a_dot_is_found_behind_a_backslash(page):
    (page.parent / "metrics.json").write_text('{"players": {"0.25": {"score": 3}}}')
    block = 'It scores 4.\n\n<!-- measured\nm = metrics.json\n"It scores 4" = m players.0\\.25.score\n-->\n'
    assert checks.measured_complaints(block, page) == ["players.0\\.25.score is 3, and 4 is shown"]


def test_new_measurements_are_written_into_the_text_and_the_block(page):
    (page.parent / "metrics.json").write_text('{"tokenizer": {"psnr_db": 38.04, "recall": 0.995}, "steps": [-2, 999]}')
    written = checks.with_measured_numbers(BLOCK, page)
    assert checks.measured_complaints(written, page) == []
    for line in ("It reaches 38.0 dB, and 100% of the balls", "| `Steps` | 999 at most | -2 |", "| A name | 1 | 38.04 dB |"):
        assert line in written
    assert '"It reaches 38.0 dB" = m' in written and '"100% of the balls" = m' in written and "| A name | 99.5% | |" in written
    assert checks.with_measured_numbers(written, page) == written


@pytest.mark.parametrize(
    ("shown", "value", "expected"),
    [
        ("0.98", 0.9, "0.90"),
        ("97%", 0.5, "50%"),
        ("97 percent", 0.5, "50 percent"),
        ("12,345", 67890.2, "67,890"),
        ("12345", 67890.2, "67890"),
        ("900", 1234, "1,234"),
        ("−1.5", -2.25, "−2.2"),
        ("+1.5", 2.31, "+2.3"),
        ("1.5", -2.31, "-2.3"),
        ("-0.1", -0.01, "0.0"),
    ],
)
def test_a_number_is_rewritten_in_its_own_dress(shown, value, expected):
    assert checks.rewritten(shown, value) == expected


SESSION = """First,

```python
>>> from math import sqrt
>>> [sqrt(9),
...  2]
[3.0,   2]
```
and later
```python
>>> sqrt(2)
1.41...
```
"""


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        (SESSION, True),
        (SESSION.replace("[3.0", "[4.0"), False),
        (SESSION.replace("from math", "from maths"), False),
        (SESSION.replace("```python\n>>> sqrt", "```\n>>> sqrt"), False),  # never run
        ("```python\nundefined\n```\n", True),  # an excerpt is no session
    ],
)
def test_the_session_check_tells_right_from_wrong(page, text, is_true):
    complaints = checks.session_complaints(text, page)
    assert (complaints == []) == is_true, complaints


def test_a_wrong_session_is_reported_with_its_line(page):
    assert "line 11, in README.md" in checks.session_complaints(SESSION.replace("1.41", "1.42"), page)[0]
