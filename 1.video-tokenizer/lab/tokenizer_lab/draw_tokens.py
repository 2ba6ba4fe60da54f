"""What a frame is to the rest of the course: its tokens written into its patches, those that change, and what they stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import enlarge, font, image_grid, save_picture
from video_tokenizer.models.video_tokenizer import VideoTokenizer

CHANGED = "#ffd60a"
"""of the tokens that differ from the frame before"""
ZOOM, WORD_ZOOM = 6, 11
"""enlargement of frames and of single patches"""


class Word(NamedTuple):
    """A token at one of its places."""

    token: int
    place: int
    """number of the patch"""
    share: float
    """of all tokens that are this one, wherever they stand"""
    picture: np.ndarray
    """uint8 (P, P, 3), the mean of what is drawn there when this token stands there"""


class Dictionary:
    """How often every token stands at every place of some frames, and what the decoder draws there."""

    def __init__(self, indices: Tensor, drawn: Tensor, patch_size: int) -> None:
        """indices: int64 (B, T, N); drawn: (B, T, C, H, W) in [0, 1], decoded from them."""
        self.tokens = indices.flatten(0, 1).numpy()  # (F, N)
        cut = rearrange(to_frames(drawn), "b t (y p) (x q) c -> (b t) (y x) p q c", p=patch_size, q=patch_size)
        self.patches = cut.astype(np.float32)  # (F, N, P, P, 3)
        found, counts = np.unique(self.tokens, return_counts=True)
        self.most_used: list[int] = found[np.argsort(-counts, kind="stable")].tolist()
        self.shares = dict(zip(found.tolist(), (counts / counts.sum()).tolist(), strict=True))

    def word(self, token: int, place: int | None = None) -> Word:
        """What is drawn for `token` at `place`, where it stands at least once; None: at its most frequent place, of several
        equally frequent ones the middle one."""
        if place is None:
            counts = (self.tokens == token).sum(axis=0)  # (N,)
            most = np.flatnonzero(counts == counts.max())
            place = int(most[len(most) // 2])
        there = self.tokens[:, place] == token
        return Word(token, place, self.shares[token], self.patches[there, place].mean(axis=0).round().astype(np.uint8))

    def elsewhere(self, first: Word) -> tuple[float, Word, Word]:
        """A word and the same token at that place where it looks least like it; in front how far apart they are, 0 to 255."""
        places = np.flatnonzero((self.tokens == first.token).any(axis=0)).tolist()
        others = [self.word(first.token, place) for place in places]
        distances = [float(np.abs(other.picture.astype(float) - first.picture).mean()) for other in others]
        return max(distances), first, others[int(np.argmax(distances))]


def liveliest_step(indices: Tensor) -> int:
    """Number of the frame in which most tokens differ from the frame before. indices: (T, N), T at least 2."""
    return int((indices[1:] != indices[:-1]).sum(dim=-1).argmax()) + 1


def write_tokens(frame: np.ndarray, tokens: np.ndarray, changed: np.ndarray | None = None) -> np.ndarray:
    """A frame enlarged, with the number of every patch's token in it; those that changed framed, the others pale.

    frame: uint8 (H, W, 3); tokens: (N,); changed: (N,) bool, None where nothing is compared. Returns uint8 (ZOOM*H, ZOOM*W, 3).
    """
    columns = round((len(tokens) * frame.shape[1] / frame.shape[0]) ** 0.5)
    side = ZOOM * frame.shape[1] // columns
    canvas = Image.fromarray(enlarge(frame, ZOOM))
    pen = ImageDraw.Draw(canvas)
    for place, token in enumerate(tokens.tolist()):
        left, top = place % columns * side, place // columns * side
        differs = changed is not None and bool(changed[place])
        ink = "white" if changed is None else CHANGED if differs else "#9aa4af"
        pen.rectangle((left, top, left + side, top + side), outline="#4a525b")
        pen.text((left + side // 2, top + side - 4), str(token), ink, font(13), anchor="mb", stroke_width=1, stroke_fill="black")
    for place in [] if changed is None else np.flatnonzero(changed).tolist():
        left, top = place % columns * side, place // columns * side
        pen.rectangle((left, top, left + side - 1, top + side - 1), outline=ImageColor.getrgb(CHANGED), width=2)
    return np.asarray(canvas)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures, each uint8 (height, width, 3), one below the other on white, each in the middle."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        left = (width - picture.shape[1]) // 2
        margins = ((0, 0), (left, width - picture.shape[1] - left), (0, 0))
        rows.append(np.pad(picture, margins, constant_values=255))
    return np.concatenate(rows)


@torch.no_grad()
def save_tokens(path: Path, tokenizer: VideoTokenizer, starts: np.ndarray, clip: int, gallery: int = 16, pairs: int = 4) -> None:
    """A frame with its tokens, the next one with those that changed, the most used words, and some that mean two things.

    starts: uint8 (S, T, H, W, 3). Of beginning `clip` the step in which most tokens change is shown.
    """
    indices = tokenizer.encode(to_video(starts)).indices  # (S, T, N)
    shown = liveliest_step(indices[clip])
    before, now = indices[clip, shown - 1].numpy(), indices[clip, shown].numpy()
    frames = np.stack([write_tokens(starts[clip, shown - 1], before), write_tokens(starts[clip, shown], now, now != before)])
    titles = f"a frame: {len(now)} tokens", f"the next frame: {int((now != before).sum())} of {len(now)} changed"
    book = Dictionary(indices, tokenizer.decode_indices(indices), tokenizer.config.patch_size)
    words = [book.word(token) for token in book.most_used[:gallery]]
    pairs_of_words = sorted((book.elsewhere(word) for word in words), key=lambda found: -found[0])[:pairs]
    twice = [word for _, *pair in pairs_of_words for word in pair]
    total = sum(word.share for word in words)
    caption = f"The {len(words)} words used most make {total:.0%} of all tokens. Last row: the same number in two places."
    rows = [(words[first : first + 8], "") for first in range(0, len(words), 8)] + [(twice, caption)]
    titles_below = [f"{word.token}: {word.share:.1%}" for word in words]
    titles_below += [f"{word.token} in row {word.place // tokenizer.grid_size[1]}" for word in twice]
    galleries = [
        image_grid([("", np.stack([word.picture for word in row]))], below, titles_below[8 * line :][: len(row)], WORD_ZOOM, 12)
        for line, (row, below) in enumerate(rows)
    ]
    save_picture(path, stacked([image_grid([("", frames)], "", titles, scale=1), *galleries]))
