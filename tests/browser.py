"""The play page in a real Chromium, for whoever wants to test, measure or picture it."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from video_tokenizer.training.command_line import InputError

PLAY = Path(__file__).resolve().parents[1] / "4.inference" / "play.py"
NO_BROWSER = "no Chromium can be started; fetch one with: python -m playwright install chromium"


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium: playwright's own, else the system's. Raises InputError where there is none."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise InputError('playwright is not installed; install it with: pip install -e ".[test]"') from None
    with sync_playwright() as playwright:
        systems = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        browser = None
        for path in [None, *filter(None, systems)]:
            try:
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                break
            except Error:
                continue
        if browser is None:
            raise InputError(NO_BROWSER)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def play_server(*flags: object) -> Iterator[str]:
    """The address of a play.py that runs in a process of its own. Raises InputError with its sentence where it does not start."""
    command = [sys.executable, str(PLAY), "--port", "0", *map(str, flags)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stderr is not None
    try:
        line = server.stdout.readline()
        address = re.search(r"http://\S+", line)
        if address is None:
            raise InputError(f"play.py did not start: {server.stderr.read().strip()}")
        yield address[0]
    finally:
        server.terminate()
        server.wait(30)


def wait_for(page: Any, condition: str, seconds: float = 60) -> None:
    """Wait until a JavaScript expression is true on the page. (playwright's own way needs eval, which the page forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > end:
            raise InputError(f"{condition} never came true; the page says: {page.inner_text('#notice')}")
        time.sleep(0.02)


def canvas_picture(page: Any, canvas: str) -> np.ndarray:
    """What a canvas of the page holds, uint8 (H, W, 3). canvas: a JavaScript expression, such as an id."""
    read = f"(c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])({canvas})"
    width, height, *values = page.evaluate(read)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """A page of the address that has begun to play. options: of playwright's new_page."""
    page = browser.new_page(**options)
    page.goto(address)
    wait_for(page, "window.play?.game.playing")
    return page
