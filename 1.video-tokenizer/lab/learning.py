"""Draw how a tokenizer learns: one frame that it never trained on, drawn from its tokens after 0, 50, 200, 500 and 1,000 steps.

    python 1.video-tokenizer/lab/learning.py

Trains with the chapter's train.py and its default settings, some minutes. The frames stay in the run folder; a second call draws
them again without training.
"""

import copy
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch

import video_tokenizer.training.run as running
from tokenizer_lab.chapter_drawings import save_learning
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.training.checkpoint import chapter_folder
from video_tokenizer.training.command_line import parse_config, run_script

STEPS = (0, 50, 200, 500, 1_000)


@dataclass(frozen=True)
class LearningConfig:
    """Draw what a tokenizer makes of one frame while it learns."""

    data_path: str = "data/breakout"
    """a recording of a game with a ball"""
    checkpoint_dir: str = "1.video-tokenizer/checkpoints/learning"
    """run folder of the training, which also keeps the frames"""
    output: str = "assets/1.video-tokenizer"
    """folder for learning_light.svg and learning_dark.svg"""


def clip_with_ball(validation: Any, env_id: str) -> np.ndarray:
    """The first validation clip whose frames all have a ball in the field's lower half: uint8 (T, H, W, 3)."""
    for number in range(len(validation)):
        frames = validation[number]["frames"].numpy()
        if (detect_ball(frames, env_id)[:, 1] > frames.shape[1] / 2).all():  # NaN, no ball, is not larger
            return frames
    raise InputError("no validation clip has a ball in all its frames; record more")


class WatchedRun(running.Run):
    """A run that draws the last frame of one validation clip with the averaged weights before its first step, and at `STEPS`."""

    def steps(self, loader: Iterable[Any]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        self.clip = clip_with_ball(self.data.validation, self.data.store.env_id or "")
        self.redrawn = [self.redraw()]
        for step, batch in super().steps(loader):
            yield step, batch
            if step in STEPS:
                self.redrawn.append(self.redraw())
        np.savez_compressed(self.folder / "frames.npz", steps=STEPS, original=self.clip[-1], redrawn=self.redrawn,
                            env_id=self.data.store.env_id or "")  # fmt: skip

    @torch.no_grad()
    def redraw(self) -> np.ndarray:
        """The clip's last frame, encoded and decoded: uint8 (H, W, 3)."""
        averaged = copy.deepcopy(self.model).eval()
        self.parts["ema"].copy_to(averaged)
        return to_frames(averaged(to_video(self.clip[None], self.device)).reconstruction)[0, -1]


def main() -> None:
    config = parse_config(LearningConfig)
    kept = Path(config.checkpoint_dir) / "frames.npz"
    if not kept.exists():
        running.Run = WatchedRun  # what train.py is about to import
        kept.with_name("resume.pt").unlink(missing_ok=True)  # a stopped run begins anew, because its early frames are lost
        sys.argv = [sys.argv[0], "--data-path", config.data_path, "--checkpoint-dir", config.checkpoint_dir]
        specification: Any = spec_from_file_location("train", chapter_folder("tokenizer") / "train.py")
        train = module_from_spec(specification)
        specification.loader.exec_module(train)
        train.main()
    content = np.load(kept)
    redrawn = dict(zip(content["steps"].tolist(), content["redrawn"], strict=True))
    save_learning(Path(config.output) / "learning", content["original"], redrawn, str(content["env_id"]))
    print(f"learning_light.svg and learning_dark.svg are in {config.output}")


if __name__ == "__main__":
    run_script(main)
