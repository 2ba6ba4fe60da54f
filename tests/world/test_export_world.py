"""A world exported with 8-bit weights: smaller, loadable, and still the same world."""

import numpy as np
import pytest
import torch
from script_runner import call, load_script
from structure_checks import REPOSITORY
from tiny_world import save_tiny_world

from video_tokenizer.training.checkpoint import from_eight_bits
from world_model.world import WorldModel

SCRIPT = REPOSITORY / "4.inference" / "lab" / "export_world.py"
export_world = load_script(SCRIPT)


def test_eight_bits_of_the_docstring():
    weights = {"matrix": torch.tensor([[0.254, 0.1], [0.0, 0.0]]), "bias": torch.tensor([0.5]), "steps": torch.tensor(3)}
    small, scales = export_world.to_eight_bits(weights)
    assert small["matrix"].dtype == torch.int8 and small["matrix"][0].tolist() == [127, 50] and list(scales) == ["matrix"]
    back = from_eight_bits(small, scales)
    assert (back["matrix"] - weights["matrix"]).abs().max() <= 0.001
    assert back["bias"].item() == 0.5 and back["steps"].item() == 3


@pytest.mark.parametrize("actions", ["latent", "true"])
def test_the_copy_is_smaller_and_looks_nearly_the_same(tmp_path, actions):
    world = save_tiny_world(tmp_path / "world", actions)
    assert call(SCRIPT, "--world", world, "--output", tmp_path / "copy") == 0
    for file in world.glob("*.pt"):
        assert (tmp_path / "copy" / file.name).stat().st_size < 0.8 * file.stat().st_size
    first, second = (WorldModel.load(tmp_path / name, "cpu", precision="float32") for name in ("world", "copy"))
    pictures = [world.reset(world.start_frames[0]).astype(int) for world in (first, second)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 2.0


def test_a_copy_may_weigh_the_keys_in_another_way(tmp_path, capsys):
    world, copy = save_tiny_world(tmp_path / "world"), tmp_path / "copy"
    assert call(SCRIPT, "--world", world, "--output", copy, "--key-guidance", -1) == 2
    assert "key_guidance -1.0 must lie between 0.1 and 100" in capsys.readouterr().err and not copy.exists()
    assert call(SCRIPT, "--world", world, "--output", copy, "--key-guidance", 7) == 0
    assert call(SCRIPT, "--world", copy, "--output", tmp_path / "again", "--key-smoothing", 0) == 0
    again = WorldModel.load(tmp_path / "again")
    assert (again.metadata.key_guidance, again.metadata.key_smoothing) == (7, 0)
    assert (again.dynamics.config.key_guidance, again.dynamics.config.key_smoothing) == (7, 0)  # type: ignore[attr-defined]
    first, second = (torch.load(folder / "dynamics.pt")["weights"] for folder in (copy, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)  # rounding what is rounded changes nothing


def test_settings_of_keys_are_refused_where_no_prior_reads_them(tmp_path, capsys):
    world = save_tiny_world(tmp_path / "world", "true")
    assert call(SCRIPT, "--world", world, "--output", tmp_path / "copy", "--key-guidance", 7) == 2
    assert "without an action prior" in capsys.readouterr().err and not (tmp_path / "copy").exists()


def test_a_damaged_part_leaves_no_half_of_a_copy(tmp_path, capsys):
    world = save_tiny_world(tmp_path / "world")
    (world / "sound.pt").write_bytes(b"noise")
    assert call(SCRIPT, "--world", world, "--output", tmp_path / "copy") == 2
    assert "sound.pt" in capsys.readouterr().err and not (tmp_path / "copy").exists()


def test_a_world_is_not_overwritten_by_its_own_copy(tmp_path, capsys):
    world = save_tiny_world(tmp_path / "world", "true")
    assert call(SCRIPT, "--world", world, "--output", world) == 2 and "the world itself" in capsys.readouterr().err


def test_an_exported_world_keeps_no_absolute_path():
    config = {"checkpoint_dir": "/home/somebody/run", "data_path": "data/breakout", "tokenizer_checkpoint": None, "num_steps": 5}
    config |= {"world": "/home/somebody/worlds/pong"}  # of a sharpener, which must name one
    assert export_world.without_absolute_paths(config) == config | {"checkpoint_dir": None, "world": "pong"}
    for file in sorted((REPOSITORY / "assets" / "worlds").glob("*/*.pt")):
        config = torch.load(file, weights_only=True)["config"]
        assert export_world.without_absolute_paths(config) == config, file
