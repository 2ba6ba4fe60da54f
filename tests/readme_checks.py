"""What the texts promise, checked against the repository: links, anchors, excerpts, commands, sessions, references, numbers.

Each function reads a Markdown text and returns a list of complaints, which is empty if the text is true. After a measurement,
this brings the numbers of pages up to date:

python tests/readme_checks.py --write README.md 4.inference/README.md
"""

import doctest
import itertools
import json
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
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
INLINE_COMMAND = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:uv run |\.venv/bin/)?(?:python3?|torchrun|pytest|make) [^`\n]+)`")
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:,\d{3})*(?:\.\d+)?(?:%| percent\b)?")
MEASURED_BLOCK = re.compile(r"^<!-- measured[ \t]*\n(?P<entries>.*?)^-->[ \t]*\n?", re.MULTILINE | re.DOTALL)


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
    """The commands in the ```bash blocks and between single backticks, as words, with continued lines joined and without
    comments, variables and `uv run`."""
    commands = []
    for block in [*code_blocks(text, "bash"), *INLINE_COMMAND.findall(FENCE.sub("", text))]:
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
    """Quoted commands with a script, a make target, a flag, or a file of the tests or assets that does not exist.

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
        named = re.findall(r"(?<![\w/.])(?:tests|assets)/[\w./-]+", " ".join(words))
        complaints += [f"{path}: there is no such file" for path in named if not (root / path).exists()]
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


def session_complaints(text: str, page: Path) -> list[str]:
    """Python sessions (`>>> ` lines in ```python blocks) that print something else than the page shows.

    All sessions of a page run in order in one namespace, as doctests: `...` stands for anything, and spaces do not matter.
    """
    session = ["" for _ in text.splitlines()]  # the page with everything blanked but the sessions, so that line numbers stay
    for block in FENCE.finditer(text):
        if block["language"] == "python" and ">>> " in block["code"]:
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            session[first : first + len(code)] = code
    complaints = [
        f"line {number + 1} is in no python block and is never run: {line.strip()}"
        for number, line in enumerate(text.splitlines())
        if line.lstrip().startswith(">>> ") and not session[number]
    ]
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(
        doctest.DocTestParser().get_doctest("\n".join(session) + "\n", {"__name__": "page"}, page.name, str(page), 0),
        out=complaints.append,
    )
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


def _value(page: Path, file: str, key: str) -> float | None:
    """The number of that name in a JSON file beside the page, such as `games.0.psnr_db`; None if there is none.

    A dot that belongs to a name has a backslash: `players.0\\.25.score`.
    """
    try:
        value = json.loads((page.parent / file).read_text())
        for name in (part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", key)):
            value = value[int(name)] if isinstance(value, list) else value[name]
        return float(value) if math.isfinite(value) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _parts(shown: str) -> tuple[str, int, str]:
    """A number as shown on a page -> its digits for `float`, how many of them stand after the point, and its unit."""
    digits, unit = re.fullmatch(r"(.*?)(%| percent)?", shown).groups(default="")  # type: ignore[union-attr]
    plain = digits.replace(",", "").replace("−", "-")
    return plain, len(plain.partition(".")[2]), unit


def _shows(shown: str, value: float) -> bool:
    """Whether the number shown is the value, or a hundred times the value for %, rounded to the digits shown."""
    plain, places, unit = _parts(shown)
    return abs(float(plain) - value * (100 if unit else 1)) <= 0.5 * 10.0**-places * (1 + 1e-9)


def rewritten(shown: str, value: float) -> str:
    """The value in the dress of the number shown: as many digits after the point, the same signs, commas and unit."""
    plain, places, unit = _parts(shown)
    number = float(f"{value * (100 if unit else 1):.{places}f}") + 0.0  # + 0.0: no minus before a zero
    commas = "," in shown or abs(float(plain)) < 1000
    digits = f"{abs(number):{',' if commas else ''}.{places}f}"
    sign = ("−" if "−" in shown else "-") if number < 0 else "+" if shown.startswith("+") else ""
    return sign + digits + unit


@dataclass
class Shown:
    """A measured number of a page: where it stands in the text, and the value that it must show."""

    start: int
    end: int
    value: float
    key: str


@dataclass
class Entry:
    """A line of the block: values by name, and from where to where the page is searched for each."""

    values: list[str]
    places: list[tuple[int, int]]
    quoted_at: int | None = None
    """where the block repeats the only place"""


def measured_complaints(text: str, page: Path) -> list[str]:
    """Numbers that differ from those that the block `<!-- measured ... -->` at the end of a page names; and wrong entries.

    The block gives JSON files a name, relative to the page, `world = ../assets/metrics.json`, and then says in each line

    - `"98% of the balls" = world object_recall`: this phrase stands once in the page, and its first number is that value, rounded
      to the digits shown (a hundredfold before `%` or `percent`), or
    - `| Breakout | = world psnr_db | - | tiny psnr_db |`: the other cells of the table row that begins with this one show these
      values, each as its first number. `-` passes over a cell, and `| Breakout (2) |` is the second row of that name.
    """
    shown, _, complaints = _measured_block(text, page)
    return complaints + [
        f"{number.key} is {number.value:.6g}, and {text[number.start : number.end]} is shown"
        for number in shown
        if not _shows(text[number.start : number.end], number.value)
    ]


def with_measured_numbers(text: str, page: Path) -> str:
    """The page with the numbers that its block names as they are in the JSON files, in the text and in the block."""
    shown, entries, _ = _measured_block(text, page)
    values = {(number.start, number.end): number.value for number in shown}
    edits = [(*place, rewritten(text[slice(*place)], value)) for place, value in values.items()]
    for entry in entries:
        if entry.quoted_at is not None:
            start, end = entry.places[0]
            edits.append((entry.quoted_at, entry.quoted_at + end - start, _edited(text, edits, start, end)))
    return _edited(text, edits, 0, len(text))


def _edited(text: str, edits: list[tuple[int, int, str]], first: int, last: int) -> str:
    """What stands between two places of a text after edits of the form (start, end, new text)."""
    pieces, position = [], first
    for start, end, new in sorted(edit for edit in edits if first <= edit[0] and edit[1] <= last):
        pieces += [text[position:start], new]
        position = end
    return "".join([*pieces, text[position:last]])


def _measured_block(text: str, page: Path) -> tuple[list[Shown], list[Entry], list[str]]:
    """The numbers that the block of a page names, its entries, and what is wrong with them."""
    outside_code = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    block = MEASURED_BLOCK.search(outside_code)
    if block is None:
        return (
            [],
            [],
            ["the block of measured numbers has no line --> or no line <!-- measured"] if "<!-- measured" in outside_code else [],
        )
    prose, place = text[: block.start()], block.start("entries")
    complaints = ["the measured numbers are not at the end of the page"] if text[block.end() :].strip() else []
    files: dict[str, str] = {}
    entries: list[Entry] = []
    for line in block["entries"].splitlines(keepends=True):
        if name := re.fullmatch(r"(\w+)\s*=\s*(\S+)", line.strip()):
            files[name[1]] = name[2]
        elif line.strip():
            entry = _entry(line, place, prose)
            if isinstance(entry, Entry):
                entries.append(entry)
            else:
                complaints.append(entry)
        place += len(line)
    shown = []
    for entry in entries:
        for value, place in zip(entry.values, entry.places, strict=False):
            found = None if value == "-" else _shown(value, place, prose, files, page)
            if isinstance(found, str):
                complaints.append(found)
            elif found:
                shown.append(found)
    used = {value.split()[0] for entry in entries for value in entry.values}
    return (
        shown,
        entries,
        complaints + [f"no number of the block is in {files[name]} ({name})" for name in files if name not in used],
    )


def _entry(line: str, begin: int, prose: str) -> Entry | str:
    """A line of the block, which begins at that place of the page; or what is wrong with it, in words."""
    if quote := re.fullmatch(r'"(.+)"\s*=\s*(\S+\s+\S+)', line.strip()):
        if (count := prose.count(quote[1])) != 1:
            return f'"{quote[1]}" stands {count} times in the page'
        start = prose.find(quote[1])
        return Entry([quote[2]], [(start, start + len(quote[1]))], begin + line.find('"') + 1)
    if row := re.fullmatch(r"\|(.+?)\|\s*=\s*([^|\s].*?)\s*\|?", line.strip()):
        cells, values = _row(prose, row[1].strip()), [value.strip() for value in row[2].split("|")]
        if isinstance(cells, str):
            return cells
        if len(values) > len(cells):
            return f"the row {row[1].strip()} has only {len(cells)} more cells"
        if all(re.fullmatch(r"-|\S+\s+\S+", value) for value in values):
            return Entry(values, cells)
    return f"not an entry of measured numbers: {line.strip()}"


def _shown(name: str, place: tuple[int, int], prose: str, files: dict[str, str], page: Path) -> Shown | str:
    """The first number in a place of the page, with the value that the block names for it; or what is wrong, in words."""
    alias, key = name.split()
    if alias not in files:
        return f"{alias} is the name of no file in the block"
    if (value := _value(page, files[alias], key)) is None:
        return f"{files[alias]} holds no number called {key}"
    if (number := NUMBER.search(prose[slice(*place)])) is None:
        return f"no number stands in: {prose[slice(*place)].strip()}"
    start, end = place[0] + number.start(), place[0] + number.end()
    if (start, end) not in [whole.span() for whole in NUMBER.finditer(prose)]:
        return f"this cuts a number in two: {prose[slice(*place)].strip()}"
    return Shown(start, end, value, key)


def _row(text: str, name: str) -> list[tuple[int, int]] | str:
    """Where the other cells of the table row with this first cell begin and end; or what is wrong, in words."""
    rows = []
    for line in re.finditer(r"^\|.*\|[ \t]*$", text, re.MULTILINE):
        bars = [line.start() + bar.start() for bar in re.finditer(r"(?<!\\)\|", line[0])]
        rows.append([(left + 1, right) for left, right in itertools.pairwise(bars)])
    titles = [_cell(text[row[0][0] : row[0][1]]) for row in rows]
    which = re.fullmatch(r"(.+) \((\d+)\)", name) if titles.count(_cell(name)) == 0 else None
    title, number = (_cell(which[1]), int(which[2])) if which else (_cell(name), 1)
    if titles.count(title) < number or (which is None and titles.count(title) > 1):
        return f"{titles.count(title)} table rows begin with {name}"
    return [row for row, other in zip(rows, titles, strict=True) if other == title][number - 1][1:]


def _cell(text: str) -> str:
    """What a reader sees of a table cell: without code marks, stars and the targets of links."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "").replace("*", "").strip()


def main(arguments: list[str]) -> None:
    """Say what is wrong with the measured numbers of some pages; with --write, correct the numbers first."""
    wrong = False
    for page in (Path(argument) for argument in arguments if argument != "--write"):
        if "--write" in arguments:
            page.write_text(with_measured_numbers(page.read_text(), page))
        complaints = measured_complaints(page.read_text(), page)
        wrong = wrong or bool(complaints)
        print("\n".join(f"{page}: {complaint}" for complaint in complaints or ["every number is the measured one"]))
    sys.exit(wrong)


if __name__ == "__main__":
    main(sys.argv[1:])
