"""Play a world in the browser: arrow keys steer the dream, as fast as the game was.

    python 4.inference/play.py --world assets/worlds/breakout
    python 4.inference/play.py --world assets/worlds/breakout --env ALE/Breakout-v5

The second plays the real game under the same keys beside it. The page is served to this machine only.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from aiohttp import web

from video_tokenizer.command_line import InputError, parse_config, run_script
from world_model.play_server import make_app
from world_model.real_game import open_game
from world_model.world import NUM_STEPS, TEMPERATURE, WorldModel


@dataclass(frozen=True)
class PlayConfig:
    """Play a world in the browser."""

    world: str = "assets/worlds/breakout"
    """folder of a world: tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt"""
    env: str | None = None
    """Gymnasium id of the world's own game: play it beside the dream under the same keys"""
    port: int = 8000
    """port of the page on this machine; 0 takes a free one"""
    num_steps: int = NUM_STEPS
    """sampling steps per frame: fewer are faster"""
    temperature: float = TEMPERATURE
    """how adventurous the token draws are: 0 takes the likeliest"""
    top_k: int | None = None
    """draw among the k likeliest tokens only; default: all"""
    order: Literal["confidence", "random"] = "confidence"
    """which tokens of a frame are settled first"""
    num_threads: int | None = None
    """threads for the models; default: as many as PyTorch takes"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""


def main() -> None:
    config = parse_config(PlayConfig)
    if not 0 <= config.port < 65_536:
        raise InputError(f"--port {config.port} must lie between 0 and 65,535")
    if config.num_threads is not None:
        torch.set_num_threads(max(1, config.num_threads))
    sampling = {"num_steps": config.num_steps, "temperature": config.temperature, "top_k": config.top_k, "order": config.order}
    world = WorldModel.load(config.world, config.device, **sampling)
    if config.env is not None:
        open_game(config.env, world.facts, world.frame_size).close()  # a wrong game is named now, not in the browser

    def announce(text: str) -> None:
        for address in re.findall(r"http://\S+", text):
            print(f"{config.world} is played at {address} | arrow keys steer, R begins again, Ctrl-C here ends it", flush=True)

    try:
        web.run_app(make_app(world, config.env), host="127.0.0.1", port=config.port, print=announce, access_log=None)
    except OSError as error:  # another program has the port
        raise InputError(f"--port {config.port} cannot be used ({error.strerror}); give another one") from None


if __name__ == "__main__":
    run_script(main)
