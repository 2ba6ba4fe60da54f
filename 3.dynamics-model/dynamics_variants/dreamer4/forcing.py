"""Between noise and a frame: mixtures, velocities, and which of them a training pass asks for.

A signal level of 0 is pure noise, 1 is the clean frame. The straight line between the two has the velocity clean - noise.
"""

import torch
from torch import Tensor

from video_tokenizer.global_batch import global_batch_size, local_shard


def mix(noise: Tensor, clean: Tensor, signal: Tensor) -> Tensor:
    """(1 - signal) * noise + signal * clean: frames (B, T, N, D), with a level for each frame, (B, T) in [0, 1]."""
    signal = signal[..., None, None]
    return (1 - signal) * noise + signal * clean


def velocity(clean: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
    """How fast a mixture must move to be clean at signal level 1. clean, noisy: (B, T, N, D); signal: (B, T) below 1.

    Noise 0.2, a clean value of 1 and a level of 0.5 give a mixture of 0.6 and a velocity of (1 - 0.6) / 0.5 = 0.8 = 1 - 0.2.
    """
    return (clean - noisy) / (1 - signal)[..., None, None]


def clean_latents(output: Tensor, noisy: Tensor, signal: Tensor, prediction: str, smallest_signal: float) -> Tensor:
    """The clean frame that a network's output means, all (B, T, N, D). signal: (B, T).

    prediction: what the output is, "x" the clean frame itself, "v" the velocity, "noise" the noise. Pure noise with its noise
    removed says nothing about a frame, so for "noise" the level counts as at least `smallest_signal`.
    """
    if prediction == "x":
        return output
    signal = signal[..., None, None]
    if prediction == "v":
        return noisy + (1 - signal) * output
    return (noisy - (1 - signal) * output) / signal.clamp(min=smallest_signal)


def random_signal(
    batch_size: int, num_frames: int, num_levels: int, bootstrap_every: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A step size and a signal level for each frame: int64 and float32, both (B, T).

    Size s is a step of 2^s / num_levels. Every `bootstrap_every`-th clip draws all sizes from 1 / num_levels to 1 equally often;
    the other clips have the smallest one. The level is a multiple of the step: at size 1/4 it is 0, 1/4, 1/2 or 3/4.
    """
    shape = (global_batch_size(batch_size), num_frames)
    size = local_shard(torch.randint(num_levels.bit_length(), shape, device=device))
    jumps = torch.arange(batch_size, device=device) % max(1, bootstrap_every) < min(1, bootstrap_every)  # (B,)
    size = size * jumps[:, None]
    steps = num_levels // 2**size  # from noise to the frame
    signal = (local_shard(torch.rand(shape, device=device)) * steps).floor() / steps
    return size, signal
