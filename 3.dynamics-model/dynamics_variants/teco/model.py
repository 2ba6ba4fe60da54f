"""TECO: remember of each frame only what was new in it, in a few tokens, and so remember the whole clip.

    python 3.dynamics-model/dynamics_variants/train.py --model teco --data-path data/breakout

What changes: the main line attends to every token of the past, so its past is short. TECO puts a second, smaller code on top of
the tokenizer's. An encoder sees two frames and codes what is new in the second. A transformer over time reads one token per frame
(or a few), and what it says about the next frame goes to two others: a small MaskGIT that samples the next change, and a decoder
that turns change and memory into the tokens of the frame. What stays: tokens in, tokens out, the weights of changed tokens, the
action prior. What we add: --both-actions. Source: arXiv:2210.02396, section 3 and appendix.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dynamics_model.models.action_prior import ActionPrior
from dynamics_model.models.base import DecodingPass, Predictions, Sampling
from dynamics_model.models.masking import sample_tokens
from dynamics_variants.codebook import CodeReader
from dynamics_variants.teco.blocks import (
    ChangeEncoder,
    ChangePrior,
    CosineCodebook,
    FrameDecoder,
    TemporalTransformer,
    begin_as_published,
)
from dynamics_variants.teco.config import PAPER, SMALL, TECOConfig
from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes
from video_tokenizer.models.st_transformer import KVCache


@dataclass(frozen=True)
class TECOSampling(Sampling):
    """How `TECO.step` samples the change of a frame."""

    draft_chunks: int = field(default=4, metadata={"smallest": 1, "largest": 64})
    """calls of the prior per round; each samples one chunk of the codes, chosen at random"""
    revise_rounds: int = field(default=2, metadata={"smallest": 0, "largest": 16})
    """rounds after the draft, in which every code is sampled again"""
    temperature: float = field(default=1.0, metadata={"smallest": 0.0, "largest": 10.0})
    """divides the prior's logits; 0 takes the most likely code"""
    top_k: int | None = field(default=None, metadata={"smallest": 1, "largest": 100_000})
    """sample from the k most likely codes only; None: from all"""
    top_p: float = field(default=0.9, metadata={"smallest": 0.01, "largest": 1.0})
    """sample from the most likely codes that together have this probability only; 1: from all"""
    feedback: Literal["change", "frame"] = "change"
    """what is remembered of a sampled frame: the change that was sampled, or the change that the encoder sees in the decoded
    frame, as it would in a real one"""


@dataclass
class TECOState:
    """A batch of rollouts: what the temporal transformer remembers, and the newest frame. It does not grow with the rollout."""

    cache: KVCache
    change: Tensor
    """(B, 1, C, h, w): what was new in the newest frame; not in the cache yet, because its successor's action is not known"""
    tokens: Tensor
    """(B, N) int64"""
    older_tokens: Tensor
    """(B, N) int64, one frame earlier"""
    action: Tensor
    """(B,) int64, the action that led to `tokens`; -1 unknown"""


class TECO(CodeReader):
    """Temporally consistent transformer (arXiv:2210.02396).

    x_t are the tokenizer's tokens of frame t, z_t is the code of what is new in it, and h_t is what the frames before it and the
    actions up to its own say about it: z_t = E(x_{t-1}, x_t), h_t = H(z_{<t}, a_{<=t}), and the loss of a frame is
    -log p(z_t | h_t) - log p(x_t | z_t, h_t). Of the first frame everything is new, and its change stays continuous.
    """

    reads = "tokens"
    config_class: ClassVar = TECOConfig
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    sampling_class: ClassVar[type[Sampling]] = TECOSampling

    config: TECOConfig

    def __init__(self, config: TECOConfig):
        super().__init__(config, config.code_length)
        self.change_grid = config.change_grid
        self.codes_per_frame = config.change_grid[0] * config.change_grid[1]
        self.num_own_codes = config.change_codes
        self.no_frame = nn.Parameter(0.5 * torch.randn(config.code_length, *self.grid_size))  # stands before the first frame
        self.unknown_action = self.num_actions  # one more than the last action
        self.action_embedding = nn.Embedding(self.num_actions + 1, config.action_dim)
        self.encoder = ChangeEncoder(
            config.code_length, config.channels, config.encoder_blocks, config.change_downsample, config.change_channels
        )
        self.quantizer = CosineCodebook(
            config.change_codes, config.change_code_length, config.change_channels, config.commitment_weight
        )
        self.temporal = TemporalTransformer(
            config.change_channels, config.action_dim * (1 + config.both_actions), self.change_grid, config.temporal_stride,
            config.embed_dim, config.num_heads, config.num_blocks, config.context_frames - 1, config.activation_checkpointing,
        )  # fmt: skip
        self.prior = ChangePrior(
            config.change_codes, config.change_channels, self.change_grid, config.prior_dim, config.prior_heads,
            config.prior_blocks, config.activation_checkpointing,
        )  # fmt: skip
        self.decoder = FrameDecoder(
            config.change_channels, config.channels, config.decoder_blocks, config.change_downsample, config.codebook_size
        )
        begin_as_published(self)
        if config.actions == "latent":
            self.action_prior = ActionPrior(config.codebook_size, self.tokens_per_frame, self.num_actions)

    # --- training ---

    def forward(self, tokens: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """The terms of the loss in nats per token of a frame, T >= 2.

        "cross_entropy": of the decoded tokens, changed ones weighted. "prior": of the change's masked codes, times the codes of a
        frame over its tokens. "codebook" and "commitment" bring codes and changes together. The paper counts nats per frame;
        dividing all terms by the tokens of a frame keeps their balance.
        """
        changes, codes, losses = self.read(tokens)
        dropped = torch.rand(global_batch_size(len(tokens)), 1, device=actions.device) < self.config.action_dropout
        actions = actions.masked_fill(local_shard(dropped), -1)
        start = self.temporal.positions.random_start(len(tokens), tokens.device)
        known, _ = self.temporal(changes[:, :-1], self._action_vectors(actions), start)  # of frames 1 .. T - 1
        kept = self.kept_frames(tokens.shape[1] - 1, tokens.device)
        known, change, code = known[:, kept], changes[:, 1:][:, kept], codes[:, 1:][:, kept]
        target, before = tokens[:, 1:][:, kept], tokens[:, :-1][:, kept]
        logits = self.decoder(change, known)
        weight = 1 + (self.config.changed_weight - 1) * (target != before)
        error = F.cross_entropy(logits.float().flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        terms = {"cross_entropy": (error * weight).sum() / mean_over_processes(weight.sum())}
        terms["prior"] = self.prior_loss(code.flatten(0, 1), known.flatten(0, 1))
        return terms | {name: loss / self.tokens_per_frame for name, loss in losses.items()}

    def kept_frames(self, num_frames: int, device: torch.device) -> Tensor:
        """Which of the frames 1 .. T - 1 prior and decoder work on, the same for the whole batch (DropLoss).

        Without replacement: 15 frames at a drop rate of 0.8 keep 3 different ones.
        """
        num_kept = max(1, round(num_frames * (1 - self.config.drop_rate)))
        return torch.randperm(num_frames, device=device)[:num_kept]

    def prior_loss(self, codes: Tensor, known: Tensor) -> Tensor:
        """The prior's cross-entropy over masked codes, as nats per token of a frame. codes: (F, h*w). known: (F, C, h, w)."""
        masked = self.masked_codes(len(codes), codes.device)
        logits = self.prior(codes.masked_fill(masked, self.prior.mask_code), known)
        error = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
        mean = (error * masked).sum() / mean_over_processes(masked.sum())
        return mean * self.codes_per_frame / self.tokens_per_frame

    def masked_codes(self, num_frames: int, device: torch.device) -> Tensor:
        """(F, h*w) bool: of each frame ceil(cos(pi/2 u) h w) codes, u uniform in [0, 1). All of 16 are in 23% of the frames.

        TECO's code rounds down, which matters little with 64 codes. With a few, no training would look like the start of a draft.
        """
        shape = (global_batch_size(num_frames), self.codes_per_frame)
        share = torch.cos(math.pi / 2 * torch.rand(shape[0], 1, device=device))
        number = (share * self.codes_per_frame).ceil().clamp(min=1)
        rank = torch.rand(shape, device=device).argsort(dim=1).argsort(dim=1)
        return local_shard(rank < number)

    def read(self, tokens: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What is new in each frame of tokens (B, T, N).

        before: (B, N), the frame before the first, if there is one. Returns changes (B, T, C, h, w), their codes (B, T, h*w), and
        the losses of the codebook. The change of a frame that nothing comes before is not quantized.
        """
        grids = rearrange(self.codebook[tokens], "b t (h w) d -> b t d h w", h=self.grid_size[0])
        first = self.no_frame.expand(len(tokens), 1, -1, -1, -1)
        if before is not None:
            first = rearrange(self.codebook[before][:, None], "b t (h w) d -> b t d h w", h=self.grid_size[0])
        previous = torch.cat([first, grids[:, :-1]], dim=1)
        if not self.config.sees_previous:
            previous = self.no_frame.expand_as(grids)
        changes = self.encoder(previous, grids)
        codes, indices, losses = self.quantizer(changes)
        if before is None:
            codes = torch.cat([changes[:, :1].to(codes.dtype), codes[:, 1:]], dim=1)
        return codes, indices, losses

    @torch.no_grad()
    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        """Predict frames 1 .. T - 1, each from the real frames before it.

        Each frame is decoded from the one change z* whose codes the prior finds most likely, all masked, given h. The error is
        -log p(x | z*, h). The frame's negative log-likelihood is at most that plus -log p(z* | h), because p(x | h) sums
        p(z | h) p(x | z, h) over all changes and z* is one of them. The error alone bounds nothing: where the future has a choice
        it punishes the model for having sampled the other one.
        """
        changes, _, _ = self.read(frames[:, :-1])
        known, _ = self.temporal(changes, self._action_vectors(actions))
        masked = torch.full((*known.shape[:2], self.codes_per_frame), self.prior.mask_code, device=frames.device)
        codes = self.prior(masked.flatten(0, 1), known.flatten(0, 1)).argmax(dim=-1).view_as(masked)
        logits = self.decoder(self.quantizer.indices_to_changes(codes, self.change_grid), known).float()
        target = frames[:, 1:]
        error = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return Predictions(error, logits.argmax(dim=-1))

    @torch.no_grad()
    def own_codes(self, frames: Tensor) -> Tensor:
        return self.read(frames)[1][:, 1:]  # of the first frame, whose change stays continuous, no code is used

    # --- rollouts ---

    @torch.no_grad()
    def start(self, frames: Tensor, actions: Tensor | None = None) -> TECOState:
        if actions is None:
            actions = torch.full(frames.shape[:2], -1, dtype=torch.int64, device=frames.device)
        changes, _, _ = self.read(frames)
        cache = KVCache()
        if frames.shape[1] > 1:
            _, cache = self.temporal(changes[:, :-1], self._action_vectors(actions))
        older = frames[:, -2] if frames.shape[1] > 1 else frames[:, -1]
        return TECOState(cache, changes[:, -1:], frames[:, -1], older, actions[:, -1])

    @torch.no_grad()
    def step(
        self,
        state: TECOState,
        action: Tensor,
        sampling: TECOSampling | None = None,
        generator: torch.Generator | None = None,
        trace: list[DecodingPass] | None = None,
    ) -> Tensor:
        """Sample the change of the next frame under `action` (B,), decode the frame, and append it to `state`.

        Returns its tokens (B, N), the most likely ones: what is left to chance is in the change. trace: receives the frame as it
        would be after the draft and after each revision.
        """
        sampling = sampling or TECOSampling()
        actions = torch.stack([state.action, action], dim=1)
        known, state.cache = self.temporal(state.change, self._action_vectors(actions), 0, state.cache)
        codes = torch.full((len(action), self.codes_per_frame), self.prior.mask_code, device=action.device)
        for round_number in range(1 + sampling.revise_rounds):
            codes = self.sample_round(codes, known[:, 0], sampling, generator)
            is_last = round_number == sampling.revise_rounds
            if is_last or trace is not None:
                change = self.quantizer.indices_to_changes(codes[:, None], self.change_grid)
                probability, tokens = self.decoder(change, known)[:, 0].float().softmax(dim=-1).max(dim=-1)  # (B, N) each
            if trace is not None:
                trace.append(DecodingPass(tokens, probability, torch.full_like(tokens, is_last, dtype=torch.bool)))
        if sampling.feedback == "frame":
            change, _, _ = self.read(tokens[:, None], state.tokens)
        state.change = change
        state.older_tokens, state.tokens, state.action = state.tokens, tokens, action
        return tokens

    def sample_round(
        self, codes: Tensor, known: Tensor, sampling: TECOSampling, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mask and sample every code once, in chunks chosen at random; later chunks see the codes of earlier ones.

        codes: (B, h*w), all masked for the draft, the codes of the last round for a revision. known: (B, C, h, w).
        """
        order = torch.rand(codes.shape, generator=generator, device=codes.device).argsort(dim=1)
        for places in order.chunk(min(sampling.draft_chunks, self.codes_per_frame), dim=1):  # (B, M)
            codes = codes.scatter(1, places, self.prior.mask_code)
            logits = self.prior(codes, known)
            wanted = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
            sampled, _ = sample_tokens(wanted, sampling.temperature, sampling.top_k, generator, sampling.top_p)
            codes = codes.scatter(1, places, sampled)
        return codes

    def _action_vectors(self, actions: Tensor) -> Tensor:
        """The vectors (B, T - 1, A or 2 A) that stand beside the changes of all frames but the newest. actions: (B, T).

        Each change stands beside the action that leads on from it and, with `both_actions`, beside the one that led to it too.
        Unknown actions have a vector as well.
        """
        if self.num_actions == 0:
            actions = torch.full_like(actions, -1)
        vectors = self.action_embedding(torch.where(actions < 0, self.unknown_action, actions))  # (B, T, A)
        return torch.cat([vectors[:, 1:], vectors[:, :-1]], dim=-1) if self.config.both_actions else vectors[:, 1:]
