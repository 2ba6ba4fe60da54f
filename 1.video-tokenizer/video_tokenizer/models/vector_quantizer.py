"""A learned codebook, as in VQ-VAE: what FSQ does without, and what keeps it from dying."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.training.distributed import gather_rows, rank_and_size


class VectorQuantized(NamedTuple):
    """codes: (..., D) float32, what the decoder sees. indices: (...) int64 in [0, K). losses: terms to add, already weighted."""

    codes: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class VectorQuantizer(nn.Module):
    """Replace each latent by the nearest of K learned vectors (VQ-VAE, arXiv:1711.00937).

    num_codes: K. latent_dim: D. commitment_weight: how strongly a latent is pulled to its code.
    ema_decay: 0 moves the codes by a loss of their own, as in Genie; above 0 a code is the running mean of the latents that chose
    it (arXiv:1711.00937, appendix A.1), as in VideoGPT.
    data_start: take the first codes from the first batch of latents instead of from a normal distribution.
    restart_below: a code chosen by fewer latents than this, in the running mean over steps, is moved onto a random latent of the
    batch; 0 is off. VideoGPT restarts below 1. Keep at least 4 latents a batch for each code, or most codes jump every step.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(
        self,
        num_codes: int,
        latent_dim: int,
        commitment_weight: float = 0.25,
        ema_decay: float = 0.0,
        data_start: bool = True,
        restart_below: float = 0.0,
    ):
        super().__init__()
        self.codebook_size, self.latent_dim = num_codes, latent_dim
        self.commitment_weight, self.ema_decay = commitment_weight, ema_decay
        self.restart_below = restart_below
        codes = torch.randn(num_codes, latent_dim)
        if ema_decay:
            self.register_buffer("codebook", codes)  # no gradient ever reaches it
        else:
            self.codebook = nn.Parameter(codes)
        # kept in the checkpoint, so that a loaded quantizer neither starts anew nor restarts codes it knows to be in use
        self.register_buffer("counts", torch.full((num_codes,), max(1.0, restart_below)))  # latents a step, running mean
        self.register_buffer("sums", codes.clone())
        self.register_buffer("started", torch.tensor(not data_start))

    def forward(self, latents: Tensor) -> VectorQuantized:
        """latents: (..., D), any float dtype. Gradients pass the choice as if it were not there."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            flat = latents.reshape(-1, self.latent_dim)  # (M, D)
            if self.training:
                self._start(flat)
            indices = self.nearest(flat)  # (M,)
            if self.training:
                self._follow(flat, indices)
            codes = F.embedding(indices, self.codebook).view_as(latents)
            losses = {"commitment": self.commitment_weight * F.mse_loss(latents, codes.detach())}
            if not self.ema_decay:
                losses["codebook"] = F.mse_loss(codes, latents.detach())
            straight_through = latents + (codes - latents).detach()
            return VectorQuantized(straight_through, indices.view(latents.shape[:-1]), losses)

    @torch.no_grad()
    def nearest(self, flat: Tensor) -> Tensor:
        """Number of the nearest code. flat: (M, D). |z - e|^2 = |z|^2 - 2 z.e + |e|^2; |z|^2 is the same for all e."""
        return (self.codebook.square().sum(dim=1) - 2 * flat @ self.codebook.T).argmin(dim=1)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (...) int64 in [0, K). Returns codes (..., D)."""
        return F.embedding(indices, self.codebook)

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        """Take the codes from the first batch, with a little noise where it has fewer latents than there are codes."""
        if self.started:
            return
        everywhere = gather_rows(flat.detach())
        chosen = everywhere[_picks(self.codebook_size, len(everywhere), everywhere.device)]
        noise = torch.randn_like(chosen) * 0.01 * self.latent_dim**-0.5
        self.codebook.copy_(chosen + (noise if len(everywhere) < self.codebook_size else 0 * noise))
        self.sums.copy_(self.codebook * self.counts[:, None])
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, indices: Tensor) -> None:
        """Running means of how often each code is chosen and by what; move the codes there, and idle ones onto a latent."""
        everywhere, chosen = gather_rows(flat.detach()), _gathered(indices)
        decay = self.ema_decay or 0.99
        self.counts.lerp_(torch.bincount(chosen, minlength=self.codebook_size).to(flat.dtype), 1 - decay)
        if self.ema_decay:
            one_hot = F.one_hot(chosen, self.codebook_size).to(flat.dtype)  # (M, K)
            self.sums.lerp_(one_hot.T @ everywhere, 1 - decay)
            total = self.counts.sum()
            smoothed = (self.counts + 1e-7) / (total + self.codebook_size * 1e-7) * total  # Laplace: nothing is divided by 0
            self.codebook.copy_(self.sums / smoothed[:, None])
        if self.restart_below:
            idle = self.counts < self.restart_below  # (K,)
            fresh = everywhere[_picks(self.codebook_size, len(everywhere), everywhere.device)]
            self.codebook.copy_(torch.where(idle[:, None], fresh, self.codebook))
            self.counts.copy_(torch.where(idle, torch.full_like(self.counts, self.restart_below), self.counts))
            self.sums.copy_(torch.where(idle[:, None], fresh * self.restart_below, self.sums))


def _picks(number: int, population: int, device: torch.device) -> Tensor:
    """`number` different places below `population`, or as many rounds through it as are needed."""
    rounds = [torch.randperm(population) for _ in range(-(-number // population))]
    return torch.cat(rounds)[:number].to(device)


def _gathered(indices: Tensor) -> Tensor:
    """The choices of all processes."""
    if rank_and_size()[1] == 1:
        return indices
    return gather_rows(indices.float()[:, None])[:, 0].long()
