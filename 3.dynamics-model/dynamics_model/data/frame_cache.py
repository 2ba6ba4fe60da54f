"""Encode every frame once: the dynamics model trains on stored tokens or latents and never runs the tokenizer."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from dynamics_model.models.base import DynamicsModel
from dynamics_model.models.maskgit import MaskGIT
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import Clips, to_video
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.atomic_files import write_array_atomically
from video_tokenizer.training.checkpoint import fingerprint
from video_tokenizer.training.device import autocast
from video_tokenizer.training.distributed import main_process_first

CHUNK = 64
"""frames encoded at a time"""


def cached(store: ClipStore, name: str, weights: dict[str, torch.Tensor], encode: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that `encode()` returns, read from the store's token_cache/ if the same model has encoded the same frames before.

    The file's name contains the fingerprints of the store and of the model's weights, so that a stale cache is never read.
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
    """The stored array, memory-mapped; None if the file is missing or damaged, so that it is written again."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception:  # numpy reads the header with Python's own parser, which raises many types
        return None


def frames_per_piece(tokenizer: Tokenizer) -> int:
    """Frames that are encoded and decoded together: 1, or a clip of the training length if the tokenizer looks ahead."""
    return 1 if tokenizer.is_causal else tokenizer.config.num_frames


def rollout_clips(store: ClipStore, episodes: Sequence[int], num_frames: int, tokenizer: Tokenizer) -> Clips:
    """Clips of at least `num_frames` frames that can be decoded: they begin and end with a piece of their episode."""
    piece = frames_per_piece(tokenizer)
    return Clips(store, episodes, num_frames + -num_frames % piece, stride=piece)


@torch.no_grad()
def encode_store(
    store: ClipStore,
    tokenizer: Tokenizer,
    device: torch.device,
    precision: str = "auto",
    model_class: type[DynamicsModel] = MaskGIT,
) -> np.ndarray:
    """Every frame as `model_class` reads it: tokens, int32 (F, N), or latents, float16 (F, N, D).

    Each episode is encoded as one stream, so that a frame's tokens can depend on all frames before it. A tokenizer that looks
    ahead encodes clips of its training length instead, each by itself.
    """
    chunk = CHUNK if tokenizer.is_causal else frames_per_piece(tokenizer)
    shape = (len(store.frames), tokenizer.tokens_per_frame)
    frames = np.zeros(shape, np.int32) if model_class.reads == "tokens" else np.zeros((*shape, tokenizer.code_length), np.float16)
    for start, stop in tqdm(store.episodes.tolist(), desc="encoding", unit="episode", disable=None):
        cache = None
        for first in range(start, stop, chunk):
            last = min(first + chunk, stop)
            video = to_video(np.array(store.frames[first:last])[None], device)
            with autocast(device, precision):
                encoded, cache = tokenizer.encode_next(video, cache) if tokenizer.is_causal else (tokenizer.encode(video), None)
            part = model_class.frames_of(encoded)[0]
            frames[first:last] = (part.float() if part.is_floating_point() else part).cpu().numpy()
    return frames


class FrameClips(Dataset):
    """The same clips as `Clips`, as the dynamics model's frames and actions instead of pixels."""

    def __init__(self, clips: Clips, frames: np.ndarray, actions: np.ndarray):
        """frames: tokens (F, N) or latents (F, N, D) of the whole store; actions: (F,) as the model is conditioned on them."""
        self.starts, self.num_frames = clips.starts, clips.num_frames
        self.frames, self.actions = frames, actions

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """{"frames": int64 (B, T, N) or float32 (B, T, N, D), "actions": int64 (B, T), "index": (B,)}.

        The action of a clip's first frame led to it from the frame before the clip.
        """
        positions = self.starts[np.asarray(indices)][:, None] + np.arange(self.num_frames)  # (B, T)
        dtype = np.int64 if self.frames.ndim == 2 else np.float32
        return {
            "frames": torch.from_numpy(self.frames[positions].astype(dtype)),
            "actions": torch.from_numpy(self.actions[positions].astype(np.int64)),
            "index": torch.as_tensor(indices),
        }
