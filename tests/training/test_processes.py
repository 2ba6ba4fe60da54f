"""Claims about several processes: the same global batch gives the same training on one and on two (gloo, on the CPU)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as distributed
from script_runner import call, call_in_processes
from structure_checks import REPOSITORY

from video_tokenizer.global_batch import gather_rows, global_batch_size, local_shard, mean_over_processes
from video_tokenizer.training import distributed as training_distributed
from video_tokenizer.training import run
from video_tokenizer.training.device import choose_device
from video_tokenizer.training.distributed import any_rank, gather_full, start_processes, sync_on_last

STEPS = 6
SMALL = ("--use-dummy-data", "--batch-size", 4, "--log-every", 1, "--validation-batches", 1, "--save-every", 3, "--device", "cpu",
         "--precision", "float32")  # fmt: skip
TRAININGS = {
    "tokenizer": ("1.video-tokenizer", "--embed-dim", 32, "--num-blocks", 1),
    "latent actions": ("2.latent-action-model", "--conv-width", 16, "--embed-dim", 32, "--noisy-steps", 3),
    "sign bits": ("2.latent-action-model", "--conv-width", 16, "--embed-dim", 32, "--quantizer", "fsq"),
    "a few labels": ("2.latent-action-model", "--conv-width", 16, "--embed-dim", 32, "--noisy-steps", 3, "--label-share", 0.1),
}


def train(folder: Path, chapter: str, *flags: object, processes: int = 1, stop_after: int | None = None) -> dict:
    """Run train.py in this process, or in several as under torchrun, to its end or until it has saved a step.

    Returns metrics.json, or resume.pt of the step after which it was stopped.
    """
    script, log = REPOSITORY / chapter / "train.py", folder.with_suffix(".log")
    words = (*SMALL, *flags, "--num-steps", STEPS, "--checkpoint-dir", folder)
    codes = [call(script, *words)] if processes == 1 else call_in_processes(script, *words, log=log, stop_after=stop_after)
    assert codes == [9 if stop_after else 0] * processes, log.with_suffix(".0").read_text()[-2000:]
    if stop_after:
        return torch.load(folder / "resume.pt", weights_only=True)
    return json.loads((folder / "metrics.json").read_text())


def losses(metrics: dict, *names: str) -> torch.Tensor:
    """(steps,) the sum of the named losses at every logged step."""
    return torch.tensor([sum(entry[name] for name in names) for entry in metrics["history"] if names[0] in entry])


def weights_apart(first: Path, second: Path) -> float:
    """Largest distance of two weights, over the largest weight."""
    first_weights, second_weights = (torch.load(folder / "resume.pt", weights_only=True)["model"] for folder in (first, second))
    distances = {name: (weight - second_weights[name]).abs().max() for name, weight in first_weights.items()}
    return max(float(distance / first_weights[name].abs().max().clamp(min=1e-3)) for name, distance in distances.items())


def test_a_loss_that_is_no_number_ends_all_processes_with_one_sentence(tmp_path):
    flags = ("--shard", "--learning-rate", "1e30", "--warmup-steps", 0)
    chapter, *sizes = TRAININGS["tokenizer"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [f"{chapter}/train.py", *SMALL, *sizes, *flags, "--num-steps", STEPS, "--checkpoint-dir", tmp_path]
    done = subprocess.run([*torchrun, *map(str, words)], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode != 0 and done.stderr.count("error: at step") == 1, done.stderr[-2000:]
    assert (
        "the loss is nan" in done.stderr and "torchrun --nproc-per-node 2" in done.stderr and "--rate-factor 0.5" in done.stderr
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer for the dynamics, and the run it came from."""
    folder = tmp_path_factory.mktemp("one process") / "tokenizer"
    train(folder, *TRAININGS["tokenizer"])
    return folder


@pytest.mark.parametrize("name", [*TRAININGS, "dynamics"])
def test_two_processes_train_as_one_does(name, tokenizer, tmp_path):
    """The losses of every step agree to a hundredth of a per cent: only the order of sums differs."""
    small = ("--embed-dim", 32, "--num-blocks", 1, "--prior-steps", 2, "--tokenizer-checkpoint", tokenizer / "best_model.pt")
    actions = ("--latent-action-checkpoint", REPOSITORY / "assets/worlds/breakout/latent_action_model.pt")
    flags = TRAININGS.get(name, ("3.dynamics-model", *small, *actions))  # the first process alone encodes frames and actions
    one = train(tmp_path / "one", *flags)
    two = train(tmp_path / "two", *flags, processes=2)
    names = ("loss",) if flags[0] != "2.latent-action-model" else ("reconstruction",)
    assert len(losses(one, *names)) == STEPS
    assert torch.allclose(losses(one, *names), losses(two, *names), rtol=1e-4), (losses(one, *names), losses(two, *names))
    assert weights_apart(tmp_path / "one", tmp_path / "two") < 1e-2


def test_a_run_of_two_processes_goes_on_in_one(tokenizer, tmp_path):
    """Stopped after step 3 of 6 on two processes and continued on one: the same losses as one process all along."""
    chapter, *flags = TRAININGS["tokenizer"]
    assert train(tmp_path / "both", chapter, *flags, processes=2, stop_after=3)["step"] == 3
    resumed = train(tmp_path / "both", chapter, *flags)
    alone = json.loads((tokenizer / "metrics.json").read_text())
    assert len(losses(resumed, "loss")) == STEPS
    assert torch.allclose(losses(alone, "loss"), losses(resumed, "loss"), rtol=1e-4)


def test_an_earlier_run_is_moved_away_only_when_all_processes_have_looked_for_it(tokenizer, tmp_path, monkeypatch):
    shutil.copytree(tokenizer, tmp_path / "run")
    found = []
    monkeypatch.setattr(run, "wait_for_processes", lambda: found.append((tmp_path / "run" / "metrics.json").exists()))
    train(tmp_path / "run", *TRAININGS["tokenizer"])
    assert found == [True] and (tmp_path / "run" / "previous-1" / "metrics.json").exists()


def test_sharded_weights_train_as_whole_ones_do(tokenizer, tmp_path):
    """FSDP2 over two processes, stopped once: the losses of one process, and a resume.pt that does not know of shares."""
    small = ("--embed-dim", 32, "--num-blocks", 2, "--actions", "true", "--tokenizer-checkpoint", tokenizer / "best_model.pt")
    flags = ("3.dynamics-model", *small, "--optimizer", "adamw")
    one = train(tmp_path / "one", *flags)
    assert train(tmp_path / "two", *flags, "--shard", processes=2, stop_after=3)["step"] == 3
    two = train(tmp_path / "two", *flags, "--shard", processes=2)  # goes on, with moments that were whole on the disk
    assert len(losses(two, "loss")) == STEPS
    assert torch.allclose(losses(one, "loss"), losses(two, "loss"), rtol=1e-4)
    assert weights_apart(tmp_path / "one", tmp_path / "two") < 1e-2
    state = torch.load(tmp_path / "two" / "resume.pt", weights_only=True)
    moments = [value for entry in state["optimizer"]["optimizers"][0]["state"].values() for value in entry.values()]
    assert all(type(value) is torch.Tensor for value in [*state["model"].values(), *state["ema"]["weights"].values(), *moments])


def test_what_is_saved_is_never_whole_on_a_gpu_at_once(monkeypatch):
    """Weights, average and moments are put together one after the other, and the first process alone keeps them."""

    class Shard:
        whole = most = 0  # tensors that are whole on the GPU

        def full_tensor(self):
            Shard.whole += 1
            Shard.most = max(Shard.most, Shard.whole)
            return SimpleNamespace(detach=lambda: self)

        def cpu(self):
            Shard.whole -= 1
            return "on the CPU"

    monkeypatch.setattr(training_distributed, "is_sharded", lambda value: isinstance(value, Shard))
    state = {"model": {"weight": Shard(), "steps": 3}, "optimizers": [Shard(), Shard()]}
    assert gather_full(state, saving=True) == {"model": {"weight": "on the CPU", "steps": 3}, "optimizers": 2 * ["on the CPU"]}
    assert Shard.most == 1
    monkeypatch.setattr(training_distributed, "rank_and_size", lambda: (1, 2))
    assert gather_full(state, saving=True) == {"model": {"weight": None, "steps": 3}, "optimizers": [None, None]}


def test_a_batch_that_cannot_be_split_is_refused_before_the_processes_wait_for_each_other(tmp_path):
    script, log = REPOSITORY / "2.latent-action-model" / "train.py", tmp_path / "printed.log"
    words = (*SMALL, "--preset", "paper", "--batch-size", 5, "--checkpoint-dir", tmp_path / "run")
    assert call_in_processes(script, *words, log=log) == [2, 2]
    for rank in range(2):
        said = log.with_suffix(f".{rank}").read_text()
        assert said.startswith("error: batch_size 5 cannot be split over 2 processes") and "such as --batch-size 4" in said
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.fixture
def group_of_one():
    """A process group with this process alone, for what only exists in a group."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_gradients_are_exchanged_once_a_step_however_many_parts_a_batch_has(group_of_one):
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    exchanged = [(part, model.require_backward_grad_sync) for part in sync_on_last(model, "abc")]
    assert exchanged == [("a", False), ("b", False), ("c", True)] and model.require_backward_grad_sync
    assert [*sync_on_last(model.module, "ab")] == ["a", "b"]


def test_every_process_takes_its_own_gpu(monkeypatch):
    """Called with the device before anything is exchanged: otherwise all processes would put their tensors on GPU 0."""
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(device))
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **given: calls.append((backend, given["device_id"])))
    start_processes(torch.device("cuda:3"))
    assert calls == [torch.device("cuda:3"), ("cpu:gloo,cuda:nccl", torch.device("cuda:3"))]
    calls.clear()
    start_processes(torch.device("cpu"))
    assert calls == [("gloo", None)]


def test_cuda_is_the_gpu_of_this_process(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    chosen = {name: str(choose_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")}
    assert chosen == {"auto": "cuda:3", "cuda": "cuda:3", "cuda:1": "cuda:1", "cpu": "cpu"}


def test_alone_nothing_is_exchanged():
    value = torch.arange(6.0, requires_grad=True)
    assert global_batch_size(6) == 6 and local_shard(value) is value and gather_rows(value) is value
    assert mean_over_processes(value).requires_grad is False and any_rank(True) and not any_rank(False)
