"""The play page in a real Chromium, for tests, measurements and pictures."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from video_tokenizer.errors import InputError

PLAY = Path(__file__).resolve().parents[1] / "4.inference" / "play.py"
NO_BROWSER = "no Chromium can be started; fetch one with: python -m playwright install chromium"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""the headers that let a page share memory between threads"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium: playwright's own, else the system's. Raises InputError if there is none."""
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
def play_server(*flags: object) -> Iterator[tuple[str, int]]:
    """The address and process id of a running play.py. Raises InputError with its sentence if it does not start."""
    command = [sys.executable, str(PLAY), "--port", "0", *map(str, flags)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stderr is not None
    try:
        line = server.stdout.readline()
        address = re.search(r"http://\S+", line)
        if address is None:
            raise InputError(f"play.py did not start: {server.stderr.read().strip()}")
        yield address[0], server.pid
    finally:
        server.terminate()
        server.wait(30)


class Files(SimpleHTTPRequestHandler):
    """The files of a folder with further headers, and no log."""

    def __init__(self, *arguments: Any, headers_to_add: Mapping[str, str], **options: Any):
        self.headers_to_add = headers_to_add
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        for name, value in self.headers_to_add.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def file_server(folder: Path | str, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a server that has only the files of a folder. headers: sent with each of them."""
    handler = partial(Files, directory=str(folder), headers_to_add=headers or {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def wait_for(page: Any, condition: str, seconds: float = 60) -> None:
    """Wait until a JavaScript expression is true on the page. (playwright's own way needs eval, which the page forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > end:
            raise InputError(f"{condition} never came true; the page says: {page.inner_text('#notice')}")
        time.sleep(0.02)


def canvas_picture(page: Any, canvas: str) -> np.ndarray:
    """The pixels of a canvas, uint8 (H, W, 3). canvas: a JavaScript expression, such as an id."""
    read = f"(c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])({canvas})"
    width, height, *values = page.evaluate(read)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """A page at this address that has begun to play. options: of playwright's new_page."""
    page = browser.new_page(**options)
    page.goto(address)
    wait_for(page, "window.play?.game.playing")
    return page


class PageDriver:
    """One open page: what a player can see and do there, and the console's complaints."""

    def __init__(self, page: Any, address: str):
        self.page, self.complaints = page, []
        page.on("console", self.listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        self.until("window.play?.game.playing")

    def listen(self, message: Any) -> None:
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:  # canvas_picture causes that one
            self.complaints.append(message.text)

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 20) -> None:
        wait_for(self.page, expression, seconds)

    def picture(self, canvas: str) -> np.ndarray:
        return canvas_picture(self.page, canvas)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        self.page.keyboard.down(key)
        yield
        self.page.keyboard.up(key)

    def begin(self, **settings: Any) -> None:
        """Pause, and start a dream; beside the first real game with seed 0, unless the settings say otherwise."""
        settings = {"start": "game", "index": 0, "seed": 0, "mirror": True} | settings
        self.evaluate(f"play.game.pause(true), play.game.begin({json.dumps(settings)})")
        self.until("dream.dataset.frame === '0'")

    def step(self, count: int = 1) -> list[np.ndarray]:
        """Press the key for a single step. Returns the dream's pictures."""
        pictures = []
        for _ in range(count):
            frame = int(self.evaluate("dream.dataset.frame"))
            self.press(".")
            self.until(f"dream.dataset.frame === '{frame + 1}'")
            pictures.append(self.picture("dream"))
        return pictures
