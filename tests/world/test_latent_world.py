"""A dynamics model of latents instead of tokens goes all the way: data, training step, metrics, checkpoint, world, evaluation."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_tokenizers import tiny_config
from torch import Tensor, nn

from dynamics_model.config import DynamicsConfig
from dynamics_model.data.prepare import PreparedFrames, prepare_frames
from dynamics_model.metrics import DynamicsMetrics
from dynamics_model.models.base import DynamicsModel, Predictions, Sampling
from dynamics_model.registry import build_dynamics
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.checkpoint import save_checkpoint
from world_model import WorldModel
from world_model.evaluation.games import RealGames
from world_model.evaluation.model_scores import dynamics_scores, frame_clips, untrained_copy

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LinearConfig(DynamicsConfig):
    """Settings of `LinearDynamics`."""

    model: Literal["linear"] = "linear"  # type: ignore[assignment]
    code_length: int = 1


@dataclass(frozen=True)
class LinearSampling(Sampling):
    """How `LinearDynamics` samples."""

    noise: float = field(default=0.0, metadata={"smallest": 0.0, "largest": 1.0})
    """standard deviation of what is added to each predicted number"""


class LinearDynamics(DynamicsModel):
    """The next frame's latents are a linear function of this frame's latents and the action."""

    reads = "latents"
    config_class, sampling_class = LinearConfig, LinearSampling

    def __init__(self, config: LinearConfig):
        super().__init__(config)
        self.change = nn.Linear(self.tokens_per_frame * config.code_length, self.tokens_per_frame * config.code_length)
        self.action = nn.Embedding(self.num_actions + 1, self.tokens_per_frame * config.code_length)

    def next_frame(self, frame: Tensor, action: Tensor) -> Tensor:
        """frame: (..., N, D); action: (...). Returns (..., N, D)."""
        flat = frame.flatten(-2)
        return (flat + self.change(flat) + self.action(action + 1)).view(frame.shape)

    def forward(self, frames: Tensor, actions: Tensor) -> dict[str, Tensor]:
        return {"squared_error": (self.next_frame(frames[:, :-1], actions[:, 1:]) - frames[:, 1:]).square().mean()}

    @torch.no_grad()
    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        predicted = self.next_frame(frames[:, :-1], actions[:, 1:])
        return Predictions((predicted - frames[:, 1:]).square().mean(dim=-1), predicted)

    def start(self, frames: Tensor, actions: Tensor | None = None) -> dict[str, Tensor]:
        return {"frame": frames[:, -1]}

    @torch.no_grad()
    def step(self, state: Any, action: Tensor, sampling: Any = None, generator: Any = None, trace: list | None = None) -> Tensor:
        frame = self.next_frame(state["frame"], action)
        noise = (sampling or LinearSampling()).noise
        state["frame"] = frame + noise * torch.randn(frame.shape, generator=generator, device=frame.device)
        return state["frame"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """`dynamics_variants` as a later chapter may fill it."""
    package = ModuleType("dynamics_variants")
    package.__spec__, package.DYNAMICS = ModuleSpec("dynamics_variants", None), {"linear": f"{__name__}.LinearDynamics"}  # type: ignore[attr-defined]
    before = sys.modules.get("dynamics_variants")
    sys.modules["dynamics_variants"] = package
    yield
    sys.modules.pop("dynamics_variants")
    if before is not None:
        sys.modules["dynamics_variants"] = before


@pytest.fixture(scope="module")
def store() -> ClipStore:
    return dummy_clip_store(frame_size=(16, 16), seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a tokenizer without codebook: 4 latents of 3 numbers per frame."""
    torch.manual_seed(0)
    folder, config = tmp_path_factory.mktemp("world"), tiny_config("dreamer4")
    weights = build_tokenizer(config).state_dict()
    save_checkpoint(folder / "tokenizer.pt", "tokenizer", "dreamer4", asdict(config), weights, 0, {}, "no data")
    return folder


@pytest.fixture(scope="module")
def prepared(folder, store) -> PreparedFrames:
    sizes = dict(num_frames=4, context_frames=3, batch_size=4, precision="float32")
    config = LinearConfig(actions="true", tokenizer_checkpoint=str(folder / "tokenizer.pt"), use_dummy_data=True, **sizes)
    return prepare_frames(config, store, CPU)


@pytest.fixture(scope="module")
def world(folder, store, prepared) -> WorldModel:
    torch.manual_seed(0)
    model, config = build_dynamics(prepared.config), asdict(prepared.config)
    content = (config, model.state_dict(), 0, {}, store.fingerprint)
    save_checkpoint(folder / "dynamics.pt", "dynamics", "linear", *content, **prepared.extra)
    return WorldModel.load(folder, "cpu", noise=0.1)


def test_the_cache_holds_latents_in_half_precision(store, prepared):
    assert prepared.frames.dtype == np.float16 and prepared.frames.shape == (len(store.frames), 4, 3)
    assert prepared.config.code_length == 3 and prepared.config.grid_size == (1, 4)
    clips = prepared.clips(Clips(store, [0], 4))
    assert clips[0]["frames"].dtype == torch.float32 and clips[0]["frames"].shape == (4, 4, 3)


def test_training_steps_lower_the_loss_and_the_metrics_have_a_copy_beside_them(store, prepared):
    torch.manual_seed(0)
    model = build_dynamics(prepared.config)
    batch = prepared.clips(Clips(store, [0, 1], 4)).__getitems__(list(range(8)))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(20):
        loss = torch.stack([*model.loss(batch["frames"], batch["actions"]).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    metrics = DynamicsMetrics()
    metrics.update(model, batch["frames"], batch["actions"], torch.Generator().manual_seed(0))
    scores = metrics.result()
    assert scores["loss"] == pytest.approx(model.loss(batch["frames"], batch["actions"])["squared_error"].item())
    assert scores["copy_loss"] > 0 and 0 < scores["share_changed"] < 1 and scores["shuffle_ratio"] > 0
    assert "accuracy" not in scores


def test_a_world_of_latents_plays_and_feeds_its_latents_back(world):
    actions = np.array([[0, 1, 2, 3]]) % world.num_actions
    rollout, again = (world.rollout(world.start_frames[:1], world.start_actions[:1], actions, seed=1) for _ in range(2))
    assert rollout.shape == (1, 4, 16, 16, 3) and np.array_equal(rollout, again)
    world.reset(world.start_frames[0])
    world.step(0)
    assert world.current is not None and world.current.latest.shape == (1, 4, 3)
    assert torch.equal(world.current.latest, world.current.dynamics_state["frame"])


def test_sampling_settings_are_those_of_the_model(world, folder):
    assert world.sampling == LinearSampling(noise=0.1)
    with pytest.raises(InputError, match="temperature"):
        WorldModel.load(folder, "cpu", temperature=1.0)
    with pytest.raises(InputError, match=r"noise 2\.0 must be between 0\.0 and 1\.0"):
        WorldModel.load(folder, "cpu", noise=2.0)


def test_its_model_is_scored_beside_an_untrained_one(world, store):
    clips = frame_clips(world, RealGames(store, None, None, np.zeros(len(store.frames), bool)))
    for one in (world, untrained_copy(world)):
        assert dynamics_scores(one, clips, 8).keys() == {"loss_changed", "loss_changed_shuffled", "shuffle_ratio"}


def test_every_script_takes_it(world, folder, store, tmp_path):
    chapter_3, chapter_4 = REPOSITORY / "3.dynamics-model", REPOSITORY / "4.inference"
    film = ["--num-frames", 3, "--output", tmp_path / "film.png"]
    assert call(chapter_4 / "generate.py", "--world", folder, *film) == 0 and (tmp_path / "film.png").exists()
    assert call(chapter_4 / "generate.py", "--world", folder, *film, "--top-k", 3) == 2
    numbers = ["--json", tmp_path / "numbers.json"]
    assert call(chapter_4 / "evaluate.py", "--world", folder, "--data-path", store.path, "--quick", *numbers) == 0
    assert json.loads((tmp_path / "numbers.json").read_text())["shuffle_ratio"] > 0
    pictures = ["--save-images", "--output", tmp_path / "pictures", "--num-rollouts", 2, "--num-samples", 1, "--num-batches", 1]
    assert call(chapter_3 / "validate.py", "--checkpoint", folder / "dynamics.pt", "--use-dummy-data", *pictures, *numbers) == 0
    assert json.loads((tmp_path / "numbers.json").read_text())["copy_loss"] > 0


def test_a_model_of_tokens_refuses_latents_and_an_unknown_model_is_named(folder, store):
    config = DynamicsConfig(actions="true", tokenizer_checkpoint=str(folder / "tokenizer.pt"))
    with pytest.raises(InputError, match="this dreamer4 tokenizer has no codebook; the dynamics model needs tokens"):
        prepare_frames(config, store, CPU)
    with pytest.raises(InputError, match="this st-fsq tokenizer rounds to a codebook; the dynamics model needs latents"):
        LinearDynamics.sizes_from(build_tokenizer(tiny_config("st-fsq")))
    with pytest.raises(InputError, match="no dynamics model called 'quadratic'; there are maskgit, linear"):
        build_dynamics(LinearConfig(model="quadratic"))  # type: ignore[arg-type]
