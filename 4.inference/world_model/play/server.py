"""The play page's server: one page, one WebSocket per player, and one thread in which all models run, one step after the other.

How a message travels, such as {"do": "step", "key": "LEFT"}:
1. The page calls `game.ask({do: "step", key: "LEFT"})` (page/game.js), often for a button of the bar (page/buttons.js).
2. `converse` below looks "step" up in player.py's `MESSAGES`, which checks the fields and names the method of `Player`.
3. The method runs in the models' thread and returns a `Reply`: its kind, bytes such as pixels, and facts for the JSON part.
4. The reply goes back as one packet (protocol.py), and `game.ask` resolves to it on the page.
A new message is a method and a row of `MESSAGES` in player.py, a new button with its key a row of `BUTTONS` in page/buttons.js.

The server listens to this machine only, unless --host says otherwise, and replies only to its own page: a request that another
site's page sends through the reader's browser has a foreign Origin, and one for a name that was redirected to this machine (DNS
rebinding) a foreign Host. Files are read once, when the server starts; no name from a client is ever opened.
"""

import asyncio
import ipaddress
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from aiohttp import WSMsgType, web

from video_tokenizer.errors import InputError
from world_model.play.player import MESSAGES, Player
from world_model.play.protocol import MAX_MESSAGE_BYTES, Reply, read_message
from world_model.play.world_registry import WorldRegistry

PAGE = Path(__file__).with_name("page")
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
MAX_PLAYERS = 64
PLAYERS = web.AppKey("players", dict[Player, web.WebSocketResponse])
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_app(registry: WorldRegistry, open_to: str = "127.0.0.1") -> web.Application:
    """The server for these worlds. open_to: the address it is bound to, which decides whose requests are accepted."""
    app = web.Application(middlewares=[only_our_page(open_to)])
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in CONTENT_TYPES}
    models, films = (ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) for name in ("models", "films"))
    players: dict[Player, web.WebSocketResponse] = {}

    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in files:
            raise web.HTTPNotFound(text=f"there is no {name[:40]}")
        return web.Response(body=files[name], content_type=CONTENT_TYPES[Path(name).suffix], charset="utf-8", headers=HEADERS)

    async def play(request: web.Request) -> web.StreamResponse:
        if len(players) >= MAX_PLAYERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_PLAYERS} players are connected already; close a tab")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=30, compress=False)
        await socket.prepare(request)
        player = Player(registry)
        players[player] = socket
        try:
            await converse(socket, player, models, films)
        except (ConnectionError, asyncio.CancelledError):  # the tab was closed while a step was running
            pass
        finally:
            del players[player]
            models.submit(player.close)  # after the step that may still be running
        return socket

    async def close_sockets(app: web.Application) -> None:
        await asyncio.gather(*(socket.close() for socket in players.values()))

    async def stop_threads(app: web.Application) -> None:
        for thread in (models, films):
            thread.shutdown(wait=True)

    app[PLAYERS] = players
    app.router.add_get("/", page)
    app.router.add_get("/play", play)
    app.router.add_get("/{name}", page)
    app.on_shutdown.append(close_sockets)
    app.on_cleanup.append(stop_threads)
    return app


async def converse(socket: web.WebSocketResponse, player: Player, models: ThreadPoolExecutor, films: ThreadPoolExecutor) -> None:
    """Reply to one player's messages until the connection ends."""
    registry, loop = player.registry, asyncio.get_running_loop()
    welcome = {"worlds": list(registry.folders), "first": registry.first, "device": registry.device_name}
    await socket.send_bytes(Reply("welcome", facts=welcome | {"threads": torch.get_num_threads()}).packet())
    async for received in socket:
        number, begun = 0, time.perf_counter()
        try:
            if received.type is WSMsgType.BINARY:
                thread, work = models, partial(player.upload_picture, received.data)
            elif received.type is WSMsgType.TEXT:
                message, number, fields = read_message(received.data, MESSAGES)
                thread, work = models if message.uses_models else films, partial(message.method, player, **fields)
            else:
                break
            reply = await loop.run_in_executor(thread, work)
        except InputError as error:
            reply = Reply("error", facts={"text": str(error)})
        await socket.send_bytes(reply.packet(id=number, server_ms=round(1000 * (time.perf_counter() - begun), 2)))


def only_our_page(open_to: str) -> Any:
    """A middleware that refuses requests from foreign pages, and requests to a name that is not this machine's."""

    @web.middleware
    async def refuse_foreign_requests(request: web.Request, handler: Any) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not is_our_name(request.host, open_to) or (origin is not None and origin != f"{request.scheme}://{request.host}"):
            raise web.HTTPForbidden(text="the server replies only to its own page; open it at the address that play.py printed")
        return await handler(request)

    return refuse_foreign_requests


def is_our_name(host: str, open_to: str) -> bool:
    """Whether a Host header can be ours: a local name, the address we are bound to or, if others can reach us there, any address
    in digits, which no name server can redirect."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in (*LOCAL_NAMES, open_to):
        return True
    if open_to in LOCAL_NAMES:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
