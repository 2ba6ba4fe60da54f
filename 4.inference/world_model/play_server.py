"""The play page's server: one page, one WebSocket per player, a dream behind each.

The player's browser asks for every frame, so a slow connection makes a slow game and never a queue of old pictures:

    browser -> {"reset": 0, "seed": 1}       server -> frame
    browser -> {"action": 3}                 server -> the frame under action 3

A frame is raw RGB, height * width * 3 bytes; with the real game beside it, the dream's frame and then the game's. What cannot be
done is answered with {"error": "..."}. The first message of a connection describes the world.
"""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from aiohttp import WSMsgType, web

from video_tokenizer.command_line import InputError
from video_tokenizer.data.games import game_facts
from world_model.real_game import RealGame
from world_model.world import Dream, WorldModel

PAGE = Path(__file__).with_name("play_page.html")
LARGEST_MESSAGE = 1024
"""bytes; what a player sends is a few dozen"""
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


class Player:
    """One connection: its dream and, where the real game is played beside it, its game."""

    def __init__(self, world: WorldModel, env_id: str | None):
        self.world = world
        self.game = RealGame(env_id, world) if env_id else None
        self.dream: Dream | None = None
        self.waiting: np.ndarray | None = None
        """with the real game: the dreamed frame whose real counterpart is not taken yet"""

    def reset(self, start: int, seed: int) -> bytes:
        """Begin again and return the first frame. start: which of the world's own beginnings; unused beside the real game."""
        if self.game is not None:
            frames, actions, pressed = self.game.reset(seed)
            self.dream = self.world.begin(frames[None], actions, seed)
            first = self.dream.frames[0]
            self.waiting = self.world.advance(self.dream, np.array([pressed]))[0]
            return first.tobytes() + frames[-1].tobytes()
        if not 0 <= start < len(self.world.start_frames):
            raise InputError(f"there is no start {start}; there are 0 to {len(self.world.start_frames) - 1}")
        self.dream = self.world.begin(self.world.start_frames[start][None], self.world.start_actions[start][None], seed)
        return self.dream.frames[0].tobytes()

    def step(self, action: int) -> bytes:
        """The next frame under an action. Raises InputError for an action that there is not, and before the first reset."""
        if self.dream is None:
            raise InputError("send a reset before the first action")
        if self.game is None:
            return self.world.advance(self.dream, np.array([action]))[0].tobytes()
        # the real picture comes a moment into the next step, so the dream's is held back until then
        shown, real = self.waiting, self.game.step(action)
        self.waiting = self.world.advance(self.dream, np.array([action]))[0]
        assert shown is not None
        return shown.tobytes() + real.tobytes()

    def answer(self, message: str) -> bytes:
        """Do what a message asks for. Raises InputError where that cannot be done."""
        try:
            wish = json.loads(message)
        except (ValueError, RecursionError):
            raise InputError("a message must be JSON") from None
        numbers = list(wish.values()) if isinstance(wish, dict) else []
        if not numbers or not all(type(number) is int and -(2**31) <= number < 2**31 for number in numbers):
            raise InputError('a message must be {"action": number} or {"reset": number, "seed": number}')
        if "reset" in wish:
            return self.reset(wish["reset"], max(0, wish.get("seed", 0)))
        if "action" in wish:
            return self.step(wish["action"])
        raise InputError(f"a message with {', '.join(map(repr, wish))} asks for nothing")


def arrow_keys(world: WorldModel) -> dict[str, int]:
    """Names of keyboard keys -> actions. In games whose player only moves up and down, up and down do what the stick does."""
    keys = {"ArrowUp": "UP", "ArrowDown": "DOWN", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT", " ": "FIRE", "": "NOOP"}
    known = game_facts(world.facts.get("env_id") or "")
    if known is not None and known.player_axis == "y" and "UP" not in world.action_map:
        keys |= dict(zip(("ArrowUp", "ArrowDown"), known.player_keys, strict=True))
    chosen = {key: world.action_map[name] for key, name in keys.items() if name in world.action_map}
    return {"": 0 if world.num_actions else -1} | chosen


def description(world: WorldModel, env_id: str | None) -> dict[str, Any]:
    """What the page needs to know about a world."""
    return {
        "height": world.frame_size[0],
        "width": world.frame_size[1],
        "num_actions": world.num_actions,
        "action_names": world.action_names,
        "keys": arrow_keys(world),
        "num_starts": len(world.start_frames),
        "frames_per_second": world.frames_per_second,
        "device": str(world.device),
        "real_game": env_id,
    }


@web.middleware
async def only_this_machine(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse requests that another site's page sends through the reader's browser."""
    origin = request.headers.get("Origin")
    if urlsplit(f"//{request.host}").hostname not in LOCAL_NAMES or (
        origin is not None and origin.split("//")[-1] != request.host
    ):
        raise web.HTTPForbidden(text="this page answers only to itself, on this machine")
    return await handler(request)


def make_app(world: WorldModel, env_id: str | None = None) -> web.Application:
    """The server of one world. env_id: the real game to play beside the dream, None for the dream alone."""
    busy = asyncio.Lock()  # one model, many players: their steps take turns

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=PAGE.read_text(), content_type="text/html")

    async def play(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=30)
        await socket.prepare(request)
        player = await asyncio.to_thread(Player, world, env_id)
        await socket.send_json(description(world, env_id))
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                async with busy:
                    frame = await asyncio.to_thread(player.answer, message.data)
                await socket.send_bytes(frame)
            except InputError as error:
                await socket.send_json({"error": str(error)})
        return socket

    app = web.Application(middlewares=[only_this_machine])
    app.router.add_get("/", page)
    app.router.add_get("/play", play)
    return app
