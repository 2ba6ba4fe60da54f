"""The two halves of Dreamer 4's tokenizer: an encoder from patches to a few latents, a decoder from latents to all patches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tokenizer_variants.dreamer4.block_causal_transformer import BlockCausalSizes, BlockCausalTransformer, step_mask
from video_tokenizer.global_batch import global_batch_size, local_shard
from video_tokenizer.losses import sample_of
from video_tokenizer.models.patch_embed import PatchEmbedding, PatchUnembedding
from video_tokenizer.models.st_transformer import KVCache


@dataclass(frozen=True)
class LatentSizes:
    """The sizes shared by the encoder and the decoder."""

    transformer: BlockCausalSizes
    """each of the two has its own transformer of these sizes"""
    grid_size: tuple[int, int]
    """rows and columns of patches"""
    patch_size: int
    num_latents: int
    num_registers: int
    channels: int
    """length of a latent's code (D)"""

    @property
    def num_patches(self) -> int:
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_latents_and_registers(self) -> int:
        return self.num_latents + self.num_registers

    @property
    def places(self) -> Tensor:
        """(S, 2) row and column of every token: (0, 0) for latents and registers, then the patches."""
        return torch.cat([torch.zeros(self.num_latents_and_registers, 2), patch_places(self.grid_size)])


def patch_places(grid_size: tuple[int, int]) -> Tensor:
    """(N, 2) row and column of every patch, in reading order: a 2x2 grid is (0, 0), (0, 1), (1, 0), (1, 1)."""
    rows, columns = torch.meshgrid(torch.arange(grid_size[0]), torch.arange(grid_size[1]), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=-1).float()


def learned_tokens(number: int, embed_dim: int) -> nn.Embedding:
    """Learned tokens, the same for every frame. They start small, so that what they attend to soon dominates them."""
    tokens = nn.Embedding(number, embed_dim)
    nn.init.normal_(tokens.weight, std=0.1)
    return tokens


def hidden_patches(num_images: int, num_patches: int, largest_share: float, device: torch.device) -> Tensor:
    """A random mask (num_images, N) bool, True where a patch is hidden.

    Each image samples a probability p ~ U(0, largest_share), and each of its patches is hidden with probability p. Since p can be
    close to 0, the model also learns from almost unmasked images, as at inference.
    """
    shares = largest_share * torch.rand(global_batch_size(num_images), 1, device=device)
    return local_shard(torch.rand(global_batch_size(num_images), num_patches, device=device) < shares)


class FrameNormaliser(nn.Module):
    """Subtract the mean frame of the recording, and divide by the root mean square of the rest.

    Most of a game's frame never changes. Without this normalization, attention that averages over patches would carry little
    else, and a ball would be about a thousandth of a latent's input. Before `measure` is called, it only subtracts 0.5.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, frame_size: tuple[int, int]):
        super().__init__()
        self.register_buffer("mean", torch.full((3, *frame_size), 0.5))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, frames: np.ndarray) -> None:
        """Compute both statistics. frames: uint8 (F, H, W, 3); at most 256 of them, evenly spaced, are used."""
        chosen = torch.from_numpy(sample_of(frames)).permute(0, 3, 1, 2) / 255  # (256, 3, H, W)
        mean = chosen.mean(dim=0)
        self.mean.copy_(mean)
        self.scale.copy_((chosen - mean).square().mean().sqrt().clamp(min=0.01))  # 0 if the recording never changes

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns the same shape, with mean 0 and root mean square about 1."""
        return (video - self.mean) / self.scale


class Bottleneck(nn.Module):
    """Each latent becomes a code of a few numbers in [-1, 1], by a linear map and tanh. The decoder gets nothing else."""

    def __init__(self, embed_dim: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(embed_dim, channels)

    def forward(self, latents: Tensor) -> Tensor:
        """latents: (B, T, L, E). Returns (B, T, L, D) float32."""
        return self.linear(latents).float().tanh()


class LatentEncoder(nn.Module):
    """Patches and latent tokens in, codes out. Latents attend to all tokens of their step, patches to patches only.

    The latents therefore read from the patches without affecting them. Registers are latents that are not part of the code: they
    give the layers a place to store intermediate results (arXiv:2309.16588).
    """

    def __init__(self, sizes: LatentSizes):
        super().__init__()
        width, self.num_latents = sizes.transformer.embed_dim, sizes.num_latents
        rows, columns = sizes.grid_size
        self.normalise = FrameNormaliser((rows * sizes.patch_size, columns * sizes.patch_size))
        self.patch_embedding = PatchEmbedding(3, width, sizes.patch_size, "linear")  # a conv stem would leak hidden pixels
        self.mask_token = learned_tokens(1, width)
        self.readers = learned_tokens(sizes.num_latents_and_registers, width)
        self.places = nn.Embedding(sizes.num_patches, width)
        nn.init.normal_(self.places.weight, std=0.5)  # about the scale of the patch vectors they are added to
        mask = step_mask([sizes.num_latents_and_registers, sizes.num_patches], [[1, 1], [0, 1]])
        self.transformer = BlockCausalTransformer(sizes.transformer, mask, sizes.places)
        self.bottleneck = Bottleneck(width, sizes.channels)

    def forward(self, video: Tensor, hidden: Tensor | None = None, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """video: (B, T, C, H, W) in [0, 1]. hidden: (B, T, N) bool, patches to replace by the mask token.

        Returns codes (B, T, L, D) in [-1, 1], and the cache for the next frames.
        """
        patches = self.patch_embedding(self.normalise(video))  # (B, T, N, E)
        if hidden is not None:
            patches = torch.where(hidden[..., None], self.mask_token.weight[0].to(patches.dtype), patches)
        patches = patches + self.places.weight.to(patches.dtype)
        readers = self.readers.weight.to(patches.dtype).expand(*patches.shape[:2], -1, -1)
        x, cache = self.transformer.step(torch.cat([readers, patches], dim=2), cache)
        return self.bottleneck(x[:, :, : self.num_latents]), cache


class LatentDecoder(nn.Module):
    """Codes in, all patches out. Latents attend to latents only; a learned token per patch attends to latents and patches.

    The decoded frame depends on the input frame through the codes only.
    """

    def __init__(self, sizes: LatentSizes):
        super().__init__()
        width, self.num_latents = sizes.transformer.embed_dim, sizes.num_latents
        self.from_codes = nn.Linear(sizes.channels, width)
        self.slots = learned_tokens(sizes.num_latents_and_registers, width)  # an embedding per latent, then the registers
        self.readouts = learned_tokens(sizes.num_patches, width)
        mask = step_mask([sizes.num_latents_and_registers, sizes.num_patches], [[1, 0], [1, 1]])
        self.transformer = BlockCausalTransformer(sizes.transformer, mask, sizes.places)
        self.patch_unembedding = PatchUnembedding(width, 3, sizes.patch_size, sizes.grid_size)

    def forward(self, codes: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """codes: (B, T, L, D). Returns video (B, T, C, H, W), not clamped, and the cache for the next frames."""
        latents = self.from_codes(codes)  # (B, T, L, E)
        slots, readouts = self.slots.weight.to(latents.dtype), self.readouts.weight.to(latents.dtype)
        registers = slots[self.num_latents :].expand(*latents.shape[:2], -1, -1)
        readouts = readouts.expand(*latents.shape[:2], -1, -1)
        x = torch.cat([latents + slots[: self.num_latents], registers, readouts], dim=2)
        x, cache = self.transformer.step(x, cache)
        return self.patch_unembedding(x[:, :, len(slots) :]).float() + 0.5, cache
