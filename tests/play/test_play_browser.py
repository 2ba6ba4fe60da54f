"""The play page in a real Chromium, with the reference world of Breakout behind it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_driver import PageDriver, chromium
from PIL import Image
from script_runner import call
from server_fixture import served
from structure_checks import REPOSITORY

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball, detect_player
from world_model.play.world_registry import WorldRegistry
from world_model.real_game import RealGame
from world_model.starts import frames_from_text
from world_model.world import WorldModel

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
BREAKOUT = "ALE/Breakout-v5"
GENERATE = REPOSITORY / "4.inference" / "generate.py"


@pytest.fixture(scope="module")
def registry() -> WorldRegistry:
    return WorldRegistry([WORLD, REPOSITORY / "assets" / "worlds" / "pong"], "cpu")


@pytest.fixture(scope="module")
def world(registry) -> WorldModel:
    return registry.load(registry.first).world


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except InputError as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture(scope="module")
def address(browser, registry) -> Iterator[str]:
    with served(registry) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator[PageDriver]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield PageDriver(page, address)
    page.close()


@pytest.fixture
def driver(opened) -> Iterator[PageDriver]:
    """The shared page with all cards shut but the first, as after loading; no test may leave errors in its console."""
    opened.evaluate("play.input.releaseAll(), document.activeElement.blur()")
    opened.evaluate("document.querySelectorAll('details').forEach((card, place) => { card.open = place === 0; })")
    yield opened
    complaints, opened.complaints[:] = list(opened.complaints), []
    assert complaints == []


def test_the_page_plays_by_itself_with_all_its_numbers(driver):
    driver.evaluate("play.game.pause(false)")
    driver.until("Number(dream.dataset.frame) > 8")
    with driver.hold("ArrowLeft"):
        driver.until("play.stats.latencies.length > 0")
    numbers = ["fps", "latency", "ms-dynamics", "ms-decode", "ms-game", "ms-transport", "ms-draw"]
    for number in numbers:
        driver.until(f"Number(document.getElementById('{number}').textContent) > 0")
    assert driver.text("#device") == "cpu"


def test_however_fast_a_step_is_asked_for_there_is_one_at_a_time(driver):
    driver.evaluate("play.game.pause(true)")
    most = driver.evaluate("""async () => {
        const { game } = play, ask = game.ask;
        let waiting = 0, most = 0;
        while (game.stepping) await new Promise((resolve) => setTimeout(resolve, 5));
        game.ask = async (message) => {
            if (message.do !== "step") return ask.call(game, message); // the cards ask for theirs whenever they like
            most = Math.max(most, ++waiting);
            try { return await ask.call(game, message); } finally { waiting -= 1; }
        };
        await Promise.all(Array.from({ length: 5 }, () => game.singleStep()));
        delete game.ask;
        return most;
    }""")
    assert most == 1


def test_mirror_mode_starts_both_games_from_the_same_picture(driver, world):
    driver.begin(index=4)
    game = RealGame(BREAKOUT, world)
    game.reset(4)
    assert np.array_equal(driver.picture("dream"), game.frames[-1])
    assert np.array_equal(driver.picture("real"), game.frames[-1])
    driver.step()
    assert np.array_equal(driver.picture("real"), game.step("NOOP"))


def test_h_sharpens_both_pictures_also_in_a_game_that_is_paused(driver):
    driver.begin(index=4)
    small = driver.picture("dream").astype(int)
    driver.press("h")
    driver.until("dream.width === 128 && real.width === 128 && play.game.sharpened")
    large = driver.picture("dream").astype(int)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)) - small).mean() < 4  # the same picture
    driver.step()
    assert driver.evaluate("dream.width") == 128 and not np.array_equal(driver.picture("dream"), large)
    driver.press("h")
    driver.until("dream.width === 64 && real.width === 64 && !play.game.sharpened")


def test_v_lets_the_dream_sound_frame_behind_frame_and_a_second_v_silences_it(driver):
    driver.begin(index=4)
    driver.evaluate("window.heard = [], play.game.addEventListener('sounded', ({detail}) => heard.push(detail))")
    driver.evaluate(
        "window.made = [], AudioContext = class extends AudioContext { constructor() { super(); made.push(this); } }, 0"
    )
    driver.step()
    assert driver.evaluate("heard.length") == 0  # silent until it is asked for
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'v', bubbles: true}))"
    assert driver.evaluate(f"{press}, made.length") == 1  # made in the press itself, before the server has answered
    driver.until("play.game.sounding && sound.checked")
    driver.evaluate("(async () => { for (let i = 0; i < 3; i++) await play.game.singleStep(); })()")
    first, second, third = driver.evaluate("heard")
    assert first["samples"] == 2048 and first["end"] - first["begin"] == pytest.approx(1 / 15)
    assert second["begin"] >= first["end"] and third["begin"] >= second["end"]  # equal, unless a frame came late
    driver.press("v")
    driver.until("!play.game.sounding && !sound.checked")
    driver.until("made[0].state === 'closed'")  # nothing that was scheduled sounds on
    driver.step()
    assert driver.evaluate("heard.length") == 3


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
def test_an_arrow_key_moves_the_dreamed_paddle_its_way_within_ten_frames(driver, world, key, way):
    driver.begin(index=start_in_the_middle(world))
    before = detect_player(driver.picture("dream")[None], BREAKOUT)[0]
    with driver.hold(key):
        after = detect_player(np.stack(driver.step(10)), BREAKOUT)
    assert np.nanmax(way * (after - before)) > 8 and np.nanmin(way * (after - before)) > -4, after - before


def test_the_line_of_keys_holds_until_the_ball_is_lost_and_space_brings_it_back(driver):
    """In the real game, which waits for FIRE; the dream serves by itself."""
    driver.begin(index=4)
    keys = "← left, → right, space serves a lost ball, 0 to 7 hold a discovered action."
    assert driver.text("#keys") == keys and not np.isnan(detect_ball(driver.picture("real")[None], BREAKOUT)).any()
    driver.evaluate("play.game.setSpeed(100), play.game.pause(false)")
    with driver.hold("ArrowLeft"):
        driver.until("document.getElementById('keys').textContent === 'No ball in the real game: space serves.'")
    with driver.hold(" "):
        driver.until(f"document.getElementById('keys').textContent === '{keys}'")
    driver.evaluate("play.game.setSpeed(1), play.game.pause(true)")
    balls = detect_ball(np.stack([(driver.step(), driver.picture("real"))[1] for _ in range(6)]), BREAKOUT)
    assert np.isfinite(balls[-2:]).all(), balls


def test_space_brings_a_ball_back_that_the_dream_has_lost(driver, monkeypatch):
    monkeypatch.setattr("world_model.play.player.detect_ball", lambda frames, env_id: np.full((len(frames), 2), np.nan))
    driver.begin()
    driver.evaluate("play.game.setSpeed(100), play.game.pause(false)")
    driver.until("document.getElementById('keys').textContent.startsWith('No ball in the dream: space serves')")
    driver.evaluate("play.game.setSpeed(1), play.game.pause(true)")
    driver.until("!play.game.stepping")
    with driver.hold(" "):
        driver.press(".")
        driver.until("dream.dataset.frame === '0'")
    assert np.array_equal(driver.picture("dream"), driver.picture("real"))
    assert np.isfinite(detect_ball(driver.picture("dream")[None], BREAKOUT)).all()
    assert driver.text("#keys").startswith("← left")


def test_a_button_for_fingers_does_what_its_key_does(driver, world):
    driver.begin(index=start_in_the_middle(world))
    driver.evaluate("document.getElementById('pad').style.display = 'flex'")
    driver.page.hover("#pad button[data-key=LEFT]")
    driver.page.mouse.down()
    assert driver.evaluate("play.input.current().key") == "LEFT"
    driver.page.mouse.up()
    assert driver.evaluate("play.input.current().key") == "NOOP"
    driver.evaluate("document.getElementById('pad').style.display = ''")


def test_a_digit_holds_a_latent_code_and_each_code_has_its_picture_and_its_meaning(driver, world):
    driver.begin()
    driver.until(
        "document.querySelectorAll('.action canvas').length === 16 && document.querySelector('.action canvas').width > 1"
    )
    with driver.hold(str(world.action_map["LEFT"])):
        driver.step()
    code = world.action_map["LEFT"]
    assert driver.evaluate(f"document.querySelector('[data-action=\"{code}\"] b').textContent").endswith("LEFT")
    before, after = (driver.picture(f"document.querySelectorAll('[data-action=\"{code}\"] canvas')[{n}]") for n in (0, 1))
    assert not np.array_equal(before, after)
    driver.until(f"document.querySelector('[data-action=\"{code}\"] .meaning').textContent.startsWith('LEFT ')", 60)


def test_a_saved_recording_replays_to_the_identical_frames(driver, world, tmp_path, capsys):
    driver.begin(index=1, seed=9)
    with driver.hold("ArrowLeft"):
        frames = driver.step(3)
    driver.evaluate("document.getElementById('sampling-card').open = true")
    driver.page.focus("#sampling-temperature")
    driver.press("End")
    driver.until("document.getElementById('sampling-temperature').labels[0].querySelector('output').textContent === '2'")
    driver.press("Escape")
    frames += driver.step(3)
    saved: list[Any] = []
    driver.page.on("download", lambda download: saved.append(download))
    driver.press("f")
    while len(saved) < 2:
        driver.page.wait_for_timeout(50)
    paths = {Path(download.suggested_filename).suffix: Path(download.path()) for download in saved}
    assert paths[".gif"].read_bytes()[:6] == b"GIF89a"
    flags = ["--world", WORLD, "--device", "cpu", "--actions-file", paths[".json"], "--output", tmp_path / "again.gif"]
    assert call(GENERATE, *flags) == 0 and "bit for bit" in capsys.readouterr().out
    recording = json.loads(paths[".json"].read_text())
    assert recording["actions"] == [world.action_map[key] for key in ["LEFT"] * 3 + ["NOOP"] * 3]
    assert recording["changes"][0]["frame"] == 3 and recording["changes"][0]["temperature"] == 2
    world.reset(frames_from_text(recording["start_frames"], world.frame_size), None, seed=9)
    assert np.array_equal([world.step(action) for action in recording["actions"][:3]], frames[:3])
    driver.evaluate("play.game.ask({do: 'sampling', name: 'temperature', value: 1})")


def test_the_inspector_shows_the_passes_of_a_frame(driver):
    driver.begin()
    driver.press("i")
    driver.until("play.game.inspect")
    driver.step()
    assert "probability" in driver.text("#token-text")
    assert driver.evaluate("document.getElementById('heat').width") == 8
    driver.page.focus("#grid")
    driver.press("ArrowDown")
    assert driver.text("#token-text").startswith("row 2, column 1")
    driver.press("Escape", "o")
    driver.until("document.getElementById('pass-text').textContent.startsWith('Pass 4 of 4')")
    assert np.array_equal(driver.picture("filling"), driver.picture("dream"))


def test_a_drawing_is_played(driver):
    """With the keyboard alone: one dab of paint in the middle, then the dream starts from it, without the real game."""
    driver.begin()
    driver.evaluate("document.getElementById('start-card').open = true")
    driver.until("document.getElementById('palette').children.length > 2")
    plain = driver.picture("dream")
    driver.page.focus("#easel")
    driver.press("ArrowUp", " ")
    driver.page.focus("#play-drawing")
    driver.press("Enter")
    driver.until("play.game.start.start === 'picture'")
    driver.evaluate("play.game.pause(true)")
    driver.begin(start="picture")
    rows, columns = np.nonzero((driver.picture("dream") != plain).any(axis=-1))
    assert set(rows) == {30, 31} and set(columns) == {31, 32}
    assert not driver.page.is_visible("#beside")


def test_what_is_not_a_picture_is_named_and_the_game_plays_on(driver):
    driver.begin()
    driver.page.set_input_files("#upload", {"name": "not.png", "mimeType": "image/png", "buffer": b"this is not a picture"})
    driver.until("document.getElementById('notice').classList.contains('wrong')")
    assert "not a picture" in driver.text("#notice") and len(driver.step()) == 1


def test_another_world_is_played_with_its_own_keys(driver):
    driver.page.select_option("#world", label="pong")
    driver.until("play.game.playing && play.game.world.env_id === 'ALE/Pong-v5'")
    driver.begin()
    with driver.hold("ArrowUp"):
        assert driver.evaluate("play.input.current().key") == "RIGHT"
    assert driver.text("#keys").startswith("↑ up (the game's RIGHT), ↓ down (the game's LEFT), space serves a lost ball, 0 to 7")
    assert "pong" in driver.page.text_content("#gym")
    driver.page.select_option("#world", label="breakout")
    driver.until("play.game.playing && play.game.world.env_id === 'ALE/Breakout-v5'")


def test_every_control_is_reached_and_worked_by_keyboard_alone(driver):
    driver.begin()
    driver.evaluate("document.querySelectorAll('details').forEach((card) => { card.open = true; })")
    kinds = "button, select, input, summary, [tabindex]"
    every = f"[...document.querySelectorAll('{kinds}')].filter((e) => e.offsetParent && !e.disabled)"
    count = driver.evaluate(f"{every}.length")
    driver.evaluate(f"({every}).forEach((element) => {{ element.dataset.reached = ''; }})")
    for _ in range(count + 5):
        driver.press("Tab")
        driver.evaluate("document.activeElement.dataset.reached = 'yes'")
    missed = driver.evaluate(f"({every}).filter((e) => e.dataset.reached !== 'yes').map((e) => e.outerHTML.slice(0, 80))")
    assert count > 25 and missed == []
    driver.evaluate("document.activeElement.blur()")
    driver.step()
    keys = {"s": "dream.dataset.frame === '0'", "n": "play.game.start.index === 1", "p": "!play.game.paused"}
    for key, effect in [*keys.items(), ("m", "!play.game.mirrored"), ("m", "play.game.mirrored")]:
        driver.press(key)
        driver.until(effect)
    for control, effect in {"pause": "play.game.paused", "restart": "dream.dataset.frame === '0'"}.items():
        driver.page.focus(f"#{control}")
        driver.press("Enter")
        driver.until(effect)
    driver.page.focus("#speed")
    driver.press("ArrowDown")
    driver.until("play.game.speed === 2")
    driver.press("ArrowUp")
    driver.page.focus("#seed")
    driver.press("Control+A")
    driver.page.keyboard.type("17")
    driver.press("Enter")
    driver.until("play.game.start.seed === 17")
    driver.page.focus("[data-action='3']")
    with driver.hold(" "):
        assert driver.evaluate("play.input.current().action") == 3
    assert driver.evaluate("play.input.current().action") is None


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 860, "light"), (820, 1100, "dark"), (390, 844, "light")])
def test_the_page_fits_desk_tablet_and_phone(driver, tmp_path, width, height, scheme):
    driver.begin()
    driver.page.set_viewport_size({"width": width, "height": height})
    driver.page.emulate_media(color_scheme=scheme)
    driver.step()
    assert driver.evaluate("document.documentElement.scrollWidth") <= width
    for canvas in ("dream", "real"):
        box = driver.page.locator(f"#{canvas}").bounding_box()
        assert box["width"] > 0.4 * min(width, 700) and box["x"] >= 0 and box["y"] + box["height"] < height
    assert driver.page.is_visible("#pad") == (width < 640)
    shot = tmp_path / f"{width}.png"
    driver.page.screenshot(path=shot)
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape == (height, width) and (np.median(pixels) > 128) == (scheme == "light")
    driver.page.set_viewport_size({"width": 1280, "height": 900})
    driver.page.emulate_media(color_scheme="light")


def test_a_page_whose_server_goes_says_so(browser, registry):
    page = browser.new_page()
    with served(registry) as address:
        driver = PageDriver(page, address)
    driver.until("document.getElementById('notice').textContent.includes('server is gone')")
    page.close()
