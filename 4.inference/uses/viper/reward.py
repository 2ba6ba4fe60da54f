"""VIPER: an agent is paid by how likely a video model of an expert finds the frame that its action led to.

The video model is the `gpt` of chapter 3, trained without actions on frames of the expert and of nobody else. Its likelihood is
exact, so one number says whether the last frames look like the expert's play. The model is frozen: the agent can satisfy it,
but not change it.
Source: arXiv:2305.14343, sections 3.1 and 3.2.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import SCREEN_SIZE
from world_model.world import WorldModel

SCOREBOARDS = {"ALE/Breakout-v5": 16, "ALE/Pong-v5": 22}
"""rows of the Atari's screen, from the top, that show the score and the lives"""
BATCH = 64
"""windows that are scored together"""


def pixel_mask(env_id: str | None, frame_size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 1): 0 for pixels of the scoreboard, 1 for all others and in games whose scoreboard is not known.

    Videos are multiplied by it before the tokenizer, and so before the video model and the reward, ever sees them.
    """
    mask = np.ones((*frame_size, 1), np.uint8)
    rows = SCOREBOARDS.get((env_id or "").removeprefix("ale_py:"), 0)
    mask[: -(-rows * frame_size[0] // SCREEN_SIZE[0])] = 0  # rounded up: a row that shows any of it is hidden
    return mask


class VideoReward:
    """The log-likelihood of a video under a frozen model of expert videos, frame by frame.

    world: tokenizer and a `gpt` that was trained with --actions none. past_frames: k, how many frames before it a frame is
    judged by; default: as many as the model can look back. is_joint: score all frames of the window instead of the last alone.
    is_masked: whether the scoreboard is hidden. Raises InputError for a model that has actions, that has no likelihood, that
    looks back less, or that was trained with another mask.
    """

    def __init__(self, world: WorldModel, past_frames: int | None = None, is_joint: bool = False, is_masked: bool = True):
        model = world.dynamics
        if not model.is_exact_likelihood:
            raise InputError(f"the model {model.config.model} has no likelihood; train one with --model gpt")
        if world.action_kind != "none":
            raise InputError(
                f"the video model was trained with {world.action_kind} actions, which expert videos do not have; train it with "
                "--actions none"
            )
        self.past_frames = world.context_frames - 1 if past_frames is None else past_frames
        if not 1 <= self.past_frames < world.context_frames:
            raise InputError(
                f"past_frames {past_frames} does not fit this model, which judges a frame by 1 to {world.context_frames - 1}"
            )
        self.world, self.is_joint = world, is_joint
        self.mask = pixel_mask(world.metadata.env_id, world.frame_size)
        if not is_masked:
            self.mask = np.ones_like(self.mask)
        hidden = world.start_frames[..., self.mask[..., 0] == 0, :]  # frames of the training store, kept in the checkpoint
        if hidden.any():
            raise InputError("the video model was trained on frames that show the scoreboard; train it on masked ones")
        scoreboard = pixel_mask(world.metadata.env_id, world.frame_size)[..., 0] == 0
        if not is_masked and not world.start_frames[..., scoreboard, :].any():
            raise InputError("the video model was trained on frames without the scoreboard; leave the mask on")
        model.eval().requires_grad_(False)
        world.tokenizer.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", **settings) -> "VideoReward":
        """Of a folder with tokenizer.pt and dynamics.pt. settings: as above."""
        return cls(WorldModel.load(folder, device), **settings)

    @torch.no_grad()
    def tokens(self, frames: np.ndarray) -> Tensor:
        """An episode's frames (F, H, W, 3) uint8 from its first one on, masked and encoded as one stream: (F, N) int64."""
        pieces, cache = [], None
        for part in np.split(self.world.fit_frames(frames) * self.mask, range(BATCH, len(frames), BATCH)):
            encoded, cache = self.world.tokenizer.encode_next(to_video(part[None], self.world.device), cache)
            pieces.append(encoded.indices[0])
        return torch.cat(pieces)

    @torch.no_grad()
    def log_likelihoods(self, tokens: Tensor, frames: Sequence[int]) -> Tensor:
        """ln p of each code of the given frames, (M, N) float32 in nats, each code given those before it.

        tokens: (F, N) of one episode. frames: numbers from 1 to F - 1. The window of a frame begins k frames earlier, or at the
        start of the episode, and never before it.
        """
        ends = torch.tensor(list(frames), device=tokens.device)  # (M,)
        lengths = ends.clamp(max=self.past_frames)
        result = torch.zeros(len(ends), tokens.shape[1], device=tokens.device)
        for length in lengths.unique().tolist():
            for some in (lengths == length).nonzero().flatten().split(BATCH):
                result[some] = self.of_windows(tokens[ends[some][:, None] + torch.arange(-length, 1, device=tokens.device)])
        return result

    @torch.no_grad()
    def of_windows(self, windows: Tensor) -> Tensor:
        """ln p of each code of the last frame of windows (M, k + 1, N), joint: of all but the first. Returns (M, N) in nats."""
        unknown = torch.full(windows.shape[:2], -1, device=windows.device)  # nobody tells the model the actions
        error = self.world.dynamics.teacher_forced(windows, unknown).error  # (M, k, N), -ln p
        return -(error.sum(dim=1) if self.is_joint else error[:, -1])

    def rewards(self, frames: np.ndarray) -> np.ndarray:
        """The rewards of an episode, float64 (F - 1,): entry t is ln p(frame t + 1 | frames t - k + 1 .. t), and the pay for
        action t, which led from frame t to frame t + 1."""
        tokens = self.tokens(frames)
        return self.log_likelihoods(tokens, range(1, len(tokens))).double().sum(dim=-1).cpu().numpy()


class Payer(Protocol):
    """Who judges the frames (B, H, W, 3) of B games that begin together."""

    def start(self, frames: np.ndarray) -> None: ...

    def pay(self, frames: np.ndarray) -> np.ndarray: ...


class Stream:
    """The same rewards frame by frame, for games that are being played: B of them at a time, which begin and end together."""

    def __init__(self, reward: VideoReward):
        self.reward = reward
        self.window: deque[Tensor] = deque(maxlen=reward.past_frames + 1)
        """the tokens (B, N) of the newest frames"""

    def start(self, frames: np.ndarray) -> None:
        """The first frames (B, H, W, 3) of new episodes. Nothing of the episodes before is remembered."""
        self.cache = None
        self.window.clear()
        self.see(frames)

    def pay(self, frames: np.ndarray) -> np.ndarray:
        """The next frames (B, H, W, 3). Returns the rewards (B,) of the actions that led to them, in nats."""
        self.see(frames)
        return self.reward.of_windows(torch.stack(list(self.window), dim=1)).double().sum(dim=-1).cpu().numpy()

    @torch.no_grad()
    def see(self, frames: np.ndarray) -> None:
        """Encode the next frames, and forget the oldest."""
        video = to_video(frames[:, None] * self.reward.mask, self.reward.world.device)
        encoded, self.cache = self.reward.world.tokenizer.encode_next(video, self.cache)
        self.window.append(encoded.indices[:, 0])


class FramesAlone:
    """ln p of frames of which no past is known (k = 0), by a model that has learned each frame behind a black one."""

    def __init__(self, reward: VideoReward):
        self.reward = reward

    def start(self, frames: np.ndarray) -> None:
        """Nothing is remembered, so nothing begins."""

    @torch.no_grad()
    def pay(self, frames: np.ndarray) -> np.ndarray:
        """The rewards (B,) of frames (B, H, W, 3), in nats."""
        video = to_video(alone(frames * self.reward.mask), self.reward.world.device)
        windows = self.reward.world.tokenizer.encode(video).indices
        return self.reward.of_windows(windows).double().sum(dim=-1).cpu().numpy()


def alone(frames: np.ndarray) -> np.ndarray:
    """Every frame behind a black one: (F, 2, H, W, 3) of frames (F, H, W, 3)."""
    return np.stack([np.zeros_like(frames), frames], axis=1)


class RunningScale:
    """(reward - mean) / standard deviation over all rewards so far, these included: sums over many codes are tens of nats, and
    all of them negative, so that an agent would want every episode to end soon."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards (B,), normalized."""
        before, count = rewards - self.mean, self.count
        self.count += len(rewards)
        self.mean += before.sum() / self.count
        self.squares += ((rewards - rewards.mean()) ** 2).sum() + before.mean() ** 2 * count * len(rewards) / self.count
        deviation = (self.squares / self.count) ** 0.5
        return (rewards - self.mean) / deviation if deviation > 0 else np.zeros(len(rewards))
