"""A game that was played in the browser is saved and replayed to the last bit."""

import json
from pathlib import Path

import numpy as np
import pytest
from script_runner import call
from server_fixture import PlayerClient, with_player
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from dynamics_model.models.maskgit import MaskGITSampling
from world_model.play.game_log import MAX_FILM_FRAMES, GameLog
from world_model.play.world_registry import WorldRegistry

GENERATE = REPOSITORY / "4.inference" / "generate.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_world(tmp_path_factory.mktemp("world"), "latent")


@pytest.fixture(scope="module")
def registry(folder) -> WorldRegistry:
    return WorldRegistry([folder], "cpu")


@pytest.mark.parametrize("start", ["stored", "game", "resync", "picture"])
def test_a_saved_game_is_replayed_to_the_last_bit(registry, folder, tmp_path, capsys, start):
    async def test(player: PlayerClient) -> None:
        if start == "picture":
            picture = (REPOSITORY / "assets" / "2.latent-action-model" / "gallery_1.png").read_bytes()
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
    flags = ["--world", folder, "--actions-file", tmp_path / "game.json", "--output", tmp_path / "again.png"]
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
def test_a_damaged_recording_is_answered_with_one_sentence(folder, tmp_path, capsys, damage):
    (tmp_path / "game.json").write_text(json.dumps({"actions": [1, 2]} | damage))
    flags = ["--world", folder, "--actions-file", tmp_path / "game.json", "--output", tmp_path / "again.png"]
    assert call(GENERATE, *flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_film_ends_before_it_fills_the_memory():
    log = GameLog("world", {"start_index": 0}, 0, MaskGITSampling())
    for number in range(MAX_FILM_FRAMES + 5):
        log.add(number % 3, "LEFT", MaskGITSampling(), {"dream": np.zeros((4, 4, 3), np.uint8)})
    assert log.full and len(log.actions) == MAX_FILM_FRAMES == len(log.video("dream"))
