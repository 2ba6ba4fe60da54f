"""Curves and pictures of a training for TensorBoard (--tensorboard): files in the run folder; nothing is sent anywhere."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from video_tokenizer.errors import InputError


def summary_writer() -> Any:
    """TensorBoard's SummaryWriter. Raises InputError where this optional extra is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            'TensorBoard is not installed; install the extra, pip install -e ".[tensorboard]", or leave --tensorboard out'
        ) from None
    return SummaryWriter


class Board:
    """Writes `tensorboard/` in a run folder; look at it with: tensorboard --logdir FOLDER."""

    def __init__(self, folder: Path, first_step: int):
        """first_step: steps that a stopped run had saved; what it wrote about later ones is hidden, because they are repeated."""
        self.writer = summary_writer()(str(folder / "tensorboard"), purge_step=first_step + 1)

    def add(self, group: str, values: Mapping[str, Any], step: int) -> None:
        """A point for each number, on curves named group/name."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{group}/{name}", value, step)
        self.writer.flush()

    def add_picture(self, draw: Callable[[Path], object], file: Path, step: int) -> None:
        """Let `draw` write a picture file and show it; random numbers that it draws are missing nowhere else."""
        with torch.random.fork_rng():
            draw(file)
        with Image.open(file) as picture:
            self.writer.add_image(file.stem, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self.writer.flush()
