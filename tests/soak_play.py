"""Play for ten minutes at full speed and watch the server's memory. Too slow to be one of the tests.

python tests/soak_play.py --minutes 10 --tabs 4
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession
from page_driver import play_server
from server_fixture import PlayerClient

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script

ALLOWED_GROWTH = 16
"""MiB between the end of the first tenth and the end"""


@dataclass(frozen=True)
class SoakConfig:
    """Play at full speed and watch the server's memory."""

    world: str = "assets/worlds/breakout"
    """folder of the world that is played"""
    minutes: float = 10.0
    """how long"""
    tabs: int = 4
    """players at a time; every other one plays beside the real game, and each reconnects before every sample"""


async def play(session: ClientSession, address: str, number: int, end: float, stay: float, frames: list[int]) -> None:
    """One player who steps as fast as the server replies, with random actions, and reconnects every `stay` seconds."""
    rng = np.random.default_rng(number)
    start = "game" if number % 2 else "stored"
    while time.monotonic() < end:
        leave = min(end, time.monotonic() + stay)
        async with session.ws_connect(f"{address}/play", max_msg_size=2**26) as socket:
            player, seed, first = PlayerClient(socket), 0, frames[number]
            await player.receive()
            await succeed(player, "open")
            await succeed(player, "begin", start=start, mirror=True)
            while time.monotonic() < leave:
                head = await succeed(player, "step", action=int(rng.integers(2)), inspect=number == 0)
                frames[number] += 1
                if head.get("over"):
                    seed, first = seed + 1, frames[number]
                    await succeed(player, "begin", start=start, index=seed, mirror=True)
            if frames[number] > first:
                await succeed(player, "film", format="gif")


async def succeed(player: PlayerClient, do: str, **fields: Any) -> dict[str, Any]:
    """The JSON part of the reply. Raises InputError if it is an error."""
    head, _ = await player.ask(do, **fields)
    if head["kind"] == "error":
        raise InputError(f"the server replies to {do} {fields} with: {head['text']}")
    return head


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def soak(config: SoakConfig, address: str, pid: int) -> list[float]:
    """Play, and sample the server's memory ten times on the way: MiB."""
    end, frames, sizes = time.monotonic() + 60 * config.minutes, [0] * config.tabs, []
    stay = 5 * config.minutes  # seconds, shorter than the time between two samples
    async with ClientSession() as session:
        players = [asyncio.create_task(play(session, address, number, end, stay, frames)) for number in range(config.tabs)]
        for tenth in range(10):
            await asyncio.sleep(6 * config.minutes)
            sizes.append(resident_mib(pid))
            print(f"{0.1 * (tenth + 1) * config.minutes:5.1f} min | {sum(frames):7,} frames | {sizes[-1]:6.1f} MiB", flush=True)
        await asyncio.gather(*players)
    return sizes


def main() -> None:
    config = parse_config(SoakConfig)
    if config.minutes <= 0 or config.tabs < 1:
        raise InputError(f"--minutes {config.minutes} --tabs {config.tabs} play nothing; give more")
    with play_server("--world", config.world) as (address, pid):
        sizes = asyncio.run(soak(config, address, pid))
    growth = sizes[-1] - sizes[0]
    print(f"grown by {growth:.1f} MiB since the first tenth")
    if growth > ALLOWED_GROWTH:
        raise InputError(f"the server grew by {growth:.0f} MiB, more than {ALLOWED_GROWTH}; something is not released")


if __name__ == "__main__":
    run_script(main)
