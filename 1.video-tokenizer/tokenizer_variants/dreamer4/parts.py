"""The two halves of Dreamer 4's tokenizer: patches into a few latents, and latents into all patches."""

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
    """What the encoder and the decoder must agree on."""

    transformer: BlockCausalSizes
    """of each of the two"""
    grid_size: tuple[int, int]
    """rows and columns of patches"""
    patch_size: int
    num_latents: int
    num_registers: int
    channels: int
    """numbers in a latent's code (D)"""

    @property
    def num_patches(self) -> int:
        """Patches of a frame (N)."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_latents_and_registers(self) -> int:
        """Tokens of a frame that are no patches."""
        return self.num_latents + self.num_registers

    @property
    def places(self) -> Tensor:
        """(S, 2) row and column of every token: latents and registers have none, then the patches."""
        return torch.cat([torch.zeros(self.num_latents_and_registers, 2), patch_places(self.grid_size)])


def patch_places(grid_size: tuple[int, int]) -> Tensor:
    """(N, 2) row and column of every patch, in reading order: a 2x2 grid is (0, 0), (0, 1), (1, 0), (1, 1)."""
    rows, columns = torch.meshgrid(torch.arange(grid_size[0]), torch.arange(grid_size[1]), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=-1).float()


def learned_tokens(number: int, embed_dim: int) -> nn.Embedding:
    """Tokens that are the same for every frame, small at first so that what is looked up soon outweighs them."""
    tokens = nn.Embedding(number, embed_dim)
    nn.init.normal_(tokens.weight, std=0.1)
    return tokens


def hidden_patches(num_images: int, num_patches: int, largest_share: float, device: torch.device) -> Tensor:
    """(num_images, N) bool, True where a patch is hidden: each image draws its own share p ~ U(0, largest_share), and each of its
    patches is hidden with probability p. p can be near 0, so that an image without a mask is nothing new later."""
    shares = largest_share * torch.rand(global_batch_size(num_images), 1, device=device)
    return local_shard(torch.rand(global_batch_size(num_images), num_patches, device=device) < shares)


class FrameNormaliser(nn.Module):
    """Frames minus the mean frame of the recording, over the root mean square of what is left.

    In a game most of a frame is always the same, and a look that averages over patches would carry little else: without this, a
    ball's share of what a latent reads is one in thousands. Before anything is measured it subtracts 0.5.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, frame_size: tuple[int, int]):
        super().__init__()
        self.register_buffer("mean", torch.full((3, *frame_size), 0.5))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, frames: np.ndarray) -> None:
        """frames: uint8 (F, H, W, 3), of which at most 256, evenly spaced, are read."""
        chosen = torch.from_numpy(sample_of(frames)).permute(0, 3, 1, 2) / 255  # (256, 3, H, W)
        mean = chosen.mean(dim=0)
        self.mean.copy_(mean)
        self.scale.copy_((chosen - mean).square().mean().sqrt().clamp(min=0.01))  # a still divides nothing by 0

    def forward(self, video: Tensor) -> Tensor:
        """video: (B, T, C, H, W) in [0, 1]. Returns the same shape, around 0, of size about 1."""
        return (video - self.mean) / self.scale


class Bottleneck(nn.Module):
    """All that the decoder will know of a frame: each latent becomes a few numbers in [-1, 1], by a matrix and tanh."""

    def __init__(self, embed_dim: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(embed_dim, channels)

    def forward(self, latents: Tensor) -> Tensor:
        """latents: (B, T, L, E). Returns (B, T, L, D) float32."""
        return self.linear(latents).float().tanh()


class LatentEncoder(nn.Module):
    """Patches and latent tokens in, latents out. Latents look at everything of their step, patches at patches only.

    So a patch's vector is the same whether there are latents or not, and the latents are the only readers. Registers are latents
    that nobody passes on: a place to keep what a layer found (arXiv:2309.16588).
    """

    def __init__(self, sizes: LatentSizes):
        super().__init__()
        width, self.num_latents = sizes.transformer.embed_dim, sizes.num_latents
        rows, columns = sizes.grid_size
        self.normalise = FrameNormaliser((rows * sizes.patch_size, columns * sizes.patch_size))
        self.patch_embedding = PatchEmbedding(3, width, sizes.patch_size, "linear")  # conv would show a hidden patch's rim
        self.mask_token = learned_tokens(1, width)
        self.readers = learned_tokens(sizes.num_latents_and_registers, width)
        self.places = nn.Embedding(sizes.num_patches, width)
        nn.init.normal_(self.places.weight, std=0.5)  # about as large as what they are added to
        looks = step_mask([sizes.num_latents_and_registers, sizes.num_patches], [[1, 1], [0, 1]])
        self.transformer = BlockCausalTransformer(sizes.transformer, looks, sizes.places)
        self.bottleneck = Bottleneck(width, sizes.channels)

    def forward(self, video: Tensor, hidden: Tensor | None = None, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """video: (B, T, C, H, W) in [0, 1]. hidden: (B, T, N) bool, patches to replace by the mask token. Returns codes
        (B, T, L, D) in [-1, 1], and the cache for the frames that follow."""
        patches = self.patch_embedding(self.normalise(video))  # (B, T, N, E)
        if hidden is not None:
            patches = torch.where(hidden[..., None], self.mask_token.weight[0].to(patches.dtype), patches)
        patches = patches + self.places.weight.to(patches.dtype)
        readers = self.readers.weight.to(patches.dtype).expand(*patches.shape[:2], -1, -1)
        x, cache = self.transformer.step(torch.cat([readers, patches], dim=2), cache)
        return self.bottleneck(x[:, :, : self.num_latents]), cache


class LatentDecoder(nn.Module):
    """Codes in, all patches out. Latents look at latents only; each patch has a learned token that looks at them and at patches.

    Nothing of the frame itself gets here: with the codes held fixed no pixel of the input can change the picture.
    """

    def __init__(self, sizes: LatentSizes):
        super().__init__()
        width, self.num_latents = sizes.transformer.embed_dim, sizes.num_latents
        self.from_codes = nn.Linear(sizes.channels, width)
        self.slots = learned_tokens(sizes.num_latents_and_registers, width)  # which latent is which, then the registers
        self.readouts = learned_tokens(sizes.num_patches, width)
        looks = step_mask([sizes.num_latents_and_registers, sizes.num_patches], [[1, 0], [1, 1]])
        self.transformer = BlockCausalTransformer(sizes.transformer, looks, sizes.places)
        self.patch_unembedding = PatchUnembedding(width, 3, sizes.patch_size, sizes.grid_size)

    def forward(self, codes: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """codes: (B, T, L, D). Returns video (B, T, C, H, W), not bounded, and the cache for the frames that follow."""
        latents = self.from_codes(codes)  # (B, T, L, E)
        slots, readouts = self.slots.weight.to(latents.dtype), self.readouts.weight.to(latents.dtype)
        registers = slots[self.num_latents :].expand(*latents.shape[:2], -1, -1)
        readouts = readouts.expand(*latents.shape[:2], -1, -1)
        x = torch.cat([latents + slots[: self.num_latents], registers, readouts], dim=2)
        x, cache = self.transformer.step(x, cache)
        return self.patch_unembedding(x[:, :, len(slots) :]).float() + 0.5, cache
