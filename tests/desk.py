"""The play page in a browser, as the tests of the page see and use it."""

import json
import time
from typing import Any

import numpy as np
from browser import canvas_picture


class Desk:
    """One open page, and what a player can see and do there."""

    def __init__(self, page: Any, address: str):
        self.page, self.complaints = page, []
        page.on("console", self.listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        self.until("window.play?.game.playing")

    def listen(self, message: Any) -> None:
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:  # that one is about our own looking
            self.complaints.append(message.text)

    def see(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 20) -> None:
        """Wait until something is so on the page."""
        end = time.monotonic() + seconds
        while not self.see(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} never came true; the page says: {self.page.inner_text('#notice')}"
            time.sleep(0.02)

    def picture(self, canvas: str) -> np.ndarray:
        """What a canvas holds, uint8 (H, W, 3)."""
        return canvas_picture(self.page, canvas)

    def begin(self, index: int = 0, seed: int = 0, **start: Any) -> None:
        """Pause, and begin a dream; beside the real game unless told otherwise."""
        wish = {"start": "game", "index": index, "seed": seed, "mirror": True} | start
        self.see(f"play.game.pause(true), play.game.begin({json.dumps(wish)})")
        self.until("dream.dataset.frame === '0'")

    def step(self, count: int = 1) -> list[np.ndarray]:
        """Press the key for a single step. Returns the dream's pictures."""
        pictures = []
        for _ in range(count):
            frame = int(self.see("dream.dataset.frame"))
            self.page.keyboard.press(".")
            self.until(f"dream.dataset.frame === '{frame + 1}'")
            pictures.append(self.picture("dream"))
        return pictures

    def notice(self) -> str:
        return self.page.inner_text("#notice")
