"""The ceiling for latent actions: how well a small supervised classifier predicts the true action from the frames.

A latent action model cannot know more about the button than the frames show. NOOP and FIRE look the same in the middle of a game,
and a paddle at the wall does not move, whatever is pressed. The information in the codes is therefore compared with that of this
classifier. Its input is the frames f-2 .. f+1 around the transition from f-1 to f, the same evidence as three successive codes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latent_action_model.metrics import information_share
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import to_video
from video_tokenizer.training.device import autocast

LARGEST_EPOCHS = 8  # more passes over a few transitions would only make the classifier overconfident
OFFSETS = np.array([-2, -1, 0, 1])  # frames around the transition that ends at frame 0


class ActionProbe(nn.Module):
    """Convolutions over the last frame and the three changes between four frames, then one hidden layer.

    A convolutional stem that gets the changes as input learns the action within a minute; linear patches need many times longer.
    """

    def __init__(self, frame_size: tuple[int, int], num_actions: int, width: int = 48):
        super().__init__()
        self.unshuffle = 4 if frame_size[0] % 4 == 0 and frame_size[1] % 4 == 0 else 1
        rows, columns = (-(-side // (4 * self.unshuffle)) for side in frame_size)
        self.features = nn.Sequential(
            nn.PixelUnshuffle(self.unshuffle),
            nn.Conv2d(12 * self.unshuffle**2, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(width * rows * columns, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, num_actions)
        )  # fmt: skip

    def forward(self, clips: Tensor) -> Tensor:
        """clips: (B, 4, C, H, W) in [0, 1]. Returns logits (B, num_actions)."""
        changes = clips[:, 1:] - clips[:, :-1]  # (B, 3, C, H, W)
        return self.head(self.features(torch.cat([clips[:, -1:], 3.0 * changes], dim=1).flatten(1, 2)))


@dataclass(frozen=True)
class ProbeResult:
    """The scores of the supervised classifier on held-out episodes."""

    supervised_information: float
    """share of the true action's entropy, at most 1"""
    supervised_accuracy: float
    """share of transitions whose action it predicts"""
    num_steps: int
    """optimizer steps taken"""


def probe_frames(store: ClipStore, episodes: Sequence[int]) -> np.ndarray:
    """Frames f of the chosen episodes that have a known action, with f-2 .. f+1 in the same episode: int64 (N,)."""
    ranges = store.episodes[np.asarray(episodes, np.int64)]
    frames = np.concatenate([np.arange(start + 2, stop - 1) for start, stop in ranges] or [np.empty(0, np.int64)])
    return frames[store.actions[frames] >= 0].astype(np.int64)


def supervised_information(
    store: ClipStore,
    fit_episodes: Sequence[int],
    test_episodes: Sequence[int],
    num_steps: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ProbeResult:
    """Train an `ActionProbe` on `fit_episodes` and score it on `test_episodes`.

    Training stops after num_steps or `LARGEST_EPOCHS`, whichever comes first, and never by the clock: what else the machine does
    must not lower the ceiling. The scores are NaN if one of the two sets has no known action.
    """
    device = torch.device(device)
    fit, test = probe_frames(store, fit_episodes), probe_frames(store, test_episodes)
    if len(fit) == 0 or len(test) == 0:
        return ProbeResult(math.nan, math.nan, 0)
    num_steps = min(num_steps, max(100, LARGEST_EPOCHS * len(fit) // batch_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = ActionProbe(store.frame_size, max(store.num_actions, int(store.actions.max()) + 1)).to(device)
        _train(probe, store, fit, num_steps, batch_size, np.random.default_rng(seed), device)
    probe.eval()
    with torch.no_grad(), autocast(device, "auto"):
        logits = [probe(_clips(store, test[first : first + 256], device)).float().cpu() for first in range(0, len(test), 256)]
    log_probabilities = torch.cat(logits).log_softmax(dim=-1).numpy()  # (N, A)
    actions = store.actions[test].astype(np.int64)
    accuracy = float((log_probabilities.argmax(axis=1) == actions).mean())
    return ProbeResult(information_share(log_probabilities, actions), accuracy, num_steps)


def _train(
    probe: ActionProbe,
    store: ClipStore,
    fit: np.ndarray,
    num_steps: int,
    batch_size: int,
    rng: np.random.Generator,
    device: torch.device,
) -> None:
    """Minimize the cross entropy with AdamW, whose learning rate falls to zero over the steps."""
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.02)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (1.0 - step / num_steps)
        frames = fit[rng.integers(len(fit), size=batch_size)]
        with autocast(device, "auto"):
            logits = probe(_clips(store, frames, device))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(store.actions[frames].astype(np.int64)).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _clips(store: ClipStore, frames: np.ndarray, device: torch.device) -> Tensor:
    """(B, 4, C, H, W) in [0, 1]: the four frames around each transition."""
    return to_video(store.frames[frames[:, None] + OFFSETS], device)
