"""The play page's server: frames for those who ask properly, an error for those who do not."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from script_runner import load_script
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from world_model.play_server import arrow_keys, make_app
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldModel:
    return WorldModel.load(save_tiny_world(tmp_path_factory.mktemp("world"), "true"), "cpu")


def with_client(world: WorldModel, test: Callable[[TestClient], Awaitable[None]], env_id: str | None = None) -> None:
    """Run an asynchronous test against a server that is up for as long as the test takes."""

    async def run() -> None:
        async with TestClient(TestServer(make_app(world, env_id))) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(run(), 60))


def picture(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(-1, 32, 32, 3)


def test_the_page_is_one_file_that_asks_nobody_else(world):
    async def test(client: TestClient) -> None:
        page = await (await client.get("/")).text()
        assert "<canvas" in page and "https://" not in page and "http://" not in page

    with_client(world, test)


def test_what_is_played_is_what_the_world_dreams(world):
    async def test(client: TestClient) -> None:
        async with client.ws_connect("/play") as socket:
            told = await socket.receive_json()
            assert (told["height"], told["num_actions"], told["num_starts"]) == (32, 4, 2)
            await socket.send_json({"reset": 1, "seed": 3})
            frames = [await socket.receive_bytes()]
            for action in (2, 2, 3):
                await socket.send_json({"action": action})
                frames.append(await socket.receive_bytes())
            expected = [world.reset(world.start_frames[1], world.start_actions[1], seed=3), *map(world.step, (2, 2, 3))]
            assert np.array_equal(picture(b"".join(frames)), np.stack(expected))

    with_client(world, test)


def test_two_players_dream_their_own_dreams(world):
    async def play(client: TestClient, action: int) -> bytes:
        async with client.ws_connect("/play") as socket:
            await socket.receive_json()
            await socket.send_json({"reset": 0})
            last = await socket.receive_bytes()
            for _ in range(3):
                await socket.send_json({"action": action})
                last = await socket.receive_bytes()
            return last

    async def test(client: TestClient) -> None:
        alone = await play(client, 2)
        together = await asyncio.gather(play(client, 2), play(client, 3))
        assert together[0] == alone and together[1] != alone

    with_client(world, test)


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[]", "{}", "3", '{"action": "LEFT"}', '{"action": 99}', '{"action": true}', '{"reset": 7}', '{"other": 1}',
     '{"action": 1e400}', "[" * 900],
)  # fmt: skip
def test_nonsense_is_answered_and_the_game_goes_on(world, message):
    async def test(client: TestClient) -> None:
        async with client.ws_connect("/play") as socket:
            await socket.receive_json()
            await socket.send_json({"reset": 0})
            await socket.receive_bytes()
            await socket.send_str(message)
            assert "error" in await socket.receive_json()
            await socket.send_json({"action": 0})
            assert len(await socket.receive_bytes()) == 32 * 32 * 3

    with_client(world, test)


def test_an_action_before_the_first_reset_is_an_error(world):
    async def test(client: TestClient) -> None:
        async with client.ws_connect("/play") as socket:
            await socket.receive_json()
            await socket.send_json({"action": 0})
            assert "reset" in (await socket.receive_json())["error"]

    with_client(world, test)


def test_an_oversized_message_ends_that_connection_only(world):
    async def test(client: TestClient) -> None:
        async with client.ws_connect("/play") as other, client.ws_connect("/play") as socket:
            await other.receive_json()
            await socket.receive_json()
            await socket.send_str("x" * 100_000)
            assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
            await other.send_json({"reset": 0})
            assert await other.receive_bytes()

    with_client(world, test)


@pytest.mark.parametrize("headers", [{"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}])
def test_other_sites_are_refused(world, headers):
    async def test(client: TestClient) -> None:
        assert (await client.get("/", headers=headers)).status == 403
        assert (await client.get("/play", headers=headers)).status == 403

    with_client(world, test)


def test_the_real_game_is_played_beside_the_dream(world):
    async def test(client: TestClient) -> None:
        async with client.ws_connect("/play") as socket:
            assert (await socket.receive_json())["real_game"] == BREAKOUT
            await socket.send_json({"reset": 0, "seed": 2})
            first = picture(await socket.receive_bytes())
            assert first.shape == (2, 32, 32, 3)
            real = []
            for _ in range(4):
                await socket.send_json({"action": world.action_map["LEFT"]})
                real.append(picture(await socket.receive_bytes())[1])
            assert not np.array_equal(real[0], real[3])

    with_client(world, test, BREAKOUT)


def test_arrows_are_the_keys_of_the_game(world, tmp_path):
    assert arrow_keys(world) == {"": 0, "ArrowLeft": 3, "ArrowRight": 2, " ": 1}
    pong = WorldModel.load(save_tiny_world(tmp_path, "true", env_id="ALE/Pong-v5"), "cpu")
    assert arrow_keys(pong)["ArrowUp"] == pong.action_map["RIGHT"]  # the Atari's RIGHT moves Pong's paddle up


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "99999"], "--port 99999"),
        (["--env", "ALE/Pong-v5"], "learnt from a game"),
        (["--world", "nowhere"], "nowhere"),
    ],
)
def test_play_answers_bad_input_with_one_sentence(tmp_path, monkeypatch, capsys, flags, words):
    save_tiny_world(tmp_path / "world", "true")
    module = load_script(REPOSITORY / "4.inference" / "play.py")
    monkeypatch.setattr(sys, "argv", ["play.py", "--world", str(tmp_path / "world"), *flags])
    with pytest.raises(SystemExit) as ended:
        module.run_script(module.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and words in error and error.count("\n") == 1
