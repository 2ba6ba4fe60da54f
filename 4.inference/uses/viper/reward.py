"""VIPER: an agent is paid by how likely a video model of an expert finds the frame that its action led to.

The video model is the `gpt` of chapter 3, trained without actions on frames of the expert and of nobody else. Its likelihood is
exact, so one number says whether the last frames look like the expert's play. The model is frozen: the agent can satisfy it,
but not change it.
Source: arXiv:2305.14343, sections 3.1 and 3.2.
"""

from collections.abc import Sequence
from pathlib import Path

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
        device = tokens.device
        ends = torch.tensor(list(frames), device=device)  # (M,)
        lengths = ends.clamp(max=self.past_frames)
        result = torch.zeros(len(ends), tokens.shape[1], device=device)
        for length in lengths.unique().tolist():
            for some in (lengths == length).nonzero().flatten().split(BATCH):
                windows = tokens[ends[some][:, None] + torch.arange(-length, 1, device=device)]  # (B, k + 1, N)
                unknown = torch.full(windows.shape[:2], -1, device=device)  # nobody tells the model the actions
                error = self.world.dynamics.teacher_forced(windows, unknown).error  # (B, k, N) in nats
                result[some] = -(error.sum(dim=1) if self.is_joint else error[:, -1])
        return result

    def rewards(self, frames: np.ndarray) -> np.ndarray:
        """The rewards of an episode, float64 (F - 1,): entry t is ln p(frame t + 1 | frames t - k + 1 .. t), and the pay for
        action t, which led from frame t to frame t + 1."""
        tokens = self.tokens(frames)
        return self.log_likelihoods(tokens, range(1, len(tokens))).double().sum(dim=-1).cpu().numpy()


class RunningScale:
    """(reward - mean) / standard deviation over all rewards so far, this one included: sums over 64 codes are tens of nats, and
    all of them negative, so that an agent would want every episode to end soon."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, reward: float) -> float:
        self.count += 1
        before = reward - self.mean
        self.mean += before / self.count
        self.squares += before * (reward - self.mean)  # Welford: the sum of squared differences from the mean
        deviation = (self.squares / self.count) ** 0.5
        return (reward - self.mean) / deviation if deviation > 0 else 0.0
