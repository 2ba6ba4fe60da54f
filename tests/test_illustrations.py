"""The pictures of the texts are those that the shipped worlds make."""

import numpy as np
import pytest
import torch
from PIL import Image
from script_runner import call
from structure_checks import REPOSITORY

from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_video
from video_tokenizer.illustrations import spatial_attention
from video_tokenizer.training.checkpoint import load_checkpoint

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
PICTURES = {
    "1.video-tokenizer": ("patches.png", "positions.png", "attention.png", "causal_mask.png", "quantizer.png"),
    "3.dynamics-model": ("filling_in.png", "filling_in.gif"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for chapter in PICTURES:
        assert call(REPOSITORY / chapter / "illustrate.py", "--world", WORLD, "--output", folder / chapter) == 0
    return folder


@pytest.mark.parametrize("chapter, name", [(chapter, name) for chapter, names in PICTURES.items() for name in names])
def test_a_picture_is_what_illustrate_draws_from_the_shipped_world(drawn, chapter, name):
    """Other versions of matplotlib place letters otherwise, other processors draw other tokens; what is shown stays."""
    ours = Image.open(REPOSITORY / "assets" / chapter / name).convert("RGB")
    again = Image.open(drawn / chapter / name).convert("RGB")
    assert abs(ours.width - again.width) < 20 and abs(ours.height - again.height) < 20
    again = again.resize(ours.size)
    small = [np.asarray(picture.resize((60, 40), Image.Resampling.BOX), np.float32) for picture in (ours, again)]
    assert np.abs(small[0] - small[1]).mean() < 4


def test_the_attention_shown_is_the_one_that_is_computed():
    """With it, the block's update of the last frame comes out as the block computes it."""
    tokenizer = load_tokenizer(WORLD / "tokenizer.pt")
    clip = to_video(load_checkpoint(WORLD / "dynamics.pt", "dynamics")["start_frames"][:1].numpy())
    weights = spatial_attention(tokenizer, clip, 1)  # (heads, N, N)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:2]))
    seen: dict[str, torch.Tensor] = {}
    attention = tokenizer.encoder.blocks[1].space_attention
    hook = attention.register_forward_hook(lambda _, given, output: seen.update(x=given[0][-1:], update=output[0][-1]))
    with torch.no_grad():
        tokenizer.encode(clip)
        hook.remove()
        _, _, values = attention.to_qkv(seen["x"])[0].view(64, 3, attention.num_heads, -1).permute(1, 2, 0, 3)  # (heads, N, d)
        update = attention.output((weights @ values).transpose(0, 1).flatten(1))
    assert torch.allclose(update, seen["update"], atol=1e-4)
