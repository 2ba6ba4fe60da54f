"""Scripts in tests: loaded as modules, stopped once their command line is read, or run as a reader runs them."""

import faulthandler
import importlib.util
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
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
    """The config a script builds from its arguments, without running it. Raises SystemExit for an unknown flag.

    A script without a config reads its words itself; a flag that does not stand in its text is unknown.
    """
    module = load_script(script)
    if not hasattr(module, "parse_config"):
        if any(word.startswith("--") and word not in script.read_text() for word in arguments):
            raise SystemExit(2)
        return None
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


def call_in_processes(script: Path, *arguments: object, log: Path, count: int = 2, stop_after: int | None = None) -> list[int]:
    """Run a training as torchrun would, in processes for which torch is imported only once, on one thread each.

    stop_after: the step after whose resume.pt they end with exit code 9. log: what process 0 prints is in the file
    of this name with the suffix .0, and so on. Returns the exit codes.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["torch", "torch.distributed.fsdp", "torchmetrics", "matplotlib.pyplot", "cv2", "tyro"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(free.getsockname()[1])}  # fmt: skip
    given = (group, script, [str(argument) for argument in arguments], log, stop_after)
    processes = [context.Process(target=_one_of_several, args=(rank, *given)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
        process.kill()  # unless it has ended
        process.join()
    return [process.exitcode if process.exitcode is not None else -1 for process in processes]


def _one_of_several(rank: int, group: dict[str, str], script: Path, words: list[str], log: Path, stop_after: int | None) -> None:
    from video_tokenizer.training.distributed import wait_for_processes
    from video_tokenizer.training.run import Run

    faulthandler.enable(sys.__stderr__)  # a crash outside Python is told there, with the line that led to it
    save = Run._save_resume

    def save_and_stop(self: Run) -> None:
        save(self)
        if self.step == stop_after:
            wait_for_processes()  # one that left while another still gathers weights would end that one with an error
            os._exit(9)

    os.environ |= group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    Run._save_resume = save_and_stop
    with log.with_suffix(f".{rank}").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        sys.exit(call(script, *words))
