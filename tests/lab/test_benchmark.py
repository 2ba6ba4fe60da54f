"""Claims about the benchmark: what it counts is right, and both sides of a ratio do the same work."""

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
from video_tokenizer.losses import background_of
from world_lab.benchmark.curves import sparse_store
from world_lab.benchmark.measure import PeakMemory, floating_point_operations, row
from world_lab.benchmark.naive_baseline import PlainDream, decode_clips
from world_lab.benchmark.time_to_quality import Training
from world_model.evaluation.games import record_games
from world_model.real_game import open_game
from world_model.world import WorldModel

CPU = torch.device("cpu")


def test_a_matrix_product_counts_two_operations_for_each_of_its_multiplications():
    layer = nn.Linear(20, 30)
    assert floating_point_operations(lambda: layer(torch.zeros(10, 20))) == 2 * 10 * 20 * 30


def test_a_row_holds_what_the_calls_did():
    calls = {"fast": 0, "plain": 0}

    def count(name):
        calls[name] += 1

    result = row(lambda: count("fast"), 8, "clips", CPU, 0.01, plain=lambda: count("plain"))
    assert result["unit"] == "clips" and result["per_second"] == pytest.approx(8 / (result["p50_ms"] / 1000))
    assert calls["fast"] >= 3 * 5 and calls["plain"] >= 3 * 4 and result["times_plain"] > 0


def test_peak_memory_is_that_of_the_block():
    with PeakMemory(CPU) as small:
        torch.zeros(2**18).add_(1)
    with PeakMemory(CPU) as large:
        torch.zeros(2**26).add_(1)  # 256 MiB
    assert large.mebibytes - small.mebibytes > 200


def test_clips_out_of_a_video_are_those_of_the_recording(tmp_path):
    frames = np.repeat(np.linspace(0, 240, 30).astype(np.uint8), 32 * 32 * 3).reshape(30, 32, 32, 3)
    write_video(tmp_path / "ramp.mp4", frames, 15.0)
    clips = decode_clips(tmp_path / "ramp.mp4", np.array([0, 7]), 4)
    expected = torch.stack([to_video(frames[start : start + 4][None])[0] for start in (0, 7)])
    assert clips.shape == (2, 4, 3, 32, 32) and (clips - expected).abs().max() < 0.02


@torch.no_grad()
def test_the_plain_dream_predicts_what_the_cached_one_does():
    """Greedy, the first frame after a beginning as long as the window: same tokens, so nearly the same picture."""
    world = WorldModel.load(REPOSITORY / "assets" / "worlds" / "breakout", "cpu", temperature=0, top_p=1.0, precision="float32")
    context = world.context_frames
    frames = world.start_frames[0][-(context - 1) :]
    plain = PlainDream(world.tokenizer, world.dynamics, frames, num_steps=1)
    world.sampling = type(world.sampling)(num_steps=1, temperature=0)
    world.reset(frames, np.full(len(frames), -1))
    same = [np.abs(plain.step(-1).astype(int) - world.step(-1)).mean() for _ in range(1)]
    assert same[0] < 1.0, same


def test_an_invented_store_is_long_and_takes_no_room(tmp_path):
    store = open_clip_store(sparse_store(tmp_path / "long", 200_000))
    assert store.frames.shape == (200_000, 64, 64, 3) and len(store.episodes) == 200
    assert (tmp_path / "long" / "frames.npy").stat().st_blocks * 512 < 2**20


def test_the_whole_table_is_made(tmp_path):
    flags = ("--quick", "--json", tmp_path / "bench.json", "--figure", tmp_path / "bench.png")
    assert call(REPOSITORY / "4.inference" / "lab" / "benchmark.py", *flags) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert {"recording", "video_into_store", "training_dynamics_tiny", "world_step"} <= set(results["rows"])
    quality = {name: results["rows"].pop(name) for name in ("quality_ours", "quality_plain")}
    assert quality["quality_plain"]["times_plain"] == 1 and quality["quality_ours"]["steps"] == 8
    for result in results["rows"].values():
        assert result["per_second"] > 0 and result["p95_ms"] >= result["p50_ms"] and result["memory_mib"] > 0
    assert all(point["ms"] > 0 for points in results["curves"].values() for point in points)
    assert (tmp_path / "bench.png").stat().st_size > 5_000


def test_both_sides_of_the_time_to_quality_learn_the_same(tmp_path):
    """Same weights, same clips to the last pixel, although one decodes them from a film; only the number format differs."""
    world = WorldModel.load(REPOSITORY / "assets" / "worlds" / "breakout", "cpu")
    game = open_game(world.facts["env_id"], world.facts, world.frame_size)
    store = record_games(game, 2, 60, 0).store
    write_video(tmp_path / "film.avi", store.frames, 15.0, "FFV1")
    config = TokenizerConfig(frame_size=64, embed_dim=24, num_heads=2, num_blocks=1, batch_size=2, num_steps=4)
    background = background_of(store.frames)
    sides = [Training(config, Clips(store, [0, 1], 4), film, background, "float32") for film in (None, tmp_path / "film.avi")]
    assert all(torch.equal(sides[0].clip_batch(), sides[1].clip_batch()) for _ in range(2))
    for side in sides:
        side.train(2)
    assert sides[0].seconds > 0 and sides[0].step == sides[1].step == 2
    weights = [side.tokenizer.state_dict() for side in sides]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
