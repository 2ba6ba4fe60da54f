"""MaskGIT: the tokens of the past and an action become the tokens of the next frame, decoded in a few parallel passes."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamics_model.config import PRESETS, DynamicsConfig
from dynamics_model.models.action_prior import ActionPrior
from dynamics_model.models.base import DecodingPass, DynamicsModel, Predictions, Sampling
from dynamics_model.models.masking import corrupt, random_mask, sample_tokens, tokens_left_masked
from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes
from video_tokenizer.losses import choose_patches
from video_tokenizer.models.positional_encoding import SpaceTimePositions
from video_tokenizer.models.st_transformer import KVCache, SpaceTimeTransformer, causal_mask


@dataclass(frozen=True)
class MaskGITSampling(Sampling):
    """How `MaskGIT.step` samples the tokens of a frame."""

    num_steps: int = field(default=4, metadata={"smallest": 1, "largest": 64})
    """decoding passes per frame"""
    temperature: float = field(default=1.0, metadata={"smallest": 0.0, "largest": 10.0})
    """divides the logits; 0 takes the most likely token"""
    top_k: int | None = field(default=None, metadata={"smallest": 1, "largest": 100_000})
    """sample from the k most likely tokens only; None: from all"""
    top_p: float = field(default=0.9, metadata={"smallest": 0.01, "largest": 1.0})
    """sample from the most likely tokens that together have this probability only; 1: from all"""
    order: Literal["confidence", "random"] = "confidence"
    """which tokens are unmasked first: the most confident ones, or random ones"""
    schedule: Literal["halving", "cosine"] = "halving"
    """how many tokens stay masked after each pass, see `tokens_left_masked`"""


@dataclass
class MaskGITState:
    """A batch of rollouts: the cached past and the newest frame. Its size does not grow with the rollout."""

    cache: KVCache
    tokens: Tensor
    """(B, N) int64"""
    older_tokens: Tensor
    """(B, N) int64, one frame earlier"""
    action: Tensor
    """(B,) int64, the action that led to `tokens`; -1 unknown"""


class MaskGIT(DynamicsModel):
    """MaskGIT over a space-time transformer (Genie, arXiv:2402.15391, section 2.1).

    Two streams share all weights. The *past* stream reads frames as they are and leaves keys and values. The *present* stream
    reads one frame with masked tokens, attends to the past stream, and predicts what is masked. In training all frames of a
    clip are "the present" at once, each attending to earlier ones only. In a rollout there is one present frame, and the past
    sits in a cache. Both go through the same functions, so that the model is used exactly as it was trained.
    """

    reads = "tokens"
    config_class = DynamicsConfig
    presets = PRESETS
    sampling_class: ClassVar[type[Sampling]] = MaskGITSampling

    config: DynamicsConfig

    def __init__(self, config: DynamicsConfig):
        super().__init__(config)
        self.codebook_size = config.codebook_size
        width = config.embed_dim
        self.mask_token = config.codebook_size  # one more than the last token
        self.token_embedding = nn.Embedding(config.codebook_size + 1, width)
        self.unknown_action = self.num_actions  # one more than the last action
        # one embedding per block: what an action means to the first layers need not be what it means to the last
        self.action_embeddings = nn.ModuleList(nn.Embedding(self.num_actions + 1, width) for _ in range(config.num_blocks))
        for embedding in [self.token_embedding, *self.action_embeddings]:
            nn.init.normal_(embedding.weight, std=0.5)  # type: ignore[arg-type]
        self.positions = SpaceTimePositions(width, self.grid_size, config.context_frames)
        self.transformer = SpaceTimeTransformer(
            width, config.num_heads, config.num_blocks, config.context_frames, config.activation_checkpointing, config.head_dim
        )
        self.to_logits = nn.Linear(width, config.codebook_size)
        if config.actions == "latent":
            self.action_prior = ActionPrior(config.codebook_size, self.tokens_per_frame, self.num_actions)

    # --- training ---

    def forward(self, tokens: Tensor, actions: Tensor, patch_share: float = 1.0) -> dict[str, Tensor]:
        """The "cross_entropy" of one training pass: the mean over masked tokens in nats, changed ones weighted. T >= 2.

        patch_share: share of the patches to work on, see `choose_patches`; the model does not see the others.
        """
        past, present, actions = self.spoil(tokens, actions)
        patches = None
        if patch_share < 1:
            patches = choose_patches((tokens[:, 1:] != tokens[:, :-1]).any(dim=1).float(), patch_share)  # (B, K)
            tokens, past, present = (x.take_along_dim(patches[:, None], dim=2) for x in (tokens, past, present))  # (.., .., K)
        target = tokens[:, 1:]
        logits = self.predict(past, present, actions, self.positions.random_start(len(tokens), tokens.device), patches)
        masked = present == self.mask_token
        changed = target != tokens[:, :-1]
        weight = masked * (1 + (self.config.changed_weight - 1) * changed)
        loss = F.cross_entropy(logits.float().flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return {"cross_entropy": (loss * weight).sum() / mean_over_processes(weight.sum()).clamp(min=1)}

    def spoil(self, tokens: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a training pass shows of a clip: the past and the masked present (B, T - 1, N) each, and the actions (B, T)."""
        config = self.config
        batch_size, num_frames, num_tokens = tokens.shape
        masked = random_mask((batch_size, num_frames - 1, num_tokens), config.smallest_mask_rate, tokens.device)
        present = tokens[:, 1:].masked_fill(masked, self.mask_token)
        past = corrupt(tokens[:, :-1], config.context_corruption, self.codebook_size)
        # a quarter of the clips (1 - clean_context_share) see a past that is masked as well
        hidden_past = torch.cat([past[:, :1], present[:, :-1]], dim=1)
        clean = torch.rand(global_batch_size(batch_size), 1, 1, device=tokens.device) < config.clean_context_share
        past = torch.where(local_shard(clean), past, hidden_past)
        dropped = torch.rand(global_batch_size(batch_size), num_frames, device=actions.device) < config.action_dropout
        return past, present, actions.masked_fill(local_shard(dropped), -1)

    def predict(
        self, past: Tensor, present: Tensor, actions: Tensor, start: Tensor | int = 0, patches: Tensor | None = None
    ) -> Tensor:
        """Logits for frames 1 .. T - 1, each from the frames before it.

        past: (B, T - 1, N), frames 0 .. T - 2 as the model may see them. present: (B, T - 1, N), frames 1 .. T - 1 with masked
        tokens. actions: (B, T). start: number of frame 0 on the periodic clock. patches: (B, N), which patches these are, if not
        all. Returns (B, T - 1, N, K).
        """
        num_present = present.shape[1]
        x_past = self.positions(self.token_embedding(past), start, patches)
        past_kv = self.transformer.prefill_kv(x_past, self._conditioning(actions[:, :-1]))
        x = self.positions(self.token_embedding(present), start + 1, patches)
        # frame t looks at past frames t - window + 1 .. t - 1, and at itself
        past_of_present = causal_mask(num_present, self.transformer.window - 1, device=past.device)
        itself = torch.eye(num_present, dtype=torch.bool, device=past.device)
        mask = torch.cat([past_of_present, itself], dim=1)  # (T-1, 2*(T-1))
        x, _ = self.transformer.run(x, mask, past_kv, self._conditioning(actions[:, 1:]))
        return self.to_logits(x)

    @torch.no_grad()
    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        past, target = frames[:, :-1], frames[:, 1:]
        logits = self.predict(past, torch.full_like(target, self.mask_token), actions).float()  # (B, T-1, N, K)
        error = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return Predictions(error, logits.argmax(dim=-1))

    # --- rollouts ---

    @torch.no_grad()
    def start(self, frames: Tensor, actions: Tensor | None = None) -> MaskGITState:
        if actions is None:
            actions = torch.full(frames.shape[:2], -1, dtype=torch.int64, device=frames.device)
        older = frames[:, -2] if frames.shape[1] > 1 else frames[:, -1]
        return MaskGITState(self._prefill(frames, actions, None), frames[:, -1], older, actions[:, -1])

    @torch.no_grad()
    def step(
        self,
        state: MaskGITState,
        action: Tensor,
        sampling: MaskGITSampling | None = None,
        generator: torch.Generator | None = None,
        trace: list[DecodingPass] | None = None,
    ) -> Tensor:
        """Decode the next frame under `action` (B,) and append it to `state`. Returns its tokens (B, N).

        All tokens start masked. Each pass predicts every masked token and samples it. The most confident samples (or random
        ones, see `order`) become final, as many as the schedule says; the others are masked again.
        """
        sampling = sampling or MaskGITSampling()
        batch_size, num_tokens = state.tokens.shape
        num_steps = min(sampling.num_steps, num_tokens)
        tokens = torch.full_like(state.tokens, self.mask_token)
        still_masked = torch.arange(num_tokens, device=tokens.device).expand(batch_size, -1)  # (B, M) positions, at first all
        probability = torch.zeros(tokens.shape, device=tokens.device)
        for step in range(1, num_steps + 1):
            logits = self._present_logits(state.cache, tokens, action, still_masked)  # (B, M, K)
            sampled, log_probability = sample_tokens(
                logits, sampling.temperature, sampling.top_k, generator, sampling.top_p
            )  # (B, M) each
            confidence = log_probability
            if sampling.order == "random":
                confidence = torch.rand(confidence.shape, generator=generator, device=tokens.device)
            left = tokens_left_masked(step, num_steps, num_tokens, sampling.schedule)
            complete = tokens.scatter(1, still_masked, sampled)
            probability = probability.scatter(1, still_masked, log_probability.exp())
            # the least confident ones are masked again; what is unmasked keeps its value
            still_masked = still_masked.gather(1, confidence.topk(left, dim=-1, largest=False).indices)
            tokens = complete.scatter(1, still_masked, self.mask_token)
            if trace is not None:
                trace.append(DecodingPass(complete, probability, tokens != self.mask_token))
        state.cache = self._prefill(tokens[:, None], action[:, None], state.cache)
        state.older_tokens, state.tokens, state.action = state.tokens, tokens, action
        return tokens

    def _present_logits(self, cache: KVCache, tokens: Tensor, action: Tensor, positions: Tensor) -> Tensor:
        """Logits (B, M, K) at M positions (B, M) of one frame with masked tokens (B, N), attending to the cache."""
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
