"""A process in which PyTorch believes in a CUDA card or an Apple GPU. Nothing here imports torch, which must come later."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).with_name("no_op_device.cpp")


def why_not() -> str | None:
    """Why no device can be pretended here; None where one can."""
    if sys.platform != "linux":
        return "a device can be pretended on Linux only"
    if shutil.which("g++") is None:
        return "a device can be pretended only where g++ compiles tests/devices/no_op_device.cpp; install g++"
    if list((torch_folder() / "lib").glob("libtorch_cuda*")):
        return "this build of PyTorch knows real cards; a device can be pretended with the CPU build only"
    return None


def torch_folder() -> Path:
    """Where torch is installed."""
    found = importlib.util.find_spec("torch")
    assert found is not None and found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0])


def compiled() -> Path:
    """The shared library, which is compiled once for each version of PyTorch: three seconds."""
    version, digest = importlib.metadata.version("torch"), hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    library = SOURCE.parent / "__pycache__" / f"no_op_device-{version}-{digest}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        torch, temporary = torch_folder(), library.with_suffix(f".{os.getpid()}")
        paths = [f"-I{torch}/include", f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib"]
        flags = ["-std=c++20", "-O0", "-fPIC", "-shared", *paths, "-lc10", "-ltorch_cpu"]
        subprocess.run(["g++", str(SOURCE), "-o", str(temporary), *flags], check=True)
        temporary.replace(library)  # at once, because another process may compile it too
    return library


def pretend(kind: str, *paths: str) -> None:
    """Make this process believe that it has one device, "cuda" or "mps". paths: where modules are imported from."""
    assert "torch" not in sys.modules
    sys.path[:0] = paths
    library = ctypes.CDLL(str(compiled()), mode=ctypes.RTLD_GLOBAL)
    getattr(library, f"pretend_{kind}")()
    from devices.pretended_tensor import install

    install(kind)


def process_with(kind: str) -> ProcessPoolExecutor:
    """A process that has such a device. `submit(function, ...)` runs a function of devices/tasks.py there."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=pretend, initargs=(kind,))
