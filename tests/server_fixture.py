"""The play page's server under test: in a thread for a browser, or in the test's own loop for players without one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestClient, TestServer

from world_model.play.protocol import read_packet
from world_model.play.server import make_app
from world_model.play.world_registry import WorldRegistry


@contextmanager
def served(registry: WorldRegistry) -> Iterator[str]:
    """The address of a server in its own thread, for a browser; it is up for as long as the block lasts."""
    loop, ready, box = asyncio.new_event_loop(), threading.Event(), {}

    async def begin() -> None:
        runner = box["runner"] = web.AppRunner(make_app(registry), shutdown_timeout=2)
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


class PlayerClient:
    """A player without a browser: sends messages and unpacks the replies."""

    def __init__(self, socket: ClientWebSocketResponse):
        self.socket = socket

    async def receive(self) -> tuple[dict[str, Any], np.ndarray]:
        head, payload = read_packet(await self.socket.receive_bytes())
        return head, np.frombuffer(payload, np.uint8)

    async def send(self, message: dict[str, Any] | str | bytes) -> tuple[dict[str, Any], np.ndarray]:
        """Send anything. Returns the JSON part and the bytes of the reply."""
        if isinstance(message, bytes):
            await self.socket.send_bytes(message)
        elif isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_json(message)
        return await self.receive()

    async def ask(self, do: str, **fields: Any) -> tuple[dict[str, Any], np.ndarray]:
        return await self.send({"do": do, **fields})

    async def frame(self, do: str, **fields: Any) -> np.ndarray:
        """The pictures in the reply, (1 or 2, 32, 32, 3)."""
        head, payload = await self.ask(do, **fields)
        assert head["kind"] == "frame", head
        return payload.reshape(-1, 32, 32, 3)


def with_server(registry: WorldRegistry, test: Callable[[TestClient], Awaitable[None]]) -> None:
    """Run an asynchronous test against a server that is up for as long as the test takes."""

    async def run() -> None:
        async with TestClient(TestServer(make_app(registry))) as server:
            await test(server)

    asyncio.run(asyncio.wait_for(run(), 60))


async def connect(server: TestClient, *messages: dict[str, Any] | bytes) -> PlayerClient:
    """A new player, welcomed, whose first messages were carried out."""
    player = PlayerClient(await server.ws_connect("/play"))
    assert (await player.receive())[0]["kind"] == "welcome"
    for message in messages:
        assert (await player.send(message))[0]["kind"] != "error"
    return player


def with_player(registry: WorldRegistry, test: Callable[[PlayerClient], Awaitable[None]], world: str = "") -> None:
    """Run an asynchronous test with one player who has opened a world."""

    async def run(server: TestClient) -> None:
        await test(await connect(server, {"do": "open", "world": world}))

    with_server(registry, run)
