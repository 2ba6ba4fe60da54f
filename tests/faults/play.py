"""Ask the play server anything, in any order, and check that it always answers with one packet and keeps playing.

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
"""values for any field, whatever its type"""


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
        return "".join(rng.choice([*'",:[]{}', chr(rng.randrange(32, 1_000))]) for _ in range(rng.randrange(60)))
    name = rng.choice([*MESSAGES, *["step"] * 12, *["begin"] * 3])
    fields = MESSAGES[name].fields
    asked: dict[str, Any] = {"do": name}
    for key in fields:
        if rng.random() < 0.5:
            asked[key] = rng.choice(ODD) if rng.random() < 0.15 else right_value(fields[key], rng)
    if name == "step" and rng.random() < 0.8:
        asked = {"do": "step", "action": rng.randrange(4)}
    if rng.random() < 0.03:
        asked[rng.choice(["extra", "do", "id", "__class__"])] = rng.choice(ODD)
    return json.dumps(asked)


async def play(client: TestClient, count: int, rng: random.Random, picture: bytes) -> Counter:
    """One tab asks `count` questions. Returns how many answers of each kind it got; raises for anything that is no answer."""
    kinds: Counter = Counter()
    socket = await client.ws_connect("/play")
    await socket.receive_bytes()
    for number in range(count):
        asked = question(rng, picture)
        await (socket.send_bytes(asked) if isinstance(asked, bytes) else socket.send_str(asked))
        head, _ = read_packet(await asyncio.wait_for(socket.receive_bytes(), 60))
        assert head["kind"] != "error" or (head["text"] and "\n" not in head["text"]), (asked, head)
        kinds[head["kind"]] += 1
        if number % 1_000 == 999:  # a tab that is closed in the middle of a game
            await socket.close()
            socket = await client.ws_connect("/play")
            await socket.receive_bytes()
    await socket.close()
    return kinds


async def ask_anything(folder: Path, questions: int, tabs: int, seed: int) -> Counter:
    """All tabs at once, then one that plays normally. Returns the answers of each kind."""
    registry = WorldRegistry([save_tiny_world(folder / "world", "true")], "cpu")
    picture = png_file(NOISE[0])
    async with TestClient(TestServer(make_app(registry))) as client:
        rngs = [random.Random(seed * 1_000 + tab) for tab in range(tabs)]
        counts = await asyncio.gather(*(play(client, questions // tabs, rng, picture) for rng in rngs))
        last = await client.ws_connect("/play")
        await last.receive_bytes()
        for asked in ({"do": "open"}, {"do": "begin"}, {"do": "step", "action": 1}):
            await last.send_json(asked)
            assert read_packet(await last.receive_bytes())[0]["kind"] != "error"
        await last.close()
    return sum(counts, Counter())


def main() -> None:
    config = parse_config(PlayConfig)
    check_smallest(config, {"questions": 1, "tabs": 1})
    with tempfile.TemporaryDirectory() as folder:
        kinds = asyncio.run(ask_anything(Path(folder), config.questions, config.tabs, config.seed))
    print(f"{sum(kinds.values()):,} questions answered: {dict(kinds)}")
    if config.json:
        save_json(config.json, {"questions": sum(kinds.values()), "answers": kinds})


if __name__ == "__main__":
    run_script(main)
