"""Measure the play page as a player sees it: frames per second and the time from key to picture, in a real Chromium.

    python 4.inference/lab/play_benchmark.py --json assets/4.inference/play_speed.json

Keys are pressed at random times for --seconds in each row. Needs Chromium: python -m playwright install chromium
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.results import format_table, save_json

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from page_driver import chromium, open_page, play_server, wait_for

STAGES = ("dynamics", "decode", "game", "sharpen", "transport", "draw")
ROWS = {  # name -> mirror, speed, and whether frames are sharpened, where the world has a network for it
    "as_fast_as_it_goes": (False, "100", False),
    "as_fast_as_it_goes_mirror": (True, "100", False),
    "as_fast_as_it_goes_mirror_sharpened": (True, "100", True),
    "game_speed_mirror": (True, "1", False),
}


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure the play page in a real Chromium."""

    world: str = "assets/worlds/breakout"
    """folder of the world that is played"""
    seconds: float = 20.0
    """time of each of the measurements"""
    num_threads: int | None = None
    """threads for the models; default: that of play.py"""
    seed: int = 0
    """of the random key presses"""
    json: str | None = None
    """file for the numbers"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""


def press_keys(page: Any, seconds: float, rng: np.random.Generator) -> None:
    """Hold random arrow keys for 0.1 to 0.3 seconds each, with pauses as long."""
    keys = [key for key in page.evaluate("Object.keys(play.game.world.keys)") if key.startswith("Arrow")]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        key = str(rng.choice(keys))
        page.keyboard.down(key)
        page.wait_for_timeout(1000 * rng.uniform(0.1, 0.3))
        page.keyboard.up(key)
        page.wait_for_timeout(1000 * rng.uniform(0.1, 0.3))


def measure(page: Any, mirror: bool, speed: str, config: BenchmarkConfig, sharpened: bool = False) -> dict[str, float]:
    """One row: start, warm up for two seconds, then measure. Milliseconds are means over the last frames, at most 1,000."""
    rng = np.random.default_rng(config.seed)
    start = "game" if mirror else "stored"
    page.evaluate(f"play.game.begin({{start: '{start}', index: 0, mirror: {str(mirror).lower()}}})")
    if page.evaluate("play.game.sharpened") != sharpened:
        page.evaluate("play.game.sharpen()")
    page.select_option("#speed", speed)
    page.evaluate("document.activeElement.blur()")
    press_keys(page, 2.0, rng)
    page.evaluate("play.stats.latencies.length = 0, Object.values(play.stats.stages).forEach((list) => { list.length = 0; })")
    first, begun = int(page.evaluate("dream.dataset.frame")), page.evaluate("performance.now()")
    press_keys(page, config.seconds, rng)
    last, ended = int(page.evaluate("dream.dataset.frame")), page.evaluate("performance.now()")
    seen = page.evaluate("({latencies: play.stats.latencies, stages: play.stats.stages})")
    if not seen["latencies"]:
        raise InputError(f"no key reached the picture in {config.seconds} s; give more --seconds")
    return {
        "frames_per_second": 1000 * (last - first) / (ended - begun),
        "key_to_picture_p50_ms": float(np.percentile(seen["latencies"], 50)),
        "key_to_picture_p95_ms": float(np.percentile(seen["latencies"], 95)),
        **{f"{stage}_ms": float(np.mean(seen["stages"][stage])) for stage in STAGES if seen["stages"][stage]},
    }


def main() -> None:
    config = parse_config(BenchmarkConfig)
    if config.seconds < 1:
        raise InputError(f"--seconds {config.seconds} is too short; give at least 1")
    threads = [] if config.num_threads is None else ["--num-threads", config.num_threads]
    begun = time.perf_counter()
    server = play_server("--world", config.world, "--device", config.device, *threads)
    with chromium() as browser, server as (address, _):
        page = open_page(browser, address)
        wait_for(page, "Number(dream.dataset.frame) > 0")
        until_playing = time.perf_counter() - begun
        device, num_threads = page.inner_text("#device"), int(page.inner_text("#threads").split()[1])
        possible = {name: row for name, row in ROWS.items() if not row[-1] or page.evaluate("play.game.world.can_sharpen")}
        bar = tqdm(possible.items(), desc="playing", disable=None)
        rows = {name: measure(page, mirror, speed, config, sharpened) for name, (mirror, speed, sharpened) in bar}
    facts = {"world": config.world, "device": device, "threads": num_threads, "cores": os.cpu_count()}
    facts["seconds_to_play"] = until_playing
    print(format_table({"page": facts}))
    print(format_table(rows))
    if config.json:
        save_json(config.json, facts | rows)


if __name__ == "__main__":
    run_script(main)
