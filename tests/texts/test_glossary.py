"""One name for one idea: the glossary knows the symbols and scores that are used, and leads to where they are explained."""

import json
import re
from functools import reduce

import pytest
import readme_checks as checks
from structure_checks import CHAPTERS, REPOSITORY

GLOSSARY = (REPOSITORY / "GLOSSARY.md").read_text()
WORDS, SCORES = (section.split("\n## ")[0] for section in GLOSSARY.split("\n## ")[1:3])
CHAPTER_TEXTS = {chapter: (REPOSITORY / chapter / "README.md").read_text() for chapter in CHAPTERS}
WORDS_A_MINUTE = 230
"""silent reading of English non-fiction: 238 words a minute on average (Brysbaert 2019)"""


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][1:]


def axis_letters() -> set[str]:
    """The letters of the axis key on the front page."""
    key = (REPOSITORY / "README.md").read_text().split("## Axis key")[1].split("\n## ")[0]
    return set(re.findall(r"\b[A-Z]\b", " ".join(row[0] for row in rows(key))))


def leaves(value, path: str = "") -> set[str]:
    """All keys of nested dictionaries, each alone and with those above it."""
    if not isinstance(value, dict):
        return set()
    parts = [{key, f"{path}{key}"} | leaves(inner, f"{path}{key}.") for key, inner in value.items()]
    return reduce(set.union, parts, set())


def test_the_words_stand_in_the_order_of_the_alphabet():
    words = [row[0] for row in rows(WORDS)]
    assert len(words) > 25 and words == sorted(words)


@pytest.mark.parametrize("word, meaning, place", rows(WORDS), ids=lambda cell: cell if len(cell) < 20 else "")
def test_a_word_is_used_where_the_glossary_sends_its_reader(word, meaning, place):
    page, _, anchor = re.findall(r"\]\(([^)]+)\)", place)[0].partition("#")
    text = (REPOSITORY / page).read_text()
    if anchor:
        sections = re.split(r"^(?=#{2,3} )", text, flags=re.MULTILINE)
        text = next(section for section in sections if anchor in checks.anchors(section))
    assert all(part in text.lower() for part in word.lower().replace("action map", "action_map").split(", "))


def test_every_score_of_the_glossary_is_measured_somewhere():
    patterns = ("assets/*/metrics*.json", "assets/*/experiments.json", "assets/worlds/*/metrics.json")
    files = [file for pattern in patterns for file in REPOSITORY.glob(pattern)]
    known = reduce(set.union, (leaves(json.loads(file.read_text())) for file in files), set())
    names = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(SCORES)))
    assert len(names) > 14 and [name for name in names if name not in known] == []


def test_every_score_that_a_chapter_explains_is_in_the_glossary():
    ours = set(re.findall(r"`(\w+)`", SCORES))
    for chapter, text in CHAPTER_TEXTS.items():
        explained = text.split("## What to look for")[1].split("\n## ")[0]
        named = [name for row in rows(explained) for name in re.findall(r"`([\w.]+)`", row[0])]
        missing = [name for name in named if not ours & {*name.split("."), name.removesuffix("_ratio"), name.rsplit("_", 1)[0]}]
        assert set(missing) <= {"loss", "reconstruction", "codes", "accuracy", "frames_per_second"}, (chapter, missing)


def test_dimension_tables_and_the_axis_key_use_the_same_letters():
    """d, the width of one attention head, is the only other letter."""
    letters = axis_letters()
    assert letters == set("BTCHWPNEDLKA")
    for chapter, text in CHAPTER_TEXTS.items():
        symbols = " ".join(row[0] for row in rows(text.split("## Dimensions")[1].split("\n## ")[0]))
        assert set(re.findall(r"[A-Za-z]", symbols)) <= letters | {"d"}, chapter


def prose(text: str) -> str:
    """What is read: without code, comments, tables and addresses."""
    text = re.sub(r"<!--.*?-->", "", checks.FENCE.sub("", text), flags=re.DOTALL)
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_read_in_half_an_hour_has_pictures_and_exercises(chapter):
    text = CHAPTER_TEXTS[chapter]
    lesson = text.split("\n## Run log")[0]
    assert len(prose(lesson).split()) / WORDS_A_MINUTE < 30
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) >= 5
    exercises = text.split("\n## Exercises")[1].split("\n## ")[0]
    assert len(re.findall(r"^\d+\. ", exercises, re.MULTILINE)) >= 5


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_questions_are_the_headings_of_their_solutions(chapter):
    text = CHAPTER_TEXTS[chapter]
    questions = re.findall(r"^(\d+)\. ", text.split("\n## Questions")[1].split("\n## ")[0], re.MULTILINE)
    solutions = re.findall(r"^### (\d+)\. ", text.split("\n## Solutions")[1].split("\n## ")[0], re.MULTILINE)
    assert questions == solutions and len(questions) >= 7
