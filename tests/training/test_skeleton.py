"""The preset `skeleton` is what its page says, and trains, resumes, dreams and plays with frames that are not square."""

import io
import re
import shutil
from contextlib import redirect_stdout
from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from PIL import Image
from script_runner import call, load_script
from server_fixture import PlayerClient, with_player
from structure_checks import REPOSITORY

from dynamics_model.config import PRESETS as DYNAMICS_PRESETS
from dynamics_model.config import DynamicsConfig
from dynamics_model.models.maskgit import MaskGITSampling
from dynamics_model.registry import build_dynamics
from latent_action_model.config import PRESETS as LATENT_PRESETS
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from tokenizer_variants.st_vq.model import VectorQuantizedTokenizer
from video_tokenizer.config import PRESETS as TOKENIZER_PRESETS
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import build_tokenizer
from video_tokenizer.training.command_line import parse_config
from video_tokenizer.training.optimizer import build_optimizer, set_learning_rate
from video_tokenizer.training.run import Run
from world_model import WorldModel, WorldModelEnv
from world_model.play.world_registry import WorldRegistry

PAGE = (REPOSITORY / "1.video-tokenizer" / "SKELETON.md").read_text()
MODELS = {
    "Video tokenizer": (VectorQuantizedTokenizer.config_class, VectorQuantizedTokenizer.presets),
    "Latent action model": (LatentActionConfig, LATENT_PRESETS),
    "Dynamics model": (DynamicsConfig, DYNAMICS_PRESETS),
}
PARTS = {
    "tokenizer": ("1.video-tokenizer/tokenizer_variants/train.py", "--model", "st-vq"),
    "latent_action_model": ("2.latent-action-model/train.py", "--conv-width", 8, "--num-actions", 2),
    "dynamics": ("3.dynamics-model/train.py", "--prior-steps", 2),
}
SMALL = (
    "--num-steps",
    4,
    "--num-frames",
    3,
    "--context-frames",
    2,
    "--batch-size",
    1,
    "--validation-batches",
    1,
    "--save-every",
    2,
)
NARROW = {
    "tokenizer": ("--embed-dim", 24, "--num-heads", 2, "--num-blocks", 1, "--decoder-embed-dim", 32, "--decoder-heads", 2),
    "latent_action_model": (
        "--embed-dim",
        24,
        "--num-heads",
        2,
        "--encoder-blocks",
        1,
        "--decoder-blocks",
        1,
        "--noisy-steps",
        1,
    ),
    "dynamics": ("--embed-dim", 24, "--num-heads", 2, "--num-blocks", 1, "--head-dim", 16),
}
NARROW["tokenizer"] += ("--decoder-blocks", 1, "--patch-size", 8)  # 144 tokens a frame instead of 576


@pytest.mark.parametrize("heading", MODELS)
def test_the_page_lists_exactly_what_the_preset_sets(heading):
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    flags = re.findall(r"`(--[^`]+)`", section.split("| the plan |")[1])
    config_class, presets = MODELS[heading]
    preset = parse_config(config_class, presets, ["--preset", "skeleton"])
    for flag in flags:
        assert parse_config(config_class, presets, ["--preset", "skeleton", *flag.split()]) == preset, flag
    listed = {flag.split()[0].removeprefix("--").replace("-", "_") for flag in flags}
    assert set(presets["skeleton"]) <= listed


@pytest.mark.parametrize("preset", ["skeleton", "paper"])
@pytest.mark.parametrize("name", ["Video tokenizer", "Latent action model", "Dynamics model", "chapter 1"])
def test_genies_presets_train_with_genies_optimizer(name, preset):
    """arXiv:2402.15391, appendix C: 3e-4 throughout for the tokenizer, 3e-5 to 3e-6 for the other two, after the warm-up."""
    config_class, presets = MODELS.get(name, (TokenizerConfig, TOKENIZER_PRESETS))
    config = config_class(**presets[preset])
    optimizer = build_optimizer(torch.nn.Linear(2, 1), config)
    assert [(group["betas"], group["weight_decay"]) for group in optimizer.param_groups] == [((0.9, 0.9), 1e-4), ((0.9, 0.9), 0)]
    steps = (config.warmup_steps, config.num_steps)
    rates = [set_learning_rate(optimizer, step, config.num_steps, config) for step in steps]
    assert rates == pytest.approx([3e-5, 3e-6] if name in ("Latent action model", "Dynamics model") else [3e-4, 3e-4], rel=1e-3)


def test_the_sizes_of_the_page_are_those_of_the_models():
    with torch.device("meta"):
        models = [
            build_tokenizer(VectorQuantizedTokenizer.config_class(**VectorQuantizedTokenizer.presets["skeleton"])),
            build_latent_action_model(LatentActionConfig(**LATENT_PRESETS["skeleton"])),
            build_dynamics(DynamicsConfig(**DYNAMICS_PRESETS["skeleton"], grid_size=(18, 32), codebook_size=1024)),
        ]
    millions = [sum(parameter.numel() for parameter in model.parameters()) / 1e6 for model in models]
    one, two, three = (f"{number:.0f}" for number in millions)
    sizes = (
        f"{sum(millions):.0f} million: {one} in the tokenizer, {two} in the latent action model, {three} in the dynamics model"
    )
    assert sizes in PAGE


def test_the_sampling_of_the_page_is_25_cosine_steps_at_temperature_2():
    words = re.findall(r"--num-steps 25 --schedule cosine --temperature 2 --top-p 1`", PAGE)
    assert len(words) == 1
    sampling = MaskGITSampling(num_steps=25, schedule="cosine", temperature=2.0, top_p=1.0)
    module = load_script(REPOSITORY / "4.inference" / "generate.py")
    argv = [*words[0].rstrip("`").split(), "--world", "somewhere", "--output", "dream.gif"]
    flags = module.parse_config(module.GenerateConfig, argv=argv)
    assert MaskGITSampling(**flags.sampling.given()) == sampling


class Stopped(Exception):
    """The machine is switched off."""


def train(part: str, data, folder, *flags: object) -> None:
    script, *own = PARTS[part]
    words = ("--preset", "skeleton", "--data-path", data, "--checkpoint-dir", folder, *NARROW[part], *SMALL, *own, *flags)
    with redirect_stdout(io.StringIO()), mock.patch("video_tokenizer.training.run.save_curves"):  # the charts take longest
        assert call(REPOSITORY / script, *words) == 0


def test_it_trains_from_h5_resumes_bit_for_bit_dreams_and_plays(tmp_path):
    store = dummy_clip_store(tmp_path / "store", num_episodes=4, episode_frames=10, frame_size=(72, 128))
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["frames"], file["actions"], file["episodes"] = store.frames, store.actions, store.episodes
    save, world = Run._save_resume, tmp_path / "world"

    def save_and_stop(run: Run) -> None:
        save(run)
        raise Stopped

    others: list[object] = []
    world.mkdir()
    for part in PARTS:
        train(part, tmp_path / "frames.h5", tmp_path / "whole" / part, *others)
        with mock.patch.object(Run, "_save_resume", save_and_stop), pytest.raises(Stopped):
            train(part, tmp_path / "frames.h5", tmp_path / "stopped" / part, *others)
        train(part, tmp_path / "frames.h5", tmp_path / "stopped" / part, *others)
        files = [torch.load(tmp_path / kind / part / "final_model.pt", weights_only=True) for kind in ("whole", "stopped")]
        assert files[0]["step"] == files[1]["step"] == 4
        assert all(torch.equal(value, files[1]["weights"][name]) for name, value in files[0]["weights"].items())
        shutil.copy(tmp_path / "whole" / part / "best_model.pt", world / f"{part}.pt")
        others = {
            "tokenizer": [],
            "latent_action_model": ["--tokenizer-checkpoint", world / "tokenizer.pt"],
        }.get(part, [])
        if part == "latent_action_model":
            others += ["--latent-action-checkpoint", world / "latent_action_model.pt"]
    plan = ("--num-steps", 25, "--temperature", 2, "--schedule", "cosine", "--top-p", 1)
    film = tmp_path / "dream.gif"
    with redirect_stdout(io.StringIO()):
        words = ("--world", world, "--num-frames", 2, *plan, "--output", film, "--device", "cpu")
        assert call(REPOSITORY / "4.inference" / "generate.py", *words) == 0
    assert Image.open(film).n_frames == 2
    dream = WorldModel.load(world, "cpu")
    assert dream.frame_size == (72, 128)
    assert dream.reset(np.zeros((1, 144, 320, 3), np.uint8)).shape == dream.step(1).shape == (72, 128, 3)
    check_env(WorldModelEnv(dream), skip_render_check=True)

    async def play(player: PlayerClient) -> None:
        for message in ({"do": "begin", "start": "stored"}, {"do": "step", "action": 1}):
            head, picture = await player.send(message)
            assert head["kind"] == "frame" and picture.shape == (72 * 128 * 3,)

    with_player(WorldRegistry([world], "cpu"), play)
