"""A training step of every preset but `paper` fits on a GPU of 16 GB, at its own batch. Tensors have shapes here, not numbers."""

import json
from pathlib import Path

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY
from tiny_tokenizers import train_script
from tiny_world import save

from devices import tasks
from dynamics_model.config import PRESETS as DYNAMICS_PRESETS
from latent_action_model.config import PRESETS as LATENT_PRESETS
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.registry import TOKENIZERS, build_tokenizer, tokenizer_class

GIB = 2**30
ROOM = 15.0
"""GiB that a card of 16 GB has for tensors, beside what CUDA keeps for itself"""
CASES = {
    **{f"{name}/{preset}": train_script(name) for name in TOKENIZERS for preset in tokenizer_class(name).presets},
    **{f"latent actions/{preset}": REPOSITORY / "2.latent-action-model" / "train.py" for preset in LATENT_PRESETS},
    **{f"dynamics/{preset}": REPOSITORY / "3.dynamics-model" / "train.py" for preset in DYNAMICS_PRESETS},
}
MEASURED: dict[tuple[str, ...], float] = {}
only_cuda = pytest.mark.parametrize("device", ["cuda"], indirect=True)


@only_cuda
@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith(("/tiny", "/paper"))])
def test_a_step_of_the_preset_fits_on_a_card_of_16_gb(device, tmp_path, case):
    peak = peak_memory(device, tmp_path, case)
    assert peak <= ROOM, f"{peak:.2f} GiB"


@only_cuda
@pytest.mark.parametrize("case", ["dynamics/small --accumulate 8", "dynamics/skeleton --accumulate 2"])
def test_small_fits_on_a_card_of_16_gb_without_bfloat16_too(device, tmp_path, case):
    """Float32 takes more; the first two chapters stay below these with their own flags."""
    name, *flags = case.split()
    peak = peak_memory(device, tmp_path, name, "--precision", "float32", *flags)
    assert peak <= ROOM, f"{peak:.2f} GiB"


@only_cuda
def test_the_table_of_costs_knows_how_much_memory_a_step_needs(device, tmp_path):
    assert call(REPOSITORY / "3.dynamics-model" / "lab" / "costs.py", "--json", tmp_path / "costs.json") == 0
    said = json.loads((tmp_path / "costs.json").read_text())["rows"]["small"]["memory_gib"]
    assert said == pytest.approx(peak_memory(device, tmp_path, "dynamics/small"), rel=0.15)


def peak_memory(device, folder: Path, case: str, *more: str) -> float:
    """GiB that a step needs at its highest. more: flags."""
    if (case, *more) not in MEASURED:
        script = CASES[case].relative_to(REPOSITORY).as_posix()
        MEASURED[case, *more] = device.submit(tasks.peak_memory, script, *flags_of(folder, case), *more).result(120) / GIB
    return MEASURED[case, *more]


def flags_of(folder: Path, case: str) -> list[object]:
    """The flags of a training of this preset on synthetic data."""
    name, preset = case.split("/")
    flags = ["--preset", preset, "--use-dummy-data", "--checkpoint-dir", folder / "run"]
    if name in TOKENIZERS and name not in ("st-fsq", "magvit2"):
        flags = ["--model", name, *flags]
    if name == "dynamics":
        flags += ["--prior-steps", 1, *earlier_chapters(folder, preset)]
    return flags


def earlier_chapters(folder: Path, preset: str) -> list[object]:
    """Flags that name checkpoints of chapters 1 and 2: narrow models, with the grid of tokens that the preset's tokenizer has."""
    torch.manual_seed(0)
    sizes = tokenizer_class("st-fsq").presets[preset]
    frame = {"frame_size": sizes.get("frame_size", 64)}
    tokenizer = TokenizerConfig(**frame, patch_size=sizes.get("patch_size", 8), embed_dim=8, num_blocks=1, num_heads=1)
    actions = LatentActionConfig(**frame, conv_width=8, embed_dim=8, num_heads=1)
    save("tokenizer", folder, "st-fsq", tokenizer, build_tokenizer(tokenizer))
    save("latent_action_model", folder, "latent-action-model", actions, build_latent_action_model(actions))
    return ["--tokenizer-checkpoint", folder / "tokenizer.pt", "--latent-action-checkpoint", folder / "latent_action_model.pt"]
