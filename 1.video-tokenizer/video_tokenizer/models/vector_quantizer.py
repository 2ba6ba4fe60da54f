"""A learned codebook, as in VQ-VAE (arXiv:1711.00937): what FSQ does without, and what keeps it from collapsing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_tokenizer.global_batch import gather_rows
from video_tokenizer.models.fsq import Quantized


class Codebook(nn.Embedding):
    """K vectors of length D: a parameter where a loss moves them, a buffer where they follow running means.

    They start close together, uniform in [-1/K, 1/K]. Far apart, as from a normal distribution, a few of them are the nearest to
    all latents of a fresh encoder, and training may end on a single one. As an embedding, a codebook has no weight decay.
    """

    def __init__(self, num_codes: int, latent_dim: int, learned: bool = True):
        codes = (2 * torch.rand(num_codes, latent_dim) - 1) / num_codes
        super().__init__(num_codes, latent_dim, _weight=codes)
        if not learned:
            del self.weight
            self.register_buffer("weight", codes)


class VectorQuantizer(nn.Module):
    """Replace each latent by the nearest of K learned vectors.

    num_codes: K. latent_dim: D. commitment_weight: how strongly a latent is pulled to its code.
    learned: whether a loss moves the codes; a subclass that moves them in another way says False.
    """

    moves_parameters = False
    """True where codes jump: the averaged weights then copy them, because a mean of the places before and after is neither"""

    def __init__(self, num_codes: int, latent_dim: int, commitment_weight: float = 0.25, learned: bool = True):
        super().__init__()
        self.codebook_size, self.latent_dim = num_codes, latent_dim
        self.commitment_weight, self.learned = commitment_weight, learned
        self.codebook: Codebook | nn.Embedding = Codebook(num_codes, latent_dim, learned)

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., D), any float dtype."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            return self.quantized(latents, self.nearest(latents))

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Index of the nearest code: (..., D) -> (...). |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for all e."""
        flat, codes = latents.reshape(-1, self.latent_dim), self.codebook.weight  # (M, D), (K, D)
        if flat.is_cuda:  # where the product below may be rounded to 10 bits (TF32)
            distances = torch.cdist(flat, codes, compute_mode="donot_use_mm_for_euclid_dist")  # (M, K)
            return distances.argmin(dim=1).view(latents.shape[:-1])
        indices = (codes.square().sum(dim=1) - 2 * flat @ codes.T).argmin(dim=1)
        return indices.view(latents.shape[:-1])

    def quantized(self, latents: Tensor, indices: Tensor) -> Quantized:
        """Codes for latents (..., D) with these indices (...), and the losses that bring the two together."""
        codes = self.indices_to_codes(indices)
        losses = {"commitment": self.commitment_weight * F.mse_loss(latents, codes.detach())}
        if self.learned:
            losses = {"codebook": F.mse_loss(codes, latents.detach())} | losses
        straight_through = latents + (codes - latents).detach()  # the gradient skips the choice, which has none
        return Quantized(straight_through, indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (...) int64 in [0, K). Returns codes (..., D)."""
        return F.embedding(indices, self.codebook.weight)


class TrackingVectorQuantizer(VectorQuantizer):
    """A codebook that tracks how often its codes are used, and revives those that are not.

    ema_decay: 0 moves the codes by a loss, as in Genie; above 0 a code is the running mean of the latents that chose it
    (arXiv:1711.00937, appendix A.1), as in VideoGPT.
    data_start: take the first codes from the first batch of latents instead of from around zero.
    restart_below: move a code onto a random latent of the batch when fewer latents than this choose it, in the running mean over
    steps; 0 is off. VideoGPT restarts below 1. Keep at least 4 latents per code in a batch, or most codes jump in every step.
    """

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
        super().__init__(num_codes, latent_dim, commitment_weight, learned=not ema_decay)
        self.ema_decay, self.restart_below = ema_decay, restart_below
        self.moves_parameters = restart_below > 0
        # buffers, so that a loaded quantizer neither starts again nor restarts codes that are in use
        self.register_buffer("counts", torch.full((num_codes,), max(1.0, restart_below)))  # latents per step, running mean
        self.register_buffer("sums", self.codebook.weight.detach().clone())
        self.register_buffer("started", torch.tensor(not data_start))
        self.has_started = not data_start  # the same in Python: asking a buffer would mean waiting for the GPU
        self.register_load_state_dict_post_hook(lambda quantizer, _: setattr(quantizer, "has_started", bool(quantizer.started)))

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., D), any float dtype."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            if self.training and not self.has_started:
                self._start(latents.reshape(-1, self.latent_dim))
            indices = self.nearest(latents)
            if self.training:
                self._track(latents.reshape(-1, self.latent_dim), indices.flatten())
            return self.quantized(latents, indices)

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        """Take the codes from the first batch, with a little noise if it has fewer latents than there are codes."""
        gathered = gather_rows(flat.detach())
        chosen = gathered[_random_rows(self.codebook_size, len(gathered), gathered.device)]
        noise = torch.randn_like(chosen) * 0.01 * self.latent_dim**-0.5
        self.codebook.weight.copy_(chosen + (noise if len(gathered) < self.codebook_size else 0 * noise))
        self.sums.copy_(self.codebook.weight * self.counts[:, None])
        self.started.fill_(True)
        self.has_started = True

    @torch.no_grad()
    def _track(self, flat: Tensor, indices: Tensor) -> None:
        """Update the running means, move the codes onto theirs, and restart idle codes. flat: (M, D), indices: (M,)."""
        codes, gathered, chosen = self.codebook.weight, gather_rows(flat.detach()), gather_rows(indices)
        decay = self.ema_decay or 0.99
        self.counts.lerp_(
            torch.zeros_like(self.counts).scatter_add_(0, chosen, torch.ones_like(chosen, dtype=flat.dtype)), 1 - decay
        )
        if self.ema_decay:
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, chosen, gathered), 1 - decay)
            total = self.counts.sum()
            smoothed = (self.counts + 1e-7) / (total + self.codebook_size * 1e-7) * total  # Laplace: no division by 0
            codes.copy_(self.sums / smoothed[:, None])
        if self.restart_below:
            idle = self.counts < self.restart_below  # (K,)
            fresh = gathered[_random_rows(self.codebook_size, len(gathered), gathered.device)]
            codes.copy_(torch.where(idle[:, None], fresh, codes))
            self.counts.copy_(torch.where(idle, torch.full_like(self.counts, self.restart_below), self.counts))
            self.sums.copy_(torch.where(idle[:, None], fresh * self.restart_below, self.sums))


def _random_rows(number: int, population: int, device: torch.device) -> Tensor:
    """`number` different rows below `population`; every row equally often if more are asked for than there are."""
    rounds = [torch.randperm(population, device=device) for _ in range(-(-number // population))]
    return torch.cat(rounds)[:number]
