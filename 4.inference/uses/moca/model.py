"""The animator: a space-time transformer that takes the noise out of the latents of a clip, under three conditions.

Source: MoCA, arXiv:2311.18827.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from uses.moca.conditions import IMAGE, MOTION, TEXT, Conditions
from uses.moca.diffusion import NUM_LEVELS, ORDER, Given, denoise, guide, signal_and_noise, velocity
from uses.moca.digits import MAX_WORDS, NUM_FRAMES, SIZE, VOCABULARY
from uses.moca.vae import INK_WEIGHT, LATENTS, SHRINK, FrameVAE
from video_tokenizer.models.positional_encoding import SpaceTimePositions, sine_code
from video_tokenizer.models.st_transformer import SpaceTimeBlock, TransformerBlock, attention

GRID = SIZE // SHRINK
"""rows and columns of a frame's latents"""


class CrossAttention(nn.Module):
    """Every place of every frame looks at the words of the caption."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(embed_dim)
        self.to_queries = nn.Linear(embed_dim, embed_dim, bias=False)
        self.to_keys_and_values = nn.Linear(embed_dim, 2 * embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """x: (B, T, N, E), words: (B, L, E). Returns x's update (B, T, N, E)."""
        queries = rearrange(self.to_queries(self.norm(x)), "b t n (h d) -> b h (t n) d", h=self.num_heads)
        keys, values = rearrange(self.to_keys_and_values(words), "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        mixed = attention(queries, keys, values)  # (B, heads, T*N, d)
        return self.output(rearrange(mixed, "b h (t n) d -> b t n (h d)", t=x.shape[1]))


class AnimatorBlock(TransformerBlock):
    """Scale and shift by noise level and magnitude, look at the words, then chapter 1's block: space, time, feed-forward.

    Without a mask the attention over time sees later frames too: a clip is formed all at once.
    """

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.to_scale_and_shift = nn.Linear(embed_dim, 2 * embed_dim)
        nn.init.zeros_(self.to_scale_and_shift.weight)
        nn.init.zeros_(self.to_scale_and_shift.bias)
        self.look_at_words = CrossAttention(embed_dim, num_heads)
        self.space_time = SpaceTimeBlock(embed_dim, num_heads)

    def forward(self, x: Tensor, level: Tensor, words: Tensor) -> Tensor:
        """x: (B, T, N, E), level: (B, E), words: (B, L, E)."""
        scale, shift = self.to_scale_and_shift(level)[:, None, None].chunk(2, dim=-1)  # (B, 1, 1, E) each
        x = x * (1 + scale) + shift
        x = x + self.look_at_words(x, words)
        return self.space_time(x, None)[0]


class WaveEmbedding(nn.Module):
    """A number as sines of many frequencies, then two layers, as diffusion models embed their time step."""

    frequencies: Tensor

    def __init__(self, embed_dim: int):
        super().__init__()
        waves = torch.exp(-math.log(10_000) * torch.arange(embed_dim // 2) / (embed_dim // 2))
        self.register_buffer("frequencies", waves, persistent=False)
        self.layers = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.SiLU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, numbers: Tensor) -> Tensor:
        """(B,) -> (B, E)."""
        return self.layers(sine_code(numbers, self.frequencies))


class Animator(nn.Module):
    """Noisy latents, first frame and flow pictures in 12 channels; noise level and magnitude as vectors; the caption as words."""

    def __init__(
        self, embed_dim: int = 96, num_blocks: int = 3, num_heads: int = 3, patch_size: int = 2, has_magnitude: bool = True
    ):
        """has_magnitude: False leaves the mean length of the flow out."""
        super().__init__()
        self.patch_size, self.has_magnitude = patch_size, has_magnitude
        cells = GRID // patch_size
        self.to_tokens = nn.Linear(3 * LATENTS * patch_size**2, embed_dim)
        self.positions = SpaceTimePositions(embed_dim, (cells, cells), NUM_FRAMES)
        self.level_embedding = WaveEmbedding(embed_dim)
        self.magnitude_embedding = WaveEmbedding(embed_dim)
        self.null_magnitude = nn.Parameter(torch.zeros(embed_dim))
        self.word_embedding = nn.Embedding(len(VOCABULARY), embed_dim)
        self.word_places = nn.Parameter(0.1 * torch.randn(MAX_WORDS, embed_dim))
        self.null_word = nn.Parameter(torch.zeros(embed_dim))
        self.blocks = nn.ModuleList(AnimatorBlock(embed_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embed_dim)
        self.to_latents = nn.Linear(embed_dim, LATENTS * patch_size**2)
        nn.init.zeros_(self.to_latents.weight)
        nn.init.zeros_(self.to_latents.bias)

    def forward(self, noisy: Tensor, level: Tensor, conditions: Conditions) -> Tensor:
        """The velocity (B, T, C, h, w) in noisy latents of the same shape. level: (B,) from 0 to T."""
        given = conditions.given
        image = (conditions.image * given[:, IMAGE, None, None, None])[:, None].expand_as(noisy)  # the same in all frames
        motion = conditions.motion * given[:, MOTION, None, None, None, None]
        channels = torch.cat([noisy, image, motion], dim=2)  # (B, T, 3C, h, w)
        p = self.patch_size
        x = self.to_tokens(rearrange(channels, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p))  # (B, T, N, E)
        x = self.positions(x)
        told = self.level_embedding(level) + self.embed_magnitude(conditions)  # (B, E)
        words = self.word_embedding(conditions.words) + self.word_places  # (B, L, E)
        words = torch.where(given[:, TEXT, None, None], words, self.null_word)
        for block in self.blocks:
            x = block(x, told, words)
        latents = self.to_latents(self.norm(x)).float()
        return rearrange(latents, "b t (h w) (c p q) -> b t c (h p) (w q)", p=p, q=p, h=noisy.shape[-2] // p)

    def embed_magnitude(self, conditions: Conditions) -> Tensor | float:
        """(B, E), or 0 for a network that is not told. The length counts on a logarithmic scale, 100 for every factor of 2."""
        if not self.has_magnitude:
            return 0.0
        told = self.magnitude_embedding(100 * (conditions.magnitude + 1e-3).log2())
        return torch.where(conditions.given[:, MOTION, None], told, self.null_magnitude)


class MoCA(nn.Module):
    """Autoencoder and animator. Only the animator learns here."""

    alphas: Tensor
    sigmas: Tensor

    def __init__(self, vae: FrameVAE, animator: Animator):
        super().__init__()
        self.vae, self.animator = vae.requires_grad_(False), animator
        alphas, sigmas = signal_and_noise()
        self.register_buffer("alphas", alphas, persistent=False)
        self.register_buffer("sigmas", sigmas, persistent=False)

    def loss(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Mean squared error of the velocity at random noise levels, in which ink counts for more. latents: (B, T, C, h, w)."""
        level = torch.randint(1, NUM_LEVELS + 1, (len(latents),), device=latents.device)
        alpha, sigma = (values[level][:, None, None, None, None] for values in (self.alphas, self.sigmas))
        noise = torch.randn_like(latents)
        predicted = self.animator(alpha * latents + sigma * noise, level, conditions)
        error = (predicted - velocity(latents, noise, alpha, sigma)).square()
        most = latents.transpose(1, 2).flatten(2).median(dim=-1).values[:, None, :, None, None]  # (B, 1, C, 1, 1)
        weight = 1 + INK_WEIGHT * ((latents - most).abs().amax(dim=2, keepdim=True) > 0.5)
        return (weight * error).mean() / weight.mean()

    def conditions(self, first_frames: Tensor, words: Tensor, flow_pictures: Tensor, magnitude: Tensor) -> Conditions:
        """Conditions that are all given. first_frames: (B, 3, H, W), flow_pictures: (B, T, 3, H, W), both in [0, 1]."""
        given = torch.ones(len(words), 3, dtype=torch.bool, device=words.device)
        return Conditions(self.vae.encode(first_frames), words, self.vae.encode(flow_pictures), magnitude, given)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(T, C, h, w) of a clip."""
        return NUM_FRAMES, LATENTS, GRID, GRID

    @torch.no_grad()
    def animate(
        self, conditions: Conditions, scales: tuple[float, ...], num_steps: int, noise: Tensor,
        order: tuple[Given, ...] = ORDER, first_level: int = NUM_LEVELS,
    ) -> Tensor:  # fmt: skip
        """Clips (B, T, 3, H, W) in [0, 1]. scales: of image, text and motion; noise: (B, T, C, h, w), where sampling begins."""

        def predict(noisy: Tensor, level: int) -> Tensor:
            levels = torch.full((len(noisy),), level, device=noisy.device)
            return guide(lambda given: self.animator(noisy, levels, conditions.only(given)), scales, order)

        return self.vae.decode(denoise(predict, noise, num_steps, first_level))
