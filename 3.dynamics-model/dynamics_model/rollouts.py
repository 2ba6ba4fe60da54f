"""Roll the dynamics model out, and compare rollouts with what really happened.

Frames are tokens, int64 (B, T, N), or latents, float (B, T, N, D). Actions are int64 (B, T), entry t for the action that led from
frame t-1 to frame t.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dynamics_model.models.base import DynamicsModel, Sampling, codes_of
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.device import autocast


@torch.no_grad()
def roll_out(
    model: DynamicsModel,
    prompt: Tensor,
    actions: Tensor,
    future_actions: Tensor,
    generator: torch.Generator | None = None,
    sampling: Sampling | None = None,
) -> Tensor:
    """One predicted frame per future action; each is fed back before the next is predicted.

    prompt: T0 real frames; actions: (B, T0); future_actions: (B, S). generator: of the model's device. Returns S frames.
    """
    state = model.start(prompt, actions)
    return torch.stack([model.step(state, action, sampling, generator) for action in future_actions.unbind(dim=1)], dim=1)


@torch.no_grad()
def encode_video(model: DynamicsModel, tokenizer: Tokenizer, video: Tensor) -> Tensor:
    """The model's frames of a video (B, T, C, H, W) in [0, 1] of any length."""
    return torch.cat([model.frames_of(tokenizer.encode(clip)) for clip in readable_clips(tokenizer, video)], dim=1)


@torch.no_grad()
def decode_after(tokenizer: Tokenizer, prompt: Tensor, predicted: Tensor) -> Tensor:
    """Decode S predicted frames, with the T0 prompt frames before them as the decoder's context.

    Returns float (B, S, C, H, W) in [0, 1].
    """
    codes = codes_of(torch.cat([prompt, predicted], dim=1), tokenizer)
    video = torch.cat([tokenizer.decode(clip) for clip in readable_clips(tokenizer, codes)], dim=1)
    return video[:, prompt.shape[1] :].float()


def readable_clips(tokenizer: Tokenizer, frames: Tensor) -> Sequence[Tensor]:
    """A video or its codes (B, T, ...) in pieces that this tokenizer can read: one piece, or clips of its training length if it
    looks ahead."""
    return [frames] if tokenizer.is_causal else frames.split(tokenizer.config.num_frames, dim=1)


def random_actions(
    num_actions: int, shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Uniform actions from [0, num_actions), the control of `delta_psnr_db`; zeros for a model without actions."""
    return torch.randint(max(1, num_actions), tuple(shape), generator=generator).to(device)


@torch.no_grad()
def rollouts_and_baselines(
    model: DynamicsModel,
    tokenizer: Tokenizer,
    frames: Tensor,
    actions: Tensor,
    video: Tensor,
    generators: tuple[torch.Generator, torch.Generator],
    sampling: Sampling | None = None,
) -> dict[str, Tensor]:
    """Rollouts that start where real clips start, and their baselines: label -> float (B, S, C, H, W) in [0, 1].

    frames, actions (B, T0 + S) and video (B, T0 + S, C, H, W) are those of real clips; the first T0 = context_frames are the
    prompt. generators: one on the model's device that samples frames, one on the CPU that samples random actions.

        real                     the S frames that followed
        real tokens decoded      the most that a rollout can reach with this tokenizer
        dream, right actions     under the actions of the real clip
        dream, random actions    from the same prompt under random actions; absent for a model without actions
        standing still           the last prompt frame, repeated
    """
    context = model.context_frames
    prompt, past, future = frames[:, :context], actions[:, :context], actions[:, context:]
    conditions = {"dream, right actions": future}
    if model.num_actions:
        conditions["dream, random actions"] = random_actions(model.num_actions, future.shape, generators[1], future.device)
    videos = {"real": video[:, context:], "real tokens decoded": decode_after(tokenizer, prompt, frames[:, context:])}
    random_state = generators[0].get_state()
    for label, followed in conditions.items():
        generators[0].set_state(random_state)  # the same random numbers for both, so that only the actions differ
        with autocast(video.device, model.config.precision):
            predicted = roll_out(model, prompt, past, followed, generators[0], sampling)
        videos[label] = decode_after(tokenizer, prompt, predicted)
    return videos | {"standing still": video[:, context - 1 : context].expand_as(videos["real"])}
