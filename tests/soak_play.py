"""Play for ten minutes at full speed, and see whether the server's memory grows. Not part of the tests: it takes its time.

python tests/soak_play.py --minutes 10 --tabs 4
"""

import asyncio
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import ClientSession
from browser import PLAY

from video_tokenizer.training.command_line import InputError, parse_config, run_script
from world_model.play.protocol import read_packet

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
    """players at a time; every other one plays beside the real game, and each leaves and comes back before every sample"""


async def play(session: ClientSession, address: str, number: int, end: float, stay: float, frames: list[int]) -> None:
    """One player who steps as fast as the server answers, with random actions, and comes back as somebody new."""
    rng = np.random.default_rng(number)
    while time.monotonic() < end:
        leave = min(end, time.monotonic() + stay)
        async with session.ws_connect(f"{address}/play", max_msg_size=2**26) as socket:
            await socket.receive_bytes()
            await ask(socket, {"do": "open"})
            start, seed, begun = ("game" if number % 2 else "stored"), 0, frames[number]
            await ask(socket, {"do": "begin", "start": start, "mirror": True})
            while time.monotonic() < leave:
                head = await ask(socket, {"do": "step", "action": int(rng.integers(2)), "inspect": number == 0})
                frames[number] += 1
                if head.get("over"):
                    seed, begun = seed + 1, frames[number]
                    await ask(socket, {"do": "begin", "start": start, "index": seed, "mirror": True})
            if frames[number] > begun:
                await ask(socket, {"do": "film", "format": "gif"})


async def ask(socket, question: dict) -> dict:
    """The JSON part of the answer. Raises InputError where it is an error."""
    await socket.send_json(question)
    head, _ = read_packet(await socket.receive_bytes())
    if head["kind"] == "error":
        raise InputError(f"the server answers {question} with: {head['text']}")
    return head


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def soak(config: SoakConfig, address: str, pid: int) -> list[float]:
    """Play, and write down the memory ten times on the way."""
    end, frames, sizes = time.monotonic() + 60 * config.minutes, [0] * config.tabs, []
    stay = 5 * config.minutes  # seconds, shorter than a tenth of the whole
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
    command = [sys.executable, str(PLAY), "--port", "0", "--world", config.world]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        if address is None:
            raise InputError("play.py did not start")
        sizes = asyncio.run(soak(config, address[0], server.pid))
    finally:
        server.terminate()
    growth = sizes[-1] - sizes[0]
    print(f"grown by {growth:.1f} MiB since the first tenth")
    if growth > ALLOWED_GROWTH:
        raise InputError(f"the server grew by {growth:.0f} MiB, more than {ALLOWED_GROWTH}; something is kept that should go")


if __name__ == "__main__":
    run_script(main)
