"""MaskGIT at work: what a frame looks like after each pass, how sure the model was of every token, and which are settled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from dynamics_model.models.maskgit import DecodingPass
from dynamics_model.rollouts import decode_after
from video_tokenizer.data.clips import to_frames
from video_tokenizer.figures import image_grid, save_gif, save_picture

HIDDEN = 110
"""grey of a patch whose token is still hidden"""


@torch.no_grad()
def watch_a_frame(
    model, tokens: Tensor, actions: Tensor, action: int, num_steps: int, schedule: str, seed: int
) -> list[DecodingPass]:
    """The passes in which one frame is filled in. tokens: (1, T, N) real frames; actions: (1, T); action: the one to follow."""
    trace: list[DecodingPass] = []
    state = model.start(tokens, actions)
    dice = torch.Generator().manual_seed(seed)
    model.generate_next(state, torch.tensor([action]), num_steps=num_steps, schedule=schedule, generator=dice, trace=trace)
    return trace


def pass_pictures(tokenizer, tokens: Tensor, trace: Sequence[DecodingPass]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pass three pictures, uint8 (S, H, W, 3): what is settled, the rest grey; all that was drawn; how sure it was."""
    columns, patch_size = tokenizer.grid_size[1], tokenizer.config.patch_size

    def spread(values: Tensor) -> np.ndarray:
        grid = values[0].view(-1, columns)
        return grid.repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1).numpy()

    drawn, settled, sure = [], [], []
    for step in trace:
        picture = to_frames(decode_after(tokenizer, tokens, step.tokens[:, None]))[0, 0]
        drawn.append(picture)
        settled.append(np.where(spread(step.settled)[..., None], picture, HIDDEN).astype(np.uint8))
        sure.append((colormaps["viridis"](spread(step.probability))[..., :3] * 255).astype(np.uint8))
    return np.stack(settled), np.stack(drawn), np.stack(sure)


def save_filling_in(path: Path, model, tokenizer, tokens: Tensor, actions: Tensor, action: int, seed: int) -> None:
    """A frame filled in with both schedules: a row of what is settled after each pass, and one of how sure the draws were."""
    rows: list[tuple[str, np.ndarray]] = []
    for schedule in ("cosine", "halving"):
        trace = watch_a_frame(model, tokens, actions, action, 4, schedule, seed)
        settled, _, sure = pass_pictures(tokenizer, tokens, trace)
        rows += [(f"{schedule}:\nsettled", settled), ("probability", sure)]
    labels = [f"pass {number}" for number in range(1, 5)]
    save_picture(path, image_grid(rows, "Grey: still hidden. Yellow: the model was sure of its draw, blue: it was not.", labels))


def save_filling_in_film(path: Path, model, tokenizer, tokens: Tensor, actions: Tensor, action: int, seed: int) -> None:
    """The same as a film, sixteen passes with the cosine schedule, so that one sees what comes first."""
    trace = watch_a_frame(model, tokens, actions, action, 16, "cosine", seed)
    settled, drawn, sure = pass_pictures(tokenizer, tokens, trace)
    panels = {"settled": settled, "all draws": drawn, "probability": sure}
    last = 6  # the finished frame stays for a while
    held = {label: np.concatenate([pictures, pictures[-1:].repeat(last, axis=0)]) for label, pictures in panels.items()}
    captions = [f"pass {min(number, 16)} of 16" for number in range(1, 17 + last)]
    save_gif(path, held, frames_per_second=3.0, captions=captions)
