"""Dreamer 4's dynamics model: the latents of the next frame are formed out of noise, in a few steps.

    python 3.dynamics-model/dynamics_variants/train.py --model dreamer4 --data-path data/breakout --actions true \\
        --tokenizer-checkpoint 1.video-tokenizer/checkpoints/best_model.pt

What changes: frames are latents, lists of numbers that no codebook rounds. The model gets a frame mixed with noise and predicts
the clean one. In training every frame of a clip has a signal level of its own (diffusion forcing, arXiv:2407.01392), so the same
network learns to read a past that is nearly clean and to form a present that is all noise. Frames also have a step size. The
smallest one learns from data; each larger one learns to jump as far as two steps of half its size (shortcut models,
arXiv:2410.12557). After training, one network forms a frame in 1 step, in 4, or in as many as training knew.
What stays: causal in time, one cached step per frame, an action per frame or "unknown".
Source: arXiv:2509.24527, section 3. The transformer is that of the tokenizer.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dynamics_model.models.base import DynamicsModel, Predictions, Sampling
from dynamics_variants.dreamer4.config import PAPER, SMALL, Dreamer4Config
from dynamics_variants.dreamer4.forcing import clean_latents, mix, random_signal, velocity
from tokenizer_variants.dreamer4.block_causal_transformer import BlockCausalSizes, BlockCausalTransformer, step_mask
from video_tokenizer.global_batch import global_batch_size, local_shard
from video_tokenizer.losses import sample_of
from video_tokenizer.models.st_transformer import KVCache

NUM_CONDITIONS = 2
"""tokens of a step that say what is asked for: the action, and signal level with step size"""


@dataclass(frozen=True)
class Dreamer4Sampling(Sampling):
    """How `Dreamer4Dynamics.step` forms a frame."""

    num_steps: int = field(default=4, metadata={"smallest": 1, "largest": 64})
    """denoising steps per frame"""
    context_signal: float = field(default=0.9, metadata={"smallest": 0.0, "largest": 1.0})
    """share of signal in the past frames, the rest is noise; rounded to a level that training knows, so never quite 1"""


@dataclass
class Dreamer4State:
    """A batch of rollouts: keys and values of the past. Its size does not grow with the rollout."""

    cache: KVCache


class LatentNormaliser(nn.Module):
    """Subtract the mean frame of the latents, and divide by the root mean square of the rest.

    Noise has a size of 1. A mixture of half noise and half latents is half hidden only if the latents have the same size.
    Before `measure` is called, nothing changes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_latents: int, code_length: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_latents, code_length))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, latents: np.ndarray) -> None:
        """Compute both statistics from (F, N, D) latents, of which at most 256 frames, evenly spaced, are used."""
        chosen = torch.from_numpy(sample_of(latents)).float()  # (256, N, D)
        mean = chosen.mean(dim=0)
        self.mean.copy_(mean)
        self.scale.copy_((chosen - mean).square().mean().sqrt().clamp(min=1e-3))  # 0 if the recording never changes

    def forward(self, latents: Tensor) -> Tensor:
        """latents: (..., N, D). Returns the same shape, with mean 0 and root mean square about 1."""
        return (latents.float() - self.mean) / self.scale

    def undo(self, normalized: Tensor) -> Tensor:
        """From normalized latents (..., N, D) to those of the tokenizer."""
        return normalized * self.scale + self.mean


class Dreamer4Dynamics(DynamicsModel):
    """Shortcut forcing with a block-causal transformer (arXiv:2509.24527, section 3).

    The tokens of one time step, each with a learned vector for its place in the list:

        action | signal level and step size | N latents, mixed with noise | registers
    """

    reads = "latents"
    config_class = Dreamer4Config
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    sampling_class: ClassVar[type[Sampling]] = Dreamer4Sampling
    config: Dreamer4Config
    past_noise: Tensor

    def __init__(self, config: Dreamer4Config):
        super().__init__(config)
        width, self.num_levels = config.embed_dim, config.finest_steps
        self.num_sizes = self.num_levels.bit_length() if config.bootstrap_every else 1  # 16 levels: 1/16, 1/8, 1/4, 1/2 and 1
        num_tokens = NUM_CONDITIONS + self.tokens_per_frame + config.num_registers
        self.normalise = LatentNormaliser(self.tokens_per_frame, config.code_length)
        self.from_latents = nn.Linear(config.code_length, width)
        # the last row is "unknown": always zero, so that only the learned vector of the action's place is left
        self.action_embedding = nn.Embedding(self.num_actions + 1, width, padding_idx=self.num_actions)
        self.level_embedding = nn.Embedding(self.num_levels, width // 2)
        self.size_embedding = nn.Embedding(self.num_sizes, width // 2)
        self.places = nn.Embedding(num_tokens, width)
        for embedding in (self.action_embedding, self.level_embedding, self.size_embedding, self.places):
            nn.init.normal_(embedding.weight, std=0.5)
        with torch.no_grad():
            self.action_embedding.weight[self.num_actions] = 0
        sizes = BlockCausalSizes(
            width, config.num_heads, config.num_layers, config.context_frames, config.time_every, config.key_value_heads,
            soft_cap=config.soft_cap, activation_checkpointing=config.activation_checkpointing,
        )  # fmt: skip
        # every token of a step attends to every other; latents have no place in the picture, so rotary positions stay 0
        self.transformer = BlockCausalTransformer(sizes, step_mask([num_tokens], [[1]]), torch.zeros(num_tokens, 2))
        self.to_latents = nn.Linear(width, config.code_length)
        # noise of the past, by the number of a frame: fixed, so that a past read frame by frame is the past read at once
        past_noise = torch.randn(
            config.context_frames,
            self.tokens_per_frame,
            config.code_length,
            generator=torch.Generator().manual_seed(0),
            device="cpu",
        )
        self.register_buffer("past_noise", past_noise, persistent=False)

    def fit_statistics(self, frames: np.ndarray) -> None:
        self.normalise.measure(frames)

    def predict(
        self, noisy: Tensor, signal: Tensor, size: Tensor, actions: Tensor, cache: KVCache | None = None
    ) -> tuple[Tensor, KVCache]:
        """The clean latents (B, T, N, D) that the network sees in noisy ones, and the cache for the steps that follow.

        noisy: (B, T, N, D) normalized. signal: (B, T) in [0, 1), see `mix`. size: (B, T) int64, the step size is 2^size of the
        smallest. actions: (B, T). cache: earlier steps.
        """
        level = (signal * self.num_levels).round().long().clamp(max=self.num_levels - 1)  # (B, T)
        unknown = (actions < 0) | (self.num_actions == 0)
        action = self.action_embedding(actions.masked_fill(unknown, self.num_actions))  # (B, T, E)
        asked = torch.cat([self.level_embedding(level), self.size_embedding(size)], dim=-1)  # (B, T, E)
        latents = self.from_latents(noisy)  # (B, T, N, E)
        registers = latents.new_zeros(*actions.shape, self.config.num_registers, latents.shape[-1])
        conditions = torch.stack([action, asked], dim=2).to(latents.dtype)  # (B, T, 2, E)
        x = torch.cat([conditions, latents, registers], dim=2) + self.places.weight.to(latents.dtype)
        x, cache = self.transformer.step(x, cache)
        output = self.to_latents(x[:, :, NUM_CONDITIONS : NUM_CONDITIONS + self.tokens_per_frame]).float()  # (B, T, N, D)
        return clean_latents(output, noisy, signal, self.config.prediction, 1 / self.num_levels), cache

    # --- training ---

    def forward(self, frames: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """The terms of one training pass: "flow", what the smallest steps learn from data, and "shortcut", the larger ones.

        Each is a sum of squared errors over the number of all latents. Without a bootstrap there is only "flow".
        """
        config, clean = self.config, self.normalise(frames)
        rows, shape = global_batch_size(len(clean)), clean.shape[1:]
        dropped = local_shard(torch.rand(rows, shape[0], device=clean.device) < config.action_dropout)
        actions = actions.masked_fill(dropped, -1)
        size, signal = random_signal(len(clean), shape[0], self.num_levels, config.bootstrap_every, clean.device)
        noisy = mix(local_shard(torch.randn(rows, *shape, device=clean.device)), clean, signal)
        target = clean
        if config.bootstrap_every:
            part = slice(None, None, config.bootstrap_every)
            jump = self.bootstrap_target(noisy[part], signal[part], size[part], actions[part])
            target = clean.clone()
            target[part] = torch.where(size[part][..., None, None] > 0, jump, clean[part])
        predicted, _ = self.predict(noisy, signal, size, actions)
        error = (predicted - target).square().mean(dim=-1)  # (B, T, N)
        error = error * (self.weight_of(signal)[..., None] * self.weight_of_changed(clean))
        learns_from_data = (size == 0)[..., None]
        losses = {"flow": (error * learns_from_data).mean()}
        return losses | ({"shortcut": (error * ~learns_from_data).mean()} if config.bootstrap_every else {})

    @torch.no_grad()
    def bootstrap_target(self, noisy: Tensor, signal: Tensor, size: Tensor, actions: Tensor) -> Tensor:
        """What a step should predict, so that it leads where two steps of half its size lead. All as in `predict`, size > 0.

        A step moves along the velocity (clean - noisy) / (1 - signal). The target is the clean frame that would give the mean
        velocity of the two half steps. Where size is 0, nothing moves, and the result has no meaning.
        """
        smaller = (size - 1).clamp(min=0)
        half = torch.where(size > 0, 2.0**smaller, 0.0) / self.num_levels  # (B, T)
        first = velocity(self.predict(noisy, signal, smaller, actions)[0], noisy, signal)
        middle = noisy + half[..., None, None] * first
        second = velocity(self.predict(middle, signal + half, smaller, actions)[0], middle, signal + half)
        return noisy + (1 - signal)[..., None, None] * (first + second) / 2

    def weight_of(self, signal: Tensor) -> Tensor:
        """Weight of an error in clean latents at this signal level; both shapes (B, T).

        The ramp is 0.1 for pure noise, of which little can be known, and grows to 1. An error in velocity is the error in
        clean latents over 1 - signal.
        """
        weight = 0.9 * signal + 0.1 if self.config.ramp else torch.ones_like(signal)
        return weight / (1 - signal).square() if self.config.loss_space == "v" else weight

    def weight_of_changed(self, clean: Tensor) -> Tensor | float:
        """(B, T, N): `changed_weight` for latents that changed more than the mean of their frame, 1 for the others."""
        if self.config.changed_weight == 1:
            return 1.0
        change = torch.zeros_like(clean[..., 0])
        change[:, 1:] = (clean[:, 1:] - clean[:, :-1]).square().mean(dim=-1)
        return 1 + (self.config.changed_weight - 1) * (change > change.mean(dim=-1, keepdim=True))

    @torch.no_grad()
    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        """Frames 1 .. T - 1, each formed out of noise as in a rollout, but after the real frames before it.

        All begin with the same noise, in every call, so two calls differ only by what they are given. The error is the mean
        squared error per latent, in the units of the tokenizer. Since a frame is a sample of what may happen, its error is larger
        than that of the best guess, up to twice.
        """
        sampling, noise = Dreamer4Sampling(), self._noise(actions[:, 0], torch.Generator(frames.device).manual_seed(0))
        cache, predicted = KVCache(), []
        for t in range(1, frames.shape[1]):
            cache = self._read(frames[:, t - 1 : t], actions[:, t - 1 : t], cache, sampling)
            predicted.append(self._denoise(noise, actions[:, t], cache, sampling))
        latents = self.normalise.undo(torch.stack(predicted, dim=1))  # (B, T-1, N, D)
        return Predictions((latents - frames[:, 1:]).square().mean(dim=-1), latents)

    # --- rollouts ---

    @torch.no_grad()
    def start(self, frames: Tensor, actions: Tensor | None = None) -> Dreamer4State:
        if actions is None:
            actions = torch.full(frames.shape[:2], -1, dtype=torch.int64, device=frames.device)
        return Dreamer4State(self._read(frames, actions, KVCache(), Dreamer4Sampling()))

    @torch.no_grad()
    def step(
        self,
        state: Dreamer4State,
        action: Tensor,
        sampling: Dreamer4Sampling | None = None,
        generator: torch.Generator | None = None,
        trace: list | None = None,
    ) -> Tensor:
        """Form the next frame under `action` (B,) and append it to `state`. Returns its latents (B, N, D).

        trace stays empty, because a frame of latents has no tokens to watch.
        """
        sampling = sampling or Dreamer4Sampling()
        frame = self.normalise.undo(self._denoise(self._noise(action, generator), action, state.cache, sampling))
        state.cache = self._read(frame[:, None], action[:, None], state.cache, sampling)
        return frame

    def _noise(self, action: Tensor, generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers (B, N, D) from which a frame is formed. action: (B,), on the device of the model."""
        shape = (len(action), self.tokens_per_frame, self.config.code_length)
        return torch.randn(shape, generator=generator, device=action.device)

    def _read(self, frames: Tensor, actions: Tensor, cache: KVCache, sampling: Dreamer4Sampling) -> KVCache:
        """The cache with these frames (B, T, N, D) of the tokenizer added, slightly noised, as most of what training saw."""
        level = min(round(sampling.context_signal * self.num_levels), self.num_levels - 1)
        signal = torch.full(actions.shape, level / self.num_levels, device=frames.device)
        numbers = torch.arange(cache.position, cache.position + frames.shape[1], device=frames.device)
        noisy = mix(self.past_noise[numbers % len(self.past_noise)], self.normalise(frames), signal)  # (B, T, N, D)
        return self.predict(noisy, signal, torch.zeros_like(actions), actions, cache)[1]

    def _denoise(self, noise: Tensor, action: Tensor, cache: KVCache, sampling: Dreamer4Sampling) -> Tensor:
        """From noise to a frame, both (B, N, D), under action (B,), in equal steps. The cache stays as it is."""
        num_steps, frame, actions = sampling.num_steps, noise[:, None], action[:, None]
        # the largest size that fits: with 16 levels, 4 steps have size 2 (4/16), 3 steps as well, 64 steps have size 0
        size = min(max(self.num_levels // num_steps, 1).bit_length(), self.num_sizes) - 1
        for step in range(num_steps):
            signal = torch.full(actions.shape, step / num_steps, device=frame.device)
            clean, _ = self.predict(frame, signal, torch.full_like(actions, size), actions, cache)
            frame = frame + (clean - frame) / (num_steps - step)  # an equal part of the way that is left; at last all of it
        return frame[:, 0]
