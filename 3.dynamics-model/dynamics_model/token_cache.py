"""Encode every frame once: the dynamics model trains on stored tokens and never runs the tokenizer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.atomic_files import write_array_atomically
from video_tokenizer.training.checkpoint import fingerprint
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import main_process_first

CHUNK = 64
"""frames encoded at a time"""


def cached(store: ClipStore, name: str, weights: dict[str, torch.Tensor], encode) -> np.ndarray:
    """The array `encode()` gives, read from the store's token_cache/ when the same model has encoded the same frames before.

    The file's name is made of the fingerprints of the store and of the model's weights, so a stale cache is never read.
    """
    key = hashlib.sha256((store.fingerprint + fingerprint(weights)).encode()).hexdigest()[:16]
    path = Path(store.path) / "token_cache" / f"{name}-{key}.npy"
    with main_process_first():
        if _opened(path) is None:
            write_array_atomically(path, encode())
    array = _opened(path)
    assert array is not None
    return array


def _opened(path: Path) -> np.ndarray | None:
    """The stored array, memory-mapped; None where the file is absent or damaged, so that it is made anew."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception:  # numpy reads the header with Python's own parser, which complains in many ways
        return None


@torch.no_grad()
def encode_tokens(store: ClipStore, tokenizer: Tokenizer, device: torch.device, precision: str = "auto") -> np.ndarray:
    """Tokens of every frame, int32 (F, N); each episode is one stream, so that a token knows the frames before it.

    A tokenizer that looks ahead reads clips as long as those it was trained on instead, each by itself.
    """
    chunk = CHUNK if tokenizer.is_causal else tokenizer.config.num_frames
    tokens = np.zeros((len(store.frames), tokenizer.tokens_per_frame), np.int32)
    for start, stop in tqdm(store.episodes.tolist(), desc="tokens", unit="episode", disable=None):
        cache = None
        for first in range(start, stop, chunk):
            last = min(first + chunk, stop)
            video = to_video(np.array(store.frames[first:last])[None], device)
            with autocast(device, precision):
                encoded, cache = tokenizer.encode_next(video, cache) if tokenizer.is_causal else (tokenizer.encode(video), None)
            tokens[first:last] = encoded.indices[0].cpu().numpy()
    return tokens


class TokenClips(Dataset):
    """The same clips as `Clips`, as tokens and actions instead of pixels."""

    def __init__(self, clips: Clips, tokens: np.ndarray, actions: np.ndarray):
        """tokens: (F, N) and actions: (F,) of the whole store, as the model shall see them."""
        self.starts, self.num_frames = clips.starts, clips.num_frames
        self.tokens, self.actions = tokens, actions

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict:
        """{"tokens": int64 (T, N), "actions": int64 (T,), "index": ()}."""
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """{"tokens": int64 (B, T, N), "actions": int64 (B, T), "index": (B,)}.

        The first frame's action led to it from before the clip.
        """
        positions = self.starts[np.asarray(indices)][:, None] + np.arange(self.num_frames)  # (B, T)
        return {
            "tokens": torch.from_numpy(self.tokens[positions].astype(np.int64)),
            "actions": torch.from_numpy(self.actions[positions].astype(np.int64)),
            "index": torch.as_tensor(indices),
        }
