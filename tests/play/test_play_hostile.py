"""Clumsy and hostile clients of the play page: they get an error or are shown the door, and everybody else plays on."""

import asyncio
import contextlib
import gc
import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from faults.play import ask_anything
from PIL import Image
from script_runner import load_script
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from world_model.play.player import Player
from world_model.play.protocol import LARGEST_MESSAGE, read_packet
from world_model.play.server import PLAYERS, is_our_name, make_app
from world_model.play.shelf import Shelf
from world_model.world import Dream


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf([save_tiny_world(tmp_path_factory.mktemp("world"), "true")], "cpu")


def with_client(shelf: Shelf, test: Callable[[TestClient], Awaitable[None]]) -> None:
    """Run an asynchronous test against a server that is up for as long as the test takes."""

    async def run() -> None:
        async with TestClient(TestServer(make_app(shelf))) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(run(), 60))


async def ask(socket: ClientWebSocketResponse, question: Any) -> dict[str, Any]:
    """Send anything; the JSON part of the answer, with the bytes as "payload"."""
    if isinstance(question, bytes):
        await socket.send_bytes(question)
    elif isinstance(question, str):
        await socket.send_str(question)
    else:
        await socket.send_json(question)
    head, payload = read_packet(await socket.receive_bytes())
    return head | {"payload": payload}


async def tab_of(client: TestClient, *questions: Any) -> ClientWebSocketResponse:
    """A new tab that has opened the first world and begun a dream in it."""
    socket = await client.ws_connect("/play")
    await socket.receive_bytes()
    for question in ({"do": "open"}, {"do": "begin"}, *questions):
        assert (await ask(socket, question))["kind"] != "error"
    return socket


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file that claims to be width x height pixels; without data it has none."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(data)
    chunks = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, body, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


NONSENSE = [
    "", "no json", "[]", "{}", "3", "null", "[" * 1900, '{"do": 3}', '{"do": "__class__"}', '{"do": "close"}', '{"do": ["step"]}',
    '{"do": "step"}', '{"do": "step", "action": 99}', '{"do": "step", "action": -7}', '{"do": "step", "action": true}',
    '{"do": "step", "action": 1e400}', '{"do": "step", "action": NaN}', '{"do": "step", "action": 12345678901234567890}',
    '{"do": "step", "key": "UP"}', '{"do": "step", "key": 3}', '{"do": "step", "id": 1, "x": 2}', '{"do": "begin", "index": 7}',
    '{"do": "begin", "start": "../../etc/passwd"}', '{"do": "begin", "seed": -1}', '{"do": "begin", "start": "picture"}',
    '{"do": "sampling", "temperature": -1}', '{"do": "sampling", "num_steps": 1000000}', '{"do": "sampling", "order": "x"}',
    '{"do": "open", "world": "../../etc"}', '{"do": "open", "world": {"a": 1}}', '{"do": "film", "format": "exe"}',
    '{"do": "passes"}', '{"do": "resync"}', '{"do": "film"}', "x" * 5000, b"", b"no picture", b"GIF89a", b"\x00" * 1000,
]  # fmt: skip


def test_nonsense_is_answered_with_a_sentence_and_the_game_goes_on(shelf):
    async def test(client: TestClient) -> None:
        socket = await tab_of(client)
        for question in NONSENSE:
            said = await ask(socket, question)
            assert said["kind"] == "error" and said["text"] and "\n" not in said["text"], question
        assert len((await ask(socket, {"do": "step", "action": 0}))["payload"]) == 32 * 32 * 3

    with_client(shelf, test)


@pytest.mark.parametrize("question", [{"do": "step", "action": 0}, {"do": "begin"}, {"do": "codes"}, {"do": "film"}, b"picture"])
def test_a_question_out_of_order_is_an_error(shelf, question):
    async def test(client: TestClient) -> None:
        socket = await client.ws_connect("/play")
        await socket.receive_bytes()
        assert (await ask(socket, question))["kind"] == "error"
        assert (await ask(socket, {"do": "open"}))["kind"] == "world"

    with_client(shelf, test)


def test_an_oversized_message_ends_that_connection_only(shelf):
    async def test(client: TestClient) -> None:
        other, socket = await tab_of(client), await tab_of(client)
        with contextlib.suppress(ConnectionError):  # we may be shown the door before we have said it all
            await socket.send_bytes(b"x" * (LARGEST_MESSAGE + 1))
        assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        assert (await ask(other, {"do": "step", "action": 0}))["kind"] == "frame"

    with_client(shelf, test)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_anything_is_answered_with_one_packet(tmp_path):
    """Right questions, right ones with wrong values, and noise; tests/faults/play.py asks thousands."""
    answers = asyncio.run(asyncio.wait_for(ask_anything(tmp_path, 300, 2, seed=0), 120))
    assert sum(answers.values()) == 300 and answers["error"] > 50 and answers["frame"] > 50


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(10_000, 10_000), "10000x10000 pixels are too many"),  # a hundred megapixels in a hundred bytes
        (png(60_000, 60_000), "not a picture"),
        (png(64, 64), "not a picture"),
        (png(16, 16, (b"\0" + b"\x80" * 48) * 16), "smaller than this world's 32x32"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture"),  # Pillow would call Ghostscript
    ],
)
def test_a_picture_that_is_none_is_refused_before_it_is_unpacked(shelf, data, words):
    async def test(client: TestClient) -> None:
        socket = await tab_of(client)
        said = await ask(socket, data)
        assert said["kind"] == "error" and words in said["text"]
        assert (await ask(socket, {"do": "begin", "start": "picture"}))["kind"] == "error"

    with_client(shelf, test)


def test_a_picture_is_shrunk_to_the_worlds_size_and_dreamed_on_from(shelf):
    async def test(client: TestClient) -> None:
        file = io.BytesIO()
        Image.fromarray(some_frames(1, size=64)[0]).save(file, "PNG")
        socket = await tab_of(client, file.getvalue())
        said = await ask(socket, {"do": "begin", "start": "picture"})
        expected = some_frames(1, size=64)[0].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(np.frombuffer(said["payload"], np.uint8).reshape(32, 32, 3) - expected).max() <= 1

    with_client(shelf, test)


def test_twenty_tabs_at_once_dream_their_own_dreams(shelf):
    async def play(client: TestClient, action: int) -> list[bytes]:
        socket = await tab_of(client)
        return [(await ask(socket, {"do": "step", "action": action}))["payload"] for _ in range(4)]

    async def test(client: TestClient) -> None:
        alone = [await play(client, action) for action in range(4)]
        together = await asyncio.gather(*(play(client, tab % 4) for tab in range(20)))
        assert all(frames == alone[tab % 4] for tab, frames in enumerate(together))
        assert alone[2] != alone[3]

    with_client(shelf, test)


def test_a_tab_closed_in_mid_frame_leaves_nothing_behind(shelf):
    """Neither players nor dreams nor games survive their tabs, and the process is as large as before."""

    async def leave_in_mid_frame(client: TestClient, number: int) -> None:
        start = "game" if number < 2 else "stored"  # an emulator takes a second to start
        socket = await tab_of(client, {"do": "begin", "start": start, "mirror": True}, png(32, 32, (b"\0" + bytes(96)) * 32))
        for _ in range(3):
            await socket.send_json({"do": "step", "action": 1, "inspect": True})
        socket._response.close()  # type: ignore[union-attr]  # the connection is gone, without a word
        await asyncio.sleep(0)

    async def test(client: TestClient) -> None:
        app = client.server.app  # type: ignore[attr-defined]
        other = await tab_of(client)
        sizes = []
        for _ in range(3):
            await asyncio.gather(*(leave_in_mid_frame(client, number) for number in range(10)))
            for _ in range(200):
                assert (await ask(other, {"do": "step", "action": 2}))["kind"] == "frame"
                if len(app[PLAYERS]) == 1:
                    break
            gc.collect()
            sizes.append(resident_mib())
        assert len(app[PLAYERS]) == 1
        living = gc.get_objects()
        assert sum(type(one) is Player for one in living) == 1
        assert sum(type(one) is Dream for one in living) <= 2  # the other tab's, and a WorldModel's own
        assert sizes[-1] - sizes[0] < 30, sizes  # the first round fills the caches of Python and of the emulator

    with_client(shelf, test)


def resident_mib() -> float:
    """Memory of this process in MiB; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 / 2**20 if statm.exists() else 0.0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example"}, 403),
        ({"Host": "127.0.0.1.elsewhere.example"}, 403),
        ({"Host": "["}, 403),
    ],
)
def test_other_sites_are_refused(shelf, headers, status):
    async def test(client: TestClient) -> None:
        assert (await client.get("/", headers=headers)).status == status
        if status == 403:
            assert (await client.get("/play", headers=headers)).status == 403

    with_client(shelf, test)


@pytest.mark.parametrize(
    ("host", "open_to", "is_ours"),
    [
        ("localhost:8000", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("192.168.0.7:8000", "127.0.0.1", False),
        ("192.168.0.7:8000", "0.0.0.0", True),
        ("elsewhere.example", "0.0.0.0", False),  # a name can be turned towards us, digits cannot
        ("", "0.0.0.0", False),
    ],
)
def test_who_we_are_depends_on_where_we_are_bound(host, open_to, is_ours):
    assert is_our_name(host, open_to) == is_ours


def test_it_is_served_to_this_machine_unless_told_otherwise():
    assert load_script(REPOSITORY / "4.inference" / "play.py").PlayConfig().host == "127.0.0.1"


@pytest.mark.parametrize("path", ["/../play.py", "/%2e%2e/server.py", "/..%2fserver.py", "/server.py", "/page/index.html"])
def test_only_the_pages_own_files_are_served(shelf, path):
    async def test(client: TestClient) -> None:
        assert (await client.get(path)).status == 404

    with_client(shelf, test)
