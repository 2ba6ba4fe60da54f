"""What the code decides for a device or for several processes, asked on a machine that has neither."""

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from tiny_world import save, save_tiny_world

from dynamics_model.config import PRESETS as DYNAMICS_PRESETS
from dynamics_model.config import DynamicsConfig
from dynamics_model.data.prepare import prepare_frames
from latent_action_model.config import PRESETS as LATENT_PRESETS
from latent_action_model.config import LatentActionConfig
from latent_action_model.loading import build_latent_action_model
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.registry import TOKENIZERS, tokenizer_class
from video_tokenizer.training.command_line import run_script
from video_tokenizer.training.device import choose_device


def test_auto_takes_an_apple_gpu_only_for_a_large_model(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))  # any device is there
    chosen = [choose_device(name, large).type for name, large in (("auto", False), ("auto", True), ("mps", False))]
    assert chosen == ["cpu", "mps", "mps"]


def test_an_operation_that_an_apple_gpu_lacks_is_one_sentence(capsys):
    def main() -> None:
        raise NotImplementedError("The operator 'aten::some_operation' is not currently implemented for the MPS device. If you")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert "Apple's GPU has no aten::some_operation; put PYTORCH_ENABLE_MPS_FALLBACK=1 before the command" in said


def test_only_a_cuda_card_fetches_frames_while_the_processor_goes_on(monkeypatch):
    """From ordinary memory, Apple's GPUs may read what has been freed by then (pytorch#189690)."""
    hurries, move = {}, torch.Tensor.to

    def record(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        hurries[device.type] = non_blocking
        return move(tensor, "cpu")

    frames = np.zeros((1, 2, 8, 8, 3), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", record)
        for name in ("cuda", "mps", "cpu"):
            to_video(frames, torch.device(name))
    assert hurries == {"cuda": True, "mps": False, "cpu": False}


PRESETS = {
    **{name: (tokenizer_class(name).config_class, tokenizer_class(name).presets) for name in TOKENIZERS},
    "latent actions": (LatentActionConfig, LATENT_PRESETS),
    "dynamics": (DynamicsConfig, DYNAMICS_PRESETS),
}
NOT_ON_EIGHT = {"skeleton": PRESETS, "small": ["st-vq"], "paper": ["latent actions", "dynamics"]}
"""presets whose batch eight processes cannot share: those of 4 and 8 clips for one GPU, and Genie's of 36"""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_spread_over_up_to_four_processes_and_most_over_eight(name):
    config_class, presets = PRESETS[name]
    for preset, values in presets.items():
        for processes in (1, 2, 4, 8):
            if processes == 8 and name in NOT_ON_EIGHT.get(preset, ()):
                with pytest.raises(InputError, match="cannot be split over 8 processes"):
                    config_class(**values).check_processes(8)
            else:
                config_class(**values).check_processes(processes)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_what_the_first_process_encodes_for_all_needs_no_other_process(quantizer, tmp_path, monkeypatch):
    """The others wait for it, so an exchange with them would never end."""
    exchanges = ("all_reduce", "all_gather", "broadcast", "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all")
    waited = []

    def nobody_answers(*_: object, **__: object) -> None:
        raise AssertionError("the other processes wait at a barrier")

    for name in exchanges:
        monkeypatch.setattr(distributed, name, nobody_answers)
    group = {"is_initialized": lambda: True, "get_rank": lambda: 0, "get_world_size": lambda: 2}
    save_tiny_world(tmp_path)
    actions = LatentActionConfig(frame_size=32, conv_width=8, embed_dim=32, num_heads=2, quantizer=quantizer)
    save("latent_action_model", tmp_path, "latent-action-model", actions, build_latent_action_model(actions))
    store = dummy_clip_store(tmp_path / "data", frame_size=(32, 32))
    for name, stand_in in {**group, "barrier": lambda: waited.append(1)}.items():
        monkeypatch.setattr(distributed, name, stand_in)
    parts = {"tokenizer_checkpoint": tmp_path / "tokenizer.pt", "latent_action_checkpoint": tmp_path / "latent_action_model.pt"}
    config = DynamicsConfig(**{name: str(path) for name, path in parts.items()})
    prepared = prepare_frames(config, store, torch.device("cpu"), announce=lambda text: None)
    assert (prepared.actions >= 0).any() and len(waited) == 2  # once for the tokens, once for the actions
