"""The command line of a script from its config dataclass, and one clear sentence for bad input."""

import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import check_can_be_written

OUTPUTS = ("json", "picture", "output", "video", "runs", "checkpoint_dir")
"""fields of the scripts' configs that say where to write: folders, but for `FILES`, what a config's own FILES names, and where a
film or picture is the default"""
FILES = ("json", "picture")
NARROWEST = 40
"""columns below which help texts cannot be laid out"""
Config = TypeVar("Config")


def value_of_flag(arguments: Sequence[str], flag: str) -> str | None:
    """The value that follows `flag`, as in `--preset small` or `--preset=small`; None where the flag is absent."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(flag + "="):
            return argument.split("=", 1)[1]
    return None


def parse_config(
    config_class: type[Config], presets: dict[str, dict[str, Any]] | None = None, argv: Sequence[str] | None = None
) -> Config:
    """Read the command line into `config_class`: defaults < `--preset` < `--config run.json` < single flags.

    config_class: a dataclass; every field is a flag, the docstring below a field is its help text.
    presets: name -> field values that `--preset name` sets; the class then has a field `preset`.
    argv: arguments without the program name; None reads sys.argv.
    An unknown flag or value prints what is wrong and exits with code 2. Raises InputError for an output that cannot be written.
    """
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    arguments = list(sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    preset = value_of_flag(arguments, "--preset")
    if presets and preset in presets:
        values |= presets[preset] | {"preset": preset}
    elif presets and preset is not None:
        raise InputError(f"--preset {preset} does not exist here; choose {', '.join(presets)}")
    config_file = value_of_flag(arguments, "--config")
    if config_file is not None and any(field.name == "config" for field in dataclasses.fields(config_class)):  # type: ignore[arg-type]
        values |= read_config_file(Path(config_file))
    default = config_from_dict(config_class, values)
    config = tyro.cli(config_class, args=arguments, default=default)
    named_files = (*FILES, *getattr(config_class, "FILES", ()))
    for name in OUTPUTS:
        if (path := getattr(config, name, None)) is not None:
            is_file = name in named_files or str(getattr(config_class, name, "")).endswith((".gif", ".png"))
            check_can_be_written(path, f"--{name.replace('_', '-')}", is_file)
            if name == "picture" and Path(path).suffix.lower() != ".png":
                raise InputError(f"--picture {path} does not end in .png; give {Path(path).with_suffix('.png')}")
    return config


def read_config_file(path: Path | str) -> dict[str, Any]:
    """The fields stored in a run folder's config.json. Raises InputError for a file that is not one."""
    try:
        values = json.loads(Path(path).read_bytes())  # bytes: in UTF-8 or UTF-16, with or without a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--config {path} cannot be read ({error}); give the config.json of a run folder") from None
    if not isinstance(values, dict):
        raise InputError(f"--config {path} holds a {type(values).__name__} instead of one object of field values")
    values.pop("config", None)
    return values


def chosen_variant(arguments: Sequence[str], kind: str, names: Collection[str], elsewhere: Mapping[str, str]) -> str:
    """The model that a variants' training script is asked for: the value of --model, else the model in the file of --config.

    kind: what the models are, for messages. elsewhere: name -> script, for models that another script trains. Raises InputError
    for none of `names`.
    """
    name, config_file = value_of_flag(arguments, "--model"), value_of_flag(arguments, "--config")
    if name is None and config_file is not None:
        name = str(read_config_file(config_file).get("model"))
    if name is None:
        raise InputError(f"no {kind} is chosen; give --model and one of {', '.join(names)}")
    if name not in names:
        where = f"; {name} is trained by {elsewhere[name]}" if name in elsewhere else ""
        raise InputError(f"--model {name} is not one of {', '.join(names)}{where}")
    return name


def config_from_dict(config_class: type[Config], values: dict[str, Any]) -> Config:
    """Rebuild a config dataclass from a dictionary (lists become tuples). Raises InputError for an unknown field."""
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{config_class.__name__} has no field {unknown[0]!r}; the file comes from another version or chapter")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    check_types(config_class, values)
    try:
        return config_class(**values)
    except TypeError as error:
        raise InputError(f"{config_class.__name__} cannot be rebuilt: {error}") from None


def check_types(dataclass: type, values: dict[str, Any]) -> None:
    """Raise InputError for a value from a file that has not the type its field declares. values: by field name."""
    hints = get_type_hints(dataclass)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", None) if get_origin(hints[name]) is None else str(hints[name])
            raise InputError(f"{dataclass.__name__} field {name} is {value!r:.60}, not a {wanted}; correct it, or train again")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a file has the type that a field declares. An int counts as a float, a bool as no number."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if kind is tuple:
        if not isinstance(value, tuple) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            return False
        return all(_fits(entry, inner[0] if inner[-1] is Ellipsis else inner[place]) for place, entry in enumerate(value))
    if kind in (list, dict):
        return isinstance(value, kind)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def check_smallest(config: Any, smallest: Mapping[str, float]) -> None:
    """Raise InputError for a flag below its smallest value. smallest: name of the field -> value; a field may be None."""
    for name, least in smallest.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small; give at least {least}")


def check_seeds(config: Any, *names: str) -> None:
    """Raise InputError for seeds that are missing, given twice, or too large for a generator. names: of the fields with seeds."""
    for name in names:
        flag, seeds = f"--{name.replace('_', '-')}", getattr(config, name)
        if not seeds:
            raise InputError(f"{flag} is empty; give at least one number, such as {flag} 0")
        if wrong := [seed for seed in seeds if not 0 <= seed < 2**63]:
            raise InputError(f"{flag} {wrong[0]} is no seed; give numbers from 0 to 2^63 - 1")
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            raise InputError(f"{flag} {twice[0]} is given twice; give each seed once")


def shown_command(command: Sequence[str], **flags: Any) -> str:
    """A script and its flags as they can be typed in the current folder. `flags` replace those of the same name."""
    interpreter, here = Path(sys.executable), Path.cwd()
    start = [str(interpreter.relative_to(here)) if interpreter.is_relative_to(here) else "python"]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        start = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])]
    arguments = list(command)
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        while (present := value_of_flag(arguments, flag)) is not None:
            place = arguments.index(flag) if flag in arguments else arguments.index(f"{flag}={present}")
            del arguments[place : place + (2 if arguments[place] == flag else 1)]
        arguments += [flag, str(value)]
    return subprocess.list2cmdline([*start, *arguments]) if sys.platform == "win32" else shlex.join([*start, *arguments])


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; an InputError ends it with one sentence and exit code 2, Ctrl-C with code 130."""
    prepare_streams()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except InputError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(3)  # the first process has most likely said the same, and torchrun ends this one meanwhile
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except NotImplementedError as error:
        if "MPS" not in str(error):
            raise
        operation = str(error).split("'")[1] if "'" in str(error) else "one of the operations"
        print(
            f"error: Apple's GPU has no {operation}; put PYTORCH_ENABLE_MPS_FALLBACK=1 before the command, and the CPU does "
            "that part, or give --device cpu",
            file=sys.stderr,
        )
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported here for its name alone
            raise
        print(
            f"error: the GPU has too little memory for this step ({str(error).split('. ')[0]}); give --accumulate 4, which "
            "computes the same batch in parts, or --activation-checkpointing, or a smaller --batch-size",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command resumes from the last saved step", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if not nobody_reads(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it closes the stream
        sys.exit(141)


def prepare_streams() -> None:
    """Replace closed output streams (`2>&-`), and print "?" for characters that the terminal does not have."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, open until the process ends
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


def nobody_reads(error: OSError) -> bool:
    """Whether an error says that whoever read the output is gone: `| head` has enough, or the terminal was closed."""
    if isinstance(error, BrokenPipeError):
        return True
    if error.errno not in (errno.EIO, errno.EINVAL):  # EINVAL: a broken pipe on Windows
        return False
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def one_line(text: str) -> str:
    """A message on one line, without the colors and other control characters that a file name or a library may bring."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
