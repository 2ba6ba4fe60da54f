"""The play page's server: every question gets its answer, and what is played is what the world dreams."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from play_tab import Tab, with_tab
from script_runner import load_script
from structure_checks import MAX_FILE_LINES, REPOSITORY
from tiny_world import save_tiny_world

from video_tokenizer.games.emulator import Game
from world_model.play.codes import count_meanings
from world_model.play.protocol import QUESTIONS
from world_model.play.server import PAGE, make_app
from world_model.play.shelf import Shelf, arrow_keys, find_worlds
from world_model.real_game import RealGame
from world_model.sampling import Sampling
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"
GENERATE = REPOSITORY / "4.inference" / "generate.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("worlds")
    return {kind: save_tiny_world(root / kind, kind) for kind in ("latent", "true", "none")}


@pytest.fixture(scope="module")
def shelf(folders) -> Shelf:
    return Shelf(list(folders.values()), "cpu")


@pytest.fixture(scope="module")
def world(folders) -> WorldModel:
    return WorldModel.load(folders["latent"], "cpu")


def test_the_page_asks_nobody_but_its_own_server(shelf):
    async def run() -> None:
        async with TestClient(TestServer(make_app(shelf))) as client:
            page = await client.get("/")
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            for name in ("", "style.css", "main.js", "game.js", "connection.js"):
                text = await (await client.get(f"/{name}")).text()
                assert text and "https://" not in text and "http://" not in text

    asyncio.run(run())


def test_every_file_of_the_page_is_short_enough_to_read():
    lengths = {path.name: len(path.read_text().splitlines()) for path in PAGE.iterdir()}
    assert {"index.html", "style.css", "main.js"} < set(lengths)
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_what_is_played_is_what_the_world_dreams(shelf, world):
    async def test(tab: Tab) -> None:
        first = await tab.frame("begin", start="stored", index=1, seed=3)
        assert np.array_equal(first[0], world.start_frames[1, -1])
        await tab.ask("sampling", temperature=1.5, num_steps=2)
        frames = [(await tab.frame("step", **wish))[0] for wish in ({"key": "RIGHT"}, {"action": 2}, {"action": 3})]
        world.reset(world.start_frames[1], world.start_actions[1], seed=3)
        assert world.current is not None
        world.current.sampling = Sampling(num_steps=2, temperature=1.5)
        assert np.array_equal(frames, [world.step(action) for action in (2, 2, 3)])

    with_tab(shelf, test)


def test_the_answers_number_is_the_questions(shelf):
    async def test(tab: Tab) -> None:
        assert (await tab.ask("begin", id=41))[0]["id"] == 41
        assert (await tab.ask("passes", id=42))[0].items() >= {"kind": "error", "id": 42}.items()

    with_tab(shelf, test)


def test_both_games_begin_with_the_same_picture_and_part_under_the_same_keys(shelf, world):
    async def test(tab: Tab) -> None:
        both = await tab.frame("begin", start="game", index=2, mirror=True)
        assert both.shape == (2, 32, 32, 3) and np.array_equal(both[0], both[1])
        game = RealGame(BREAKOUT, world)
        game.reset(2)
        for key in ("LEFT", "FIRE", "RIGHT", "RIGHT"):
            head, payload = await tab.ask("step", key=key)
            dreamed, real = payload.reshape(2, 32, 32, 3)
            assert np.array_equal(real, game.step(key)) and not np.array_equal(dreamed, real)
            assert set(head["apart"]) == {"moving_psnr_db", "player"} and len(head["apart"]["player"]) == 2

    with_tab(shelf, test)


def test_a_key_without_a_code_of_its_own_still_reaches_the_real_game(folders):
    """Breakout's FIRE looks like NOOP to the latent action model, and without it the ball never comes back."""
    world = WorldModel.load(save_tiny_world(folders["latent"].parent / "shared", "latent", action_map={"NOOP": 0, "FIRE": 0}))
    shelf = Shelf([folders["latent"].parent / "shared"], "cpu")

    async def test(tab: Tab) -> None:
        await tab.frame("begin", start="game", mirror=True)
        fired, waited = RealGame(BREAKOUT, world), RealGame(BREAKOUT, world)
        for game in (fired, waited):
            game.reset(0)
        while not fired.game.needs_fire:  # until the ball is lost
            await tab.frame("step", key="NOOP")
            for game in (fired, waited):
                game.step("NOOP")
        differs = False
        for _ in range(20):
            real = (await tab.frame("step", key="FIRE"))[1]
            assert np.array_equal(real, fired.step("FIRE"))
            differs |= not np.array_equal(real, waited.step("NOOP"))
        assert differs

    with_tab(shelf, test)


def test_after_resynchronising_the_dream_stands_where_the_game_stands(shelf):
    async def test(tab: Tab) -> None:
        await tab.frame("begin", start="game", mirror=True)
        for _ in range(3):
            last = await tab.frame("step", key="LEFT")
        both = await tab.frame("resync")
        assert not np.array_equal(last[0], last[1]) and np.array_equal(both, [last[1], last[1]])

    with_tab(shelf, test)


def test_looking_ahead_does_not_change_the_game():
    for env_id in (BREAKOUT, "ALE/Freeway-v5"):  # picture delays 2 and 1
        straight, peeked = Game(env_id), Game(env_id)
        straight.reset(3), peeked.reset(3)
        for action in np.random.default_rng(0).integers(3, size=60).tolist():
            picture, again = straight.step(action)[0], peeked.step(action)[0]
            assert np.array_equal(picture, again)
            assert np.array_equal(peeked.peek(action), peeked.peek(action))


def test_what_is_foreseen_is_seen_when_the_key_stays_down():
    game = Game(BREAKOUT)
    game.reset(0)
    for key in ("RIGHT", "RIGHT", "LEFT", "LEFT", "LEFT"):
        action = game.action_names.index(key)
        game.step(action)
        foreseen = game.peek(action)
    assert np.array_equal(game.step(action)[0], foreseen)


def test_the_inspector_tells_when_each_token_was_settled_and_how_sure_it_was(shelf):
    async def test(tab: Tab) -> None:
        await tab.frame("begin", start="stored")
        await tab.ask("sampling", num_steps=3, temperature=1)
        head, payload = await tab.ask("step", action=1, inspect=True)
        seen = head["inspect"]
        assert seen["grid"] == [4, 4] and len(seen["tokens"]) == len(seen["probability"]) == 16
        assert all(0 < probability <= 1 for probability in seen["probability"])
        passes, pictures = await tab.ask("passes")
        left = [16 - sum(settled) for settled in passes["settled"]]
        assert left == [2, 1, 0]  # halving
        for place, settled_in in enumerate(seen["settled_in"]):
            assert [settled[place] for settled in passes["settled"]] == [0] * (settled_in - 1) + [1] * (4 - settled_in)
        assert np.array_equal(pictures.reshape(3, -1)[-1], payload)  # after the last pass the frame is what was shown

    with_tab(shelf, test)


@pytest.mark.parametrize("kind", ["latent", "true"])
def test_every_action_has_its_picture(shelf, folders, kind):
    async def test(tab: Tab) -> None:
        await tab.frame("begin", start="stored")
        head, payload = await tab.ask("codes")
        count = {"latent": 6, "true": 4}[kind]
        assert payload.size == (1 + count) * 32 * 32 * 3
        top, left, height, width = head["part"]
        assert 0 <= top <= 32 - height and 0 <= left <= 32 - width

    with_tab(shelf, test, folders[kind].as_posix())


def test_the_shares_of_a_code_are_counted_against_the_keys_that_were_pressed(world, monkeypatch):
    monkeypatch.setattr("world_model.play.codes.LABELLED_FRAMES", 120)
    monkeypatch.setattr(world, "infer_actions", lambda video: np.zeros(video.shape[:2], np.int64) + 4)
    game = Game(BREAKOUT, (32, 32))
    *_, counts = count_meanings(world, game)
    assert counts.shape == (6, 4) and counts[4].min() > 10 and counts.sum() == counts[4].sum() >= 119 - 1


def test_a_world_without_actions_can_be_watched(shelf, folders):
    async def test(tab: Tab) -> None:
        await tab.frame("begin", start="stored")
        assert (await tab.frame("step")).shape == (1, 32, 32, 3)

    with_tab(shelf, test, folders["none"].as_posix())


def test_arrows_are_the_keys_of_the_game(world, tmp_path):
    assert arrow_keys(world) == {"": "NOOP", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT", " ": "FIRE"}
    pong = WorldModel.load(save_tiny_world(tmp_path, "true", env_id="ALE/Pong-v5"), "cpu")
    assert arrow_keys(pong)["ArrowUp"] == "RIGHT"  # the Atari's RIGHT moves Pong's paddle up


def test_the_shelf_holds_the_readers_own_worlds_too(tmp_path, monkeypatch):
    for folder in ("assets/worlds/pong", "worlds/mine"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("tokenizer.pt", "dynamics.pt"):
            (tmp_path / folder / name).touch()
    (tmp_path / "worlds" / "unfinished").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_worlds("worlds/mine", tmp_path) == [Path("worlds/mine"), Path("assets/worlds/pong")]


def test_the_protocol_lists_what_a_player_can_do():
    from world_model.play.player import Player

    assert {f"do_{name}" for name in QUESTIONS} == {name for name in vars(Player) if name.startswith("do_")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "99999"], "--port 99999"),
        (["--num-threads", "0"], "--num-threads 0"),
        (["--env", "ALE/Pong-v5"], "learnt from a game"),
        (["--world", "nowhere"], "nowhere"),
        (["--temperature", "-1"], "temperature -1"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1"),
    ],
)
def test_play_answers_bad_input_with_one_sentence(folders, monkeypatch, capsys, flags, words):
    module = load_script(REPOSITORY / "4.inference" / "play.py")
    monkeypatch.setattr(sys, "argv", ["play.py", "--world", str(folders["true"]), *flags])
    with pytest.raises(SystemExit) as ended:
        module.run_script(module.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and words in error and error.count("\n") == 1
