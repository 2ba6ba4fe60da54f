"""A tab of the play page without a browser, for tests of its server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiohttp import ClientWebSocketResponse
from aiohttp.test_utils import TestClient, TestServer

from world_model.play.protocol import read_packet
from world_model.play.server import make_app
from world_model.play.shelf import Shelf


class Tab:
    """A page without a browser: asks, and unpacks the answers."""

    def __init__(self, socket: ClientWebSocketResponse):
        self.socket = socket

    async def receive(self) -> tuple[dict[str, Any], np.ndarray]:
        head, payload = read_packet(await self.socket.receive_bytes())
        return head, np.frombuffer(payload, np.uint8)

    async def ask(self, do: str, **fields: Any) -> tuple[dict[str, Any], np.ndarray]:
        await self.socket.send_json({"do": do, **fields})
        return await self.receive()

    async def frame(self, do: str, **fields: Any) -> np.ndarray:
        """The pictures in the answer, (1 or 2, 32, 32, 3)."""
        head, payload = await self.ask(do, **fields)
        assert head["kind"] == "frame", head
        return payload.reshape(-1, 32, 32, 3)


def with_tab(shelf: Shelf, test: Callable[[Tab], Awaitable[None]], world: str = "") -> None:
    """Run an asynchronous test in a tab that has opened a world."""

    async def run() -> None:
        async with TestClient(TestServer(make_app(shelf))) as client, client.ws_connect("/play") as socket:
            tab = Tab(socket)
            assert (await tab.receive())[0]["kind"] == "welcome"
            assert (await tab.ask("open", world=world))[0]["kind"] == "world"
            await test(tab)

    asyncio.run(asyncio.wait_for(run(), 60))
