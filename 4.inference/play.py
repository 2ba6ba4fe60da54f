"""Play worlds in the browser: arrow keys steer the dream, live, beside the real game under the same keys.

    python 4.inference/play.py
    python 4.inference/play.py --world assets/worlds/pong --port 8001

The page is served to this machine only, unless --host says otherwise.
"""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import torch
from aiohttp import web
from tyro.conf import OmitArgPrefixes

from dynamics_model.sampling_flags import SamplingFlags
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script
from world_model.play.server import make_app
from world_model.play.world_registry import WorldRegistry, find_worlds

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PlayConfig:
    """Play worlds in the browser."""

    world: str = "assets/worlds/breakout"
    """folder of the world that is opened first; those in assets/worlds and worlds can be chosen on the page"""
    env: str | None = None
    """Gymnasium id of the real game played beside it; default: the game the world was learned from, if it can be played"""
    host: str = "127.0.0.1"
    """address to serve: 127.0.0.1 is this machine only, 0.0.0.0 everybody who can reach it (a phone in the same network)"""
    port: int = 8000
    """port of the page; 0 takes a free one"""
    sampling: OmitArgPrefixes[SamplingFlags] = field(default_factory=SamplingFlags)
    """how frames are sampled at first; the page can change it"""
    num_threads: int | None = None
    """threads for the models; default: half of the cores, four at most, since the browser on this machine wants some too"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def addresses_to_open(served: str) -> list[str]:
    """What to type into a browser: for 0.0.0.0, which is no address, this machine's own and that in the local network."""
    if urlsplit(served).hostname not in ("0.0.0.0", "::"):
        return [served]
    hosts = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which of this machine's addresses would be used
        hosts.append(probe.getsockname()[0])
    return [f"http://{host}:{urlsplit(served).port}" for host in hosts]


def main() -> None:
    config = parse_config(PlayConfig)
    if not 0 <= config.port < 65_536:
        raise InputError(f"--port {config.port} must lie between 0 and 65,535")
    if config.num_threads is not None and config.num_threads < 1:
        raise InputError(f"--num-threads {config.num_threads} is too few; give at least 1")
    torch.set_num_threads(config.num_threads or max(1, min(4, torch.get_num_threads() // 2)))
    registry = WorldRegistry(find_worlds(config.world, REPOSITORY), config.device, config.env, **config.sampling.given())
    opened = registry.load(registry.first)  # a wrong world or game is named now, not in the browser

    def announce(text: str) -> None:
        beside = f"beside the real game, {opened.env_id}" if opened.env_id else f"alone: {opened.no_game}"
        for address in [one for served in re.findall(r"http://\S+", text) for one in addresses_to_open(served)]:
            print(f"{config.world} is played at {address} {beside} | Ctrl-C here ends it", flush=True)

    try:
        web.run_app(make_app(registry, config.host), host=config.host, port=config.port, print=announce, access_log=None)
    except OSError as error:  # another program has the port, or the address is not this machine's
        raise InputError(
            f"--host {config.host} --port {config.port} cannot be used ({error.strerror}); give another port, or 127.0.0.1"
        ) from None


if __name__ == "__main__":
    run_script(main)
