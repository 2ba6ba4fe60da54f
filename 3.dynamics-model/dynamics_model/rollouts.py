"""Roll out the dynamics model, with baselines for comparison.

Frames are tokens, int64 (B, T, N), or latents, float (B, T, N, D). Actions are int64 (B, T), entry t for the action that led from
frame t-1 to frame t.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dynamics_model.data.frame_cache import frames_per_piece
from dynamics_model.models.base import DynamicsModel, Sampling, codes_of
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.device import autocast

MOST_PAIRS = 2**24
"""pairs of tokens of one frame, over all frames of a batch: on a CPU, attention keeps 64 MiB a head for as many"""


@torch.no_grad()
def roll_out(
    model: DynamicsModel,
    prompt: Tensor,
    actions: Tensor,
    future_actions: Tensor,
    generator: torch.Generator | None = None,
    sampling: Sampling | None = None,
) -> Tensor:
    """Predict one frame per future action, autoregressively.

    prompt: T0 real frames, (B, T0, N) or (B, T0, N, D). actions: (B, T0). future_actions: (B, S). generator: on the device of the
    model. Returns S frames.
    """
    rows = rows_at_once(prompt)
    if len(prompt) > rows:
        parts = zip(prompt.split(rows), actions.split(rows), future_actions.split(rows), strict=True)
        return torch.cat([roll_out(model, *part, generator, sampling) for part in parts])
    state = model.start(prompt, actions)
    return torch.stack([model.step(state, action, sampling, generator) for action in future_actions.unbind(dim=1)], dim=1)


@torch.no_grad()
def encode_video(model: DynamicsModel, tokenizer: Tokenizer, video: Tensor) -> Tensor:
    """Encode a video of any length, (B, T, C, H, W) in [0, 1], into the tokens or latents of the model."""
    return torch.cat([model.frames_of(tokenizer.encode(clip)) for clip in readable_clips(tokenizer, video)], dim=1)


@torch.no_grad()
def decode_after(tokenizer: Tokenizer, prompt: Tensor, predicted: Tensor) -> Tensor:
    """Decode S predicted frames, with the T0 prompt frames as context of the decoder.

    Returns float (B, S, C, H, W) in [0, 1].
    """
    codes = codes_of(torch.cat([prompt, predicted], dim=1), tokenizer)
    videos = [
        torch.cat([tokenizer.decode(clip) for clip in readable_clips(tokenizer, part)], dim=1)[:, prompt.shape[1] :].float()
        for part in codes.split(rows_at_once(codes))
    ]
    return torch.cat(videos)


def rows_at_once(frames: Tensor) -> int:
    """Rollouts (B, T, N, ...) that are drawn together: all of this course's own sizes, one by one where frames are large."""
    return max(1, MOST_PAIRS // (frames.shape[1] * frames.shape[2] ** 2))


def readable_clips(tokenizer: Tokenizer, frames: Tensor) -> Sequence[Tensor]:
    """Split a video or its codes (B, T, ...) into the pieces that a tokenizer that looks ahead reads; a causal one needs none.

    Codes must begin where a piece begins: a decoder that gets the ends of two pieces in one draws neither.
    """
    return [frames] if tokenizer.is_causal else frames.split(frames_per_piece(tokenizer), dim=1)


def random_actions(
    num_actions: int, shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Uniform actions in [0, num_actions), the baseline of `delta_psnr_db`; zeros for a model without actions."""
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
    """Rollouts from the start of real clips, and their baselines: label -> float (B, S, C, H, W) in [0, 1].

    frames, actions (B, T0 + S) and video (B, T0 + S, C, H, W) are real clips; the first T0 = context_frames are the prompt.
    generators: one on the device of the model, which samples frames, and one on the CPU, which samples random actions.

        real                     the S frames after the prompt
        real tokens decoded      the ceiling for a rollout with this tokenizer
        dream, right actions     a rollout with the actions of the real clip
        dream, random actions    a rollout with random actions; absent for a model without actions
        copy-last                the last prompt frame, repeated
    """
    context = model.context_frames
    prompt, past, future = frames[:, :context], actions[:, :context], actions[:, context:]
    conditions = {"dream, right actions": future}
    if model.num_actions:
        conditions["dream, random actions"] = random_actions(model.num_actions, future.shape, generators[1], future.device)
    videos = {"real": video[:, context:], "real tokens decoded": decode_after(tokenizer, prompt, frames[:, context:])}
    random_state = generators[0].get_state()
    for label, followed in conditions.items():
        generators[0].set_state(random_state)  # the same random numbers for both rollouts, so that only the actions differ
        with autocast(video.device, model.config.precision):
            predicted = roll_out(model, prompt, past, followed, generators[0], sampling)
        videos[label] = decode_after(tokenizer, prompt, predicted)
    return videos | {"copy-last": video[:, context - 1 : context].expand_as(videos["real"])}
