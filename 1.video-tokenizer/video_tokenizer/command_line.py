"""One dataclass becomes one command line, and bad input becomes one clear sentence."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

Config = TypeVar("Config")


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence: the offending value, and what to do."""


def _value_of_flag(arguments: Sequence[str], flag: str) -> str | None:
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
    An unknown flag or value prints what is wrong and exits with code 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    preset = _value_of_flag(arguments, "--preset")
    if presets and preset in presets:
        values |= presets[preset] | {"preset": preset}
    config_file = _value_of_flag(arguments, "--config")
    if config_file is not None and any(field.name == "config" for field in dataclasses.fields(config_class)):  # type: ignore[arg-type]
        values |= read_config_file(Path(config_file))
    default = config_from_dict(config_class, values)
    return tyro.cli(config_class, args=arguments, default=default)


def read_config_file(path: Path) -> dict[str, Any]:
    """The fields stored in a run folder's config.json. Raises InputError for a file that is not one."""
    try:
        values = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"--config {path} cannot be read ({error}); give the config.json of a run folder") from None
    if not isinstance(values, dict):
        raise InputError(f"--config {path} holds a {type(values).__name__} instead of one object of field values")
    values.pop("config", None)
    return values


def config_from_dict(config_class: type[Config], values: dict[str, Any]) -> Config:
    """Rebuild a config dataclass from a dictionary (lists become tuples). Raises InputError for an unknown field."""
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{config_class.__name__} has no field {unknown[0]!r}; the file comes from another version or chapter")
    try:
        return config_class(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{config_class.__name__} cannot be rebuilt: {error}") from None


def check_smallest(config: Any, smallest: Mapping[str, float]) -> None:
    """Raise InputError for a flag below its smallest value. smallest: name of the field -> value; a field may be None."""
    for name, least in smallest.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small; give at least {least}")


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; an InputError ends it with one sentence and exit code 2, Ctrl-C with code 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last saved step", file=sys.stderr)
        sys.exit(130)
