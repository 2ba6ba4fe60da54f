"""Nothing that Windows lacks is imported or called: recording, training, building, playing in a process without it."""

import os
import subprocess
import sys
import textwrap

import pytest
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Windows need not be imitated, and macOS has no /proc")
PREPARE = """
import asyncio, multiprocessing, os, pathlib, signal, sys, warnings
import aiohttp.test_utils, ale_py, cv2, filelock, h5py, matplotlib.figure, torch, torchmetrics  # they know Windows themselves
from script_runner import call, load_script

for name in ("resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "wait3", "wait4", "mkfifo", "mknod", "getuid", "geteuid", "getgid", "sched_getaffinity", "uname",
             "O_DIRECTORY", "O_NOFOLLOW", "killpg", "setsid", "getloadavg", "chown", "nice", "sysconf", "ttyname"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGXFSZ", "pthread_sigmask", "alarm"):
    delattr(signal, name)

def refuse_links(*_, **__):
    raise OSError("A required privilege is not held by the client")

os.symlink = os.link = refuse_links
rename = os.rename

def rename_like_windows(source, target, **_):
    if os.path.exists(target):
        raise FileExistsError(target)
    opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    inside = [path for path in opened if path.startswith(os.path.realpath(source))]
    mapped = [line for line in open("/proc/self/maps", encoding="utf-8") if os.path.realpath(source) + "/" in line]
    if inside or mapped:
        raise PermissionError(f"{source} is open: {inside or mapped}")
    rename(source, target)

os.rename = rename_like_windows
root, world, here = (pathlib.Path(path) for path in sys.argv[1:])
os.chdir(here)
"""
"""what Windows has not, or does otherwise: files that are open cannot be renamed, nothing is renamed over a folder"""


def without_posix(body: str, *paths: object) -> str:
    """Run Python lines in a process of that kind. Returns what they print."""
    command = [sys.executable, "-c", PREPARE + textwrap.dedent(body), str(REPOSITORY), *map(str, paths)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_course_runs_without_what_windows_lacks(tmp_path):
    printed = without_posix(
        """
        record = ["--num-frames", 200, "--frame-size", 16, "--output", "data"]
        assert call(root / "1.video-tokenizer/record.py", *record) == 0
        assert call(root / "1.video-tokenizer/record.py", *record, "--overwrite") == 0  # replaces a folder
        sizes = ["--embed-dim", 24, "--num-heads", 2, "--num-blocks", 1, "--batch-size", 2, "--validation-batches", 1]
        train = ["--data-path", "data", *sizes, "--num-steps", 2, "--checkpoint-dir", "run"]
        assert call(root / "1.video-tokenizer/train.py", *train) == 0
        assert call(root / "1.video-tokenizer/train.py", *train, "--seed", 1) == 0  # keeps the first in previous-1

        build = load_script(root / "4.inference/build_world.py")
        pathlib.Path("program.py").write_text("open('made', 'w')")
        step = build.Step("count", "Count", ["program.py"], [], [pathlib.Path("made")])
        (stamp,) = build.run_steps([step], here)
        assert stamp["peak_memory_mib"] is None and build.describe_cost(stamp).endswith(" s")

        assert call(root / "4.inference/generate.py", "--world", world, "--num-frames", 2, "--output", "dream.gif") == 0
        from world_model.play.server import make_app
        from world_model.play.world_registry import WorldRegistry, find_worlds

        async def page():
            registry = WorldRegistry(find_worlds(world, here), "cpu")
            registry.load("")
            async with aiohttp.test_utils.TestClient(aiohttp.test_utils.TestServer(make_app(registry))) as client:
                return (await client.get("/")).status

        assert asyncio.run(page()) == 200
        print("all of it")
        """,
        save_tiny_world(tmp_path / "world"),
        tmp_path,
    )
    assert "kept in previous-1" in printed and printed.endswith("all of it\n")


def test_paths_on_another_drive_and_commands_for_its_shell(tmp_path):
    without_posix(
        r"""
        build = load_script(root / "4.inference/build_world.py")
        from world_model.play import world_registry
        from video_tokenizer.training.command_line import shown_command

        def another_drive(*_):
            raise ValueError("path is on mount 'D:', start on mount 'C:'")

        os.path.relpath = another_drive
        assert build.script("4.inference/play.py") == str(root / "4.inference/play.py")
        assert world_registry.relative_to_here(world) == world
        sys.platform = "win32"
        command = ["a b.py", "--data-path", "D:\\my videos\\x"]
        assert shown_command(command).endswith('"a b.py" --data-path "D:\\my videos\\x"')
        """,
        tmp_path,
        tmp_path,
    )
