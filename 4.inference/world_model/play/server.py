"""The play page's server: one page, one WebSocket per player, and one thread in which all models run, one step after the other.

It answers this machine only, unless told otherwise, and only to its own page: requests that another site's page sends through the
reader's browser carry a foreign Origin, and a name that was turned towards this machine (DNS rebinding) carries a foreign Host.
Files are read once, when the server starts; nothing that a client names is ever opened.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from aiohttp import WSMsgType, web

from video_tokenizer.training.command_line import InputError
from world_model.play.player import Player
from world_model.play.protocol import LARGEST_MESSAGE, Answer, answer, read_question
from world_model.play.shelf import Shelf

PAGE = Path(__file__).with_name("page")
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
MOST_PLAYERS = 64
PLAYERS = web.AppKey("players", dict[Player, web.WebSocketResponse])
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
BESIDE = {"do_film"}
"""questions that take long and need no model: they have a thread of their own, one at a time"""


def make_app(shelf: Shelf, open_to: str = "127.0.0.1") -> web.Application:
    """The server of a shelf of worlds. open_to: the address it is bound to, which decides who may ask."""
    app = web.Application(middlewares=[only_our_page(open_to)])
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in CONTENT_TYPES}
    turns, films = (ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) for name in ("models", "films"))
    players: dict[Player, web.WebSocketResponse] = {}

    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in files:
            raise web.HTTPNotFound(text=f"there is no {name[:40]}")
        return web.Response(body=files[name], content_type=CONTENT_TYPES[Path(name).suffix], charset="utf-8", headers=HEADERS)

    async def play(request: web.Request) -> web.StreamResponse:
        if len(players) >= MOST_PLAYERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PLAYERS} players are here already; close a tab")
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=30, compress=False)
        await socket.prepare(request)
        player = Player(shelf)
        players[player] = socket
        try:
            await converse(socket, player, turns, films)
        except (ConnectionError, asyncio.CancelledError):  # the tab was closed while its frame was dreamed
            pass
        finally:
            del players[player]
            turns.submit(player.close)  # after the step that may still be on its way
        return socket

    async def say_goodbye(app: web.Application) -> None:
        await asyncio.gather(*(socket.close() for socket in players.values()))

    async def end(app: web.Application) -> None:
        for thread in (turns, films):
            thread.shutdown(wait=True)

    app[PLAYERS] = players
    app.router.add_get("/", page)
    app.router.add_get("/play", play)
    app.router.add_get("/{name}", page)
    app.on_shutdown.append(say_goodbye)
    app.on_cleanup.append(end)
    return app


async def converse(socket: web.WebSocketResponse, player: Player, turns: ThreadPoolExecutor, films: ThreadPoolExecutor) -> None:
    """Answer one player's questions until the connection ends."""
    loop = asyncio.get_running_loop()
    shelf = player.shelf
    threads = torch.get_num_threads()
    await socket.send_bytes(
        answer("welcome", worlds=shelf.names(), first=shelf.first, device=shelf.device_name, threads=threads).packet()
    )
    async for message in socket:
        number, asked = 0, time.perf_counter()
        try:
            if message.type is WSMsgType.BINARY:
                name, task = "picture", partial(player.take_picture, message.data)
            elif message.type is WSMsgType.TEXT:
                question = read_question(message.data)
                number, name = question.pop("id"), "do_" + question.pop("do")
                task: Callable[[], Answer] = partial(getattr(player, name), **question)
            else:
                break
            said = await loop.run_in_executor(films if name in BESIDE else turns, task)
        except InputError as error:
            said = answer("error", text=str(error))
        await socket.send_bytes(said.packet(id=number, server_ms=round(1000 * (time.perf_counter() - asked), 2)))


def only_our_page(open_to: str) -> Any:
    """A middleware that refuses requests from foreign pages, and requests to a name that is not this machine's."""

    @web.middleware
    async def refuse_foreigners(request: web.Request, handler: Any) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not is_our_name(request.host, open_to) or (origin is not None and origin != f"{request.scheme}://{request.host}"):
            raise web.HTTPForbidden(text="this page answers only to itself; open it at the address that play.py has printed")
        return await handler(request)

    return refuse_foreigners


def is_our_name(host: str, open_to: str) -> bool:
    """Whether a Host header can be meant for us: a local name, the address we were bound to or, if that is not this machine's
    alone, any address in digits, which no name server can turn elsewhere."""
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
