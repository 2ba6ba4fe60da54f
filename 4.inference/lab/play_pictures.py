"""The pictures of the play page in the texts: mirror mode as a GIF, and the page with its inspector open.

    python 4.inference/lab/play_pictures.py --output assets/4.inference

Needs Chromium: python -m playwright install chromium
"""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.figures import common_palette, write_gif
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.training.command_line import parse_config, run_script

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from page_driver import canvas_picture, chromium, open_page, play_server, wait_for

OPEN = ["actions-card", "inspector-card", "sampling-card"]
"""cards of the page that are open in page_desktop.png"""


@dataclass(frozen=True)
class PicturesConfig:
    """Photograph the play page. In mirror.gif the keys follow the real ball."""

    world: str = "assets/worlds/breakout"
    """folder of the world that is played"""
    output: str = "assets/4.inference"
    """folder for mirror.gif and page_desktop.png"""
    index: int = 9
    """which real game mirror.gif shows"""
    frames: int = 120
    """frames of mirror.gif"""
    resync_every: int = 50
    """frames after which the dream is resynchronized with the game"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def follow_ball(page: Any, env_id: str) -> str:
    """The keyboard key that moves the real player to the real ball: "" if it is there, the FIRE key if no ball is seen."""
    facts, frame = game_facts(env_id), canvas_picture(page, "real")[None]
    assert facts is not None
    arrows = {name: arrow for arrow, name in page.evaluate("play.game.world.keys").items()}
    ball, player = detect_ball(frame, env_id)[0, 0 if facts.player_axis == "x" else 1], detect_player(frame, env_id)[0]
    if np.isnan(ball) or np.isnan(player):
        return arrows.get("FIRE", "")
    return "" if abs(ball - player) < facts.player_step / 2 else arrows[facts.player_keys[int(ball > player)]]


def film_mirror_mode(browser: Any, address: str, config: PicturesConfig, path: Path) -> None:
    """Play frame by frame, with the keys following the real ball, and write a GIF of games and charts."""
    page = open_page(browser, address, viewport={"width": 700, "height": 900})  # too narrow for the second column
    rate, env_id = page.evaluate("[play.game.world.frames_per_second, play.game.world.real_game]")
    if env_id is None or (known := game_facts(env_id)) is None or known.ball is None:
        raise InputError(f"--world {config.world} has no game with a ball; choose one of Breakout or Pong")
    page.evaluate(f"play.game.pause(true), play.game.begin({{start: 'game', index: {config.index}, mirror: true}})")
    wait_for(page, "dream.dataset.frame === '0'")
    page.evaluate("for (const id of ['bar', 'pad', 'numbers']) document.getElementById(id).hidden = true")
    box = page.locator("#play").bounding_box()
    clip = {"x": 0, "y": box["y"] - 12, "width": page.viewport_size["width"], "height": box["height"] + 24}
    shots, frame = [], 0
    for number in tqdm(range(config.frames), desc="mirror.gif", unit="frame", disable=None):
        key = follow_ball(page, env_id)
        if number and number % config.resync_every == 0:
            page.keyboard.press("s")
            frame = 0
        else:
            if key:
                page.keyboard.down(key)
            page.keyboard.press(".")
            frame += 1
        wait_for(page, f"dream.dataset.frame === '{frame}'")
        if key:
            page.keyboard.up(key)
        shots.append(np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")))
    write_gif(path, shots, common_palette([np.stack(shots[:: max(1, len(shots) // 8)])]), rate)
    page.close()


def photograph_page(browser: Any, address: str, path: Path) -> None:
    """Play for three seconds, pause, and take a screenshot of the page in slow motion."""
    page = open_page(browser, address, viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.evaluate(f"for (const card of document.querySelectorAll('details')) card.open = {OPEN}.includes(card.id)")
    for key in ("ArrowLeft", "ArrowRight", "ArrowLeft"):
        page.keyboard.down(key)
        page.wait_for_timeout(900)
        page.keyboard.up(key)
    wait_for(page, "[...document.querySelectorAll('.meaning')].every((meaning) => meaning.textContent)", 120)
    page.keyboard.press("p")
    page.keyboard.press("o")
    wait_for(page, "document.getElementById('pass-text').textContent.startsWith('Pass 2')")
    page.screenshot(path=path, full_page=True)
    page.close()


def main() -> None:
    config = parse_config(PicturesConfig)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, play_server("--world", config.world, "--device", config.device) as (address, _):
        film_mirror_mode(browser, address, config, folder / "mirror.gif")
        photograph_page(browser, address, folder / "page_desktop.png")
    print(f"mirror.gif and page_desktop.png are in {folder}")


if __name__ == "__main__":
    run_script(main)
