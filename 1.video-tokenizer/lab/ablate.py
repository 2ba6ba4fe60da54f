"""What each part of the tokenizer buys: train again without it, under the same steps and seeds, and compare.

    python 1.video-tokenizer/lab/ablate.py --data-path data/breakout
    python 1.video-tokenizer/lab/ablate.py --rows defaults linear-stem --seeds 0 1 2

The same command resumes what was stopped. A line added to ROWS is a row added to the table.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokenizer_lab.sweep import AblationConfig, Column, Study, run_ablation
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.data.clips import split_episodes, to_video
from video_tokenizer.data.training_data import open_store
from video_tokenizer.registry import load_tokenizer, tokenizer_config
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import choose_device

ROWS = {
    "defaults": "",  # what every other row is compared with
    "linear-stem": "--stem linear",  # must a patch see over its border?
    "no-moving-weight": "--moving-weight 0",  # must moving pixels count more, when the foreground does already?
    "plain-mse": "--moving-weight 0 --foreground-weight 0",  # must any pixel count more than another?
    "one-vote-a-ball": "--patch-weight 0",  # must a ball too many cost as much as a missing one?
    "whole-frames": "--patch-share 1 --batch-size 4",  # what do patches that move save? As many patches a step.
    "grey-background": "--background grey",  # must the network learn the walls?
    "stability-at-once": "--stability-from 0",  # must the ball be found before tokens are kept?
    "no-stability": "--stability-weight 0",  # do patches at rest keep their tokens by themselves?
    "240-codes": "--levels 8 6 5",  # is a quarter of the codes enough?
    "five-latents": "--levels 4 4 4 4 4",  # as many codes, but from five latents of four levels
    "8-frames": "--num-frames 8 --context-frames 8 --batch-size 4",  # does a longer memory help? As many frames a step.
    "adamw": "--optimizer adamw",  # what does Muon buy over plain AdamW?
    "no-averaging": "--ema-decay 0",  # are averaged weights better than the last ones?
    "no-decay": "--decay-share 0",  # must the learning rate fall in the end?
}
COLUMNS = (
    Column("moving_psnr_db", "moving PSNR, dB", ".2f", "higher"),
    Column("foreground_recall", "foreground recall", ".3f", "higher"),
    Column("object_recall", "balls redrawn", ".3f", "higher"),
    Column("changed_tokens", "tokens changed", ".3f", "lower"),
    Column("codes_used", "codes used", ",.0f"),
)
CONTROLS = {
    control: {score: f"rows.{label}.{score}" for score in ("moving_psnr_db", "foreground_recall", "object_recall")}
    for control, label in {"copy-last-frame": "copy_last_frame", "random-tokens": "random_tokens"}.items()
}


@torch.no_grad()
def changed_tokens(checkpoint: Path, chunk: int = 64) -> dict[str, float]:
    """Share of the tokens that differ from the frame before, each validation episode being read as one stream, as in chapter 3.

    Some change because something moves; what the stability loss is about are the others.
    """
    config = tokenizer_config(load_checkpoint(checkpoint, "tokenizer")["config"])
    device = choose_device(config.device)
    tokenizer, store = load_tokenizer(checkpoint, device), open_store(config)
    changed = total = 0
    for start, stop in store.episodes[split_episodes(store, config.validation_share, config.seed)[1]].tolist():
        cache, parts = None, []
        for first in range(start, stop, chunk):
            video = to_video(np.array(store.frames[first : min(first + chunk, stop)])[None], device)
            encoded, cache = tokenizer.encode_next(video, cache)
            parts.append(encoded.indices[0].cpu())
        tokens = torch.cat(parts)  # (F, N)
        changed += int((tokens[1:] != tokens[:-1]).sum())
        total += tokens[1:].numel()
    return {"changed_tokens": changed / total}


STUDY = Study(
    chapter="1.video-tokenizer",
    read_flags=lambda flags: parse_config(TokenizerConfig, argv=flags),
    rows=ROWS,
    columns=COLUMNS,
    controls=CONTROLS,
    score=changed_tokens,
)


@dataclass(frozen=True)
class TokenizerAblationConfig(AblationConfig):
    """Train the tokenizer again without each of its parts, and compare."""

    num_steps: int = 500
    """optimizer steps of each training"""


def main() -> None:
    run_ablation(STUDY, parse_config(TokenizerAblationConfig))


if __name__ == "__main__":
    run_script(main)
