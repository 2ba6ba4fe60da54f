"""Claims about training: atomic writes, refusals, schedules, averages, and runs that go on as if nothing had happened."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from torch import nn

from video_tokenizer import load_tokenizer
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import SpaceTimeTransformer
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.atomic_files import write_atomically
from video_tokenizer.training.averaging import ExponentialMovingAverage
from video_tokenizer.training.checkpoint import save_checkpoint
from video_tokenizer.training.config import TrainingConfig
from video_tokenizer.training.device import number_format
from video_tokenizer.training.optimizer import (
    BatchedMuon,
    Optimizers,
    build_optimizer,
    learning_rate_factor,
    orthogonalized,
)
from video_tokenizer.training.run import Run


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


def small_run(folder: Path, **changes) -> tuple[Run, nn.Module, Optimizers]:
    """A run in this folder, its model of four weights and their optimizer."""
    model, config = nn.Linear(2, 2), settings(checkpoint_dir=str(folder), **changes)
    store = SimpleNamespace(path="a store", fingerprint="", linear_light=True)
    run = Run("tokenizer", config, SimpleNamespace(training=[0], validation=[0], describe_seen=str, store=store))
    optimizer = build_optimizer(model, config)
    run.track(model, optimizer, ExponentialMovingAverage(model))
    return run, model, optimizer


def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it():
    ballast = np.ones(200_000_000)  # 1.5 GiB
    code = "from video_tokenizer.training.run import peak_memory_gib; print(peak_memory_gib())"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY / "1.video-tokenizer"
    )
    assert 0.05 < float(said.stdout) < ballast.nbytes / 2**30 - 0.3


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


def train_a_few_steps(make_muon: type[torch.optim.Muon]) -> tuple[list[torch.Tensor], torch.optim.Muon]:
    """Matrices of two shapes, one of them twice, after three steps with the same gradients."""
    torch.manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape)) for shape in ((24, 8), (8, 24), (24, 8), (16, 16))]
    optimizer = make_muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        optimizer.step()
    return [matrix.detach() for matrix in matrices], optimizer


def test_matrices_that_are_orthogonalized_together_move_as_one_by_one(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # both in PyTorch's format
    together, batched = train_a_few_steps(BatchedMuon)
    one_by_one, single = train_a_few_steps(torch.optim.Muon)
    for mine, reference in zip(together, one_by_one, strict=True):
        assert torch.allclose(mine, reference, atol=2e-4)  # of steps of 0.02; Newton-Schulz runs in bfloat16
    single.load_state_dict(batched.state_dict())  # a run goes on with the other


@pytest.mark.parametrize(("in_hardware", "expected"), [(True, torch.optim.Muon), (False, BatchedMuon)])
def test_muon_multiplies_in_bfloat16_only_where_the_processor_does(in_hardware, expected, monkeypatch):
    """Emulated, they take fifteen times as long as in float32, for matrices of width 128."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: in_hardware)
    optimizers = build_optimizer(small_transformer(), settings(optimizer="muon", learning_rate=0.01, weight_decay=0.0)).optimizers
    assert type(optimizers[1]) is expected
    matrix, used = torch.randn(1, 8, 8), torch.bfloat16 if in_hardware else torch.float32
    assert orthogonalized(matrix, (3.4445, -4.7750, 2.0315), 5).dtype == used


@pytest.mark.parametrize("broken", [True, False])
def test_a_step_that_is_not_finite_is_skipped_without_asking(broken):
    matrices = [nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    adamw = torch.optim.AdamW(matrices[:1], lr=0.1, weight_decay=0.0, fused=True)
    optimizer = Optimizers([adamw, BatchedMuon(matrices[1:], lr=0.1, weight_decay=0.0)])
    for matrix in matrices:
        matrix.grad = torch.full((4, 4), float("nan") if broken else 1.0)
    optimizer.skip_if(torch.tensor(broken))
    optimizer.step()
    assert all(torch.equal(matrix, torch.ones(4, 4)) == broken and matrix.isfinite().all() for matrix in matrices)


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


def test_weights_that_are_not_finite_are_refused(tmp_path):
    config = {"frame_size": 16, "embed_dim": 32, "num_heads": 2, "background": "median"}
    weights = build_tokenizer(TokenizerConfig(**config)).state_dict()
    name = next(iter(weights))
    weights[name].view(-1)[0] = float("nan")
    save_checkpoint(tmp_path / "model.pt", "tokenizer", "st-fsq", config, weights, 1, {}, "data")
    with pytest.raises(InputError, match=f"not finite in '{name}'"):
        load_tokenizer(tmp_path / "model.pt")


def test_another_run_in_the_same_folder_keeps_the_earlier_one(tmp_path, capsys):
    sizes = "--frame-size 16 --embed-dim 24 --num-heads 2 --num-blocks 1 --batch-size 2 --validate-every 3 --validation-batches 1"
    train = partial(call, REPOSITORY / "1.video-tokenizer/train.py", "--use-dummy-data", *sizes.split(), "--num-steps", 6)
    assert train("--checkpoint-dir", tmp_path) == 0
    assert train("--checkpoint-dir", tmp_path, "--seed", 1) == 0 and "is kept in previous-1/" in capsys.readouterr().out
    assert (tmp_path / "previous-1" / "best_model.pt").exists()
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


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


def test_parts_of_a_batch_are_equal_on_several_processes_too():
    """Two processes of 2 clips each cannot make 4 parts: 2 parts divided by 4 would halve the gradient."""
    TrainingConfig(batch_size=8, accumulate=4).check_processes(2)
    with pytest.raises(InputError, match="batch_size 4 cannot be split over 2 processes with accumulate 4"):
        TrainingConfig(batch_size=4, accumulate=4).check_processes(2)


def test_the_log_line_says_how_long_the_training_waited_for_its_clips(tmp_path, capsys, monkeypatch):
    """Two steps of a clock that loading moves by 3 seconds and a step by 1: three quarters of the time."""
    clock = [0.0]
    monkeypatch.setattr("video_tokenizer.training.run.time.monotonic", lambda: clock[0])
    run, *_ = small_run(tmp_path, num_steps=2, num_frames=4, batch_size=1)

    def slow_loader():
        for _ in range(2):
            clock[0] += 3
            yield {"index": torch.tensor([0])}

    for _ in run.steps(slow_loader()):
        clock[0] += 1
    run.log(loss=1.0)
    assert "| 4000 ms/step | 1 frames/s | 75% loading |" in capsys.readouterr().out


# ---- what a GPU decides, told to code that runs on the CPU ----------------------------------------------------------------


@pytest.mark.parametrize(("name", "has_bfloat16"), [("Tesla T4", False), ("NVIDIA A100", True)])
def test_bfloat16_only_where_a_card_multiplies_it_in_hardware(name, has_bfloat16, monkeypatch):
    """PyTorch says that a T4 supports bfloat16, which it emulates, slower than float32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bfloat16)
    expected = ("bfloat16", "in hardware") if has_bfloat16 else ("float32", "bfloat16 would be emulated")
    assert number_format(torch.device("cuda:0"), "auto") == expected
    assert number_format(torch.device("cuda:0"), "bfloat16") == ("bfloat16", "as asked")


def test_on_a_gpu_a_broken_step_is_noticed_before_anything_is_saved(tmp_path):
    """Step 2 is not finite; nobody asks until something is written, and then the sentence names step 2 and its clips."""
    run, model, optimizer = small_run(tmp_path)
    run.device = torch.device("cuda:0")
    before = model.weight.detach().clone()
    for step, loss in enumerate([1.0, float("nan"), 1.0], start=1):
        run.step, run.batch = step, {"index": torch.tensor([10 * step])}
        model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.ones(2)
        run.check_finite(torch.tensor(loss), torch.tensor(1.0), torch.ones(1, 2))
        optimizer.step()
        if step == 1:
            assert not torch.equal(model.weight, before)
            before = model.weight.detach().clone()
    assert torch.equal(model.weight, before)  # steps 2 and 3 changed nothing
    with pytest.raises(InputError, match=r"at step 2 the loss is nan .* the batch was clips 20; nothing of this step is kept"):
        run._save_resume()
    assert not (tmp_path / "resume.pt").exists()
