"""Every malformed file is refused with one sentence, every unusual file is read correctly, and nobody's code runs."""

import resource
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from malformed import CASES
from tiny_world import save_tiny_world

from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.sources import open_clips_source
from video_tokenizer.errors import InputError
from world_model.actions import read_action_file
from world_model.starts import read_start
from world_model.world import WorldModel


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path_factory.mktemp("world"), "true"), "cpu")


@contextmanager
def little_memory(gibibytes: int = 3):
    """Inside the block this process can take only so much more memory, so that a file made to fill it fails the test."""
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


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, cases in CASES.items() for name in cases])
def test_bad_input_is_refused_in_one_sentence_and_unusual_input_is_read(world, tmp_path, kind, name):
    make, frames = CASES[kind][name]
    path = make(tmp_path)
    before = set(tmp_path.rglob("*"))
    with little_memory():
        if frames is not None:
            assert readers(world)[kind](path) == frames
            return
        with pytest.raises(InputError) as error:
            readers(world)[kind](path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert set(tmp_path.rglob("*")) == before  # nothing half-written, and nobody's code was run
