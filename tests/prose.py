"""How a page reads, in numbers: words, words in a sentence, readers spoken to, colons, numbers, fragments, minutes.

python tests/prose.py                       # every page
python tests/prose.py 1.video-tokenizer/README.md
python tests/prose.py --at v1 README.md     # as it was at a git revision

It counts what is read as sentences: no code, tables, headings, pictures, comments and references. It only measures. No test
holds a page to it: the numbers show where to look, and reading aloud decides.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WORDS_A_MINUTE = 230
GOALS = "goals of a chapter: you+we at least 2.5, colons+semicolons at most 0.5, numbers at most 5, no fragment"

READER = re.compile(r"\b(?:you|your|yours|yourself|we|our|ours|ourselves|us|let['’]s)\b", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*(?:\.\d+)?")
POINTER = re.compile(r"\b(chapters?|solutions?|questions?|exercises?|steps?|sections?)(?: \d+(?:,| and| to)?)+", re.IGNORECASE)
BY_HAND = re.compile(r"^ *(?:> *)?\*{1,2}By hand.*\n?(?:^ *>.*\n?)*", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”*_)]*\s+(?=[\"“*_(]*[A-Z0-9])")

# words of which one makes a sentence of a group of words: subjects that need a verb, and verbs
SENTENCE_WORDS = """i you we they it he she nobody everybody everything nothing am is are was were be has have had do does did can
could will would shall should may might must cannot isn't aren't wasn't doesn't don't didn't won't can't it's
that's there's what's here's we're you're they're we've you've we'll you'll let's add adds allow allows answer
answers apply applies arrive arrives ask asks become becomes begin begins belong belongs bring brings build
builds call calls carry carries change changes choose chooses come comes compare compares consider contain
contains copy copies cost costs count counts cover covers cut cuts decide decides decode decodes depend
depends describe describes draw draws drift drifts encode encodes end ends expect expects fail fails fall
falls find finds fit fits follow follows get gets give gives go goes grow grows guess guesses happen happens
help helps hide hides hold holds imagine jump jumps keep keeps know knows lead leads learn learns leave leaves
lie lies like likes live lives look looks lose loses make makes match matches mean means measure measures move
moves need needs open opens pay pays pick picks play plays point points predict predicts press presses produce
produces put puts reach reaches read reads recall record records remain remains remember remembers repeat
repeats run runs say says scale scales see sees seem seems send sends share shares shift shifts show shows sit
sits sound sounds split splits stand stands start starts stay stays stop stops suppose take takes teach
teaches tell tells think thinks throw throws train trains try tries turn turns understand understands use uses
wait waits want wants watch wear wears win wins wonder work works write writes came chose gave got kept knew
lost made saw took tried went wrote"""


@dataclass(frozen=True)
class Prose:
    """The counts of one page."""

    words: int
    sentences: int
    readers: int
    """you, your, yours, yourself, we, our, ours, ourselves, us, let's"""
    colons: int
    """colons and semicolons"""
    numbers: int
    """numbers in digits outside *By hand* boxes; "chapter 2" and its like are no numbers"""
    words_with_numbers: int
    """words outside *By hand* boxes"""
    fragments: tuple[str, ...]
    """first sentences of solutions that have no finite verb or less than four words"""


def prose(text: str) -> str:
    """What is read as sentences, one paragraph or list item a line; inline code becomes the word `code`."""
    text = re.sub(r"<!-- read in this order.*?<!-- end of reading order -->", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *(`{3,}|~{3,}).*?^ *\1[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^## References.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ *\|.*$", "", text, flags=re.MULTILINE)  # tables, before a <br> in a cell ends their lines
    text = re.sub(r"^From \[[^\]]+\]\([^)]+\):[ \t]*$", "", text, flags=re.MULTILINE)  # the announcement of an excerpt
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\[\]]*)\]\([^()\s]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]+`", "code", text)
    text = re.sub(r"</?(?:summary|li|p|br|td|figcaption)[^>]*>", "\n\n", text)
    text = re.sub(r"<[a-z/][^>]*>", "", text)
    lines, paragraphs = [line.strip() for line in text.splitlines()], [""]
    for line in lines:
        if not line or line.startswith(("|", "#", "---")):
            paragraphs.append("")
        elif item := re.match(r"(?:[-*+]|\d+\.)\s+(.*)", line):
            paragraphs.append(item[1])
        else:
            paragraphs[-1] += " " + re.sub(r"^>\s?", "", line)
    return "\n".join(paragraph.strip() for paragraph in paragraphs if re.search(r"\w", paragraph))


def words(text: str) -> list[str]:
    """What stands between spaces and has a letter or a digit in it."""
    return [word for word in text.split() if re.search(r"\w", word)]


def sentences(text: str) -> list[str]:
    """The sentences of a prose; the end of a paragraph ends one."""
    return [part for line in text.splitlines() for part in SENTENCE_END.split(line) if words(part)]


def is_fragment(sentence: str) -> bool:
    """Whether a sentence has less than four words, or nothing that looks like a verb or its subject: a heuristic.

    Its main clause ends at a colon and leaves out `, which ...` and its like; after "By" or "Not" it ends at `that` as well.
    """
    clause = re.sub(r", (?:which|as|whose|where|who)\b[^,]*", "", re.split(r"[:;]\s", sentence)[0])
    if re.match(r"(?:By|With|From|Into|Through|Not|The one)\b", clause):
        clause = re.split(r" (?:that|whose|which|they|when|where)\b", clause)[0]
    plain = {re.sub(r"[^a-z']", "", word.lower().replace("’", "'")) for word in words(clause)}
    return len(words(sentence)) < 4 or not plain & set(SENTENCE_WORDS.split())


def measured(text: str) -> Prose:
    """The counts of a page in Markdown."""
    read, without_boxes = prose(text), POINTER.sub(r"\1", prose(BY_HAND.sub("", text)))
    openings = []
    for solution in re.split(r"^### \d+\..*$", text, flags=re.MULTILINE)[1:]:
        openings += sentences(prose(solution))[:1]
    return Prose(
        words=len(words(read)),
        sentences=len(sentences(read)),
        readers=len(READER.findall(read)),
        colons=len(re.findall(r"[:;](?=\W|$)", read)),
        numbers=len(NUMBER.findall(without_boxes)),
        words_with_numbers=len(words(without_boxes)),
        fragments=tuple(filter(is_fragment, openings)),
    )


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def pages_at(revision: str | None) -> list[str]:
    """Every page of the course, by its path in the repository."""
    files = git("ls-tree", "-r", "--name-only", revision) if revision else git("ls-files", "-co", "--exclude-standard")
    return sorted({file for file in files.splitlines() if file.endswith(".md")})


def main(arguments: list[str]) -> None:
    """Print one table, a page a row, and the fragments it has counted."""
    revision = arguments.pop(arguments.index("--at") + 1) if "--at" in arguments else None
    pages = [Path(page).resolve().relative_to(REPOSITORY).as_posix() for page in arguments if page != "--at"]
    pages = pages or [page for page in pages_at(revision) if revision or (REPOSITORY / page).exists()]
    texts = {page: git("show", f"{revision}:{page}") if revision else (REPOSITORY / page).read_text() for page in pages}
    counts = {page: measured(text) for page, text in texts.items()}
    width = max(map(len, counts))
    print(f"{'page':{width}}  words  words/sentence  you+we/100  colons/sentence  numbers/100  fragments  minutes")
    for page, c in counts.items():
        per_sentence, per_word, outside_boxes = 1 / max(1, c.sentences), 100 / max(1, c.words), 100 / max(1, c.words_with_numbers)
        print(
            f"{page:{width}}  {c.words:5,}  {c.words * per_sentence:14.1f}  {c.readers * per_word:10.1f}  "
            f"{c.colons * per_sentence:15.2f}  {c.numbers * outside_boxes:11.1f}  {len(c.fragments):9}  "
            f"{c.words / WORDS_A_MINUTE:7.0f}"
        )
    print(GOALS)
    for page, c in counts.items():
        for fragment in c.fragments:
            print(f"  fragment in {page}: {fragment[:80]}")


if __name__ == "__main__":
    main(sys.argv[1:])
