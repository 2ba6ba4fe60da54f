"""The page that plays without a server: the same tokens and pictures as in Python, and every control in a real Chromium."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_driver import ISOLATED, PageDriver, canvas_picture, chromium, file_server
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from dynamics_model.models.masking import nucleus
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_player
from world_model.world import WorldModel

SCRIPT = REPOSITORY / "4.inference" / "lab" / "export_web.py"
BENCHMARK = SCRIPT.with_name("web_benchmark.py")
WORLDS = {name: REPOSITORY / "assets" / "worlds" / name for name in ("breakout", "freeway", "pong")}
BREAKOUT = "ALE/Breakout-v5"
MOST_BYTES = 20_000_000
ANYBODY = {"Access-Control-Allow-Origin": "*"}
"""headers of a server from which every page may read"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The page with the three worlds that come with the repository, built as `make web` builds it."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason='the export needs onnx and onnxscript: pip install -e ".[web]"')
    if not (REPOSITORY / "web" / "node_modules" / "onnxruntime-web").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("there is no npm to fetch onnxruntime-web with; install Node.js")
        fetched = subprocess.run([npm, "ci", "--prefix", "web"], cwd=REPOSITORY, capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"npm could not fetch onnxruntime-web ({fetched.stderr.partition(chr(10))[0]})")
    output = tmp_path_factory.mktemp("page") / "web"
    assert call(SCRIPT, "--output", output, "--worlds", *WORLDS.values()) == 0
    return output


def node(built: Path, job: dict[str, Any]) -> Any:
    """What the page's own modules answer outside a browser, see dream.mjs."""
    if shutil.which("node") is None:
        pytest.skip("there is no node to run the page's modules with; install Node.js")
    command = ["node", str(Path(__file__).with_name("dream.mjs")), str(built)]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


# ---- the same world as in Python ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "num_frames", "num_steps"), [("breakout", 200, 2), ("freeway", 50, 2), ("pong", 40, 8)])
def test_at_temperature_zero_tokens_equal_those_of_pytorch_and_pictures_differ_by_one_at_most(built, name, num_frames, num_steps):
    world = WorldModel.load(WORLDS[name], "cpu", precision="float32", temperature=0, num_steps=num_steps)
    actions = np.random.default_rng(0).integers(world.num_actions, size=num_frames // 5).repeat(5)
    sampling = {"num_steps": num_steps, "temperature": 0, "top_p": 0.9}
    job = {"do": "dream", "world": name, "start": 1, "seed": 0, "actions": actions.tolist(), "sampling": sampling}
    dreamed = node(built, job)
    state = world.start_rollouts(world.start_frames[1:2], world.start_actions[1:2])
    for action, frame in zip(actions, dreamed, strict=True):
        picture = world.step_rollouts(state, np.array([action]))[0]
        assert frame["passes"] == num_steps
        assert frame["taken"] == state.dynamics_state.action.item()
        assert frame["tokens"] == state.latest[0].tolist()
        drawn = np.frombuffer(base64.b64decode(frame["picture"]), np.uint8).reshape(picture.shape)
        assert np.abs(drawn.astype(int) - picture).max() <= 1
    assert len(np.unique([frame["tokens"] for frame in dreamed], axis=0)) > num_frames / 2  # a dream that moves
    assert (world.metadata.key_guidance != 3) == (name == "pong")  # the page has each world's own weight of the keys
    chosen_by_the_prior = [frame["taken"] for frame in dreamed] != actions.tolist()
    assert chosen_by_the_prior == (world.dynamics.action_prior is not None)


@pytest.mark.parametrize(("temperature", "top_p"), [(1, 0.9), (0.7, 0.6), (1.5, 1)])
def test_tokens_are_sampled_from_the_nucleus_of_pytorch(built, temperature, top_p):
    logits = 3 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    candidates, shares, _ = nucleus((logits / temperature).softmax(-1)[None], top_p, len(logits))
    expected = torch.zeros(100).scatter(0, candidates[0], shares[0] / shares.sum())
    sampling = {"temperature": temperature, "top_p": top_p}
    counts = torch.tensor(node(built, {"do": "tokens", "logits": logits.tolist(), "sampling": sampling, "count": 50_000}))
    assert counts[expected == 0].sum() == 0
    # half the sum of the differences, which is 0.4 sqrt(tokens / samples) for a fair sample: 0.018 for all 100 tokens
    assert (counts / 50_000 - expected).abs().sum() / 2 < 0.02


def test_all_that_is_downloaded_for_three_worlds_is_less_than_twenty_megabytes(built):
    sizes = {path: path.stat().st_size for path in built.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES
    parameters = sum(p.numel() for p in WorldModel.load(WORLDS["freeway"], "cpu").dynamics.parameters())
    assert sizes[built / "worlds" / "freeway" / "dynamics.onnx"] < 1.2 * parameters  # 8 bits each


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--worlds", "nowhere"], "world folder nowhere does not exist"),
        (["--worlds", "a/x", "b/x/y/.."], "different names"),
        (["--output", "tests"], "is no page that was built before"),
    ],
)
def test_what_cannot_be_built_ends_with_a_sentence(built, flags, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    where = [] if "--output" in flags else ["--output", tmp_path / "page"]
    assert call(SCRIPT, *flags, *where) == 2 and sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_world_of_the_readers_own_is_rounded_to_eight_bits_and_named_after_its_folder(built, tmp_path, monkeypatch):
    monkeypatch.chdir(save_tiny_world(tmp_path / "mine", "none", env_id=None))
    assert call(SCRIPT, "--worlds", ".", "--output", tmp_path / "page") == 0
    sampling = {"num_steps": 2, "temperature": 0, "top_p": 0.9}
    job = {"do": "dream", "world": "mine", "start": 0, "seed": 0, "actions": [-1, -1], "sampling": sampling}
    assert [len(frame["tokens"]) for frame in node(tmp_path / "page", job)] == [16, 16]


# ---- in a browser ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except InputError as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture(scope="module")
def address(built) -> Iterator[str]:
    with file_server(built) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser, address) -> Iterator[tuple[PageDriver, list[str]]]:
    """The page, and what it asked for elsewhere than at its file server, which is denied."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    elsewhere: list[str] = []

    def deny(route: Any) -> None:
        elsewhere.append(route.request.url)
        route.abort()

    context.route(lambda url: not url.startswith(address), deny)
    yield PageDriver(context.new_page(), address), elsewhere
    context.close()


@pytest.fixture
def driver(opened) -> Iterator[PageDriver]:
    """The shared page; no test may leave errors in its console."""
    yield opened[0]
    complaints, opened[0].complaints[:] = list(opened[0].complaints), []
    assert complaints == []


def begin(driver: PageDriver, index: int) -> None:
    driver.evaluate(f"play.game.pause(true), play.game.begin({{ index: {index} }})")
    driver.until("dream.dataset.frame === '0'")


def policy_of_the_page() -> str:
    """Its content security policy, which stands in a <meta>."""
    page = (REPOSITORY / "web" / "index.html").read_text(encoding="utf-8")
    return re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[0]


def kept(page: Any) -> dict[str, set[str]]:
    """What the service worker keeps: name of a cache -> paths of files."""
    urls = "caches.open(name).then((cache) => cache.keys()).then((all) => all.map(({ url }) => new URL(url).pathname))"
    entries = page.evaluate(f"caches.keys().then((names) => Promise.all(names.map(async (name) => [name, await {urls}])))")
    return {name: set(paths) for name, paths in entries}


def paddle_in_the_middle() -> int:
    """A start from which the paddle can go both ways."""
    starts = WorldModel.load(WORLDS["breakout"], "cpu").start_frames[:, -1]
    return int(np.abs(detect_player(starts, BREAKOUT) - 31.5).argmin())


def test_it_plays_fifty_frames_from_a_plain_file_server_and_asks_nobody_else(driver, opened):
    driver.evaluate("play.game.setSpeed(100), play.game.pause(false)")
    driver.until("Number(dream.dataset.frame) > 50", seconds=60)
    with driver.hold("ArrowLeft"):
        driver.until("play.stats.latencies.length > 0")
    driver.evaluate("play.game.setSpeed(1)")
    for number in ("fps", "latency", "ms-dynamics", "ms-decode"):
        driver.until(f"Number(document.getElementById('{number}').textContent) > 0")
    assert opened[1] == []


@pytest.mark.parametrize(("key", "way"), [("ArrowLeft", -1), ("ArrowRight", 1)])
def test_the_dreamed_paddle_obeys_the_arrow_keys(driver, key, way):
    begin(driver, paddle_in_the_middle())
    before = detect_player(driver.picture("dream")[None], BREAKOUT)[0]
    with driver.hold(key):
        after = detect_player(np.stack(driver.step(10)), BREAKOUT)
    assert np.nanmax(way * (after - before)) > 8 and np.nanmin(way * (after - before)) > -4, after - before


def test_the_same_seed_and_keys_give_the_same_dream(driver):
    driver.evaluate("document.getElementById('sampling-card').open = true")
    dreams = []
    for seed in (0, 0, 1):
        driver.page.fill("#seed", str(seed))
        driver.press("Enter")
        driver.until(f"play.game.start.seed === {seed}")
        begin(driver, 0)
        dreams.append(np.stack(driver.step(12)))
    assert np.array_equal(dreams[0], dreams[1]) and not np.array_equal(dreams[0], dreams[2])


def test_every_control_works_by_keyboard(driver):
    driver.evaluate("document.getElementById('sampling-card').open = true")
    begin(driver, 0)
    driver.press("n")
    driver.until("document.querySelectorAll('#starts button')[1].getAttribute('aria-pressed') === 'true'")
    driver.press("p")
    driver.until("document.getElementById('pause').textContent === 'Pause' && Number(dream.dataset.frame) > 2")
    driver.press("p")
    driver.until("play.game.paused && !play.game.stepping")  # a frame that was asked for before the pause still comes
    driver.press("i")
    driver.until("play.game.inspect")  # an opened card says so a moment later
    driver.step(1)
    assert "probability" in driver.text("#token-text")
    driver.press("o")
    driver.until("!document.getElementById('filling').hidden")
    driver.until("document.getElementById('pass-text').textContent.startsWith('Pass 2 of 2: 64 of 64 tokens')")
    driver.page.focus("#sampling-temperature")
    driver.press("Home")
    driver.until("[...document.querySelectorAll('#sampling label')].some((one) => one.textContent.startsWith('temperature 0'))")
    driver.press("Escape", "r", "i")
    driver.until("dream.dataset.frame === '0'")


def test_another_world_opens_and_is_steered_by_its_own_keys(driver):
    driver.page.select_option("#world", "freeway")
    driver.until("play.game.world.name === 'freeway' && play.game.playing", seconds=30)
    assert "↑ up" in driver.text("#keys")
    driver.page.select_option("#world", "breakout")
    driver.until("play.game.world.name === 'breakout' && play.game.playing", seconds=30)


def test_a_new_build_is_used_at_once_and_what_was_opened_before_still_opens_without_a_network(built, browser, tmp_path):
    folder, name = shutil.copytree(built, tmp_path / "page"), "50% #1"
    first, second = [f"/worlds/{world}/dynamics.onnx" for world in ("breakout", "50%25%20%231")]
    context = browser.new_context()
    with file_server(folder, {"Cache-Control": "max-age=600"}) as address:  # as GitHub Pages: browsers may keep files for a while
        driver = PageDriver(context.new_page(), address)
        worlds = json.loads((folder / "worlds.json").read_text())
        worlds["worlds"] = [worlds["worlds"][1] | {"name": name}, worlds["worlds"][0]]
        (folder / "worlds.json").write_text(json.dumps(worlds))
        world = folder / "worlds" / "freeway" / "world.json"
        world.write_text(json.dumps(json.loads(world.read_text()) | {"name": name}))
        world.parent.rename(folder / "worlds" / name)
        worker = (folder / "service_worker.js").read_text()
        [build] = re.findall(r"[0-9a-f]{16}", worker)
        assert set(kept(driver.page)) == {f"{address}#{build}"}

        (folder / "service_worker.js").write_text(worker.replace(build, "the next"))
        driver.page.reload()
        driver.until(f"window.play?.game.playing && play.game.world.name === '{name}'")
        for _ in range(3_000):  # a minute, for slow machines
            found = kept(driver.page)
            if set(found) == {f"{address}#the next"} and {first, second} <= found[f"{address}#the next"]:
                break
            driver.page.wait_for_timeout(20)
        assert set(found) == {f"{address}#the next"} and {first, second} <= found[f"{address}#the next"]
    driver.page.goto(f"{address}?threads=1")  # nobody is there any more
    driver.until(f"window.play?.game.playing && play.game.world.name === '{name}' && Number(dream.dataset.frame) > 3")
    driver.page.select_option("#world", "breakout")
    driver.until("play.game.playing && play.game.world.name === 'breakout' && Number(dream.dataset.frame) > 3")
    assert driver.evaluate("crossOriginIsolated")
    context.close()


def test_a_redirection_and_an_error_reach_the_browser_as_they_are_and_are_not_kept(opened, address):
    page = opened[0].page.context.new_page()
    page.goto(f"{address}worlds.json")
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    assert page.goto(f"{address}worlds").ok and page.url == f"{address}worlds/"
    assert page.goto(f"{address}nowhere").status == 404
    [paths] = kept(page).values()
    assert "/worlds.json" in paths and not {"/worlds", "/nowhere"} & paths
    page.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_no_script_of_the_page_reaches_another_server(built, browser, tmp_path, threads):
    policy = policy_of_the_page()
    isolated = ISOLATED | {"Content-Security-Policy": policy}
    assert f'"Content-Security-Policy": "{policy}"' in (built / "service_worker.js").read_text()
    with file_server(built, isolated if threads > 1 else {}) as address, file_server(tmp_path, ANYBODY) as elsewhere:
        page = browser.new_page()
        driver = PageDriver(page, f"{address}?threads={threads}")
        assert driver.text("#threads") == ("device, 2 threads" if threads > 1 else "device, 1 thread")
        driver.until("Number(dream.dataset.frame) > 3")
        assert driver.complaints == [] and driver.evaluate("crossOriginIsolated") == (threads > 1)
        for script in (page, page.workers[0]):
            assert script.evaluate(f"fetch('{elsewhere}').then(() => 'answered', () => 'refused')") == "refused"
        page.close()


def test_a_measurement_of_the_page_opens_each_world_and_says_how_it_was_made(built, browser, tmp_path, monkeypatch):
    script, opened, threads = load_script(BENCHMARK), [], (2, 1)
    facts = "({ world: play.game.world.name, threads: document.getElementById('threads').textContent })"
    monkeypatch.setattr(script, "measure", lambda page, *_: opened.append(page.evaluate(facts)) or {"frames_per_second": 15.0})
    monkeypatch.setattr(script, "chromium", lambda: nullcontext(browser))
    flags = ["--page", built, "--seconds", 3, "--memory-minutes", 0, "--threads", *threads, "--json", tmp_path / "speed.json"]
    monkeypatch.setattr(script, "SPEEDS", {"no_limit": "100"})
    assert call(BENCHMARK, *flags) == 0
    expected = [{"world": world, "threads": f"device, {text}"} for text in ("2 threads", "1 thread") for world in WORLDS]
    assert opened == expected
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["settings"] == {"seconds": 3, "memory_minutes": 0, "threads": [2, 1], "seed": 0}  # no path of a machine
    assert written["freeway_no_limit_threads_1"] == {"frames_per_second": 15}


def test_fingers_steer_it_on_a_phone(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    driver = PageDriver(context.new_page(), address)
    driver.evaluate("play.game.pause(true)")
    box = driver.page.locator("#pad button").nth(1).bounding_box()
    assert box["width"] >= 44 and box["height"] >= 44 and driver.evaluate("document.documentElement.scrollWidth <= innerWidth")
    touch = context.new_cdp_session(driver.page)
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [place]})
    driver.until("play.game.readInput().key === 'RIGHT'")
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    driver.until("play.game.readInput().key === 'NOOP'")
    before = canvas_picture(driver.page, "dream")
    driver.page.tap("#single")
    driver.until("Number(dream.dataset.frame) > 0")
    driver.page.tap("#starts button:nth-child(3)")
    driver.until("dream.dataset.frame === '0' && play.game.start.index === 2")
    assert not np.array_equal(before, canvas_picture(driver.page, "dream"))
    driver.page.tap("#next")
    driver.until("dream.dataset.frame === '0' && play.game.start.index === 3")
    driver.page.tap("#inspector-card summary")
    driver.until("play.game.inspect")
    driver.page.tap("#slow")
    driver.until("document.getElementById('pass-text').textContent.startsWith('Pass 2 of 2')")
    driver.page.tap("#pause")
    driver.until("!play.game.paused && Number(dream.dataset.frame) > 3")
    driver.page.set_viewport_size({"width": 844, "height": 390})  # held sideways, the keys lie beside the picture
    driver.evaluate("scrollTo(0, 0)")
    screen = driver.page.locator("#dream").bounding_box()
    keys = [button.bounding_box() for button in driver.page.locator("#pad button").all()]
    assert all(box["y"] + box["height"] <= 390 and box["x"] + box["width"] < screen["x"] for box in keys)
    assert driver.complaints == []
    context.close()
