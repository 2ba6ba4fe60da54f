"""A play server in a thread of its own, and a Chromium to open it with, where there is one."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from aiohttp import web
from browser import chromium

from video_tokenizer.training.command_line import InputError
from world_model.play.server import make_app
from world_model.play.shelf import Shelf


@contextmanager
def served(shelf: Shelf) -> Iterator[str]:
    """The address of a server that is up for as long as the block lasts."""
    loop, ready, box = asyncio.new_event_loop(), threading.Event(), {}

    async def begin() -> None:
        runner = box["runner"] = web.AppRunner(make_app(shelf), shutdown_timeout=2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        box["port"] = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        ready.set()

    def serve() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30), "the server did not come up"
    try:
        yield f"http://127.0.0.1:{box['port']}/"
    finally:
        asyncio.run_coroutine_threadsafe(box["runner"].cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def browser_or_skip() -> Iterator[Any]:
    """A running Chromium; the test is skipped, with a sentence, where there is none."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except InputError as error:
            pytest.skip(str(error))
        yield opened
