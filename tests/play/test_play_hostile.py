"""Clumsy and hostile clients of the play page: they get an error or are cut off, and everybody else plays on."""

import asyncio
import contextlib
import gc
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient
from faults.play import ask_anything
from PIL import Image
from script_runner import load_script
from server_fixture import connect, with_server
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world, some_frames

from world_model.play.player import Player
from world_model.play.protocol import MAX_MESSAGE_BYTES
from world_model.play.server import PLAYERS, is_our_name
from world_model.play.world_registry import WorldRegistry
from world_model.world import RolloutState


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> WorldRegistry:
    return WorldRegistry([save_tiny_world(tmp_path_factory.mktemp("world"), "true")], "cpu")


BEGUN = ({"do": "open"}, {"do": "begin"})
"""messages of a player who has started a dream in the first world"""


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
    '{"do": "sampling", "name": "temperature", "value": -1}', '{"do": "sampling", "name": "num_steps", "value": 1000000}',
    '{"do": "sampling", "name": "temperature", "value": NaN}', '{"do": "sampling", "name": "__class__"}', '{"do": "sampling"}',
    '{"do": "open", "world": "../../etc"}', '{"do": "open", "world": {"a": 1}}', '{"do": "film", "format": "exe"}',
    '{"do": "passes"}', '{"do": "resync"}', '{"do": "film"}', "x" * 5000, b"", b"no picture", b"GIF89a", b"\x00" * 1000,
]  # fmt: skip


def test_nonsense_gets_an_error_and_the_game_plays_on(registry):
    async def test(server: TestClient) -> None:
        player = await connect(server, *BEGUN)
        for message in NONSENSE:
            head, _ = await player.send(message)
            assert head["kind"] == "error" and head["text"] and "\n" not in head["text"], message
        assert (await player.ask("step", action=0))[1].size == 32 * 32 * 3

    with_server(registry, test)


def test_a_message_out_of_order_is_an_error(registry):
    async def test(server: TestClient) -> None:
        player = await connect(server)
        for message in ({"do": "step", "action": 0}, {"do": "begin"}, {"do": "previews"}, {"do": "film"}, b"picture"):
            assert (await player.send(message))[0]["kind"] == "error"
        assert (await player.ask("open"))[0]["kind"] == "world"

    with_server(registry, test)


def test_an_oversized_message_ends_that_connection_only(registry):
    async def test(server: TestClient) -> None:
        other, player = await connect(server, *BEGUN), await connect(server, *BEGUN)
        with contextlib.suppress(ConnectionError):  # the server may hang up before it has read everything
            await player.socket.send_bytes(b"x" * (MAX_MESSAGE_BYTES + 1))
        assert (await player.socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        assert (await other.ask("step", action=0))[0]["kind"] == "frame"

    with_server(registry, test)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_anything_is_answered_with_one_packet(tmp_path):
    """Right messages, right ones with wrong values, and noise; tests/faults/play.py sends thousands."""
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
def test_what_is_not_a_picture_is_refused_before_it_is_unpacked(registry, data, words):
    async def test(server: TestClient) -> None:
        player = await connect(server, *BEGUN)
        head, _ = await player.send(data)
        assert head["kind"] == "error" and words in head["text"]
        assert (await player.ask("begin", start="picture"))[0]["kind"] == "error"

    with_server(registry, test)


def test_a_picture_is_shrunk_to_the_worlds_size_and_starts_a_dream(registry):
    async def test(server: TestClient) -> None:
        file = io.BytesIO()
        Image.fromarray(some_frames(1, size=64)[0]).save(file, "PNG")
        player = await connect(server, *BEGUN, file.getvalue())
        start = await player.frame("begin", start="picture")
        expected = some_frames(1, size=64)[0].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(start[0] - expected).max() <= 1

    with_server(registry, test)


def test_twenty_players_at_once_dream_their_own_dreams(registry):
    async def play(server: TestClient, action: int) -> list[bytes]:
        player = await connect(server, *BEGUN)
        return [(await player.frame("step", action=action)).tobytes() for _ in range(4)]

    async def test(server: TestClient) -> None:
        alone = [await play(server, action) for action in range(4)]
        together = await asyncio.gather(*(play(server, number % 4) for number in range(20)))
        assert all(frames == alone[number % 4] for number, frames in enumerate(together))
        assert alone[2] != alone[3]

    with_server(registry, test)


def test_a_tab_closed_in_mid_frame_leaves_nothing_behind(registry):
    """Neither players nor dreams nor games outlive their tabs, and the process does not grow."""

    async def leave_in_mid_frame(server: TestClient, number: int) -> None:
        start = "game" if number < 2 else "stored"  # an emulator takes a second to start
        begun = ({"do": "open"}, {"do": "begin", "start": start, "mirror": True}, png(32, 32, (b"\0" + bytes(96)) * 32))
        socket = (await connect(server, *begun)).socket
        for _ in range(3):
            await socket.send_json({"do": "step", "action": 1, "inspect": True})
        socket._response.close()  # type: ignore[union-attr]  # the connection is lost without a closing handshake
        await asyncio.sleep(0)

    async def test(server: TestClient) -> None:
        app = server.server.app  # type: ignore[attr-defined]
        other = await connect(server, *BEGUN)
        sizes = []
        for _ in range(3):
            await asyncio.gather(*(leave_in_mid_frame(server, number) for number in range(10)))
            for _ in range(200):
                await other.frame("step", action=2)
                if len(app[PLAYERS]) == 1:
                    break
            gc.collect()
            sizes.append(resident_mib())
        assert len(app[PLAYERS]) == 1
        living = gc.get_objects()
        assert sum(type(one) is Player for one in living) == 1
        assert sum(type(one) is RolloutState for one in living) <= 2  # the other tab's, and a WorldModel's own
        assert sizes[-1] - sizes[0] < 30, sizes  # the first round fills the caches of Python and of the emulator

    with_server(registry, test)


def resident_mib() -> float:
    """Memory of this process in MiB; 0 where the system does not report it."""
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
def test_other_sites_are_refused(registry, headers, status):
    async def test(server: TestClient) -> None:
        assert (await server.get("/", headers=headers)).status == status
        if status == 403:
            assert (await server.get("/play", headers=headers)).status == 403

    with_server(registry, test)


@pytest.mark.parametrize(
    ("host", "open_to", "is_ours"),
    [
        ("localhost:8000", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("192.168.0.7:8000", "127.0.0.1", False),
        ("192.168.0.7:8000", "0.0.0.0", True),
        ("elsewhere.example", "0.0.0.0", False),  # a name server can redirect a name to us, but no digits
        ("", "0.0.0.0", False),
    ],
)
def test_which_names_are_ours_depends_on_the_address_we_are_bound_to(host, open_to, is_ours):
    assert is_our_name(host, open_to) == is_ours


def test_the_default_is_to_serve_this_machine_only():
    assert load_script(REPOSITORY / "4.inference" / "play.py").PlayConfig().host == "127.0.0.1"


@pytest.mark.parametrize("path", ["/../play.py", "/%2e%2e/server.py", "/..%2fserver.py", "/server.py", "/page/index.html"])
def test_only_the_pages_own_files_are_served(registry, path):
    async def test(server: TestClient) -> None:
        assert (await server.get(path)).status == 404

    with_server(registry, test)
