"""One name for one idea: the glossary sends its readers where a word is used, and knows scores that are measured."""

import json
import re
from functools import reduce
from typing import Any

import pytest
import readme_checks as checks
from structure_checks import CHAPTERS, REPOSITORY

WORDS, SCORES = (REPOSITORY / "GLOSSARY.md").read_text().split("\n## ")[1:3]


def section(text: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    return text.split(f"## {heading}")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][1:]


def keys(value: Any) -> set[str]:
    """All keys of nested dictionaries and lists."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()


@pytest.mark.parametrize("word, meaning, place", rows(WORDS), ids=lambda cell: cell if len(cell) < 20 else "")
def test_a_word_is_used_where_the_glossary_sends_its_reader(word, meaning, place):
    page, _, anchor = re.findall(r"\]\(([^)]+)\)", place)[0].partition("#")
    text = (REPOSITORY / page).read_text()
    if anchor:
        text = next(part for part in re.split(r"^(?=#{2,3} )", text, flags=re.MULTILINE) if anchor in checks.anchors(part))
    assert all(part in text.lower() for part in word.lower().replace("action map", "action_map").split(", "))


def test_every_score_of_the_glossary_is_measured_somewhere():
    patterns = ("assets/*/metrics*.json", "assets/*/experiments.json", "assets/*/comparison.json", "assets/worlds/*/metrics.json")
    measured = reduce(set.union, (keys(json.loads(file.read_text())) for where in patterns for file in REPOSITORY.glob(where)))
    assert set(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(SCORES)))) <= measured


def test_dimension_tables_and_the_axis_key_use_the_same_letters():
    key = rows(section((REPOSITORY / "GLOSSARY.md").read_text(), "Axis key"))
    letters = set(re.findall(r"\b[A-Z]\b", " ".join(row[0] for row in key)))
    for chapter in CHAPTERS:
        symbols = " ".join(row[0] for row in rows(section((REPOSITORY / chapter / "README.md").read_text(), "Dimensions")))
        assert set(re.findall(r"[A-Za-z]", symbols)) <= letters | {"d"}, chapter  # d is the width of one attention head
