"""--tensorboard writes what the log says, hides what is repeated, and changes nothing else."""

import sys
from pathlib import Path

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY

TRAIN = REPOSITORY / "1.video-tokenizer" / "train.py"
SIZES = ["--use-dummy-data", "--frame-size", 16, "--embed-dim", 24, "--num-heads", 2, "--num-blocks", 1, "--batch-size", 2,
         "--validation-batches", 1, "--log-every", 1, "--save-every", 2, "--validate-every", 3, "--num-steps", 6]  # fmt: skip


def test_without_the_extra_one_sentence_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert call(TRAIN, *SIZES, "--tensorboard", "--checkpoint-dir", tmp_path / "run") == 2
    assert 'pip install -e ".[tensorboard]"' in capsys.readouterr().err and not (tmp_path / "run").exists()


def points_of(folder: Path) -> tuple[dict[str, list[int]], list[int]]:
    """The steps at which each curve has a point, and those at which there is a picture."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    curves = {tag: [point.step for point in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    return curves, [picture.step for picture in board.Images("samples")]


def test_a_resumed_training_has_one_point_a_step_and_the_same_weights_as_without(tmp_path):
    pytest.importorskip("tensorboard")
    assert call(TRAIN, *SIZES, "--checkpoint-dir", tmp_path / "without") == 0
    folder = tmp_path / "with"
    flags = (*SIZES, "--tensorboard", "--checkpoint-dir", folder)
    assert call(TRAIN, *flags) == 0
    weights = [torch.load(path / "final_model.pt", weights_only=True)["weights"] for path in (folder, tmp_path / "without")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    (folder / "metrics.json").unlink()
    state = torch.load(folder / "resume.pt", weights_only=True)
    torch.save(state | {"step": 4}, folder / "resume.pt")  # as if steps 5 and 6 had not been saved
    assert call(TRAIN, *flags) == 0
    curves, pictures = points_of(folder)
    assert curves["training/loss"] == curves["training/lr"] == [1, 2, 3, 4, 5, 6]
    assert curves["validation/psnr_db"] == pictures == [3, 6]
