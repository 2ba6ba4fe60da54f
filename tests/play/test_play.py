"""The play page's server: every message gets its reply, and what is played is what the world dreams."""

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestClient
from script_runner import call
from server_fixture import PlayerClient, with_player, with_server
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from dynamics_model.models.maskgit import MaskGITSampling
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.games.emulator import Game
from world_model.lively_starts import lively_starts
from world_model.play.action_previews import count_code_meanings
from world_model.play.game_log import MAX_FILM_FRAMES, GameLog
from world_model.play.player import LOST_FRAMES, MESSAGES
from world_model.play.sampling_controls import sampling_controls
from world_model.play.world_registry import LoadedWorld, WorldRegistry, arrow_keys, find_worlds
from world_model.real_game import RealGame
from world_model.world import WorldModel

BREAKOUT = "ALE/Breakout-v5"
GENERATE = REPOSITORY / "4.inference" / "generate.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("worlds")
    return {kind: save_tiny_world(root / kind, kind) for kind in ("latent", "true", "none")}


@pytest.fixture(scope="module")
def registry(folders) -> WorldRegistry:
    return WorldRegistry(list(folders.values()), "cpu")


@pytest.fixture(scope="module")
def world(folders) -> WorldModel:
    return WorldModel.load(folders["latent"], "cpu")


def test_the_page_asks_nobody_but_its_own_server(registry):
    async def test(server: TestClient) -> None:
        page = await server.get("/")
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        for name in ("", "style.css", "main.js", "game.js", "connection.js"):
            text = await (await server.get(f"/{name}")).text()
            assert text and "https://" not in text and "http://" not in text

    with_server(registry, test)


def test_what_is_played_is_what_the_world_dreams(registry, world):
    async def test(player: PlayerClient) -> None:
        first = await player.frame("begin", start="stored", index=1, seed=3)
        assert np.array_equal(first[0], world.start_frames[1, -1])
        await player.ask("sampling", name="temperature", value=1.5)
        await player.ask("sampling", name="num_steps", value=2)
        frames = [(await player.frame("step", **held))[0] for held in ({"key": "RIGHT"}, {"action": 2}, {"action": 3})]
        world.reset(world.start_frames[1], world.start_actions[1], seed=3)
        assert world.current is not None
        world.current.sampling = MaskGITSampling(num_steps=2, temperature=1.5)
        assert np.array_equal(frames, [world.step(action) for action in (2, 2, 3)])

    with_player(registry, test)


def test_a_reply_has_the_id_of_its_message(registry):
    async def test(player: PlayerClient) -> None:
        assert (await player.ask("begin", id=41))[0]["id"] == 41
        assert (await player.ask("passes", id=42))[0].items() >= {"kind": "error", "id": 42}.items()

    with_player(registry, test)


def test_both_games_start_from_the_same_picture_and_diverge_under_the_same_keys(registry, world):
    async def test(player: PlayerClient) -> None:
        both = await player.frame("begin", start="game", index=2, mirror=True)
        assert both.shape == (2, 32, 32, 3) and np.array_equal(both[0], both[1])
        game = RealGame(BREAKOUT, world)
        game.reset(2)
        for key in ("LEFT", "FIRE", "RIGHT", "RIGHT"):
            head, payload = await player.ask("step", key=key)
            dreamed, real = payload.reshape(2, 32, 32, 3)
            assert np.array_equal(real, game.step(key)) and not np.array_equal(dreamed, real)
            assert set(head["divergence"]) == {"moving_psnr_db", "player"} and len(head["divergence"]["player"]) == 2

    with_player(registry, test)


def test_a_key_without_a_code_of_its_own_still_reaches_the_real_game(folders):
    """Breakout's FIRE looks like NOOP to the latent action model, and without it the ball never comes back."""
    world = WorldModel.load(save_tiny_world(folders["latent"].parent / "shared", "latent", action_map={"NOOP": 0, "FIRE": 0}))
    registry = WorldRegistry([folders["latent"].parent / "shared"], "cpu")

    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="game", mirror=True)
        fired, waited = RealGame(BREAKOUT, world), RealGame(BREAKOUT, world)
        for game in (fired, waited):
            game.reset(0)
        while not fired.game.needs_fire:  # until the ball is lost
            await player.frame("step", key="NOOP")
            for game in (fired, waited):
                game.step("NOOP")
        differs = False
        for _ in range(20):
            real = (await player.frame("step", key="FIRE"))[1]
            assert np.array_equal(real, fired.step("FIRE"))
            differs |= not np.array_equal(real, waited.step("NOOP"))
        assert differs

    with_player(registry, test)


def test_after_resynchronizing_the_dream_shows_what_the_game_shows(registry):
    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="game", mirror=True)
        for _ in range(3):
            last = await player.frame("step", key="LEFT")
        both = await player.frame("resync")
        assert not np.array_equal(last[0], last[1]) and np.array_equal(both, [last[1], last[1]])

    with_player(registry, test)


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


def test_the_inspector_says_when_each_token_was_unmasked_and_how_sure_the_model_was(registry):
    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="stored")
        await player.ask("sampling", name="num_steps", value=3)
        await player.ask("sampling", name="temperature", value=1)
        head, payload = await player.ask("step", action=1, inspect=True)
        seen = head["inspect"]
        assert seen["grid"] == [4, 4] and len(seen["tokens"]) == len(seen["probability"]) == 16
        assert all(0 < probability <= 1 for probability in seen["probability"])
        passes, pictures = await player.ask("passes")
        left = [16 - sum(unmasked) for unmasked in passes["unmasked"]]
        assert left == [2, 1, 0]  # halving
        for place, unmasked_in in enumerate(seen["unmasked_in"]):
            assert [unmasked[place] for unmasked in passes["unmasked"]] == [0] * (unmasked_in - 1) + [1] * (4 - unmasked_in)
        assert np.array_equal(pictures.reshape(3, -1)[-1], payload)  # after the last pass the frame is what was shown

    with_player(registry, test)


@pytest.mark.parametrize("kind", ["latent", "true"])
def test_every_action_has_its_preview(registry, folders, kind):
    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="stored")
        head, payload = await player.ask("previews")
        count = {"latent": 6, "true": 4}[kind]
        assert payload.size == (1 + count) * 32 * 32 * 3
        top, left, height, width = head["region"]
        assert 0 <= top <= 32 - height and 0 <= left <= 32 - width

    with_player(registry, test, folders[kind].as_posix())


def test_the_meaning_of_a_code_is_counted_from_the_keys_that_were_pressed(world, monkeypatch):
    monkeypatch.setattr("world_model.play.action_previews.LABELED_FRAMES", 120)
    monkeypatch.setattr(world, "infer_actions", lambda video: np.zeros(video.shape[:2], np.int64) + 4)
    game = Game(BREAKOUT, (32, 32))
    *_, counts = count_code_meanings(world, game)
    assert counts.shape == (6, 4) and counts[4].min() > 10 and counts.sum() == counts[4].sum() >= 119 - 1


def test_a_code_without_a_key_of_its_own_presses_the_key_it_came_with_most_often(world):
    """The card of an action names that key, so the real game must get it."""
    names = world.metadata.action_names
    code = next(code for code in range(world.num_actions) if code not in world.action_map.values())
    counts = [[0] * len(names) for _ in range(world.num_actions)]
    loaded = LoadedWorld("w", world, BREAKOUT, "", counts)
    assert loaded.key_of(code) == loaded.key_of(-1) == "NOOP"  # nothing is counted yet
    counts[code][names.index("RIGHT")] = 3
    counts[code][names.index("NOOP")] = 1
    assert loaded.key_of(code) == "RIGHT"
    assert all(world.action_map[loaded.key_of(number)] == number for number in world.action_map.values())


def test_a_world_without_actions_can_be_watched(registry, folders):
    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="stored")
        assert (await player.frame("step")).shape == (1, 32, 32, 3)

    with_player(registry, test, folders["none"].as_posix())


@pytest.mark.parametrize("name", ["breakout", "pong"])
def test_a_reference_world_opens_with_the_ball_in_flight(name):
    registry = WorldRegistry([REPOSITORY / "assets" / "worlds" / name], "cpu")
    loaded = registry.load("")
    env_id = loaded.env_id or ""
    first = loaded.world.start_frames[loaded.description()["first_start"]]
    game = RealGame(env_id, loaded.world)
    for index in range(6):
        game.reset(index)
        for frames in (np.stack(game.frames), first):
            ball = detect_ball(frames, env_id)[-2:]
            assert not np.isnan(ball).any() and not np.array_equal(ball[0], ball[1]), (index, ball)


def test_without_a_known_ball_the_first_start_is_the_one_that_differs_most_from_the_background(tmp_path):
    frames = np.full((5, 4, 32, 32, 3), 90, np.uint8)
    frames[1, :, :2] = frames[3, :, :8] = 200
    world = WorldModel.load(save_tiny_world(tmp_path, "latent", env_id=None, start_frames=torch.from_numpy(frames)), "cpu")
    assert lively_starts(world) == [3]


def test_a_dream_alone_that_lost_its_ball_is_served_one_from_a_start(registry, world, monkeypatch):
    monkeypatch.setattr("world_model.play.player.detect_ball", lambda frames, env_id: np.full((len(frames), 2), np.nan))

    async def test(player: PlayerClient) -> None:
        await player.frame("begin", start="stored")
        heads = [(await player.ask("step", key="FIRE"))[0] for _ in range(LOST_FRAMES)]
        assert [head["no_ball"] for head in heads] == [[]] * (LOST_FRAMES - 1) + [["dream"]]
        served = await player.frame("serve")
        assert len(served) == 1 and served[0].tolist() in [world.start_frames[one, -1].tolist() for one in lively_starts(world)]
        assert (await player.ask("step", key="NOOP"))[0]["no_ball"] == []

    with_player(registry, test)


def test_arrows_are_the_keys_of_the_game(world, tmp_path):
    assert arrow_keys(world) == {"": "NOOP", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT", " ": "FIRE"}
    pong = WorldModel.load(save_tiny_world(tmp_path, "true", env_id="ALE/Pong-v5"), "cpu")
    assert arrow_keys(pong) == {"": "NOOP", "ArrowUp": "RIGHT", "ArrowDown": "LEFT", " ": "FIRE"}  # RIGHT moves Pong's paddle up


def test_the_readers_own_worlds_are_found_too(tmp_path, monkeypatch):
    for folder in ("assets/worlds/pong", "worlds/mine"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("tokenizer.pt", "dynamics.pt"):
            (tmp_path / folder / name).touch()
    (tmp_path / "worlds" / "unfinished").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_worlds("worlds/mine", tmp_path) == [Path("worlds/mine"), Path("assets/worlds/pong")]


@pytest.mark.parametrize("start", ["stored", "game", "resync", "picture"])
def test_a_saved_game_is_replayed_to_the_last_bit(registry, folders, tmp_path, capsys, start):
    async def test(player: PlayerClient) -> None:
        if start == "picture":
            picture = (REPOSITORY / "assets" / "2.latent-action-model" / "gallery_2.png").read_bytes()
            assert (await player.send(picture))[0]["kind"] == "picture"
        await player.frame("begin", start="game" if start == "resync" else start, index=1, seed=5, mirror=start != "picture")
        if start == "resync":
            await player.frame("step", key="LEFT")
            await player.frame("resync", seed=6)
        for number in range(6):
            if number == 3:
                await player.ask("sampling", name="temperature", value=2)
                await player.ask("sampling", name="num_steps", value=2)
            await player.frame("step", action=number)
        await player.ask("sampling", name="num_steps", value=4)
        head, payload = await player.ask("film", format="json")
        assert head["name"].endswith(".json")
        (tmp_path / "game.json").write_bytes(payload.tobytes())
        for kind, signature in (("gif", b"GIF89a"), ("mp4", b"ftyp")):
            assert signature in (await player.ask("film", format=kind))[1].tobytes()[:12]

    with_player(registry, test)
    flags = ["--world", folders["latent"], "--actions-file", tmp_path / "game.json", "--output", tmp_path / "again.png"]
    assert call(GENERATE, *flags) == 0
    assert "6 frames" in (out := capsys.readouterr().out) and "bit for bit" in out
    recording = json.loads((tmp_path / "game.json").read_text())
    (tmp_path / "game.json").write_text(json.dumps(recording | {"actions": recording["actions"][::-1]}))
    assert call(GENERATE, *flags) == 0 and "not the recorded frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [{"start_frames": "no base64"}, {"start_frames": "aGVsbG8="}, {"start_frames": 3}, {"start_actions": ["x"]},
     {"changes": [{"frame": "x"}]}, {"changes": [{"frame": 0, "temperature": "x"}]}, {"frames_sha256": 1}],
)  # fmt: skip
def test_a_damaged_recording_is_answered_with_one_sentence(folders, tmp_path, capsys, damage):
    (tmp_path / "game.json").write_text(json.dumps({"actions": [1, 2]} | damage))
    flags = ["--world", folders["latent"], "--actions-file", tmp_path / "game.json", "--output", tmp_path / "again.png"]
    assert call(GENERATE, *flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_film_ends_before_it_fills_the_memory():
    log = GameLog("world", {"start_index": 0}, 0, MaskGITSampling())
    for number in range(MAX_FILM_FRAMES + 5):
        log.add(number % 3, "LEFT", MaskGITSampling(), {"dream": np.zeros((4, 4, 3), np.uint8)})
    assert log.full and len(log.actions) == MAX_FILM_FRAMES == len(log.video("dream"))


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_the_fields_of_a_message_are_the_arguments_of_its_method(message):
    assert list(message.fields) == list(inspect.signature(message.method).parameters)[1:]


def test_the_pages_sampling_controls_are_the_fields_of_any_dataclass():
    @dataclass(frozen=True)
    class Diffusion:
        noise: float = field(default=0.5, metadata={"smallest": 0.1, "largest": 0.9})
        """how much noise"""
        steps: int = 10
        solver: Literal["euler", "heun"] = "euler"
        clip: int | None = None
        note: str = "a text without choices cannot be shown"

    controls = {control.pop("name"): control for control in sampling_controls(Diffusion)}
    assert list(controls) == ["noise", "steps", "solver", "clip"]
    noise = {"kind": "float", "default": 0.5, "choices": (), "smallest": 0.1, "largest": 0.9, "help": "how much noise"}
    assert controls["noise"] == noise
    assert controls["solver"]["choices"] == ("euler", "heun")
    assert (controls["clip"]["kind"], controls["clip"]["default"]) == ("int", None)


def test_a_setting_that_the_world_does_not_have_or_allow_is_refused(registry):
    async def test(player: PlayerClient) -> None:
        for name, value in [("noise", 1), ("temperature", -1), ("temperature", "1"), ("num_steps", None), ("top_p", 0)]:
            assert name in (await player.ask("sampling", name=name, value=value))[0]["text"]
        assert (await player.ask("sampling", name="top_k", value=3))[0]["top_k"] == 3
        assert (await player.ask("sampling", name="top_k"))[0]["top_k"] is None

    with_player(registry, test)


def test_a_model_that_leaves_no_trace_is_played_without_an_inspection(registry, world, monkeypatch):
    step = WorldModel.step_rollouts
    monkeypatch.setattr(WorldModel, "step_rollouts", lambda self, state, actions, trace=None: step(self, state, actions))

    async def test(player: PlayerClient) -> None:
        await player.frame("begin")
        head, _ = await player.ask("step", action=1, inspect=True)
        assert head["kind"] == "frame" and "inspect" not in head
        assert "no decoding passes" in (await player.ask("passes"))[0]["text"]

    with_player(registry, test)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "99999"], "--port 99999"),
        (["--num-threads", "0"], "--num-threads 0"),
        (["--env", "ALE/Pong-v5"], "learned from a game"),
        (["--world", "nowhere"], "nowhere"),
        (["--temperature", "-1"], "temperature -1"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1"),
    ],
)
def test_play_answers_bad_input_with_one_sentence(folders, capsys, flags, words):
    assert call(REPOSITORY / "4.inference" / "play.py", "--world", folders["true"], *flags) == 2
    assert words in (error := capsys.readouterr().err) and error.count("\n") == 1
