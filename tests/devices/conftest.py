"""A process with a pretended CUDA card and one with a pretended Apple GPU, each shared by all tests of a run."""

import pytest

from devices.no_op_device import process_with, why_not


@pytest.fixture(scope="session", params=["cuda", "mps"])
def device(request):
    """An executor: `device.submit(function of tasks.py, ...)` runs it where there is a device. Its `kind` is "cuda" or "mps"."""
    if why_not():
        pytest.skip(why_not())
    with process_with(request.param) as executor:
        executor.kind = request.param
        yield executor
