"""What only a real CUDA card can answer: `pytest -m gpu` on a machine that has one. Elsewhere all of this is skipped."""

import subprocess
import sys

import pytest
import torch
from script_runner import call
from structure_checks import REPOSITORY

from devices.test_memory import CASES, ROOM, flags_of
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.models.st_transformer import attention, causal_mask

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card")]
FEW = ("--num-steps", 3, "--validation-batches", 1, "--device", "cuda")


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("/paper")])
def test_a_preset_trains_within_16_gb(case, tmp_path):
    torch.cuda.reset_peak_memory_stats()
    assert call(CASES[case], *flags_of(tmp_path, case), *FEW) == 0
    assert torch.cuda.max_memory_allocated() / 2**30 <= ROOM


@pytest.mark.parametrize("mask", [None, causal_mask(8, window=4)], ids=["all", "causal"])
def test_fused_attention_equals_the_three_lines(mask):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 4, 8, 32, requires_grad=True) for _ in range(3)]
    on_card = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    written_out = attention(*inputs, mask)
    fused = attention(*on_card, None if mask is None else mask.cuda())
    written_out.square().sum().backward()
    fused.square().sum().backward()
    assert torch.allclose(written_out, fused.cpu(), atol=1e-3)
    for tensor, copy in zip(inputs, on_card, strict=True):
        assert tensor.grad is not None and copy.grad is not None
        assert torch.allclose(tensor.grad, copy.grad.cpu(), atol=1e-2)


@torch.no_grad()
def test_a_card_finds_the_same_tokens_as_the_cpu():
    """Rounding moves a latent across the border between two codes once in a thousand times at most."""
    path = REPOSITORY / "assets" / "worlds" / "breakout"
    frames = torch.load(path / "dynamics.pt", weights_only=True)["start_frames"].numpy()  # (S, T, H, W, 3)
    tokenizers = {name: load_tokenizer(path / "tokenizer.pt", torch.device(name)) for name in ("cpu", "cuda")}
    tokens = [tokenizer.encode(to_video(frames, name)).indices.cpu() for name, tokenizer in tokenizers.items()]
    assert (tokens[0] == tokens[1]).float().mean() >= 0.999


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two cards")
def test_two_cards_train_together(tmp_path):
    data = dummy_clip_store(tmp_path / "data").path
    arguments = ["1.video-tokenizer/train.py", "--data-path", data, *FEW, "--checkpoint-dir", tmp_path / "run"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
