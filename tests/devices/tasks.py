"""What the tests of this folder run in a process with a pretended device. Every function returns plain values."""

import gc
import io
import signal
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY

from devices.pretended_tensor import Device, without_numbers
from video_tokenizer.training.run import Run
from world_model.play.player import Player
from world_model.play.world_registry import WorldRegistry
from world_model.world import WorldModel


class StopHere(Exception):
    """Raised where a task has seen enough of a training."""


class Watch:
    """What is counted during the steps of a training, and where it is stopped."""

    stop_after: int | None = None
    leave_after: int | None = None
    waits: list[dict[str, int]]
    peak: int


def steps(run: Run, loader: Any) -> Iterator[Any]:
    """`Run.steps`, watched: the waits of every step, and the largest use of memory in the last."""
    for step, batch in _steps(run, loader):
        Device.waits.clear()
        Device.peak = Device.used
        yield step, batch
        Watch.waits.append(dict(Device.waits))
        Watch.peak = Device.peak
        if step == Watch.leave_after:
            raise StopHere
        if step == Watch.stop_after:
            signal.raise_signal(signal.SIGTERM)


_steps = Run.steps


def train(script: str, *arguments: object, stop_after: int | None = None) -> list[dict[str, int]]:
    """Run a training on the device. Returns where the processor waited in each step; stop_after: sends SIGTERM in this step."""
    Watch.waits, Watch.stop_after, Watch.leave_after = [], stop_after, None
    with mock.patch.object(Run, "steps", steps):
        runs(script, *arguments, code=0 if stop_after is None else 130)
    return Watch.waits


def peak_memory(script: str, *arguments: object) -> int:
    """Bytes that the second step of a training uses at its highest; in the first, the optimizer has no moments yet."""
    Watch.waits, Watch.stop_after, Watch.leave_after = [], None, 2
    gc.collect()
    before = Device.used
    # of the parts of a batch the first and the last: those between need what the last needs
    few = mock.patch.object(load_script(REPOSITORY / script), "sync_on_last", lambda _, parts: [*parts[:-1][:1], parts[-1]])
    with without_numbers(), few, mock.patch.object(Run, "steps", steps):
        try:
            runs(script, *arguments)
        except StopHere:
            return Watch.peak - before
    raise AssertionError("the training has ended by itself")


def runs(script: str, *arguments: object, code: int = 0) -> str:
    """Run a script of the project on the device. Returns what it prints; it must end with this exit code."""
    no_plots = mock.patch("matplotlib.figure.Figure.savefig", lambda figure, file, **_: Path(file).touch())  # a second each
    with no_plots, redirect_stdout(io.StringIO()) as output:
        ended = call(REPOSITORY / script, *arguments, "--device", Device.kind)
    assert ended == code, (ended, output.getvalue())
    return output.getvalue()


def step_world(folder: str) -> list[int]:
    """Reset a world, step it, and roll two dreams out at once. Returns the shapes of what comes back, one after the other."""
    world = WorldModel.load(folder, Device.kind)
    first = world.reset(world.start_frames[0])
    steps = np.stack([world.step(action) for action in (0, 1, -1)])
    together = world.rollout(world.start_frames[:2], None, np.array([[0, 1], [1, 2]]))
    return [*first.shape, *steps.shape, *together.shape]


def waits_between_clock_readings(folder: str) -> list[int]:
    """How often a step of the world waited for the device itself, between its readings of the clock."""
    world, read = WorldModel.load(folder, Device.kind), []
    world.reset(world.start_frames[0])
    Device.waits.clear()

    def reading() -> float:
        read.append(sum(count for where, count in Device.waits.items() if "world_model/world.py" in where))
        return 0.0

    with mock.patch("world_model.world.time.perf_counter", reading):
        world.step(0)
    return np.diff(read).tolist()


def play(folder: str) -> dict[str, Any]:
    """A session on the play page with everything that asks the models something. Returns what the page was told."""
    player = Player(WorldRegistry([Path(folder)], Device.kind))
    player.open("")
    player.begin("stored", 1, 0, False)
    player.set_sampling("temperature", 1.0)
    player.set_sampling("top_p", 0.9)
    inspected = player.step(None, 1, True)
    passes, previews = player.passes(), player.previews()
    player.begin("game", 0, 0, True)
    beside = player.step("RIGHT", None, False)
    player.resync(1)
    player.upload_picture(cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes())
    player.begin("picture", 0, 0, False)
    player.step("LEFT", None, False)
    with mock.patch("world_model.play.action_previews.LABELED_FRAMES", 60):
        meanings = player.code_meanings().facts
        counting = player.opened.counting
        assert counting is not None
        counting.join()
    counted = np.sum(player.code_meanings().facts["counts"])
    film = player.film("gif")
    player.close()
    return {
        "device": player.registry.device_name,
        "inspected grid": inspected.facts["inspect"]["grid"],
        "bytes": [len(reply.payload) for reply in (passes, previews, beside, film)],
        "counted": int(counted),
        "counted at once": meanings["complete"],
    }


REFUSED = {
    "two devices": (lambda x: x + torch.ones(2), "Expected all tensors to be on the same device"),
    "a tensor of the device as an array": (lambda x: x.numpy(), "Use Tensor.cpu() first"),
    "another device's generator": (lambda x: torch.rand(2, device=x.device, generator=torch.Generator()), "found 'cpu'"),
    "reading a copy that is not waited for": (lambda x: x.to("cpu", non_blocking=True), "not waited for"),
}
REFUSED_BY_MPS = {
    "float64": (lambda x: x.sum(dtype=torch.float64), "doesn't support float64"),
    "freeing what is still copied": (lambda x: torch.ones(2).to(x.device, non_blocking=True), "not waited for"),
    "transposed 3D convolutions in bfloat16": (
        lambda x: torch.conv_transpose3d(*2 * (x.bfloat16().expand(1, 1, 2, 2, 2),)),
        "ConvTranspose 3D with BF16",
    ),
}


def refuses(what: str) -> bool:
    """Whether the device raises its error for one of these."""
    call, words = (REFUSED | REFUSED_BY_MPS)[what]
    try:
        call(torch.ones(2, device=Device.kind))
    except (TypeError, RuntimeError) as error:
        return words in str(error)
    return False


def gradient_of_cubes(values: list[float]) -> list[float]:
    """The gradient of the sum of the cubes of these values, computed on the device."""
    x = torch.tensor(values, device=Device.kind, requires_grad=True)
    (x**3).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()
