"""What a source file of this repository may look like: functions from source text to a list of complaints.

They read the syntax tree and import nothing, so each can be tried on a three-line string.
"""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CHAPTERS = {  # in the order in which they are read: a chapter imports only from itself and from those above it
    "1.video-tokenizer": "video_tokenizer",
    "2.latent-action-model": "latent_action_model",
    "3.dynamics-model": "dynamics_model",
    "4.inference": "world_model",
}
PACKAGES = list(CHAPTERS.values())
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc"}
VARIANTS = {"tokenizer_variants", "dynamics_variants"}
USES = "uses"
USED_BY = {"plan.py": "planning"}
"""commands of chapter 4 that belong to a use"""
LABS = {"tokenizer_lab", "action_lab", "dynamics_lab", "world_lab"}


def scripts() -> list[Path]:
    """Every script a reader can call: beside a chapter's README, in its lab, of the uses, and the variants' training scripts."""
    places = ("*.py", "lab/*.py", "*_variants/train.py", "*_variants/*/train.py")
    found = [path for chapter in CHAPTERS for where in places for path in (REPOSITORY / chapter).glob(where)]
    in_uses = [path for path in package_files() if USES in path.parts and "def main()" in path.read_text()]
    return sorted(found + in_uses)


def package_files() -> list[Path]:
    """Every Python file of the packages: the lesson's, the variants', the uses' and the labs'."""
    rooms = [REPOSITORY / chapter / room for chapter, package in CHAPTERS.items() for room in (package, "lab", *VARIANTS, USES)]
    return sorted(path for room in rooms for path in room.glob("*/**/*.py" if room.name == "lab" else "**/*.py"))


def imported_modules(source: str) -> set[str]:
    """Dotted names that the source imports: `from a.b import c` counts as a.b and a.b.c, `from . import c` as a leading dot."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            modules |= {base} | {f"{base.rstrip('.')}.{alias.name}" for alias in node.names}
    return modules


def room_of(path: Path) -> str:
    """What a file is part of: "lab", "variants", a use such as "uses.planning", "models", "training", or else "lesson"."""
    folders = path.relative_to(REPOSITORY).parts[:-1]
    parts = set(folders)
    if USES in parts:
        return ".".join(folders[folders.index(USES) :][:2])
    if path.name in USED_BY:
        return f"{USES}.{USED_BY[path.name]}"
    if parts & VARIANTS:
        return "variants"
    return next((room for room in ("lab", "models", "training") if room in parts), "lesson")


def import_complaints(source: str, package: str, room: str = "lesson") -> list[str]:
    """Imports that break a rule: of a later chapter, of a variant, a use or a lab into the lesson, of another use into a use, or
    without the full path.

    package: the chapter's own package. room: see room_of; a lab imports whatever it likes.
    """
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    complaints = []
    for module in sorted(imported_modules(source)):
        first = module.split(".")[0]
        if module.startswith("."):
            complaints.append(f"relative import {module}: write the full path, so that a reader knows which file to open")
        elif first in later and room != "lab":
            complaints.append(f"{module} belongs to a later chapter than {package}")
        elif first in VARIANTS and room not in ("variants", "lab"):
            complaints.append(f"{module} is a variant, and the lesson never imports one")
        elif first == USES and room != "lab" and not f"{module}.".startswith(f"{room}."):
            complaints.append(f"{module} is a use, which neither the lesson nor another use imports")
        elif first in LABS and room != "lab":
            complaints.append(f"{module} is part of a lab, which nothing taught imports")
        elif first in {"train", "validate", "record", "generate", "evaluate"}:
            complaints.append(f"{module} is a script; what is imported lives in a package")
    return complaints


def circle_complaints(source: str, room: str) -> list[str]:
    """Imports of training/ in models/, which a reader can copy into a notebook, and of models/ in training/."""
    other = {"models": "training", "training": "models"}.get(room)
    return [f"{room}/ imports {module}" for module in sorted(imported_modules(source)) if other in module.split(".")]


def data_complaints(source: str, chapter: str) -> list[str]:
    """Checkpoints and measured numbers of later chapters that the source names."""
    later = list(CHAPTERS)[list(CHAPTERS).index(chapter) + 1 :]
    files = {"2.latent-action-model": ["latent_action_model.pt"], "3.dynamics-model": ["dynamics.pt"]}
    names = [name for other in later for name in (f"assets/{other}", *files.get(other, []))]
    return [f"{chapter} names {name}, which a later chapter makes" for name in names if name in source]


def docstring_complaints(source: str) -> list[str]:
    """The module, and its public classes and functions, without a docstring."""
    tree = ast.parse(source)
    complaints = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            complaints.append(f"{node.name} has no docstring")
    return complaints


def config_complaints(source: str) -> list[str]:
    """Fields of a config class (a dataclass whose name ends in Config) that have no help text below them."""
    complaints = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.ClassDef) and node.name.endswith("Config")):
            continue
        if "frozen=True" not in " ".join(ast.unparse(decorator) for decorator in node.decorator_list):
            complaints.append(f"{node.name} is not a frozen dataclass")
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) != "ClassVar" and not _is_text(below):
                complaints.append(f"{node.name}.{ast.unparse(field.target)} has no help text below it")
    return complaints


def _is_text(node: ast.stmt | None) -> bool:
    """Whether a statement is a bare string, which is how a field's help text is written."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "runpy.run_path"}
UNPICKLES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
UNPACKS = {"extractall", "extract", "unpack_archive"}


def loading_complaints(source: str) -> list[str]:
    """Ways in which a file could make us run somebody's code or write where it likes: pickles, torch.load without
    weights_only=True, allow_pickle=True, eval and its kin, a shell, an archive unpacked to the disk."""
    complaints = [f"imports {module}" for module in imported_modules(source) if module.split(".")[0] in UNPICKLES]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name == "torch.load" and given.get("weights_only") != "True":
            complaints.append(f"line {node.lineno}: torch.load without weights_only=True")
        for word in ("allow_pickle", "shell"):
            if given.get(word, "False") != "False":
                complaints.append(f"line {node.lineno}: {word}={given[word]}")
        if name in RUNS_CODE or name.split(".")[-1] in UNPACKS:
            complaints.append(f"line {node.lineno}: {name}")
    return complaints
