"""Ask the play server anything, in any order, and see that it always answers with one packet and plays on.

    python tests/faults/play.py --questions 20000

Questions are made from the protocol itself: valid ones, valid ones with invalid values, and noise, from several tabs at a time.
"""

import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aiohttp.test_utils import TestClient, TestServer
from malformed.pictures import png_file
from malformed.registry import NOISE
from tiny_world import save_tiny_world

from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json
from world_model.play.player import MESSAGES
from world_model.play.protocol import Field, read_packet
from world_model.play.server import make_app
from world_model.play.world_registry import WorldRegistry

ODD = (None, "", "LEFT", "NOOP", "../../etc/passwd", "\0", "x" * 300, -1, 0, 1, 3, 7, 2**31, 2**63, 1e308, 0.5, float("nan"),
       float("inf"), True, False, [], [1], {}, {"a": 1})  # fmt: skip
"""values that a field may be given, whatever its type"""


@dataclass(frozen=True)
class PlayConfig:
    """Ask the play server anything."""

    questions: int = 20_000
    """how many"""
    tabs: int = 4
    """players at a time"""
    seed: int = 0
    """of the questions"""
    json: str | None = None
    """file for the counts"""


def right_value(field: Field, rng: random.Random) -> Any:
    """A value that the field allows."""
    if field.kind is object:
        return rng.choice(ODD)
    if field.choices:
        return rng.choice(field.choices)
    if field.kind is bool:
        return rng.random() < 0.5
    if field.kind is str:
        return rng.choice([field.default, "LEFT", "NOOP", "temperature", "top_k"])
    low, high = field.low, min(field.high, 4)
    return rng.randint(int(low), int(max(low, high))) if field.kind is int else rng.uniform(low, max(low, high))


def question(rng: random.Random, picture: bytes) -> str | bytes:
    """Anything that a page could send."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.1:
        return bytes(rng.choice([byte, byte, byte, rng.randrange(256)]) for byte in picture) if rng.random() < 0.7 else picture
    if kind < 0.15:
