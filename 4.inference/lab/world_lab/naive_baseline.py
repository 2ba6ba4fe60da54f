"""The same work as a first version of such code does it: what the benchmark's ratios compare with."""

from pathlib import Path

import cv2
import numpy as np
import torch

from dynamics_model.models.maskgit import MaskGIT
from dynamics_model.models.masking import sample_tokens, tokens_left_masked
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.models.base import Tokenizer


def decode_clips(path: Path, starts: np.ndarray, num_frames: int) -> torch.Tensor:
    """Clips straight out of a video file: open it, seek the frame, decode. Returns (B, T, C, H, W) in [0, 1]."""
    clips = []
    for start in starts:
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_POS_FRAMES, float(start))
        clips.append(np.stack([capture.read()[1][..., ::-1] for _ in range(num_frames)]))
        capture.release()
    return torch.from_numpy(np.stack(clips).astype(np.float32) / 255).permute(0, 1, 4, 2, 3).contiguous()


class NaiveRollout:
    """A rollout without a cache: every frame encodes, predicts and decodes the whole window, in every sampling step."""

    def __init__(self, tokenizer: Tokenizer, dynamics: MaskGIT, frames: np.ndarray, num_steps: int):
        """frames: (T, H, W, 3) uint8, the prompt."""
        self.tokenizer, self.dynamics, self.num_steps = tokenizer, dynamics, num_steps
        self.window = dynamics.context_frames
        self.frames = list(frames[-self.window + 1 :])
        self.actions = [-1] * len(self.frames)

    @torch.no_grad()
    def step(self, action: int) -> np.ndarray:
        """The next frame, (H, W, 3) uint8."""
        model = self.dynamics
        device = next(model.parameters()).device
        past = self.tokenizer.encode(to_video(np.stack(self.frames)[None], device)).indices  # (1, W - 1, N)
        actions = torch.tensor([[*self.actions, action]], device=device)
        num_tokens = past.shape[-1]
        tokens = torch.full((1, num_tokens), model.mask_token, device=device)
        for step in range(1, self.num_steps + 1):
            present = torch.cat([past[:, 1:], tokens[:, None]], dim=1)
            logits = model.predict(past, present, actions)[:, -1]  # of all frames of the window, of which one is used
            sampled, confidence = sample_tokens(logits, 1.0, None, None)
            masked = tokens == model.mask_token
            tokens = torch.where(masked, sampled, tokens)
            left = tokens_left_masked(step, self.num_steps, num_tokens, "halving")
            again = confidence.masked_fill(~masked, float("inf")).topk(left, largest=False).indices
            tokens = tokens.scatter(1, again, model.mask_token)
        frame = to_frames(self.tokenizer.decode_indices(torch.cat([past, tokens[:, None]], dim=1)))[0, -1]
        self.frames = [*self.frames, frame][-self.window + 1 :]
        self.actions = [*self.actions, action][-self.window + 1 :]
        return frame
