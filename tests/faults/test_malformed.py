"""Every exhibit of the museum of bad input is refused with one sentence, or read right; none gets past the door."""

import resource
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from malformed import EXHIBITS
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.training.command_line import InputError
from world_model.actions import read_action_file
from world_model.starts import read_start
from world_model.world import WorldModel


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path_factory.mktemp("world"), "true"), "cpu")


@contextmanager
def little_memory(gibibytes: int = 3):
    """Inside the block this process cannot take that much more memory than it has; what was made to fill it fails here."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + gibibytes * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def readers(world: WorldModel) -> dict[str, Callable[[Path], Any]]:
    """Kind -> what reads it; a source's answer is its number of frames."""
    return {
        "source": lambda path: len(open_clips_source(path, frame_size=(16, 16)).frames),
        "store": open_clip_store,
        "checkpoint": load_tokenizer,
        "actions": read_action_file,
        "start": lambda path: read_start(world, str(path), 0),
    }


def test_there_are_enough_exhibits():
    count = sum(len(makers) for makers in EXHIBITS.values())
    assert count >= 60 and f" {count} exhibits " in (REPOSITORY / "tests" / "README.md").read_text()


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, makers in EXHIBITS.items() for name in makers])
def test_bad_input_is_refused_in_one_sentence_and_unusual_input_is_read(world, tmp_path, kind, name):
    path, frames = EXHIBITS[kind][name](tmp_path)
    before = {file for file in tmp_path.rglob("*")}
    with little_memory():
        if frames is not None:
            found = readers(world)[kind](path)
            assert found == frames
            return
        with pytest.raises(InputError) as error:
            readers(world)[kind](path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert {file for file in tmp_path.rglob("*")} == before  # nothing half-written, and nobody's code was run
