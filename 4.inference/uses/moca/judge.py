"""A judge of edits, which puts clips and captions into one space, and three scores in it."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from uses.moca.digits import MAX_WORDS, NUM_FRAMES, VOCABULARY
from uses.moca.model import GRID
from uses.moca.vae import LATENTS
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import SpaceTimeBlock

PATCH = 2
"""side of the patches of latents"""


class Judge(nn.Module):
    """Latents of a clip and words of a caption, each to a vector of length 1 (CLIP, arXiv:2103.00020, with clips for images)."""

    def __init__(self, embed_dim: int = 96, num_blocks: int = 2, num_heads: int = 3):
        super().__init__()
        self.to_tokens = nn.Linear(LATENTS * PATCH**2, embed_dim)
        self.positions = SpaceTimePositions(embed_dim, (GRID // PATCH, GRID // PATCH), NUM_FRAMES)
        self.blocks = nn.ModuleList(SpaceTimeBlock(embed_dim, num_heads) for _ in range(num_blocks))
        self.of_clip = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, embed_dim))
        self.word_embedding = nn.Embedding(len(VOCABULARY), embed_dim)
        self.of_caption = nn.Sequential(
            nn.Linear(MAX_WORDS * embed_dim, 2 * embed_dim), nn.SiLU(), nn.Linear(2 * embed_dim, embed_dim)
        )
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())

    def clips(self, latents: Tensor) -> Tensor:
        """(B, T, C, h, w) -> (B, E)."""
        x = self.to_tokens(rearrange(latents, "b t c (h p) (w q) -> b t (h w) (c p q)", p=PATCH, q=PATCH))
        x = self.positions(x)
        for block in self.blocks:
            x, _ = block(x, None)
        return F.normalize(self.of_clip(x.mean(dim=(1, 2))).float(), dim=-1)

    def captions(self, words: Tensor) -> Tensor:
        """(B, L) -> (B, E)."""
        return F.normalize(self.of_caption(self.word_embedding(words).flatten(1)).float(), dim=-1)

    def loss(self, latents: Tensor, words: Tensor) -> Tensor:
        """Each clip must find its caption among those of the batch, and each caption its clip."""
        likeness = self.sharpness.exp().clamp(max=100) * self.clips(latents) @ self.captions(words).T  # (B, B)
        own = torch.arange(len(words), device=words.device)
        return (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2


def own_is_nearest(clips: Tensor, captions: Tensor) -> float:
    """Share of the clips to which, of all these captions, their own is nearest. Both (B, E), vectors of length 1."""
    own = torch.arange(len(clips), device=clips.device)
    return ((clips @ captions.T).argmax(dim=1) == own).float().mean().item()


def edit_scores(source: Tensor, edited: Tensor, source_caption: Tensor, caption: Tensor) -> dict[str, float]:
    """M_sim, what is left of the source, M_dir, whether the clip changed as its caption did, and M_geo, both in one number.

    All arguments are vectors of length 1, (B, E). A clip that did not change has no direction, so its M_dir is 0.
    """
    similarity = (source * edited).sum(dim=-1)
    direction = F.cosine_similarity(edited - source, caption - source_caption, dim=-1)
    together = (similarity.clamp(min=0) * direction.clamp(min=0)).sqrt()
    return {"m_sim": similarity.mean().item(), "m_dir": direction.mean().item(), "m_geo": together.mean().item()}
