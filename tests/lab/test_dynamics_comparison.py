"""Dynamics models side by side: what a frame costs is counted, and models are trained, played, drawn and written down."""

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny_tokenizers
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_dynamics import MODELS, NUM_TOKENS, built, clip
from tiny_world import save, save_tiny_world

from dynamics_lab import comparison
from dynamics_lab.comparison import ARMS, counted_calls, same_keys, save_quality_against_time, storage_sizes
from dynamics_variants import DYNAMICS
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import build_tokenizer

CHAPTER = REPOSITORY / "3.dynamics-model"
COMPARE = CHAPTER / "lab" / "compare.py"
CONTEXT_NOISE = CHAPTER / "lab" / "context_noise.py"


def test_every_model_is_compared_by_a_script_that_trains_it():
    configs = {name: comparison.read_flags(flags.split()) for name, flags in ARMS.items()}
    assert {config.model for config in configs.values()} == {"maskgit", *DYNAMICS}
    assert {config.context_frames for config in configs.values()} == {comparison.CONTEXT}
    assert all((REPOSITORY / comparison.train_script(config.model)).exists() for config in configs.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_frame_asks_the_network_so_often(name):
    """Four passes or steps and one to remember; a memory, three rounds of three chunks and a decoder; up to one per token."""
    model = built(name)
    frames, actions = clip(model, batch_size=1)
    state = model.start(frames[:, :4], actions[:, :4])
    with counted_calls(model) as calls:
        model.step(state, actions[:, 4], generator=torch.Generator().manual_seed(0))
    expected = {"maskgit": [5], "dreamer4": [5], "teco": [11], "gpt": range(1, NUM_TOKENS + 1)}
    assert calls.total() in expected[name]
    model.step(state, actions[:, 5])  # no longer counted
    assert calls.total() in expected[name]


def test_a_state_is_as_large_as_the_storages_it_holds():
    buffer = torch.zeros(2, 10)
    state = SimpleNamespace(memories=[buffer[0], buffer[1]], last={"frame": torch.zeros(3, dtype=torch.int64)}, position=4)
    assert sorted(storage_sizes(state).values()) == [24, 80]


def test_the_film_takes_the_window_with_the_ball_and_every_world_gets_its_keys(monkeypatch):
    windows = np.zeros((3, comparison.CONTEXT + 4, 2, 2, 3), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None, None]
    actions, asked = np.array([[0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]]), []
    monkeypatch.setattr(comparison, "real_windows", lambda *_: (windows, None, actions))
    monkeypatch.setattr(comparison, "balls_seen", lambda real, _: np.array([[1.0], [1.0], [0.5]]).repeat(real.shape[1], axis=1))

    class World:
        action_map, action_names = {"NOOP": 0, "LEFT": 1}, ["NOOP", "LEFT"]

        def rollout(self, frames, known, keys, seed):
            asked.append((frames.max(), keys.tolist()))
            return frames[:, :4]

    films, captions = same_keys(
        cast(Any, {"maskgit": World(), "gpt": World()}), cast(Any, SimpleNamespace(games=None, env_id="game")), 4
    )
    assert [*films] == ["real game", "maskgit", "gpt"] and asked == [(1, [[1, 1, 0, 1]])] * 2
    assert captions[1:3] == ["frame 2, key LEFT", "frame 3, key NOOP"]


def test_the_plot_shows_every_model_in_both_looks(tmp_path):
    def row(*scores: float) -> dict[str, Any]:
        names = ["ms_a_frame", *comparison.PANELS]
        return {"runs": [{"metrics": dict.fromkeys(names, score) | {"ms_a_frame": 20.0}} for score in scores]}

    save_quality_against_time(tmp_path / "plot", {"rows": {"one": row(0.2, 0.4), "other": row(0.31, 0.33)}})
    for look in ("light", "dark"):
        text = (tmp_path / f"plot_{look}.svg").read_text()
        assert text.count("<circle") == 4 and {"one", "other"} <= set(re.findall(r">(\w+)</text>", text))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--models", "maskgit", "lstm"], "--models lstm: there is no such model; choose from maskgit, "),
        (["--minutes", "0"], "--minutes 0.0 leaves no time to train"),
        (["--num-steps", "-1"], "--num-steps -1 is too small; give at least 0"),
        (["--data-path", "nowhere"], "nowhere does not exist; record a game first"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(flags, sentence, capsys):
    assert call(COMPARE, *flags) == 2
    assert sentence in capsys.readouterr().err


def test_a_recording_without_a_game_is_refused(tmp_path, capsys):
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    assert call(COMPARE, "--data-path", data) == 2
    assert "shows no game whose ball and player are described; record Breakout" in capsys.readouterr().err


@pytest.fixture
def recording(tmp_path):
    """A short recording, and untrained tokenizers of tokens and of latents."""
    record = REPOSITORY / "1.video-tokenizer" / "record.py"
    small = ("--num-frames", 640, "--frame-size", 32, "--no-linear-light", "--seed", 3)
    assert call(record, "--output", tmp_path / "data", *small) == 0
    save_tiny_world(tmp_path / "tokens", actions="none")
    config = tiny_tokenizers.tiny_config("dreamer4", frame_size=32)
    save("tokenizer", tmp_path, "dreamer4", config, build_tokenizer(config))
    return tmp_path / "data", tmp_path / "tokens" / "tokenizer.pt", tmp_path / "tokenizer.pt"


def test_two_models_are_trained_played_and_drawn(recording, tmp_path, capfd):
    data, tokens, latents = recording
    flags = ("--models", "maskgit", "flow", "--num-steps", 2, "--seeds", 0, "--quick", "--data-path", data)
    paths = ("--tokenizer-checkpoint", tokens, "--latents-checkpoint", latents, "--output", tmp_path / "runs")
    assert call(COMPARE, *flags, *paths, "--json", tmp_path / "table.json") == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["flags"].split("--tokenizer")[0] for row in rows.values()] == [f"{ARMS[name]} " for name in ("maskgit", "flow")]
    maskgit, flow = (row["runs"][0]["metrics"] for row in rows.values())
    assert maskgit["network_calls"] == flow["network_calls"] == 5 and maskgit["state_kib"] > 0 and flow["parameters"] > 0.1
    assert maskgit["real.obedience_moving"] == 1 and maskgit["last_frame.obedience_moving"] == 0
    assert maskgit["real.rollout.64.sprite_error_px"] == 0 < maskgit["last_frame.rollout.64.sprite_error_px"]
    assert maskgit["last_frame.bits_per_code"] > 0 and maskgit["with_steps.4.rollout.1.psnr_db"] is None
    few, many = (flow[f"with_steps.{steps}.rollout.1.psnr_db"] for steps in (1, 64))
    assert few > 0 and many > 0 and few != many
    assert {"table.gif", "table_time_light.svg", "table_time_dark.svg"} <= {path.name for path in tmp_path.iterdir()}
    assert "obedience where the paddle moves ↑" in capfd.readouterr().out


def test_a_model_is_rolled_out_with_every_amount_of_noise_in_its_past(recording, tmp_path, monkeypatch, capfd):
    data, _, latents = recording
    module = load_script(CONTEXT_NOISE)
    for name, value in (("Sizes", lambda: comparison.QUICK), ("FRAMES", 12), ("ROLLOUTS", 2), ("STRETCH", 4)):
        monkeypatch.setattr(module, name, value)
    flags = ("--num-steps", 2, "--seeds", 0, "--data-path", data, "--latents-checkpoint", latents)
    files = ("--output", tmp_path / "runs", "--json", tmp_path / "noise.json")
    assert call(CONTEXT_NOISE, *flags, *files) == 0
    metrics = json.loads((tmp_path / "noise.json").read_text())["rows"]["dreamer4"]["runs"][0]["metrics"]
    noised = {metrics[f"noise_{noise}.paddle"] for noise in module.NOISE}
    assert len(noised) > 1 and metrics["still.changed"] == 0 < metrics["still.paddle"]  # other noise, another rollout
    assert "| 0.38 | " in capfd.readouterr().out
