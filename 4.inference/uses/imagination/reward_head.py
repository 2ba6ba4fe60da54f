"""A small head that reads tokens and predicts what the game pays and when a life is lost.

A world predicts frames and nothing else. The head is trained on a recording, whose clip store says which frames were paid and
with which ones a life was lost (or the game). From then on it can judge frames that only the world has drawn.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.training.device import autocast

HORIZONS = (1, 2, 4, 8, 16, 32)
"""the head predicts events within so many frames; 1 is the frame itself, and the others are there for the features"""
EVENTS = ("paid", "lost")
HIDDEN_ROWS = 1
"""rows of patches, from the top, that the head does not see: they show score and lives, which a rollout need not count right"""
BATCH = 128
"""windows per step of the training, and per pass of the prediction"""


class RewardHead(nn.Module):
    """Tokens of the newest frames -> logits that something is paid or a life is lost, within each of `HORIZONS`.

    Each patch is read with its eight neighbors, in all frames of the window. codes: (K, D), the vectors of the tokens.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, grid_size: tuple[int, int], num_frames: int = 3, width: int = 64, num_features: int = 128):
        super().__init__()
        self.grid_size, self.num_frames = grid_size, num_frames
        num_patches = grid_size[0] * grid_size[1]
        self.register_buffer("codes", codes)
        self.read = nn.Linear(num_frames * codes.shape[1] * 9, width)
        self.position = nn.Parameter(torch.zeros(num_patches, width))
        self.mix = nn.Linear(width, width)
        self.gather = nn.Sequential(nn.Dropout(0.1), nn.Linear(num_patches * width, num_features), nn.LayerNorm(num_features))
        self.to_logits = nn.Linear(num_features, len(EVENTS) * len(HORIZONS))
        nn.init.constant_(self.to_logits.bias, -3.0)  # events are rare

    def features(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T, N) int64, the newest frame last. Returns (B, F): what the agent observes."""
        codes = rearrange(self.codes[tokens], "b t (h w) d -> b (t d) h w", h=self.grid_size[0])
        codes[:, :, :HIDDEN_ROWS] = 0.0
        patches = rearrange(F.unfold(codes, kernel_size=3, padding=1), "b c n -> b n c")  # (B, N, T*D*9)
        x = F.gelu(self.read(patches) + self.position)  # (B, N, width)
        x = F.gelu(self.mix(x))
        return self.gather(x.flatten(1))  # (B, F)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, 2, H) of `EVENTS` within `HORIZONS`."""
        return self.logits(self.features(tokens))

    def logits(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, 2, H)."""
        return rearrange(self.to_logits(F.gelu(features)), "b (e h) -> b e h", e=len(EVENTS))


# ---- what it learns -----------------------------------------------------------------------------------------------------


def events(store: ClipStore) -> np.ndarray:
    """bool (F, 2): whether something was paid for a frame, and whether a life was lost with it, or the game.

    Raises InputError for a store without rewards. How much was paid is left out, as it is usual on the Atari.
    """
    lives = store.array("lives").astype(np.int64)
    lost = np.diff(lives, prepend=lives[:1]) < 0
    lost[store.episodes[:, 0]] = False  # another game
    return np.stack([store.array("rewards") > 0, lost | store.array("ends")], axis=1)


def targets(happened: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """float32 (F, 2, H): 1 where an event (F, 2) happens with frames f .. f + horizon - 1, 0 where not, NaN where the recording
    was cut before that is known."""
    result = np.full((*happened.shape, len(HORIZONS)), np.nan, np.float32)
    for start, stop in episodes:
        so_far = np.concatenate([np.zeros((1, 2)), happened[start:stop].cumsum(axis=0)])  # (length + 1, 2)
        for number, horizon in enumerate(HORIZONS):
            known = max(0, stop - start - horizon + 1)
            result[start : start + known, :, number] = so_far[horizon:][:known] > so_far[:known]
    return result


def windows(episodes: np.ndarray, num_frames: int) -> np.ndarray:
    """int64 (F, T): for each frame the numbers of the newest T frames up to it; the first frame of an episode stands in for those
    before it."""
    return np.concatenate([
        np.maximum(np.arange(start, stop)[:, None] + np.arange(1 - num_frames, 1), start) for start, stop in episodes
    ])  # fmt: skip


def train_head(head: RewardHead, tokens: np.ndarray, wanted: np.ndarray, episodes: np.ndarray, num_steps: int, seed: int) -> None:
    """AdamW on random windows. tokens: (F, N). wanted: (F, 2, H), of `targets`."""
    rng, places = np.random.default_rng(seed), windows(episodes, head.num_frames)
    known, wanted = torch.from_numpy(np.isfinite(wanted)), np.nan_to_num(wanted)
    every, answers = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(wanted)
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.05)
    head.train()
    for step in tqdm(range(num_steps), desc="reward head", unit="step", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * (1 - step / num_steps)
        some = rng.integers(len(places), size=BATCH)
        with autocast(head.codes.device, "auto"):
            logits = head(every[places[some]])
        loss = F.binary_cross_entropy_with_logits(logits.float(), answers[some], reduction="none")[known[some]].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


@torch.no_grad()
def probabilities(head: RewardHead, tokens: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """(F, 2): the probability of each event with each frame itself."""
    places = windows(episodes, head.num_frames)
    every = torch.from_numpy(tokens.astype(np.int64))
    parts = [head(every[places[first : first + BATCH]])[:, :, 0].sigmoid() for first in range(0, len(places), BATCH)]
    return torch.cat(parts).numpy()


def head_scores(probability: np.ndarray, happened: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Of each event: "auc", the share of pairs of a frame with and one without in which the former has the higher probability;
    "precision" and "recall" at a probability of one half; "rate" and "mean_probability". Without an event, or without any other
    frame, there is no such pair, and "auc" is None."""
    scores = {}
    for number, event in enumerate(EVENTS):
        given, truth = probability[:, number], happened[:, number]
        hits, pairs = (given > 0.5) & truth, 0 < truth.sum() < len(truth)
        scores[event] = {
            "auc": float(binary_auroc(torch.from_numpy(given), torch.from_numpy(truth.astype(np.int64)))) if pairs else None,
            "precision": float(hits.sum() / max(1, (given > 0.5).sum())),
            "recall": float(hits.sum() / max(1, truth.sum())),
            "rate": float(truth.mean()),
            "mean_probability": float(given.mean()),
        }
    return scores
