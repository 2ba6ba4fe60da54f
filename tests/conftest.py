"""Settings of every test and of every script a test starts; they must be made before torch is imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models here are so small that a second thread only waits for the first
os.environ.setdefault("MPLBACKEND", "Agg")  # figures are written to files; no test opens a window


def pytest_report_header(config):
    """Say whose answers to the exercises are checked: without the flag the tests pass with nothing filled in."""
    whose = "yours" if config.getoption("--run-exercises") else "the solutions; yours with --run-exercises"
    return f"answers to the exercises that are checked: {whose}"


def pytest_addoption(parser):
    """--run-exercises: check the reader's own answers instead of the solutions."""
    parser.addoption("--run-exercises", action="store_true", help="check the chapters' exercises.py instead of the solutions")


LONGEST_FIRST = ("test_reference_worlds.py", "test_processes.py", "test_build_world.py", "test_faults.py", "test_variants.py")


def pytest_collection_modifyitems(items):
    """Files that take a minute come first, so that `make test` does not end with one process at work and the other idle."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FIRST)
