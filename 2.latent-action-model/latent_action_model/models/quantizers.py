"""Two quantizers that turn a continuous latent into one of a few actions: a learned codebook and sign bits."""

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from video_tokenizer.global_batch import gather_rows, local_shard
from video_tokenizer.models.fsq import FiniteScalarQuantizer, Quantized
from video_tokenizer.models.vector_quantizer import VectorQuantizer


class ActionQuantizer(VectorQuantizer):
    """A learned codebook that starts to quantize only once the latents carry information.

    num_codes: number of actions (8 in Genie). latent_dim: length A of a code. noisy_steps: length of the first phase.
    restart_after: steps over which usage is averaged.

    If latents are quantized from the first step, the model collapses to a single code: the decoder learns to ignore the action
    before the encoder has found it. Three measures prevent that:
    1. Latents are normalized to mean 0 and variance 1 over the batch, so that they cannot shrink to a point.
    2. In the first `noisy_steps` training steps latents are not quantized. Noise of variance 1 is added instead. Such a channel
       carries at most 0.5 log2(1 + 1) = half a bit per dimension, so the encoder must send what helps most, and gradients are
       exact. K-means then places the codes among the latents.
    3. Later, a code that receives less than a twentieth of its fair share is moved onto a random latent of the batch.
    """

    moves_parameters = True

    def __init__(
        self, num_codes: int, latent_dim: int, commitment_weight: float = 0.25, noisy_steps: int = 200, restart_after: int = 50
    ):
        super().__init__(num_codes, latent_dim, commitment_weight)
        self.noisy_steps, self.restart_after = noisy_steps, restart_after
        self.codebook = nn.Embedding(num_codes, latent_dim)  # until k-means places the codes
        self.whiten = nn.BatchNorm1d(latent_dim, affine=False)
        self.usage = nn.Buffer(torch.full((num_codes,), 1.0 / num_codes))  # share of the latents, over recent steps
        self.steps_seen = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.count_from(0)
        self.register_load_state_dict_post_hook(lambda quantizer, _: quantizer.count_from(int(quantizer.steps_seen)))
        self.recent = nn.Buffer(torch.zeros(1024, latent_dim))  # the newest latents, for k-means

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., A). Returns codes (..., A) and indices (...)."""
        with torch.autocast(latents.device.type, enabled=False):
            rows = latents.float().reshape(-1, self.latent_dim)
            if not self.training:
                latents = self.whiten(rows).view(latents.shape)
                return self.quantized(latents, self.nearest(latents))
            # statistics, noise and restarts use the batch of all processes, so that the result does not depend on their number
            all_latents = self.whiten(gather_rows(rows))
            all_indices = self.nearest(all_latents)
            indices = local_shard(all_indices).view(latents.shape[:-1])
            latents = local_shard(all_latents).view(latents.shape)
            if self.is_noisy:
                torch.compiler.disable(self._collect)(all_latents.detach())
                noise = local_shard(torch.randn_like(all_latents)).view(latents.shape)
                # the codebook is unused in this phase, but the optimizer needs a gradient for every parameter
                return Quantized(latents + noise, indices, {"codebook": 0.0 * self.codebook.weight.sum()})
            self._restart_idle_codes(all_latents.detach(), all_indices)
            return self.quantized(latents, indices)

    def count_from(self, steps: int) -> None:
        """Go on after this many training steps. Python counts too, because asking the buffer would mean waiting for the GPU."""
        self._steps, self.is_noisy = steps, steps < self.noisy_steps

    @torch.no_grad()
    def _collect(self, latents: Tensor) -> None:
        """Keep the newest latents (M, A). At the end of the noisy phase, place the codes among them by k-means."""
        latents = latents[-len(self.recent) :]
        self.recent.copy_(torch.cat([self.recent[len(latents) :], latents]))
        self.steps_seen += 1
        self.count_from(self._steps + 1)
        if not self.is_noisy:
            seen = self.recent[self.recent.abs().sum(dim=1) > 0].cpu().numpy()  # a short phase does not fill the buffer
            centers, _ = kmeans2(seen, self.codebook_size, minit="++", rng=int(torch.randint(2**31, (1,))))
            self.codebook.weight.copy_(torch.from_numpy(centers))

    @torch.no_grad()
    def _restart_idle_codes(self, latents: Tensor, indices: Tensor) -> None:
        share = torch.zeros_like(self.usage).scatter_add_(0, indices, torch.ones_like(indices).float()) / len(indices)
        self.usage.lerp_(share, 1.0 / self.restart_after)
        idle = self.usage < 0.05 / self.codebook_size  # (K,)
        fresh = latents[torch.randint(len(latents), (self.codebook_size,), device=latents.device)]
        self.codebook.weight.copy_(torch.where(idle[:, None], fresh, self.codebook.weight))
        self.usage.masked_fill_(idle, 1.0 / self.codebook_size)


class SignQuantizer(nn.Module):
    """Each latent value becomes its sign: FSQ with two levels. Three values give 2 * 2 * 2 = 8 actions.

    balance_weight: weight of a loss against collapse. It pushes the mean of each bit's tanh toward zero over the batch, so that
    both values are used, and the correlation between bits toward zero, so that no bit copies another.
    """

    def __init__(self, num_codes: int, balance_weight: float = 1.0):
        super().__init__()
        self.latent_dim = num_codes.bit_length() - 1
        if 2**self.latent_dim != num_codes:
            raise ValueError(f"num_codes {num_codes} is not a power of 2, as sign bits require; give 2, 4, 8, ...")
        self.balance_weight = balance_weight
        self.signs = FiniteScalarQuantizer([2] * self.latent_dim)

    def forward(self, latents: Tensor) -> Quantized:
        """latents: (..., number of bits). Returns codes of the same shape and indices (...)."""
        signs = self.signs(latents)
        rows = latents.float().reshape(-1, self.latent_dim)
        soft = torch.tanh(gather_rows(rows) if self.training else rows)  # in training the batch of all processes
        correlation = soft.T @ soft / len(soft)
        overlap = correlation - torch.diag(torch.diag(correlation))
        balance = soft.mean(dim=0).square().sum() + overlap.square().sum() / 2
        return Quantized(signs.codes, signs.indices, {"balance": self.balance_weight * balance})

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """indices: (...) int64 in [0, num_codes). Returns codes (..., number of bits), each -1 or 1."""
        return self.signs.indices_to_codes(indices)
