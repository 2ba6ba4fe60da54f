"""What the texts promise, checked against the repository: links, anchors, excerpts, commands, references, measured numbers.

Each function reads a Markdown text and returns a list of complaints, which is empty if the text is true.
"""

import json
import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FENCE = re.compile(r"^(?P<mark>`{3,}|~{3,})(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=mark)[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)(?:\s+\"[^\"]*\")?\)")
HTML_LINK = re.compile(r"\b(?:href|src|srcset)=\"(?P<target>[^\"\s]+)\"")
EXCERPT = re.compile(
    r"^From \[(?P<label>[^\]]+)\]\((?P<target>[^)\s]+)\):[ \t]*\n\s*\n?```python\n(?P<code>.*?)^```", re.M | re.S
)
ELISION = re.compile(r"^[ \t]*# \.\.\.[ \t]*$\n?", re.MULTILINE)
ARXIV = re.compile(r"(?:arxiv\.org/(?:abs|pdf|html)/|arXiv:\s?)(?P<id>\d{4}\.\d{4,5})", re.IGNORECASE)
MEASURED = re.compile(r"<!-- measured: (?P<file>\S+)(?: (?P<key>\S+))? -->")
MARK_BEFORE_PUNCTUATION = re.compile(r" <!-- measured: [^>]*-->[,.;:)]")
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*(?:\.\d+)?%?")


def code_blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks in one language."""
    return [match["code"] for match in FENCE.finditer(text) if match["language"] == language]


def without_code(text: str) -> str:
    """The text without fenced blocks and inline code, in which Markdown means nothing."""
    return re.sub(r"`[^`\n]+`", "``", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The fragments of a Markdown page on GitHub: one per heading, and each `<a id="...">`."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", FENCE.sub("", text), re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link in a heading counts with its text
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = sum(1 for other in found if other == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", other))
        found.add(f"{slug}-{count}" if count else slug)
    return found


def link_complaints(text: str, page: Path, root: Path) -> list[str]:
    """Relative links and pictures that lead nowhere or out of the repository, and anchors without a heading."""
    complaints = []
    prose = without_code(text)
    for match in [*LINK.finditer(prose), *HTML_LINK.finditer(prose)]:
        target = unquote(match["target"])
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page.resolve()
        if not file.exists() or not file.is_relative_to(root.resolve()):
            complaints.append(f"{target}: there is no such file in the repository")
        elif fragment and file.suffix == ".md" and fragment not in anchors(text if file == page.resolve() else file.read_text()):
            complaints.append(f"{target}: no heading of {file.name} has this anchor")
        elif fragment and file.suffix == ".py" and not _has_lines(file, fragment):
            complaints.append(f"{target}: {file.name} has no such line")
    return complaints


def _has_lines(file: Path, fragment: str) -> bool:
    """Whether a fragment such as L12 or L12-L20 names lines that the file has."""
    lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", fragment)
    return lines is not None and int(lines[2] or lines[1]) <= len(file.read_text().splitlines())


def excerpt_complaints(text: str, page: Path) -> list[str]:
    """Excerpts, announced by `From [path](path):`, that are not verbatim in the cited file.

    A line `# ...` marks omitted lines; the parts between such lines must follow each other in the file. An excerpt may omit the
    indentation that all its lines share in the file.
    """
    complaints = []
    announced = len(re.findall(r"^From \[[^\]]+\]\([^)]+\):", text, re.MULTILINE))
    excerpts = list(EXCERPT.finditer(text))
    if announced != len(excerpts):
        complaints.append(f"{announced} excerpts are announced and {len(excerpts)} are followed by a python block")
    for excerpt in excerpts:
        file = page.parent / unquote(excerpt["target"].partition("#")[0])
        if not file.is_file() or not file.resolve().as_posix().endswith(excerpt["label"].strip("`")):
            complaints.append(f"{excerpt['label']} is not the target of its link, {excerpt['target']}")
            continue
        missing = [_first_missing(excerpt["code"], file.read_text(), " " * width) for width in range(0, 24, 4)]
        if None not in missing:
            complaints.append(f"{excerpt['label']} does not contain this line in this place: {missing[0]}")
    return complaints


def _first_missing(code: str, source: str, margin: str) -> str | None:
    """The first line of the first part that is not in the source, with `margin` before every line; None if all are."""
    source, position = "\n" + source, 0
    for part in ELISION.split(code):
        lines = "\n" + textwrap.indent(part.strip("\n"), margin) + "\n"  # complete lines
        if not part.strip():
            continue
        position = source.find(lines, position)
        if position < 0:
            return part.strip().splitlines()[0]
        position += len(lines) - 1
    return None


def quoted_commands(text: str) -> list[list[str]]:
    """The commands in the ```bash blocks, as words, with continued lines joined and without comments, variables and `uv run`."""
    commands = []
    for block in code_blocks(text, "bash"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in re.split(r"\s(?:&&|\||;)\s", line.strip().removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words = words[1:]
                words = words[2:] if words[:2] == ["uv", "run"] else words
                if words:
                    commands.append(words)
    return commands


def script_call(words: list[str]) -> tuple[str, list[str]] | None:
    """(script, arguments) of a command that calls a Python script directly or through torchrun; None for other commands."""
    if Path(words[0]).name not in {"python", "python3", "torchrun"}:
        return None
    for position, word in enumerate(words[1:], start=1):
        if word.endswith(".py"):
            return word, words[position + 1 :]
        if word == "-m":
            return None
    return None


def command_complaints(text: str, page: Path, root: Path, parse: Callable[[Path, list[str]], Any]) -> list[str]:
    """Quoted commands with a script, a make target or a flag that does not exist.

    parse: reads a script's arguments without running it, and raises SystemExit if they are wrong.
    """
    complaints, folders = [], [root, page.parent]
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE) if (root / "Makefile").exists() else []
    for words in quoted_commands(text):
        if words[0] == "cd" and (page.parent / words[-1]).is_dir():
            folders.append(page.parent / words[-1])
        if words[0] == "make":
            wrong = [word for word in words[1:] if "=" not in word and word not in targets]
            complaints += [f"make {word}: the Makefile has no such target" for word in wrong]
        if (call := script_call(words)) is None:
            continue
        script = next((folder / call[0] for folder in folders if (folder / call[0]).is_file()), None)
        if script is None:
            complaints.append(f"{call[0]}: there is no such script")
            continue
        try:
            parse(script.resolve(), call[1])
        except (SystemExit, ValueError) as error:
            complaints.append(f"{shlex.join(words)}: the command line is refused ({error})")
    return complaints


def reference_complaints(text: str, titles: dict[str, str]) -> list[str]:
    """arXiv numbers that are not in `titles` (id -> title), and lines of a References section that give another title."""
    complaints, in_references = [], False
    for line in text.splitlines():
        if line.startswith("#"):
            in_references = "references" in line.lower()
        for found in dict.fromkeys(match["id"] for match in ARXIV.finditer(line)):
            if found not in titles:
                complaints.append(f"arXiv:{found} is in no table of titles; look it up and add it")
            elif in_references and _plain(titles[found]) not in _plain(line):
                complaints.append(f"arXiv:{found} is {titles[found]!r}, and its line in the references says something else")
    return complaints


def _plain(text: str) -> str:
    """Lower-case letters and digits only, so that dashes, quotes and line ends do not matter."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def measured_complaints(text: str, page: Path) -> list[str]:
    """Numbers marked as measured that differ, at the precision shown, from those in the JSON file that the mark names.

    `0.97 <!-- measured: metrics.json tokenizer.foreground_recall -->` marks the number before it on its line.
    `<!-- measured: metrics.json tokenizer -->` alone on a line marks the table below it: each row whose first cell is a key in
    backticks shows that key's value in its second cell. The file is relative to the page.
    """
    complaints, prefix, file = [], None, ""
    for line in text.splitlines():
        marks = list(MEASURED.finditer(line))
        if marks and line.strip() == marks[0][0]:
            file, prefix = marks[0]["file"], marks[0]["key"] or ""
            continue
        if MARK_BEFORE_PUNCTUATION.search(line):
            complaints.append(f"readers would see a space before the punctuation after a mark: {line.strip()[:60]}")
        for mark in marks:
            numbers = NUMBER.findall(MEASURED.sub("", line[: mark.start()]))
            complaints += _number_complaint(numbers[-1] if numbers else "", page, mark["file"], mark["key"] or "")
        if prefix is None or not line.startswith("|"):
            prefix = None if line.strip() else prefix
        elif row := re.match(r"\|\s*`([\w.]+)`[^|]*\|([^|]*)\|", line):
            shown = NUMBER.findall(row[2])
            complaints += _number_complaint(shown[0] if shown else "", page, file, f"{prefix}.{row[1]}".lstrip("."))
    return complaints


def _number_complaint(shown: str, page: Path, file: str, key: str) -> list[str]:
    """[] if the number shown is the one in the file, rounded to the digits shown; else what is wrong, as one line."""
    try:
        value = json.loads((page.parent / file).read_text())
        for name in key.split("."):
            value = value[int(name)] if isinstance(value, list) else value[name]
        value = float(value) * (100 if shown.endswith("%") else 1)
    except (OSError, ValueError, LookupError, TypeError):
        return [f"{file} holds no number called {key}"]
    plain = shown.rstrip("%").replace(",", "").replace("−", "-")
    if not plain:
        return [f"no number stands before the mark of {key}"]
    half_a_digit = 0.5 * 10.0 ** -len(plain.partition(".")[2])
    if abs(float(plain) - value) <= half_a_digit * (1 + 1e-9):
        return []
    return [f"{key} is {value:.6g} in {file}, and {shown} is shown"]
