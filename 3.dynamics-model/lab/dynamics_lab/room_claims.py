"""What TECO's DropLoss costs in rooms, and how often a room that its prior has made up is one that could be."""

from dataclasses import replace
from typing import cast

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from dynamics_lab.room_recall import CPU, Episodes, drawn
from dynamics_lab.rooms import PALETTE, SEGMENTS, draw_room, gaps
from dynamics_model.models.base import DynamicsModel
from dynamics_model.registry import build_dynamics
from dynamics_variants.teco.model import TECO, TECOSampling
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.device import autocast

WAYS = {
    "real change": None,
    "draft and two revisions": TECOSampling(),
    "all codes at once": TECOSampling(draft_chunks=1, revise_rounds=0),
}
"""how the change of a new room is chosen: read from the room itself, or sampled; all at once, no code knows of another"""
PATCH = 8
BLACK, WHITE = np.zeros(3, np.uint8), np.full(3, 255, np.uint8)
LIT = np.stack([draw_room(BLACK, WHITE, digit)[::PATCH, ::PATCH, 0].ravel() > 0 for digit in range(len(SEGMENTS))])
"""(10, 64) bool: the patches that show each digit"""


@torch.no_grad()
def loss_of_unseen(model: DynamicsModel, data: Episodes) -> float:
    """Cross-entropy of the decoder and of the prior on every frame of whole episodes, in nats per token of a frame."""
    whole = build_dynamics(replace(cast(TECO, model).config, drop_rate=0.0, action_dropout=0.0)).eval()
    whole.load_state_dict(model.state_dict())
    torch.manual_seed(0)  # of the masks
    with autocast(CPU, model.config.precision):
        losses = whole.loss(data.tokens, data.actions)
    return float(losses["cross_entropy"] + losses["prior"])


def colors_of(frame: np.ndarray) -> np.ndarray:
    """(64,): the color of the palette that the mean of each patch is closest to. frame: uint8 (64, 64, 3)."""
    patches = reduce(frame.astype(np.float64), "(h p) (w q) c -> (h w) 1 c", "mean", p=PATCH, q=PATCH)
    return np.square(patches - PALETTE).sum(axis=-1).argmin(axis=1)


def fits(frame: np.ndarray) -> tuple[bool, bool]:
    """Whether the frame has one wall and one other color, and whether that color draws one of the ten digits on it."""
    colors = colors_of(frame)
    is_wall = colors == colors[0]  # the corner is never lit
    two_colors = bool(is_wall[~LIT.any(axis=0)].all()) and len(np.unique(colors)) == 2
    return two_colors, two_colors and bool((~is_wall == LIT).all(axis=1).any())


@torch.no_grad()
def new_rooms(model: DynamicsModel, data: Episodes, sampling: TECOSampling | None, seed: int = 0) -> Tensor:
    """The tokens (F, N) of every frame that shows a room for the first time, made up from the real frames before it.

    sampling: how its change is sampled; None: it is not, the encoder reads it from the frame.
    """
    teco = cast(TECO, model)
    new = torch.from_numpy(np.stack([gaps(actions.numpy()) for actions in data.actions]) == 0)[:, 1:]  # (E, T - 1)
    with autocast(CPU, teco.config.precision):
        changes, codes, _ = teco.read(data.tokens)
        known, _ = teco.temporal(changes[:, :-1], teco._action_vectors(data.actions))
        known, codes = known[new], codes[:, 1:][new]  # (F, C, h, w), (F, h*w)
        if sampling is not None:
            random = torch.Generator().manual_seed(seed)
            codes = torch.full_like(codes, teco.prior.mask_code)
            for _ in range(1 + sampling.revise_rounds):
                codes = teco.sample_round(codes, known, sampling, random)
        change = teco.quantizer.indices_to_changes(codes[:, None], teco.change_grid)
        return teco.decoder(change, known[:, None])[:, 0].argmax(dim=-1)


def shares(tokens: Tensor, tokenizer: Tokenizer) -> list[float]:
    """The share of these frames (F, N) with two colors, each in its place, and the share that are rooms of the game."""
    return np.mean([fits(frame) for frame in drawn(tokens[:, None], tokenizer)[:, 0]], axis=0).tolist()
