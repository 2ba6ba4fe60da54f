"""Measure the page that plays without a server: frames per second, the time from key to picture, and memory, in a real Chromium.

    make web
    python 4.inference/lab/web_benchmark.py --json assets/4.inference/web_speed.json

Needs Chromium: python -m playwright install chromium
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from play_benchmark import BenchmarkConfig, measure, press_keys
from tqdm import tqdm

from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.results import format_table, save_json, settings_of

# isort: split
from page_driver import ISOLATED, chromium, file_server, open_page, wait_for  # play_benchmark has put its folder on the path

SPEEDS = {"real_time": "1", "no_limit": "100"}


@dataclass(frozen=True)
class WebBenchmarkConfig:
    """Measure the page that plays without a server."""

    page: str = "build/web"
    """folder that export_web.py built"""
    seconds: float = 10.0
    """time of each row"""
    memory_minutes: float = 10.0
    """how long to play the first world while memory is watched"""
    threads: tuple[int, ...] = (1, 2)
    """numbers of threads to compare"""
    seed: int = 0
    """of the random key presses"""
    json: str | None = None
    """file for the numbers"""


def memory_mib(page: Any) -> float:
    """Memory of the page and its workers, after a garbage collection that the browser makes for the question."""
    return page.evaluate("performance.measureUserAgentSpecificMemory().then(({ bytes }) => bytes)") / 2**20


def memory_curve(page: Any, minutes: float, rng: np.random.Generator) -> dict[str, list[float]]:
    """Frames played and memory, five times in so many minutes of play without a speed limit."""
    page.select_option("#speed", "100")
    page.evaluate("document.activeElement.blur()")
    curve: dict[str, list[float]] = {"frames": [], "memory_mib": []}
    for _ in range(5):
        press_keys(page, 60 * minutes / 5, rng)
        curve["frames"].append(int(page.evaluate("dream.dataset.frame")))
        curve["memory_mib"].append(memory_mib(page))
    return curve


def main() -> None:
    config = parse_config(WebBenchmarkConfig)
    if not (Path(config.page) / "worlds.json").exists():
        raise InputError(f"--page {config.page} is no page that was built; build one with: make web")
    if config.seconds < 1 or config.memory_minutes < 0 or not config.threads or min(config.threads) < 1:
        raise InputError("--seconds must be at least 1, --memory-minutes at least 0, and --threads at least 1")
    rows: dict[str, Any] = {}
    row_config = BenchmarkConfig(seconds=config.seconds, seed=config.seed)
    with chromium() as browser, file_server(config.page, ISOLATED) as address:
        begun = time.perf_counter()
        page = open_page(browser, address)
        wait_for(page, "Number(dream.dataset.frame) > 0")
        facts: dict[str, Any] = {"cores": os.cpu_count(), "seconds_to_play": time.perf_counter() - begun}
        worlds = page.evaluate("[...document.getElementById('world').options].map(({ value }) => value)")
        page.close()
        for count in tqdm(config.threads, desc="playing", disable=None):
            page = open_page(browser, f"{address}?threads={count}")
            for world in worlds:
                page.select_option("#world", world)
                wait_for(page, f"play.game.playing && play.game.world.name === '{world}'")
                for name, speed in SPEEDS.items():
                    rows[f"{world}_{name}_threads_{count}"] = measure(page, False, speed, row_config)
            page.close()
        if config.memory_minutes:
            page = open_page(browser, f"{address}?threads=1")
            facts["memory"] = memory_curve(page, config.memory_minutes, np.random.default_rng(config.seed))
    print(format_table({"page": {name: value for name, value in facts.items() if name != "memory"}}))
    print(format_table(rows))
    print(facts.get("memory", ""))
    if config.json:
        save_json(config.json, {"settings": settings_of(config, "json", "page")} | facts | rows)


if __name__ == "__main__":
    run_script(main)
