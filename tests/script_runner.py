"""Scripts in tests: loaded as modules, stopped once their command line is read, or run as a reader runs them."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock


@cache
def load_script(path: Path) -> ModuleType:
    """Import a script from its path under a unique name, so that `if __name__ == "__main__"` is false."""
    name = f"script_{path.parent.name}_{path.stem}".replace(".", "_").replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


class CommandLineRead(Exception):
    """Raised instead of everything that a script does after reading its flags."""


def parse_only(script: Path, arguments: Sequence[str]) -> Any:
    """The config a script builds from its arguments, without running it. Raises SystemExit for an unknown flag."""
    module = load_script(script)
    read = module.parse_config
    seen = []

    def read_and_stop(*given: Any, **options: Any) -> None:
        seen.append(read(*given, **options))
        raise CommandLineRead

    with mock.patch.object(module, "parse_config", read_and_stop), mock.patch.object(sys, "argv", [str(script), *arguments]):
        try:
            module.main()
        except CommandLineRead:
            return seen[0]
    raise AssertionError(f"{script} finished without reading its command line through parse_config")


def run(script: Path | str, *arguments: object, folder: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader does, from a working directory, on one thread, without a GPU; --compile compiles nothing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "default"}
    environment["TORCHDYNAMO_DISABLE"] = "1"  # a minute per model
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def call(script: Path, *arguments: object) -> int:
    """Run a script's main function in this process, as `python script arguments` would. Returns its exit code."""
    module = load_script(script)
    with mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]):
        try:
            module.run_script(module.main)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
    return 0
