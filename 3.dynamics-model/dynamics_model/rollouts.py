"""Dreams: rolling the dynamics model out, and setting a dream beside what really happened.

Tokens are int64 (B, T, N); actions int64 (B, T), entry t for the action that led from frame t-1 to frame t.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from video_tokenizer.training.device import autocast


@torch.no_grad()
def roll_out(
    model, tokens: Tensor, actions: Tensor, future_actions: Tensor, generator: torch.Generator | None = None, **sampling: Any
) -> Tensor:
    """Dream as many frames as there are future actions; the dreamed tokens themselves are fed back.

    tokens: (B, T0, N) real frames; actions: (B, T0); future_actions: (B, S). generator: of the model's device; sampling: options
    of `generate_next`. Returns tokens (B, S, N).
    """
    state = model.start(tokens, actions)
    steps = future_actions.unbind(dim=1)
    return torch.stack([model.generate_next(state, action, generator=generator, **sampling) for action in steps], dim=1)


@torch.no_grad()
def tokens_of(tokenizer, video: Tensor) -> Tensor:
    """Tokens (B, T, N) of a video (B, T, C, H, W) in [0, 1] of any length."""
    return torch.cat([tokenizer.encode(clip).indices for clip in readable_clips(tokenizer, video)], dim=1)


@torch.no_grad()
def decode_after(tokenizer, prompt: Tensor, dreamed: Tensor) -> Tensor:
    """Pictures of dreamed tokens, decoded with the real frames before them. prompt: (B, T0, N); dreamed: (B, S, N).

    Returns float (B, S, C, H, W) in [0, 1].
    """
    tokens = torch.cat([prompt, dreamed], dim=1)
    video = torch.cat([tokenizer.decode_indices(clip) for clip in readable_clips(tokenizer, tokens)], dim=1)
    return video[:, prompt.shape[1] :].float()


def readable_clips(tokenizer, frames: Tensor) -> Sequence[Tensor]:
    """A video or its tokens (B, T, ...) in pieces that this tokenizer can read: whole, or as long as the clips of its training
    where it looks ahead."""
    return [frames] if tokenizer.is_causal else frames.split(tokenizer.config.num_frames, dim=1)


def random_actions(
    num_actions: int, shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Actions drawn evenly from [0, num_actions), the control of `delta_psnr_db`; zeros for a model without actions."""
    return torch.randint(max(1, num_actions), tuple(shape), generator=generator).to(device)


@torch.no_grad()
def dreams_beside_real(
    model,
    tokenizer,
    tokens: Tensor,
    actions: Tensor,
    video: Tensor,
    generators: tuple[torch.Generator, torch.Generator],
    **sampling: Any,
) -> dict[str, Tensor]:
    """Dreams that start where real clips start, and their controls: label -> float (B, S, C, H, W) in [0, 1].

    tokens: (B, T0 + S, N), actions: (B, T0 + S) and video: (B, T0 + S, C, H, W) of real clips; the first T0 = context_frames are
    given to the model. generators: one on the model's device that samples tokens, one on the CPU that draws random actions.

        real                     the S frames that followed
        real tokens decoded      the most a dream can reach with this tokenizer
        dream, right actions     under the actions of the real clip
        dream, random actions    the same start under actions drawn at random; absent for a model without actions
        standing still           the last given frame, repeated
    """
    context = model.context_frames
    prompt, past, future = tokens[:, :context], actions[:, :context], actions[:, context:]
    followed = {"dream, right actions": future}
    if model.num_actions:
        followed["dream, random actions"] = random_actions(model.num_actions, future.shape, generators[1], future.device)
    videos = {"real": video[:, context:], "real tokens decoded": decode_after(tokenizer, prompt, tokens[:, context:])}
    dice = generators[0].get_state()
    for label, taken in followed.items():
        generators[0].set_state(dice)  # the same dice for both, so that only the actions differ
        with autocast(video.device, model.config.precision):
            dreamed = roll_out(model, prompt, past, taken, generators[0], **sampling)
        videos[label] = decode_after(tokenizer, prompt, dreamed)
    return videos | {"standing still": video[:, context - 1 : context].expand_as(videos["real"])}
