"""How much there is to read and where it is, now and before the lesson, the variants and the labs were separated.

    python tests/structure_table.py            # print the table
    python tests/structure_table.py --write    # fill "Read in this order" at the top of each chapter's README

MAIN_LINE lists what a reader of a chapter reads, in order. A file that joins or leaves the main line joins or leaves this list.
"""

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

from structure_checks import CHAPTERS, REPOSITORY, USES, VARIANTS, imported_modules, room_of

MAIN_LINE = {  # chapter -> file, relative to the chapter -> what it holds
    "1.video-tokenizer": {
        "train.py": "the loop, from frames to the same frames",
        "video_tokenizer/config.py": "the settings of this chapter",
        "video_tokenizer/losses.py": "which pixels count for more",
        "video_tokenizer/models/base.py": "what every tokenizer can do",
        "video_tokenizer/models/patch_embed.py": "frames to patches and back",
        "video_tokenizer/models/positional_encoding.py": "where and when a patch is",
        "video_tokenizer/models/st_transformer.py": "attention in space and in time, with its cache",
        "video_tokenizer/models/fsq.py": "a vector becomes an integer",
        "video_tokenizer/models/video_tokenizer.py": "encoder, quantizer and decoder, put together",
    },
    "2.latent-action-model": {
        "train.py": "the loop, which guesses actions to predict frames",
        "latent_action_model/config.py": "the settings of this chapter",
        "latent_action_model/models/latent_action_model.py": "encoder, quantizer and decoder, put together",
        "latent_action_model/models/frame_features.py": "convolutions over each frame",
        "latent_action_model/models/action_encoder.py": "two frames become one action vector",
        "latent_action_model/models/quantizers.py": "the vector becomes one of eight codes, by chapter 1's "
        "[VectorQuantizer](../1.video-tokenizer/video_tokenizer/models/vector_quantizer.py)",
        "latent_action_model/models/next_frame_decoder.py": "past and action become the next frame",
    },
    "3.dynamics-model": {
        "train.py": "the loop, which predicts the next frame's tokens",
        "dynamics_model/config.py": "the settings of this chapter",
        "dynamics_model/data/frame_cache.py": "videos become tokens or latents, once, and clips of them",
        "dynamics_model/models/base.py": "what every dynamics model can do",
        "dynamics_model/models/masking.py": "hiding tokens, and sampling them",
        "dynamics_model/models/maskgit.py": "the model, its sampling and its cache",
        "dynamics_model/models/action_prior.py": "which actions are possible now",
        "dynamics_model/prior_training.py": "the loop of the action prior",
    },
    "4.inference": {
        "world_model/world.py": "three models behind reset and step",
        "world_model/actions.py": "from keys to actions of the model",
        "world_model/starts.py": "the frames that a rollout begins with",
        "world_model/environment.py": "the world as a Gymnasium environment",
        "generate.py": "a rollout becomes a film",
    },
}
LEFT_CLOSED = {
    "1.video-tokenizer": "`data/` and `games/` (recordings and clips), `training/` (optimizer, run folders, checkpoints, "
    "processes), `metrics.py` and `figures.py`, `tokenizer_variants/`, `lab/`",
    "2.latent-action-model": "`places.py` and `labels.py` (for games such as Freeway, off by default), `metrics.py`, "
    "`action_map.py`, `action_probe.py` and `figures.py` (how actions are graded), `lab/`",
    "3.dynamics-model": "`data/prepare.py` (which checkpoints it starts from, what a world must know), "
    "`metrics.py`, `rollouts.py` and `figures.py` (how predictions are graded), `lab/`",
    "4.inference": "`play/` (server and page), `evaluation/` (until solution 5), the build (`build_world.py` and what it "
    "calls), `lab/`; `uses/` when you have read the chapter",
}
MODEL_AND_LOSS = {  # what each loop must name: its model's class, and what gives its loss
    "1.video-tokenizer": ("VideoTokenizer", "weighted_mse"),
    "2.latent-action-model": ("LatentActionModel", "losses"),
    "3.dynamics-model": ("MaskGIT", "parallel"),
}
BEFORE_COMMIT = "2a39488"
BEFORE: dict[str, Any] = {  # measured by the functions below on that commit; the hops of chapter 1 counted by hand
    "main line, chapter 1": (1_239, 10),
    "main line, chapter 2": (760, 8),
    "main line, chapter 3": (1_021, 9),
    "main line, chapter 4": (719, 5),
    "main line, all chapters": (3_739, 32),
    "apparatus of its script, chapter 1": (3_050, 24),
    "apparatus of its script, chapter 2": (3_417, 26),
    "apparatus of its script, chapter 3": (3_717, 29),
    "apparatus of its script, chapter 4": (2_614, 19),
    "variants": (3_033, 24),
    "uses": (0, 0),
    "labs": (4_757, 39),
    "the rest of the chapters": (10_321, 101),
    "all but tests, variants and uses": (18_817, 172),
    "tests": (12_394, 88),
    "names that train.py imports, chapter 1": 41,
    "names that train.py imports, chapter 2": 40,
    "names that train.py imports, chapter 3": 39,
    "hops from loop to model class, chapter 1": "3",
    "hops from loop to model class, chapter 2": "2",
    "hops from loop to model class, chapter 3": "2",
    "hops from loop to loss, chapter 1": "2 to 3",
    "hops from loop to loss, chapter 2": "1",
    "hops from loop to loss, chapter 3": "1",
}
SOURCE_FILES = {".py", ".js", ".css", ".html"}
START, END = "<!-- read in this order: python tests/structure_table.py --write -->\n", "<!-- end of reading order -->\n"


def count_lines(path: Path) -> int:
    """Lines of one file, blank ones too."""
    return len(path.read_text().splitlines())


def size(paths: set[Path]) -> tuple[int, int]:
    """(lines, files)."""
    return sum(map(count_lines, paths)), len(paths)


def main_line(chapter: str) -> set[Path]:
    """The files of MAIN_LINE. Raises FileNotFoundError for one that is not there."""
    files = [REPOSITORY / chapter / name for name in MAIN_LINE[chapter]]
    if missing := [file.relative_to(REPOSITORY).as_posix() for file in files if not file.exists()]:
        raise FileNotFoundError(f"{', '.join(missing)}: not there; update MAIN_LINE in tests/structure_table.py, then --write")
    return set(files)


def entry_point(chapter: str) -> Path:
    """The script that a chapter is about: its loop, or in chapter 4 the one that makes a rollout."""
    return REPOSITORY / chapter / ("generate.py" if chapter == "4.inference" else "train.py")


def import_closure(path: Path, folders: list[Path]) -> set[Path]:
    """All files below the folders that the file imports, directly or through others; imports inside functions count."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            names = [module.replace(".", "/") for module in imported_modules(file.read_text())]
            paths = [folder / (name + end) for folder in folders for name in names for end in (".py", "/__init__.py")]
            waiting += [path for path in paths if path.exists()]
    return {file for file in found if file.name != "__init__.py"}


def apparatus(chapter: str) -> set[Path]:
    """What the chapter's script imports in addition to the main line of this chapter and of earlier ones."""
    chapters = list(CHAPTERS)[: list(CHAPTERS).index(chapter) + 1]
    closure = import_closure(entry_point(chapter), [REPOSITORY / name for name in CHAPTERS])
    return closure - set().union(*map(main_line, chapters))


def imported_names(source: str) -> int:
    """How many names the imports of a file bind."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sum(len(node.names) for node in imports)


def hops(source: str, name: str) -> str:
    """How far a name is from the loop: 1 where the function that calls `backward` calls or reads it, else "2 or more"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            read = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
            if {"backward", name} <= read | {called.id for called in calls if isinstance(called, ast.Name)}:
                return "1"
    return "2 or more"


def source_files(folder: Path) -> set[Path]:
    """Everything below a folder that somebody wrote and maintains: Python, and the play page."""
    return {path for path in folder.rglob("*") if path.suffix in SOURCE_FILES and "checkpoints" not in path.parts}


def table() -> dict[str, Any]:
    """Row -> (lines, files), or a number, or hops."""
    everything = set().union(*(source_files(REPOSITORY / chapter) for chapter in CHAPTERS))
    variants = {path for path in everything if VARIANTS & set(path.parts)}
    uses = {path for path in everything if room_of(path).startswith(USES)}
    labs = {path for path in everything if "lab" in path.parts}
    mains = set().union(*map(main_line, CHAPTERS))
    rows: dict[str, Any] = {f"main line, chapter {chapter[0]}": size(main_line(chapter)) for chapter in CHAPTERS}
    rows |= {"main line, all chapters": size(mains)}
    rows |= {f"apparatus of its script, chapter {chapter[0]}": size(apparatus(chapter)) for chapter in CHAPTERS}
    rows |= {"variants": size(variants), "uses": size(uses), "labs": size(labs)}
    rows |= {"the rest of the chapters": size(everything - variants - uses - labs - mains)}
    rows |= {"all but tests, variants and uses": size(everything - variants - uses)}
    rows |= {"tests": size(source_files(REPOSITORY / "tests"))}
    loops = {chapter: entry_point(chapter).read_text() for chapter in MODEL_AND_LOSS}
    rows |= {f"names that train.py imports, chapter {chapter[0]}": imported_names(loops[chapter]) for chapter in loops}
    for number, what in enumerate(("model class", "loss")):
        names = {chapter: MODEL_AND_LOSS[chapter][number] for chapter in loops}
        rows |= {f"hops from loop to {what}, chapter {chapter[0]}": hops(loops[chapter], names[chapter]) for chapter in loops}
    return rows


def shown(value: Any) -> str:
    """A cell of the table."""
    return f"{value[0]:,} in {value[1]}" if isinstance(value, tuple) else str(value)


def reading_order(chapter: str) -> str:
    """The box at the top of a chapter's README."""
    lines, files = size(main_line(chapter))
    rows = [f"> **Read in this order** ({files} files, {lines:,} lines):", ">"]
    for number, (name, what) in enumerate(MAIN_LINE[chapter].items(), start=1):
        rows.append(f"> {number}. [{name}]({name}) ({count_lines(REPOSITORY / chapter / name)} lines): {what}")
    return "\n".join([*rows, ">", f"> Leave closed until you need it: {LEFT_CLOSED[chapter]}.", ""])


def with_reading_order(text: str, chapter: str) -> str:
    """The README with its box as it should be today; it must hold the two marks."""
    before, rest = text.split(START)
    return before + START + reading_order(chapter) + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fill the reading orders of the READMEs")
    parser.add_argument("--json", type=Path, help="file for the table")
    arguments = parser.parse_args()
    if arguments.write:
        for chapter in CHAPTERS:
            page = REPOSITORY / chapter / "README.md"
            page.write_text(with_reading_order(page.read_text(), chapter))
    rows = table()
    print(f"{'lines in files, or a number':40} {BEFORE_COMMIT:>14} {'now':>14}")
    for name, value in rows.items():
        print(f"{name:40} {shown(BEFORE[name]):>14} {shown(value):>14}")
    if arguments.json:
        arguments.json.write_text(json.dumps({BEFORE_COMMIT: BEFORE, "now": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
