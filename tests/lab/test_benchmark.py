"""Claims about the benchmark and the table of costs: what is counted is right, and both sides of a ratio do the same work."""

import json

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from torch import nn

from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.data.video_files import write_video
from world_lab.benchmark import Bench, sparse_store, train_tokenizer
from world_lab.naive_baseline import NaiveRollout, decode_clips
from world_lab.timing import floating_point_operations, measure
from world_model.evaluation.games import record_games
from world_model.real_game import open_game
from world_model.world import WorldModel

CPU = torch.device("cpu")
WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
COSTS = REPOSITORY / "3.dynamics-model" / "lab" / "costs.py"
STEP_COSTS = REPOSITORY / "3.dynamics-model" / "lab" / "step_costs.py"


def test_a_matrix_product_counts_two_operations_for_each_of_its_multiplications():
    layer = nn.Linear(20, 30)
    assert floating_point_operations(lambda: layer(torch.zeros(10, 20))) == 2 * 10 * 20 * 30


def test_a_row_holds_what_the_calls_did(tmp_path):
    calls: list[str] = []
    row = Bench(CPU, 0.01, tmp_path, {}).row(lambda: calls.append("fast"), 8, "clips", lambda: calls.append("plain"))
    assert row["per_second"] == pytest.approx(8 / (row["p50_ms"] / 1000)) and row["times_plain"] > 0
    assert calls.count("fast") >= 3 * 5 and calls.count("plain") >= 3 * 4


def test_peak_memory_is_that_of_the_calls():
    small, large = (measure(lambda size=size: torch.zeros(size).add_(1), CPU, 0.0)[1] for size in (2**18, 2**26))  # 1, 256 MiB
    assert large - small > 200


def test_clips_out_of_a_video_are_those_of_the_recording(tmp_path):
    frames = np.repeat(np.linspace(0, 240, 30).astype(np.uint8), 32 * 32 * 3).reshape(30, 32, 32, 3)
    write_video(tmp_path / "ramp.mp4", frames, 15.0)
    clips = decode_clips(tmp_path / "ramp.mp4", np.array([0, 7]), 4)
    expected = torch.stack([to_video(frames[start : start + 4][None])[0] for start in (0, 7)])
    assert clips.shape == (2, 4, 3, 32, 32) and (clips - expected).abs().max() < 0.02


def test_the_naive_rollout_predicts_what_the_cached_one_does():
    """Greedy, the first frame after a prompt as long as the window: same tokens, so nearly the same picture."""
    world = WorldModel.load(WORLD, "cpu", num_steps=1, temperature=0, precision="float32")
    frames = world.start_frames[0][-(world.context_frames - 1) :]
    naive = NaiveRollout(world.tokenizer, world.dynamics, frames, num_steps=1)
    world.reset(frames, np.full(len(frames), -1))
    assert np.abs(naive.step(-1).astype(int) - world.step(-1)).mean() < 1


def test_a_sparse_store_is_long_and_takes_no_space(tmp_path):
    store = open_clip_store(sparse_store(tmp_path / "long", 200_000))
    assert store.frames.shape == (200_000, 64, 64, 3) and len(store.episodes) == 200
    assert (tmp_path / "long" / "frames.npy").stat().st_blocks * 512 < 2**20


def test_the_benchmark_writes_the_keys_that_the_texts_quote(tmp_path):
    flags = ("--quick", "--json", tmp_path / "bench.json")
    assert call(REPOSITORY / "4.inference" / "lab" / "benchmark.py", *flags) == 0
    fresh = json.loads((tmp_path / "bench.json").read_text())
    assets = REPOSITORY / "assets" / "4.inference"
    shipped, quality = (json.loads((assets / name).read_text()) for name in ("benchmark.json", "quality.json"))
    assert fresh["machine"].keys() == shipped["machine"].keys() and fresh["curves"].keys() == shipped["curves"].keys()
    for name, row in fresh["rows"].items():
        quoted = (shipped["rows"] | quality["rows"])[name].keys() - {"plain_share_of_peak", "plain_per_second", "times_plain"}
        assert row.keys() >= quoted and all(row.values())  # without bfloat16 there is nothing plain to compare with
    assert {"recording", "world_step", "training_dynamics_tiny", "quality_plain"} <= fresh["rows"].keys()


def test_both_sides_of_the_time_to_quality_learn_the_same(tmp_path):
    """Same weights and clips to the last pixel, although one side decodes them from a video."""
    world = WorldModel.load(WORLD, "cpu")
    store = record_games(open_game("ALE/Breakout-v5", world.metadata, world.frame_size), 2, 60, 0).store
    write_video(tmp_path / "film.avi", store.frames, 15.0, "FFV1")
    config = TokenizerConfig(
        frame_size=64, embed_dim=24, num_heads=2, num_blocks=1, batch_size=2, num_steps=2, precision="float32"
    )
    clips = Clips(store, [0, 1], 4)
    ours, plain = (list(train_tokenizer(config, clips, clips, CPU, video)) for video in (None, tmp_path / "film.avi"))
    assert [(step, score) for step, _, score in ours] == [(step, score) for step, _, score in plain]


def test_costs_follow_from_their_formulas(tmp_path, capsys):
    """One GPU of 1,000 TFLOP/s at half its peak does 5e14 operations a second."""
    flags = ("--gpu-tflops", 1000, "--gpu-gib", 80, "--utilisation", 0.5, "--json", tmp_path / "costs.json")
    assert call(COSTS, *flags) == 0
    rows = json.loads((tmp_path / "costs.json").read_text())["rows"]
    small, genie = rows["small"], rows["genie"]
    assert small["hours_on_1"] == pytest.approx(small["tflop_of_a_step"] * 1e12 * 60_000 / 5e14 / 3600)
    assert small["hours_on_8"] == pytest.approx(small["hours_on_1"] / 8)
    # 32 clips, 15 frames in either stream, 256 tokens; what attention adds to 6 operations a parameter and token is little
    by_hand = 6 * small["parameters"] * 2 * 32 * 15 * 256 / 1e12
    assert by_hand < 1.1 * small["tflop_of_a_step"] < 1.3 * by_hand
    # the paper's own number for the largest model is 6.6e22 operations
    assert genie["tflop_of_a_step"] * 1e12 * genie["steps"] == pytest.approx(6.6e22, rel=0.15)
    assert genie["fits_on_1"] == "no" and rows["tiny"]["fits_on_1"] == "yes"
    assert call(COSTS, "--json", tmp_path / "costs.json") == 0  # nothing is timed: the table of the text is today's
    measured = (REPOSITORY / "assets" / "3.dynamics-model" / "costs.json").read_text()
    assert json.loads((tmp_path / "costs.json").read_text()) == json.loads(measured)
    assert call(COSTS, "--utilisation", 1.5) == 2 and "--utilisation 1.5 is not a share" in capsys.readouterr().err


def test_a_step_is_timed_with_the_passes_that_it_took(tmp_path):
    assert call(STEP_COSTS, "--num-frames", 2, "--json", tmp_path / "costs.json") == 0
    row = json.loads((tmp_path / "costs.json").read_text())["rows"]["maskgit"]
    assert row["passes"] == 4 and 0 < row["fastest_ms"] <= row["median_ms"]
