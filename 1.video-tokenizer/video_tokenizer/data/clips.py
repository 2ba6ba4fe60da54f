"""From a clip store to batches: clips within episodes, a split by episode, and a shuffle that can resume at any step."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import DataLoader, Dataset, Sampler

from video_tokenizer.data.augment import Augmentation
from video_tokenizer.data.clip_store import ClipStore, usable_frames
from video_tokenizer.errors import InputError
from video_tokenizer.global_batch import rank_and_size


class Clips(Dataset):
    """All clips of `num_frames` consecutive frames in the chosen episodes; no clip crosses the end of an episode.

    starts: int64 (clips,), the position of each clip's first frame in the store.
    """

    def __init__(
        self,
        store: ClipStore,
        episodes: Sequence[int],
        num_frames: int,
        stride: int = 1,
        augment: Augmentation | None = None,
    ):
        """episodes: rows of `store.episodes`. stride: frames between the starts of neighbouring clips.

        Raises InputError when none of these episodes is long enough.
        """
        if num_frames < 1 or stride < 1:
            raise ValueError(f"num_frames {num_frames} and stride {stride} must be at least 1")
        ranges = [store.episodes[episode] for episode in episodes]
        starts = [np.arange(start, stop - num_frames + 1, stride) for start, stop in ranges]
        self.starts = np.concatenate(starts).astype(np.int64) if starts else np.empty(0, np.int64)
        if len(self.starts) == 0:
            longest = max((int(stop - start) for start, stop in ranges), default=0)
            raise InputError(
                f"no clip of {num_frames} frames fits: the longest of {len(ranges)} episodes has {longest} frames, of "
                f"{len(store.frames)} frames in {store.path}; ask for shorter clips or record more"
            )
        self.store = store
        self.num_frames = num_frames
        self.augment = augment

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict:
        """{"frames": uint8 (T, H, W, 3), "actions": int64 (T,), "index": int}; actions[t] led from frame t-1 to frame t."""
        batch = self.__getitems__([index])
        return {"frames": batch["frames"][0], "actions": batch["actions"][0], "index": index}

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """The same for many clips, read in one gather: frames (B, T, H, W, 3), actions (B, T), index (B,)."""
        positions = self.starts[np.asarray(indices)][:, None] + np.arange(self.num_frames)  # (B, T)
        frames = self.store.frames[positions]  # (B, T, H, W, 3)
        if self.augment is not None:
            frames = self.augment(frames, indices)
        actions = self.store.actions[positions].astype(np.int64)  # (B, T)
        return {"frames": torch.from_numpy(frames), "actions": torch.from_numpy(actions), "index": torch.as_tensor(indices)}


def split_episodes(store: ClipStore, validation_share: float = 0.1, seed: int = 0) -> tuple[list[int], list[int]]:
    """Split the rows of `store.episodes` into (training, validation), at least one on each side.

    The split is by episode and not by clip, because neighbouring clips share frames: validation would score frames that training
    has seen. In shuffled order, each episode goes to validation if that brings the share of its frames closer to the target.
    Where lengths differ so much that this gives less than half of the target, or most of the frames, the longest come first.
    """
    if not 0.0 < validation_share < 1.0:
        raise ValueError(f"validation_share {validation_share} is not between 0 and 1")
    if len(store.episodes) < 2:
        raise InputError(f"{store.path} has one episode of one frame, which cannot be split; record more")
    lengths = store.episodes[:, 1] - store.episodes[:, 0]  # (E,)
    order = np.random.default_rng(seed).permutation(len(lengths))
    validation = _closest_to(validation_share * lengths.sum(), lengths, order[:-1], order[:1])  # the last one stays in training
    usable = usable_frames(store.episodes)
    wanted = validation_share * usable.sum()
    if not wanted / 2 <= usable[validation].sum() <= max(0.6, 2 * validation_share) * usable.sum():
        order = order[np.argsort(-usable[order], kind="stable")]
        validation = _closest_to(wanted, usable, order, order[:0])
        if usable[validation].sum() < wanted / 2:  # one more, the shortest that is enough
            validation = _closest_to(wanted, usable, order, order[usable[order] >= wanted / 2][-1:])
    training = sorted(set(range(len(lengths))) - set(validation))
    return training, sorted(validation)


def _closest_to(wanted: float, lengths: np.ndarray, order: np.ndarray, chosen: np.ndarray) -> list[int]:
    """The chosen episodes, and of the others in order each one that brings the sum of the lengths closer to `wanted`."""
    episodes = chosen.tolist()
    for episode in order.tolist():
        held = lengths[episodes].sum()
        if episode not in episodes and abs(held + lengths[episode] - wanted) < abs(held - wanted):
            episodes.append(episode)
    return episodes


class ShuffledBatches(Sampler[list[int]]):
    """Batches of clip indices as a pure function of the seed and the step.

    Epoch e is a permutation drawn from (seed, e). The epochs form one endless stream, of which step s reads the positions
    [s * batch_size, (s + 1) * batch_size). So starting at step k gives exactly the tail of a run from step 0. Rank r of
    `world_size` processes takes its consecutive share of each batch.
    """

    def __init__(
        self, num_clips: int, batch_size: int, num_steps: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ):
        """batch_size counts the clips of all processes together, so that 1 and 2 processes see the same batches."""
        if num_clips < 1 or batch_size < 1:
            raise ValueError(f"num_clips {num_clips} and batch_size {batch_size} must be at least 1")
        if batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size} cannot be split for rank {rank} of {world_size} processes")
        self.num_clips, self.batch_size, self.num_steps = num_clips, batch_size, num_steps
        self.seed, self.start_step = seed, start_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return max(0, self.num_steps - self.start_step)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start_step, self.num_steps):
            first = step * self.batch_size + self.rank * share
            batch = []
            for position in range(first, first + share):
                if position // self.num_clips != epoch:
                    epoch = position // self.num_clips
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.num_clips)
                batch.append(int(order[position % self.num_clips]))
            yield batch


def make_loader(
    clips: Dataset,
    batch_size: int,
    num_steps: int,
    seed: int,
    start_step: int = 0,
    num_workers: int = 0,
    split: bool = True,
) -> DataLoader:
    """Shuffled batches for the steps from start_step on, dicts as in `Clips.__getitems__`.

    batch_size: clips per step, over all processes. split: each process gets its share of a batch; otherwise all get all of it.
    Batches are pinned where there is CUDA.
    """
    num_clips = len(clips)  # type: ignore[arg-type]
    rank, world_size = rank_and_size() if split else (0, 1)
    return DataLoader(
        clips,
        batch_sampler=ShuffledBatches(num_clips, batch_size, num_steps, seed, start_step, rank, world_size),
        collate_fn=_already_a_batch,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # so that the loader leaves the model's random numbers alone
    )


def _already_a_batch(batch: Any) -> Any:
    return batch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to the device. A CUDA card fetches pinned memory by itself while the processor goes on."""
    return tensor.to(device, non_blocking=device.type == "cuda")  # on Apple's GPUs that is not safe (pytorch#189690)


def to_video(frames: torch.Tensor | np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, T, 3, H, W) in [0, 1] on `device`, converted there."""
    moved = to_device(torch.as_tensor(frames), torch.device(device))
    return rearrange(moved, "b t h w c -> b t c h w").contiguous().float() / 255.0


def to_frames(video: torch.Tensor) -> np.ndarray:
    """float (B, T, 3, H, W) in [0, 1] -> uint8 (B, T, H, W, 3), rounded and clipped."""
    frames = (video.detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu()
    return rearrange(frames, "b t c h w -> b t h w c").contiguous().numpy()
