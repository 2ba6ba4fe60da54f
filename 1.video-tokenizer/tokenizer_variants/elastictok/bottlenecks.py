"""The two bottlenecks of ElasticTok: FSQ as in chapter 1, or a normal distribution. Both set dropped tokens to zero."""

import torch
from torch import Tensor, nn

from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes
from video_tokenizer.models.fsq import FiniteScalarQuantizer, Quantized


class FiniteScalarBottleneck(nn.Module):
    """Vectors to FSQ codes. A dropped token becomes the zero vector, which is also the code of the middle levels.

    As in the paper, the decoder therefore cannot distinguish a dropped token from the middle code, and both have the same index.
    """

    def __init__(self, embed_dim: int, levels: tuple[int, ...]):
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(levels)
        self.to_latents = nn.Linear(embed_dim, self.quantizer.latent_dim)
        self.codebook_size, self.code_length = self.quantizer.codebook_size, self.quantizer.latent_dim

    def forward(self, x: Tensor, kept: Tensor) -> Quantized:
        """x: (B, T, N, E). kept: (B, T, N) bool. Returns codes (B, T, N, D) and indices (B, T, N)."""
        quantized = self.quantizer(self.to_latents(x))
        middle = self.quantizer.codes_to_indices(torch.zeros(self.code_length, device=x.device))
        return Quantized(quantized.codes * kept[..., None], torch.where(kept, quantized.indices, middle), {})


class GaussianBottleneck(nn.Module):
    """Vectors to normal distributions. The code is a sample in training, and the mean otherwise; there is no codebook.

    kl_weight: weight of the KL divergence from a standard normal distribution, in nats, averaged over the kept tokens.
    """

    codebook_size = 0

    def __init__(self, embed_dim: int, code_length: int, kl_weight: float):
        super().__init__()
        self.code_length, self.kl_weight = code_length, kl_weight
        self.to_moments = nn.Linear(embed_dim, 2 * code_length)

    def forward(self, x: Tensor, kept: Tensor) -> Quantized:
        """x: (B, T, N, E). kept: (B, T, N) bool. Returns codes (B, T, N, D), and indices (B, T, 0)."""
        mean, log_variance = self.to_moments(x).float().chunk(2, dim=-1)  # (B, T, N, D) each
        log_variance = log_variance.clamp(-30, 20)
        codes = mean
        if self.training:
            noise = local_shard(torch.randn(global_batch_size(len(mean)), *mean.shape[1:], device=mean.device))
            codes = mean + (0.5 * log_variance).exp() * noise
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1)  # (B, T, N)
        loss = self.kl_weight * (divergence * kept).sum() / mean_over_processes(kept.sum().float())
        return Quantized(codes * kept[..., None], torch.zeros(*x.shape[:2], 0, dtype=torch.int64, device=x.device), {"kl": loss})
