"""Every training, validation, sampler, world and play session runs on a CUDA card and on an Apple GPU, neither of which is there.

A process in which the device is pretended does the work (no_op_device.py); its tensors compute on the CPU and refuse what the
device would refuse (pretended_tensor.py).
"""

import shutil
from pathlib import Path

import pytest
import torch
from structure_checks import REPOSITORY
from tiny_tokenizers import SIZES, flags, train_script
from tiny_world import save_tiny_world

from devices import tasks
from video_tokenizer.games.moving_square import dummy_clip_store

STEPS = 6
RUN = ("--num-steps", STEPS, "--batch-size", 4, "--log-every", STEPS, "--validation-batches", 1)
CHAPTERS = {
    "tokenizer": ("1.video-tokenizer", "--embed-dim", 32, "--num-blocks", 1, "--num-heads", 2),
    "latent_action_model": ("2.latent-action-model", "--conv-width", 8, "--embed-dim", 32, "--noisy-steps", 2),
    "dynamics": ("3.dynamics-model", "--embed-dim", 32, "--num-blocks", 1, "--num-heads", 2, "--prior-steps", 2),
}
MOST_WAITS = {"magvit2": 2}
"""how often the processor may wait for the device in a training step that neither logs nor validates nor saves"""


@pytest.fixture(scope="module")
def run_on(device):
    """Run a function of tasks.py in the process that has the device."""
    return lambda task, *arguments, **options: device.submit(task, *arguments, **options).result(60)


@pytest.fixture(scope="module")
def trained(run_on, tmp_path_factory):
    """Chapters 1 to 3 trained on the device: the folder of the runs, the data, and the waits of every step."""
    folder = tmp_path_factory.mktemp("runs")
    data = dummy_clip_store(folder / "data", frame_size=(32, 32)).path
    return folder, data, {name: train(run_on, folder, name, folder / name) for name in CHAPTERS}


def train(run_on, folder: Path, name: str, run_folder: Path, **options) -> list[dict[str, int]]:
    """Train one chapter on the device with what the chapters before it left in `folder`."""
    chapter, *sizes = CHAPTERS[name]
    before = [name for name in list(CHAPTERS)[: list(CHAPTERS).index(name)] if name != "dynamics"] if name == "dynamics" else []
    parts = [word for kind in before for word in (PART_FLAGS[kind], folder / kind / "best_model.pt")]
    where = ("--data-path", folder / "data", "--checkpoint-dir", run_folder)
    return run_on(tasks.train, f"{chapter}/train.py", *RUN, *sizes, *parts, *where, **options)


PART_FLAGS = {"tokenizer": "--tokenizer-checkpoint", "latent_action_model": "--latent-action-checkpoint"}


@pytest.fixture(scope="module")
def world(trained):
    folder = trained[0] / "world"
    folder.mkdir()
    for name in CHAPTERS:
        shutil.copy(trained[0] / name / "best_model.pt", folder / f"{name}.pt")
    return folder


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_processor_hardly_waits_for_the_device(trained, device, name):
    check_waits(name, trained[2][name], device.kind)


def check_waits(name: str, waits: list[dict[str, int]], kind: str) -> None:
    """No quiet step after the first three has more waits than allowed; an Apple GPU also waits for the batch and the loss."""
    for quiet in waits[3:-1]:
        assert sum(quiet.values()) <= MOST_WAITS.get(name, 0) + 3 * (kind == "mps"), quiet


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_stopped_training_resumes_with_the_same_bits(run_on, trained, tmp_path, name):
    folder = trained[0]
    assert len(train(run_on, folder, name, tmp_path, stop_after=3)) == 3
    assert not (tmp_path / "final_model.pt").exists()
    assert len(train(run_on, folder, name, tmp_path)) == STEPS - 3
    whole, resumed = (torch.load(path / "resume.pt", weights_only=True) for path in (folder / name, tmp_path))
    assert whole["history"] == resumed["history"]
    for part in ("model", "ema", "optimizer"):
        assert_same(whole[part], resumed[part])


def assert_same(first, second) -> None:
    """Nested dictionaries and lists hold the same numbers, to the bit."""
    if isinstance(first, dict | list):
        for key in first if isinstance(first, dict) else range(len(first)):
            assert_same(first[key], second[key])
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize("name", [name for name in SIZES if name != "st-fsq"])
def test_every_variant_trains_and_validates(run_on, device, tmp_path, name):
    script = train_script(name).relative_to(REPOSITORY).as_posix()
    sizes = ("--use-dummy-data", "--frame-size", 16, *RUN, "--batch-size", 2, "--checkpoint-dir", tmp_path)
    check_waits(name, run_on(tasks.train, script, *flags(name), *sizes), device.kind)
    if device.kind == "mps":  # which refuses all that a CUDA card does; the training has validated on both
        score = ("--checkpoint", tmp_path / "best_model.pt", "--num-batches", 1, "--use-dummy-data", "--save-images")
        run_on(tasks.runs, "1.video-tokenizer/validate.py", *score)


def test_the_chapters_validate(run_on, trained):
    folder, data, _ = trained
    more = {"latent_action_model": ("--probe-steps", 2), "dynamics": ("--num-rollouts", 2, "--num-samples", 1)}
    for name, (chapter, *_) in CHAPTERS.items():
        where = ("--checkpoint", folder / name / "best_model.pt", "--data-path", data, "--save-images")
        run_on(tasks.runs, f"{chapter}/validate.py", *where, "--num-batches", 1, *more.get(name, ()))


def test_a_world_steps_generates_and_is_evaluated(run_on, device, trained, world, tmp_path):
    assert run_on(tasks.step_world, str(world)) == [32, 32, 3, 3, 32, 32, 3, 2, 2, 32, 32, 3]
    run_on(tasks.runs, "4.inference/generate.py", "--world", world, "--num-frames", 3, "--output", tmp_path / "dream.gif")
    if device.kind == "cuda":  # which refuses nothing that an Apple GPU takes, and the evaluation is long
        return
    where = ("--world", world, "--data-path", trained[1], "--json", tmp_path / "metrics.json")
    sizes = ("rollouts", "beginnings", "long-dreams"), ("clips", "episodes", "labelled-games")
    few = [word for number, names in enumerate(sizes, start=1) for name in names for word in (f"--num-{name}", number)]
    few += ["--num-frames", 40, "--hold-frames", 1, "--long-frames", 5, "--speed-frames", 1, "--probe-steps", 1, "--num-steps", 1]
    run_on(tasks.runs, "4.inference/evaluate.py", *where, *few)


def test_the_time_of_the_dynamics_ends_when_the_device_is_done(run_on, tmp_path):
    """Else it is the time in which the work was handed over, and the decoder's time holds all of it."""
    assert run_on(tasks.waits_between_clock_readings, str(save_tiny_world(tmp_path)))[0] == 1


def test_a_play_session_asks_the_models_everything(run_on, device, tmp_path):
    told = run_on(tasks.play, str(save_tiny_world(tmp_path)))
    assert torch.device(told["device"]).type == device.kind and told["counted"] > 30
    assert told["counted at once"] or device.kind == "cuda"  # two threads that use an Apple GPU at once end the process
    passes, previews, beside, film = told["bytes"]
    assert passes % (32 * 32 * 3) == 0 and previews == 7 * 32 * 32 * 3 and beside == 2 * 32 * 32 * 3 and film > 100


@pytest.mark.parametrize("what", tasks.REFUSED | tasks.REFUSED_BY_MPS)
def test_the_pretended_device_refuses(run_on, device, what):
    assert run_on(tasks.refuses, what) == (what in tasks.REFUSED or device.kind == "mps")


def test_the_pretended_device_computes_as_the_cpu_does(run_on):
    assert run_on(tasks.gradient_of_cubes, [1.0, 2.0, 3.0]) == [3.0, 12.0, 27.0]
