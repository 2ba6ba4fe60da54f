"""Two ways to turn a continuous latent into one of a few actions."""

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from video_tokenizer.global_batch import gather_rows, local_shard
from video_tokenizer.models.fsq import FiniteScalarQuantizer, Quantized
from video_tokenizer.models.vector_quantizer import VectorQuantizer


class ActionQuantizer(VectorQuantizer):
    """A learned codebook that is not asked to name actions before there is something to name.

    num_codes: number of actions (8 in Genie). latent_dim: length A of a code. noisy_steps: length of the first phase.
    restart_after: steps over which usage is averaged.

    If codes are used from the first step on, encoder and decoder collapse to one: the decoder learns to ignore the action before
    the encoder has found it. Three things prevent that:
    1. Latents are brought to mean 0 and variance 1 over the batch, so that they cannot shrink to a point.
    2. For the first `noisy_steps` training steps nothing is rounded; noise of variance 1 is added instead. Such a channel
       carries at most 0.5 log2(1 + 1) = half a bit per dimension, so only what helps most gets through, and gradients are exact.
       Then k-means puts the codes where the latents are.
    3. A code that later receives less than a twentieth of its fair share is moved onto a random latent of the batch.
    """

    usage: Tensor
    steps_seen: Tensor
    recent: Tensor

    def __init__(
        self, num_codes: int, latent_dim: int, commitment_weight: float = 0.25, noisy_steps: int = 200, restart_after: int = 50
    ):
        super().__init__(num_codes, latent_dim, commitment_weight)
        self.noisy_steps, self.restart_after = noisy_steps, restart_after
        self.codebook = nn.Embedding(num_codes, latent_dim)  # as an embedding it has no weight decay
        self.whiten = nn.BatchNorm1d(latent_dim, affine=False)
        self.register_buffer("usage", torch.full((num_codes,), 1.0 / num_codes))  # share of the latents, over recent steps
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("recent", torch.zeros(1024, latent_dim))  # the newest latents, for k-means

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., A)."""
        with torch.autocast(latents.device.type, enabled=False):
            everywhere = self.whiten(gather_rows(latents.float().reshape(-1, self.latent_dim)))  # of all processes
            all_indices = self.nearest(everywhere)
            indices = local_shard(all_indices).view(latents.shape[:-1])
            latents = local_shard(everywhere).view(latents.shape)
            if self.training:
                self.steps_seen += 1
                if self.steps_seen <= self.noisy_steps:
                    self._collect(everywhere.detach())
                    noise = local_shard(torch.randn_like(everywhere)).view(latents.shape)
                    # the codebook has no part in this phase, but the optimizer wants a gradient for each parameter
                    return Quantized(latents + noise, indices, {"codebook": 0.0 * self.codebook.weight.sum()})
                self._restart_idle_codes(everywhere.detach(), all_indices)
            return self.quantized(latents, indices)

    @torch.no_grad()
    def _collect(self, latents: Tensor) -> None:
        """Keep the newest latents; at the end of the noisy phase place the codes among them."""
        latents = latents[-len(self.recent) :]
        self.recent.copy_(torch.cat([self.recent[len(latents) :], latents]))
        if self.steps_seen == self.noisy_steps:
            seen = self.recent[self.recent.abs().sum(dim=1) > 0].cpu().numpy()  # short phases do not fill it
            centres, _ = kmeans2(seen, self.codebook_size, minit="++", rng=int(torch.randint(2**31, (1,))))
            self.codebook.weight.copy_(torch.from_numpy(centres))

    @torch.no_grad()
    def _restart_idle_codes(self, latents: Tensor, indices: Tensor) -> None:
        share = torch.bincount(indices, minlength=self.codebook_size).float() / len(indices)
        self.usage.lerp_(share, 1.0 / self.restart_after)
        for code in torch.nonzero(self.usage < 0.05 / self.codebook_size).flatten().tolist():
            chosen = int(torch.randint(len(latents), (1,)))
            self.codebook.weight[code] = latents[chosen]
            self.usage[code] = 1.0 / self.codebook_size


class SignQuantizer(nn.Module):
    """Each latent value becomes its sign: FSQ with two levels. Three values give 2 * 2 * 2 = 8 actions.

    balance_weight: defence against collapse. Each bit's tanh is pushed to average zero over the batch, so that both of its
    values are used, and not to copy another bit.
    """

    def __init__(self, num_codes: int, balance_weight: float = 1.0):
        super().__init__()
        self.latent_dim = num_codes.bit_length() - 1
        if 2**self.latent_dim != num_codes:
            raise ValueError(f"sign bits make 2, 4, 8, ... codes, not {num_codes}")
        self.balance_weight = balance_weight
        self.signs = FiniteScalarQuantizer([2] * self.latent_dim)

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., number of bits)."""
        signs = self.signs(latents)
        soft = torch.tanh(gather_rows(latents.float().reshape(-1, self.latent_dim)))
        correlation = soft.T @ soft / len(soft)
        overlap = correlation - torch.diag(torch.diag(correlation))
        balance = soft.mean(dim=0).square().sum() + overlap.square().sum() / 2
        return Quantized(signs.codes, signs.indices, {"balance": self.balance_weight * balance})

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (...) int64 in [0, num_codes). Returns codes (..., number of bits), each -1 or 1."""
        return self.signs.indices_to_codes(indices)
