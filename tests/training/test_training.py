"""Claims about training: atomic writes, refusals, schedules, averages, and runs that go on as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from video_tokenizer import load_tokenizer
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import SpaceTimeTransformer
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.atomic_files import write_atomically
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.checkpoint import load_checkpoint, save_checkpoint
from video_tokenizer.training.config import TrainingConfig
from video_tokenizer.training.optimizer import build_optimizer, learning_rate_factor

ROOT = Path(__file__).resolve().parents[2]


def test_the_schedule_of_the_docstring():
    values = [learning_rate_factor(step, 100, warmup_steps=10, decay_share=0.2) for step in range(101)]
    assert values[4] == 0.5 and values[50] == 1.0 and values[85] == pytest.approx(0.5) and values[100] == 0.0
    assert all(0 <= value <= 1 for value in values)


def test_the_average_follows_the_weights_and_copies_buffers():
    model = nn.BatchNorm1d(2)
    average = ExponentialMovingAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.running_mean.fill_(7.0)
    average.update(model)  # decay is min(0.5, 2 / 11)
    assert torch.allclose(average.weights["weight"], torch.full((2,), 1 * 2 / 11 + 2 * 9 / 11))
    assert torch.equal(average.weights["running_mean"], torch.full((2,), 7.0))


def settings(**changes) -> TrainingConfig:
    """What an optimizer is built from."""
    return TrainingConfig(**{"learning_rate": 1e-3, "weight_decay": 0.1, **changes})


def test_only_matrices_decay():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, kept = build_optimizer(model, settings()).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 4)] and decayed["weight_decay"] == 0.1
    assert len(kept["params"]) == 4 and kept["weight_decay"] == 0.0


def small_transformer() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"input": nn.Linear(16, 32), "blocks": SpaceTimeTransformer(32, num_heads=2, num_blocks=2, window=2)})


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = small_transformer()
    adamw, muon = build_optimizer(model, settings(optimizer="muon")).optimizers
    moved = [id(parameter) for optimizer in (adamw, muon) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(moved) == sorted(id(parameter) for parameter in model.parameters())  # each exactly once
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_muon = [names[id(parameter)] for parameter in muon.param_groups[0]["params"]]
    assert len(by_muon) == 2 * 6 and all(name.startswith("blocks.") and "norm" not in name for name in by_muon)


def test_muon_makes_all_directions_of_a_step_equally_strong_and_as_large_as_adamws():
    model = small_transformer()
    matrix = model["blocks"].blocks[0].space_attention.output.weight  # (32, 32)
    before = matrix.detach().clone()
    optimizer = build_optimizer(model, settings(optimizer="muon", learning_rate=0.01, weight_decay=0.0))
    left, _ = torch.linalg.qr(torch.randn(32, 32))
    matrix.grad = left @ torch.diag(torch.logspace(0, -1, 32))  # one direction ten times as strong as another
    optimizer.step()
    step = before - matrix.detach()
    strengths = torch.linalg.svdvals(step)
    assert strengths.max() / strengths.min() < 2
    assert step.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)  # AdamW's usual size, 0.2 of its rate


def test_both_optimizers_go_on_from_what_was_saved():
    states = []
    for first in (True, False):
        model = small_transformer()
        optimizer = build_optimizer(model, settings(optimizer="muon", learning_rate=0.01))
        for step in range(4):
            if not first and step == 2:  # a new optimizer takes over
                saved = optimizer.state_dict()
                optimizer = build_optimizer(model, settings(optimizer="muon", learning_rate=0.01))
                optimizer.load_state_dict(saved)
            for parameter in model.parameters():
                parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_chapter_is_named_as_such(tmp_path):
    save_checkpoint(tmp_path / "a.pt", "dynamics", "maskgit", {}, {}, 1, {}, "data")
    with pytest.raises(
        InputError, match=r"holds a dynamics \(3.dynamics-model\), but a tokenizer \(1.video-tokenizer\) is needed"
    ):
        load_checkpoint(tmp_path / "a.pt", "tokenizer")


@pytest.mark.parametrize(
    "content, words",
    [(None, "does not exist"), (b"", "truncated or not a PyTorch checkpoint"), (b"PK\x03\x04 nothing", "truncated or not")],
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content, words):
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_checkpoint(path, "tokenizer")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Dangerous:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"kind": "tokenizer", "weights": {}, "config": Dangerous()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="cannot be read safely"):
        load_checkpoint(tmp_path / "model.pt", "tokenizer")
    assert not (tmp_path / "was_run").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    config = {"frame_size": 16, "embed_dim": 32, "num_heads": 2}
    weights = build_tokenizer(TokenizerConfig(**config)).state_dict()
    name = next(iter(weights))
    weights[name].view(-1)[0] = float("nan")
    save_checkpoint(tmp_path / "model.pt", "tokenizer", "st-fsq", config, weights, 1, {}, "data")
    with pytest.raises(InputError, match=f"not finite in '{name}'"):
        load_tokenizer(tmp_path / "model.pt")


def train(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "1.video-tokenizer/train.py"), "--use-dummy-data", "--checkpoint-dir", str(folder)]
    sizes = "--frame-size 16 --embed-dim 24 --num-heads 2 --num-blocks 1 --batch-size 2 --validate-every 3 --validation-batches 1"
    return subprocess.run([*command, *sizes.split(), "--num-steps", "6", *flags], capture_output=True, text=True, check=False)


def test_another_run_in_the_same_folder_keeps_the_earlier_one(tmp_path):
    assert train(tmp_path / "run").returncode == 0
    second = train(tmp_path / "run", "--seed", "1")
    assert second.returncode == 0 and "is kept in previous-1/" in second.stdout
    assert (tmp_path / "run" / "previous-1" / "best_model.pt").exists()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gradient_clip": -1.0}, "gradient_clip -1.0 must lie between"),
        ({"ema_decay": 2.0}, "ema_decay 2.0 must lie between 0 and 1"),
        ({"learning_rate": float("nan")}, "learning_rate nan must lie between"),
        ({"num_epochs": float("nan")}, "num_epochs nan must lie between"),
        ({"seed": -1}, "seed -1 must lie between"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size 6 is not a multiple of accumulate 4"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_with_its_value(changes, words):
    with pytest.raises(InputError, match=words):
        TrainingConfig(**changes).check()


def test_parts_of_a_batch_are_equal_on_several_processes_too(monkeypatch):
    """Two processes of 2 clips each cannot make 4 parts: 2 parts divided by 4 would halve the gradient."""
    monkeypatch.setattr("video_tokenizer.training.config.rank_and_size", lambda: (0, 2))
    TrainingConfig(batch_size=8, accumulate=4).check()
    with pytest.raises(InputError, match="batch_size 4 cannot be split over 2 processes with accumulate 4"):
        TrainingConfig(batch_size=4, accumulate=4).check()
