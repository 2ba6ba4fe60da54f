"""The dynamics model: tokens of the past and an action become the tokens of the next frame."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamics_model.config import DynamicsConfig
from dynamics_model.models.action_prior import ActionPrior
from dynamics_model.models.masking import corrupt, random_mask, sample_tokens, tokens_left_masked
from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import KVCache, SpaceTimeTransformer, causal_mask


@dataclass
class DynamicsOutput:
    """Predictions for frames 1 .. T - 1 of a clip."""

    logits: Tensor
    """(B, T - 1, N, K)"""
    masked: Tensor
    """(B, T - 1, N) bool, True where the token was hidden and counts in the loss"""
    losses: dict[str, Tensor]
    """"cross_entropy": mean over hidden tokens in nats, changed ones weighted"""


class DecodingPass(NamedTuple):
    """One of the passes in which a frame is filled in, for whoever wants to watch."""

    tokens: Tensor
    """(B, N) int64: what the frame would be if this pass were the last; settled tokens keep their value"""
    probability: Tensor
    """(B, N) in [0, 1], what the model gave each draw in the pass in which it was drawn last"""
    settled: Tensor
    """(B, N) bool, True for the tokens that are settled after this pass"""


@dataclass
class DynamicsState:
    """Where a dream is: the cached past and the tokens of the newest frame. Its size does not grow with the dream."""

    cache: KVCache
    tokens: Tensor
    """(B, N) int64"""
    older_tokens: Tensor
    """(B, N) int64, one frame earlier"""
    action: Tensor
    """(B,) int64, the action that led to `tokens`; -1 unknown"""


class DynamicsModel(nn.Module):
    """MaskGIT over a space-time transformer (Genie, arXiv:2402.15391, section 2.1).

    Two streams share all weights. The *past* stream reads frames as they are and leaves keys and values. The *present* stream
    reads one frame with hidden tokens, looks back at the past stream, and predicts what is hidden. In training all frames of a
    clip are "the present" at once, each looking only at earlier ones; while dreaming there is one present frame and the past
    sits in a cache. Both go through the same function, so that what is trained is what is used.
    """

    def __init__(self, config: DynamicsConfig):
        super().__init__()
        self.config = config
        self.action_kind = config.actions
        self.num_actions = 0 if config.actions == "none" else config.num_actions
        self.codebook_size = config.codebook_size
        self.grid_size = tuple(config.grid_size)
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        self.context_frames = config.context_frames
        width = config.embed_dim
        self.mask_token = config.codebook_size  # one more than the last token
        self.token_embedding = nn.Embedding(config.codebook_size + 1, width)
        self.unknown_action = self.num_actions  # one more than the last action
        # one embedding per block: what an action means to the first layers need not be what it means to the last
        self.action_embeddings = nn.ModuleList(nn.Embedding(self.num_actions + 1, width) for _ in range(config.num_blocks))
        for embedding in [self.token_embedding, *self.action_embeddings]:
            nn.init.normal_(embedding.weight, std=0.5)  # type: ignore[arg-type]
        self.positions = SpaceTimePositions(width, (self.grid_size[0], self.grid_size[1]))
        self.transformer = SpaceTimeTransformer(
            width, config.num_heads, config.num_blocks, config.context_frames, config.activation_checkpointing
        )
        self.to_logits = nn.Linear(width, config.codebook_size)
        self.action_prior = None
        if config.actions == "latent":
            self.action_prior = ActionPrior(config.codebook_size, self.tokens_per_frame, self.num_actions)

    # --- training ---

    def forward(self, tokens: Tensor, actions: Tensor) -> DynamicsOutput:
        """One training pass with random masks. tokens: (B, T, N) int64, T >= 2.

        actions: (B, T) int64; actions[:, t] led from frame t - 1 to t, -1 where unknown.
        """
        config = self.config
        batch_size, num_frames, num_tokens = tokens.shape
        target = tokens[:, 1:]
        masked = random_mask((batch_size, num_frames - 1, num_tokens), config.smallest_mask_rate, tokens.device)
        present = target.masked_fill(masked, self.mask_token)
        past = corrupt(tokens[:, :-1], config.context_corruption, self.codebook_size)
        # the other clips see a past that is masked as well
        hidden_past = torch.cat([past[:, :1], present[:, :-1]], dim=1)
        clean = torch.rand(global_batch_size(batch_size), 1, 1, device=tokens.device) < config.clean_context_share
        past = torch.where(local_shard(clean), past, hidden_past)
        dropped = torch.rand(global_batch_size(batch_size), num_frames, device=actions.device) < config.action_dropout
        actions = actions.masked_fill(local_shard(dropped), -1)

        start = self.positions.random_start(batch_size, tokens.device)
        logits = self.predict(past, present, actions, start)
        changed = target != tokens[:, :-1]
        weight = masked * (1 + (config.changed_weight - 1) * changed)
        loss = F.cross_entropy(logits.float().flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return DynamicsOutput(
            logits, masked, {"cross_entropy": (loss * weight).sum() / mean_over_processes(weight.sum()).clamp(min=1)}
        )

    def predict(self, past: Tensor, present: Tensor, actions: Tensor, start: Tensor | int = 0) -> Tensor:
        """Logits for frames 1 .. T - 1, each from the frames before it.

        past: (B, T - 1, N), frames 0 .. T - 2 as the model may see them. present: (B, T - 1, N), frames 1 .. T - 1 with hidden
        tokens. actions: (B, T). start: number of frame 0 on the periodic clock. Returns (B, T - 1, N, K).
        """
        num_present = present.shape[1]
        x_past = self.positions(self.token_embedding(past), start)
        past_kv = self.transformer.prefill_kv(x_past, self._conditioning(actions[:, :-1]))
        x = self.positions(self.token_embedding(present), start + 1)
        # frame t looks at past frames t - window + 1 .. t - 1, and at itself
        past_of_present = causal_mask(num_present, self.transformer.window - 1, device=past.device)
        itself = torch.eye(num_present, dtype=torch.bool, device=past.device)
        mask = torch.cat([past_of_present, itself], dim=1)  # (T-1, 2*(T-1))
        x, _ = self.transformer.run(x, mask, past_kv, self._conditioning(actions[:, 1:]))
        return self.to_logits(x)

    @torch.no_grad()
    def loss_per_token(self, tokens: Tensor, actions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats per token given the clean past, (B, T, N); frame 0 has no past and is 0.

        mask: (B, T, N) bool, which tokens are hidden; None hides all. Visible tokens are scored as well: choose by the mask.
        """
        present = tokens[:, 1:]
        hidden = torch.ones_like(present, dtype=torch.bool) if mask is None else mask[:, 1:]
        logits = self.predict(tokens[:, :-1], present.masked_fill(hidden, self.mask_token), actions)
        loss = F.cross_entropy(logits.float().flatten(0, 2), present.flatten(), reduction="none").view_as(present)
        return torch.cat([torch.zeros_like(loss[:, :1]), loss], dim=1)

    # --- dreaming ---

    @torch.no_grad()
    def start(self, tokens: Tensor, actions: Tensor | None = None) -> DynamicsState:
        """Begin a dream after real frames. tokens: (B, T, N), T >= 1. actions: (B, T), -1 or None where unknown."""
        if actions is None:
            actions = torch.full(tokens.shape[:2], -1, dtype=torch.int64, device=tokens.device)
        older = tokens[:, -2] if tokens.shape[1] > 1 else tokens[:, -1]
        return DynamicsState(self._prefill(tokens, actions, None), tokens[:, -1], older, actions[:, -1])

    @torch.no_grad()
    def next_action_probabilities(self, state: DynamicsState) -> Tensor:
        """(B, num_actions): how probable each latent action is here, before anyone chooses. Only with latent actions."""
        assert self.action_prior is not None, "true actions need no prior"
        return self.action_prior(state.older_tokens, state.tokens, state.action).float().softmax(dim=-1)

    @torch.no_grad()
    def generate_next(
        self,
        state: DynamicsState,
        action: Tensor,
        num_steps: int = 4,
        temperature: float = 1.0,
        top_k: int | None = None,
        order: str = "confidence",
        generator: torch.Generator | None = None,
        schedule: str = "halving",
        top_p: float = 0.9,
        trace: list[DecodingPass] | None = None,
    ) -> Tensor:
        """Dream one frame under `action` (B,) and remember it in `state`. Returns its tokens (B, N).

        All tokens start hidden. Each of `num_steps` passes predicts every hidden token, samples, and keeps some: the most
        confident ones (order "confidence") or random ones (order "random"), as many as the schedule says. trace: a list that
        receives every pass.
        """
        batch_size, num_tokens = state.tokens.shape
        num_steps = min(num_steps, num_tokens)
        tokens = torch.full_like(state.tokens, self.mask_token)
        waiting = torch.arange(num_tokens, device=tokens.device).expand(batch_size, -1)  # (B, W) positions, all of them at first
        probability = torch.zeros(tokens.shape, device=tokens.device)
        for step in range(1, num_steps + 1):
            logits = self._present_logits(state.cache, tokens, action, waiting)  # (B, W, K)
            sampled, likelihood = sample_tokens(logits, temperature, top_k, generator, top_p)  # (B, W) each
            confidence = likelihood
            if order == "random":
                confidence = torch.rand(likelihood.shape, generator=generator, device=tokens.device)
            left = tokens_left_masked(step, num_steps, num_tokens, schedule)
            complete = tokens.scatter(1, waiting, sampled)
            probability = probability.scatter(1, waiting, likelihood.exp())
            # the least sure ones wait; what is no longer waiting stays as it is
            waiting = waiting.gather(1, confidence.topk(left, dim=-1, largest=False).indices)
            tokens = complete.scatter(1, waiting, self.mask_token)
            if trace is not None:
                trace.append(DecodingPass(complete, probability, tokens != self.mask_token))
        state.cache = self._prefill(tokens[:, None], action[:, None], state.cache)
        state.older_tokens, state.tokens, state.action = state.tokens, tokens, action
        return tokens

    def _present_logits(self, cache: KVCache, tokens: Tensor, action: Tensor, positions: Tensor) -> Tensor:
        """Logits (B, W, K) at W positions (B, W) of one frame with hidden tokens (B, N), looking back at the cache."""
        x = self.positions(self.token_embedding(tokens[:, None]), cache.position)
        mask = torch.ones(1, cache.num_kept + 1, dtype=torch.bool, device=tokens.device)
        x, _ = self.transformer.run(x, mask, cache.blocks, self._conditioning(action[:, None]))
        return self.to_logits(x[:, 0].gather(1, positions[..., None].expand(-1, -1, x.shape[-1])))

    def _prefill(self, tokens: Tensor, actions: Tensor, cache: KVCache | None) -> KVCache:
        """Let the past stream read frames (B, T, N); returns the cache that includes them."""
        x = self.positions(self.token_embedding(tokens), cache.position if cache else 0)
        return self.transformer.step(x, cache, self._conditioning(actions))[1]

    def _conditioning(self, actions: Tensor) -> list[Tensor]:
        """What each block adds for the actions (B, T): one vector (B, T, 1, E) per block, the same at every position."""
        if self.num_actions == 0:
            actions = torch.full_like(actions, -1)
        known = torch.where(actions < 0, self.unknown_action, actions)
        return [embedding(known)[:, :, None] for embedding in self.action_embeddings]
