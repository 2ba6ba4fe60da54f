"""The loss of Dreamer 4's tokenizer, its flags, and the perceptual distances that it may use."""

import numpy as np
import pytest
import torch
from tiny_tokenizers import BLACK, built, scrolling_walls, tiny_config

from tokenizer_variants.dreamer4 import model as dreamer4
from tokenizer_variants.dreamer4.model import RunningScale
from tokenizer_variants.perceptual import PerceptualDistance
from video_tokenizer.data.clips import to_frames
from video_tokenizer.losses import weighted_mse
from video_tokenizer.metrics import psnr_db
from video_tokenizer.training.command_line import InputError


def gradients(monkeypatch, factor: float, **changes) -> list[torch.Tensor]:
    """Gradients of three steps on images whose loss is `factor` times as large."""
    distance = PerceptualDistance.__call__
    with monkeypatch.context() as patched:
        patched.setattr(dreamer4, "weighted_mse", lambda *given: factor * weighted_mse(*given))
        patched.setattr(PerceptualDistance, "__call__", lambda *given: factor * distance(*given))
        tokenizer = built(largest_hidden_share=0.0, **changes).train()
        tokenizer.fit_statistics(to_frames(scrolling_walls(8, 1, seed=9))[:, 0])
        found = []
        for step in range(3):
            video = scrolling_walls(2, 3, seed=step)
            tokenizer.zero_grad()
            sum(tokenizer.loss(video, tokenizer(video), BLACK).values()).backward()
            found.append(
                torch.cat([parameter.grad.flatten() for parameter in tokenizer.parameters() if parameter.grad is not None])
            )
    return found


def test_a_loss_a_hundred_times_as_large_has_the_same_gradient(monkeypatch):
    once, hundred_times = gradients(monkeypatch, 1.0), gradients(monkeypatch, 100.0)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(once, hundred_times, strict=True))
    plain = gradients(monkeypatch, 1.0, normalise_losses=False), gradients(monkeypatch, 100.0, normalise_losses=False)
    assert torch.allclose(100 * plain[0][0], plain[1][0], rtol=1e-3, atol=1e-4)  # what the division takes away


def test_the_running_scale_is_a_mean_of_squares_at_first():
    scale = RunningScale()
    assert scale(torch.tensor(3.0)) == 1.0  # 3 / sqrt(9)
    assert torch.isclose(scale(torch.tensor(4.0)), torch.tensor(4 / 12.5**0.5))  # sqrt((9 + 16) / 2)
    scale.eval()
    assert torch.isclose(scale(torch.tensor(5.0)), torch.tensor(5 / 12.5**0.5)) and scale.num_updates == 2
    again = RunningScale()
    again.load_state_dict(scale.state_dict())
    assert again(torch.tensor(6.0)) == scale.train()(torch.tensor(6.0))


def test_the_perceptual_term_sees_a_missing_dot_and_can_be_left_out():
    video = torch.zeros(1, 1, 3, 16, 16)
    video[..., 8, 8] = 0.5
    distance = PerceptualDistance("ssim", 1, "float32", torch.device("cpu"))
    assert distance(video, video) < 1e-6 and distance(torch.zeros_like(video), video) > 0.1
    assert psnr_db(torch.zeros_like(video), video) > 25  # which the squared error hardly notices
    tokenizer = built(perceptual="none").train()
    assert tokenizer.loss(video, tokenizer(video), BLACK).keys() == {"pixels"}


def test_lpips_says_what_it_needs_and_fetches_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        InputError, match=f"AlexNet's weights in {tmp_path}/checkpoints/alexnet.*; use --perceptual frame-gap or ssim"
    ):
        built(perceptual="lpips").fit_statistics(np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": 5}, "frame_size 16 is not a multiple of patch_size 5"),
        ({"embed_dim": 36}, r"embed_dim 36 is not a multiple of 4 \* num_heads 2"),
        ({"time_every": 1}, "time_every 1 must lie between 2 and"),
        ({"num_latents": 0}, "num_latents 0 must lie between 1 and"),
        ({"largest_hidden_share": 1.0}, "largest_hidden_share 1.0 must lie between 0 and 0.99"),
        ({"soft_cap": -1.0}, "soft_cap -1.0"),
    ],
)
def test_sizes_that_cannot_work_are_refused_with_their_numbers(changes, words):
    with pytest.raises(InputError, match=words):
        tiny_config("dreamer4", **changes).check()
