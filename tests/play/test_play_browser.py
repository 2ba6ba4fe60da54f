"""The play page in a real Chromium, with the reference world of Breakout behind it."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk import Desk
from PIL import Image
from script_runner import call
from served import browser_or_skip, served
from structure_checks import REPOSITORY

from video_tokenizer.games.detectors import detect_player
from world_model.play.shelf import Shelf
from world_model.real_game import RealGame
from world_model.starts import frames_from_text
from world_model.world import WorldModel

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
BREAKOUT = "ALE/Breakout-v5"
GENERATE = REPOSITORY / "4.inference" / "generate.py"


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf([WORLD, REPOSITORY / "assets" / "worlds" / "pong"], "cpu")


@pytest.fixture(scope="module")
def world(shelf) -> WorldModel:
    return shelf.open(shelf.first).world


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_or_skip() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(browser, shelf) -> Iterator[str]:
    with served(shelf) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator[Desk]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield Desk(page, address)
    page.close()


@pytest.fixture
def desk(opened) -> Iterator[Desk]:
    """The shared page as it is after loading, with all cards shut but the first; no test may leave errors in its console."""
    opened.see("play.input.releaseAll(), document.activeElement.blur()")
    opened.see("document.querySelectorAll('details').forEach((card, place) => { card.open = place === 0; })")
    yield opened
    complaints, opened.complaints[:] = list(opened.complaints), []
    assert complaints == []


def test_the_page_plays_by_itself_with_all_its_numbers(desk):
    desk.see("play.game.pause(false)")
    desk.until("Number(dream.dataset.frame) > 8")
    desk.page.keyboard.down("ArrowLeft")
    desk.until("play.stats.latencies.length > 0")
    desk.page.keyboard.up("ArrowLeft")
    numbers = ["fps", "latency", "ms-dynamics", "ms-decode", "ms-game", "ms-transport", "ms-draw"]
    for number in numbers:
        desk.until(f"Number(document.getElementById('{number}').textContent) > 0")
    assert desk.page.inner_text("#device") == "cpu"


def test_mirror_mode_starts_both_games_from_the_same_picture(desk, world):
    desk.begin(index=4)
    game = RealGame(BREAKOUT, world)
    game.reset(4)
    assert np.array_equal(desk.picture("dream"), game.frames[-1])
    assert np.array_equal(desk.picture("real"), game.frames[-1])
    desk.step()
    assert np.array_equal(desk.picture("real"), game.step("NOOP"))


@cache
def start_in_the_middle(world: WorldModel) -> int:
    """A game that begins with the paddle in the middle, so that it can go both ways."""
    game = RealGame(BREAKOUT, world)
    for index in range(50):
        game.reset(index)
        if abs(detect_player(game.frames[-1][None], BREAKOUT)[0] - 31.5) < 8:
            return index
    raise AssertionError("in fifty games the paddle was never in the middle")


@pytest.mark.parametrize(("key", "way"), [("ArrowLeft", -1), ("ArrowRight", 1)])
def test_an_arrow_key_moves_the_dreamed_paddle_its_way_within_ten_frames(desk, world, key, way):
    desk.begin(index=start_in_the_middle(world))
    before = detect_player(desk.picture("dream")[None], BREAKOUT)[0]
    desk.page.keyboard.down(key)
    after = detect_player(np.stack(desk.step(10)), BREAKOUT)
    desk.page.keyboard.up(key)
    assert np.nanmax(way * (after - before)) > 8 and np.nanmin(way * (after - before)) > -4, after - before


def test_a_button_for_fingers_does_what_its_key_does(desk, world):
    desk.begin(index=start_in_the_middle(world))
    desk.see("document.getElementById('pad').style.display = 'flex'")
    desk.page.hover("#pad button[data-key=LEFT]")
    desk.page.mouse.down()
    assert desk.see("play.input.wish().key") == "LEFT"
    desk.page.mouse.up()
    assert desk.see("play.input.wish().key") == "NOOP"
    desk.see("document.getElementById('pad').style.display = ''")


def test_a_digit_holds_a_latent_code_and_each_code_has_its_picture_and_its_shares(desk, world):
    desk.begin()
    desk.until("document.querySelectorAll('.code canvas').length === 16 && document.querySelector('.code canvas').width > 1")
    desk.page.keyboard.down(str(world.action_map["LEFT"]))
    desk.step()
    desk.page.keyboard.up(str(world.action_map["LEFT"]))
    code = world.action_map["LEFT"]
    assert desk.see(f"document.querySelector('[data-action=\"{code}\"] b').textContent").endswith("LEFT")
    before, after = (desk.picture(f"document.querySelectorAll('[data-action=\"{code}\"] canvas')[{n}]") for n in (0, 1))
    assert not np.array_equal(before, after)
    desk.until(f"document.querySelector('[data-action=\"{code}\"] .share').textContent.startsWith('LEFT ')", 60)


def test_resynchronising_puts_the_dream_where_the_game_is(desk):
    desk.begin()
    desk.page.keyboard.down("ArrowRight")
    desk.step(5)
    desk.page.keyboard.up("ArrowRight")
    real = desk.picture("real")
    assert not np.array_equal(desk.picture("dream"), real)
    desk.page.keyboard.press("s")
    desk.until("dream.dataset.frame === '0'")
    assert np.array_equal(desk.picture("dream"), real) and np.array_equal(desk.picture("real"), real)


def test_a_saved_recording_replays_to_the_identical_frames(desk, world, tmp_path, capsys):
    desk.begin(index=1, seed=9)
    desk.page.keyboard.down("ArrowLeft")
    frames = desk.step(3)
    desk.page.keyboard.up("ArrowLeft")
    desk.see("document.getElementById('sampling-card').open = true")
    desk.page.focus("#temperature")
    desk.page.keyboard.press("End")
    desk.until("document.getElementById('temperature-now').textContent === '2'")
    desk.page.keyboard.press("Escape")
    frames += desk.step(3)
    saved: list[Any] = []
    desk.page.on("download", lambda download: saved.append(download))
    desk.page.keyboard.press("f")
    while len(saved) < 2:
        desk.page.wait_for_timeout(50)
    paths = {Path(one.suggested_filename).suffix: tmp_path / one.suggested_filename for one in saved}
    for one in saved:
        one.save_as(tmp_path / one.suggested_filename)
    assert paths[".gif"].read_bytes()[:6] == b"GIF89a"
    flags = ["--world", WORLD, "--device", "cpu", "--actions-file", paths[".json"], "--output", tmp_path / "again.gif"]
    assert call(GENERATE, *flags) == 0 and "bit for bit" in capsys.readouterr().out
    recording = json.loads(paths[".json"].read_text())
    assert recording["actions"] == [world.action_map[key] for key in ["LEFT"] * 3 + ["NOOP"] * 3]
    assert recording["changes"][0]["frame"] == 3 and recording["changes"][0]["temperature"] == 2
    world.reset(frames_from_text(recording["start_frames"], world.frame_size), None, seed=9)
    assert np.array_equal([world.step(action) for action in recording["actions"][:3]], frames[:3])
    desk.see("play.game.ask({do: 'sampling', temperature: 0.5})")


def test_the_inspector_shows_the_passes_of_a_frame(desk):
    desk.begin()
    desk.page.keyboard.press("i")
    desk.until("play.game.inspect")
    desk.step()
    assert "probability" in desk.page.inner_text("#token-text")
    assert desk.see("document.getElementById('heat').width") == 8
    desk.page.focus("#grid")
    desk.page.keyboard.press("ArrowDown")
    assert desk.page.inner_text("#token-text").startswith("row 2, column 1")
    desk.page.keyboard.press("Escape")
    desk.page.keyboard.press("o")
    desk.until("document.getElementById('pass-text').textContent.startsWith('Pass 4 of 4')")
    assert np.array_equal(desk.picture("filling"), desk.picture("dream"))


def test_a_drawing_is_played(desk):
    """With the keyboard alone: one dab of paint in the middle, then the dream begins with it, without the real game."""
    desk.begin()
    desk.see("document.getElementById('start-card').open = true")
    desk.until("document.getElementById('palette').children.length > 2")
    plain = desk.picture("dream")
    desk.page.focus("#easel")
    desk.page.keyboard.press("ArrowUp")
    desk.page.keyboard.press(" ")
    desk.page.focus("#play-drawing")
    desk.page.keyboard.press("Enter")
    desk.until("play.game.start.start === 'picture'")
    desk.see("play.game.pause(true)")
    desk.begin(start="picture", mirror=False)
    rows, columns = np.nonzero((desk.picture("dream") != plain).any(axis=-1))
    assert set(rows) == {30, 31} and set(columns) == {31, 32}
    assert not desk.page.is_visible("#beside")


def test_what_is_no_picture_is_answered_with_a_sentence(desk, tmp_path):
    desk.begin()
    (tmp_path / "not.png").write_text("this is not a picture")
    desk.page.set_input_files("#upload", tmp_path / "not.png")
    desk.until("document.getElementById('notice').classList.contains('wrong')")
    assert "not a picture" in desk.notice()
    assert len(desk.step()) == 1


def test_another_world_is_played_with_its_own_keys(desk):
    desk.page.select_option("#world", label="pong")
    desk.until("play.game.playing && play.game.world.env_id === 'ALE/Pong-v5'")
    desk.begin()
    desk.page.keyboard.down("ArrowUp")
    assert desk.see("play.input.wish().key") == "RIGHT"
    desk.page.keyboard.up("ArrowUp")
    assert "pong" in desk.page.text_content("#gym")
    desk.page.select_option("#world", label="breakout")
    desk.until("play.game.playing && play.game.world.env_id === 'ALE/Breakout-v5'")


def test_every_control_is_reached_and_worked_by_keyboard_alone(desk):
    desk.begin()
    desk.see("document.querySelectorAll('details').forEach((card) => { card.open = true; })")
    kinds = "button, select, input, summary, [tabindex]"
    every = f"[...document.querySelectorAll('{kinds}')].filter((e) => e.offsetParent && !e.disabled)"
    count = desk.see(f"{every}.length")
    desk.see(f"({every}).forEach((element) => {{ element.dataset.reached = ''; }})")
    for _ in range(count + 5):
        desk.page.keyboard.press("Tab")
        desk.see("document.activeElement.dataset.reached = 'yes'")
    missed = desk.see(f"({every}).filter((e) => e.dataset.reached !== 'yes').map((e) => e.outerHTML.slice(0, 80))")
    assert count > 25 and missed == []
    desk.see("document.activeElement.blur()")
    for key, effect in {"p": "!play.game.paused", "n": "play.game.start.index === 1", "m": "!play.game.mirrored"}.items():
        desk.page.keyboard.press(key)
        desk.until(effect)
    desk.page.keyboard.press("m")
    desk.until("play.game.mirrored")
    for control, effect in {"pause": "play.game.paused", "again": "dream.dataset.frame === '0'"}.items():
        desk.page.focus(f"#{control}")
        desk.page.keyboard.press("Enter")
        desk.until(effect)
    desk.page.focus("#speed")
    desk.page.keyboard.press("ArrowDown")
    desk.until("play.game.speed === 2")
    desk.page.keyboard.press("ArrowUp")
    desk.page.focus("#seed")
    desk.page.keyboard.press("Control+A")
    desk.page.keyboard.type("17")
    desk.page.keyboard.press("Enter")
    desk.until("play.game.start.seed === 17")
    desk.page.focus("[data-action='3']")
    desk.page.keyboard.down(" ")
    assert desk.see("play.input.wish().action") == 3
    desk.page.keyboard.up(" ")
    assert desk.see("play.input.wish().action") is None


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 860, "light"), (820, 1100, "dark"), (390, 844, "light")])
def test_the_page_fits_desk_tablet_and_phone(desk, tmp_path, width, height, scheme):
    desk.begin()
    desk.page.set_viewport_size({"width": width, "height": height})
    desk.page.emulate_media(color_scheme=scheme)
    desk.step()
    assert desk.see("document.documentElement.scrollWidth") <= width
    for canvas in ("dream", "real"):
        box = desk.page.locator(f"#{canvas}").bounding_box()
        assert box["width"] > 0.4 * min(width, 700) and box["x"] >= 0 and box["y"] + box["height"] < height
    assert desk.page.is_visible("#pad") == (width < 640)
    shot = tmp_path / f"{width}.png"
    desk.page.screenshot(path=shot)
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape == (height, width) and (np.median(pixels) > 128) == (scheme == "light")
    desk.page.set_viewport_size({"width": 1280, "height": 900})
    desk.page.emulate_media(color_scheme="light")


def test_a_page_whose_server_goes_says_so(browser, shelf):
    page = browser.new_page()
    with served(shelf) as address:
        desk = Desk(page, address)
    desk.until("document.getElementById('notice').textContent.includes('server is gone')")
    page.close()
