"""VideoGPT's prior: the tokens of a video as one long sequence, each predicted from all tokens before it.

    python 3.dynamics-model/dynamics_variants/train.py --model gpt --data-path data/breakout

What changes: no masks and no passes. Frames are read row by row, one token after the other, and every token is sampled knowing
all tokens before it, those of its own frame included. So the product of the probabilities is the exact likelihood of a frame
under the model that also samples it, and the loss has a unit: bits per code. The price is a call of the network per token, or
per token that a copy of the frame before gets wrong.
What stays: the tokens, the weights of changed tokens, the action prior, caches of a fixed size.
Source: arXiv:2104.10157, section 3.2 and appendix A.
"""

import contextlib
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dynamics_model.models.action_prior import ActionPrior
from dynamics_model.models.base import DecodingPass, Predictions, Sampling
from dynamics_model.models.masking import corrupt, sample_tokens
from dynamics_variants.codebook import CodeReader
from dynamics_variants.gpt.blocks import (
    ConditionalNorm,
    FrameFeatures,
    GPTBlock,
    GridPositions,
    Memory,
    Rotation,
    alibi_slopes,
    rotation,
)
from dynamics_variants.gpt.config import PAPER, SMALL, GPTConfig
from dynamics_variants.ring.blockwise import blockwise_attention
from video_tokenizer.global_batch import global_batch_size, local_shard, mean_over_processes
from video_tokenizer.models.st_transformer import KeysValues, Mask, attention


@dataclass(frozen=True)
class GPTSampling(Sampling):
    """How `GPT.step` samples the tokens of a frame."""

    temperature: float = field(default=1.0, metadata={"smallest": 0.0, "largest": 10.0})
    """divides the logits; 0 takes the most likely token"""
    top_k: int | None = field(default=None, metadata={"smallest": 1, "largest": 100_000})
    """sample from the k most likely tokens only; None: from all"""
    top_p: float = field(default=0.9, metadata={"smallest": 0.01, "largest": 1.0})
    """sample from the most likely tokens that together have this probability only; 1: from all"""
    num_drafted: int = field(default=64, metadata={"smallest": 1, "largest": 4_096})
    """tokens per call of the network that are drafted, as copies of the frame before; a batch shares them, and 1 drafts none"""
    guidance: float = field(default=1.0, metadata={"smallest": 0.0, "largest": 10.0})
    """how much the action counts: 0 as if it were unknown, 1 as trained, above 1 exaggerated, with two calls of the network"""


def rollout_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Rollouts on a CPU are float32: with one token at a time, converting to bfloat16 costs more than its products save."""
    return torch.autocast("cpu", enabled=False) if device.type == "cpu" else contextlib.nullcontext()


class FrameGiven(NamedTuple):
    """What all tokens of a frame share, whatever they are: computed once per frame, or for all T frames of a clip."""

    positions: Tensor
    """(B, T, N, E)"""
    blocks: list[tuple[list[Tensor], KeysValues | None]]
    """per block, from the action its norms' scales and shifts, and from the frames before keys and values to attend to"""
    final_norm: Tensor
    """(B, T, 1, 2 E), scale and shift of the last norm"""


@dataclass
class GPTState:
    """A batch of rollouts: what attention remembers, and the newest frames. Its size does not grow with the rollout."""

    memories: list[Memory]
    """one per block"""
    features: Tensor
    """(B, condition_frames, N, E): the last frames as the ResNet sees them"""
    next_input: Tensor
    """(B, 1, E): the vector of the newest token, the input of the first token of the next frame"""
    tokens: Tensor
    """(B, N) int64"""
    older_tokens: Tensor
    """(B, N) int64, one frame earlier"""
    action: Tensor
    """(B,) int64, the action that led to `tokens`; -1 unknown"""
    frame: int = 0
    """number of frames so far"""


class GPT(CodeReader):
    """A causal transformer over the flattened tokens of a clip (VideoGPT, arXiv:2104.10157).

    The input of position q is the codebook vector of token q - 1, the right shift: the sequence begins with a learned start
    vector, and the last token is nobody's input. What a position *adds* is its own frame, row and column, and its frame's action
    scales and shifts every norm. In training all positions are computed at once behind a causal mask. In a rollout they come one
    by one, and keys and values of the last `context_frames` frames stay in memory.
    """

    reads = "tokens"
    is_exact_likelihood = True
    config_class: ClassVar = GPTConfig
    presets: ClassVar = {"tiny": {}, "small": SMALL, "paper": PAPER}
    sampling_class: ClassVar[type[Sampling]] = GPTSampling

    config: GPTConfig

    def __init__(self, config: GPTConfig):
        super().__init__(config, config.code_length)
        width = config.embed_dim
        self.from_codes = nn.Linear(config.code_length, width, bias=False)
        self.start_vector = nn.Parameter(0.5 * torch.randn(width))
        self.positions = GridPositions(width, self.grid_size, config.time_rows if config.positions == "learned" else 0)
        self.unknown_action = self.num_actions  # one more than the last action
        self.action_embedding = nn.Embedding(self.num_actions + 1, width)
        nn.init.normal_(self.action_embedding.weight, std=0.5)
        has_context = config.condition_frames > 0
        if has_context:
            self.frame_features = FrameFeatures(config.code_length, width, self.grid_size, config.resnet_blocks)
            self.no_frame = nn.Parameter(0.5 * torch.randn(width))  # stands for the frames before the first
            self.ages = nn.Parameter(0.5 * torch.randn(config.condition_frames, 1, width))
        self.dropout = nn.Dropout(config.dropout)
        attend = blockwise_attention if config.attention == "blockwise" else attention
        self.blocks = nn.ModuleList(
            GPTBlock(width, config.num_heads, has_context, config.dropout, attend) for _ in range(config.num_blocks)
        )
        self.final_norm = ConditionalNorm(width)
        self.to_logits = nn.Linear(width, config.codebook_size, bias=False)
        nn.init.zeros_(self.to_logits.weight)  # so that training begins with all tokens equally likely
        if config.actions == "latent":
            self.action_prior = ActionPrior(config.codebook_size, self.tokens_per_frame, self.num_actions)

    # --- training ---

    def forward(self, tokens: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """The "cross_entropy" of one training pass: the mean over frames 1 .. T - 1 in nats, changed tokens weighted."""
        config = self.config
        inputs = corrupt(tokens, config.context_corruption, config.codebook_size)
        dropped = torch.rand(global_batch_size(len(tokens)), tokens.shape[1], device=tokens.device) < config.action_dropout
        actions = actions.masked_fill(local_shard(dropped), -1)
        logits = self.predict(inputs, actions, self._random_start(len(tokens), tokens.device))
        target = tokens[:, 1:]
        weight = 1 + (config.changed_weight - 1) * (target != tokens[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return {"cross_entropy": (loss * weight).sum() / mean_over_processes(weight.sum())}

    def predict(self, tokens: Tensor, actions: Tensor, start: Tensor | int = 0) -> Tensor:
        """Logits (B, T - 1, N, K) for frames 1 .. T - 1, each token from all tokens before it and the actions up to its frame.

        tokens: (B, T, N). actions: (B, T). start: number of frame 0, one for all clips or (B, 1).
        """
        batch_size, num_frames, num_tokens = tokens.shape
        codes = self.codebook[tokens]  # (B, T, N, D)
        vectors = self.from_codes(codes).flatten(1, 2)  # (B, T*N, E)
        first = self.start_vector.to(vectors.dtype).expand(batch_size, 1, -1)
        x = torch.cat([first, vectors[:, :-1]], dim=1).unflatten(1, (num_frames, num_tokens))  # the right shift
        numbers = torch.arange(num_frames, device=tokens.device)
        features = None
        if self.config.condition_frames:
            features = torch.cat([self._no_frames(batch_size), self.frame_features(codes[:, :-1])], dim=1)
        given = self._given(actions, (start + numbers).expand(batch_size, -1), features)
        turn = self._turn(numbers.repeat_interleave(num_tokens))
        x = self._run(x + given.positions, given, self._mask(0, num_frames * num_tokens, x.device), turn)
        return self.to_logits(x[:, 1:])

    @torch.no_grad()
    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        logits, target = self.predict(frames, actions).float(), frames[:, 1:]
        error = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(target)
        return Predictions(error, logits.argmax(dim=-1))

    # --- rollouts ---

    @torch.no_grad()
    def start(self, frames: Tensor, actions: Tensor | None = None) -> GPTState:
        if actions is None:
            actions = torch.full(frames.shape[:2], -1, dtype=torch.int64, device=frames.device)
        batch_size, num_frames, num_tokens = frames.shape
        state = GPTState(
            memories=[Memory(self.context_frames * num_tokens) for _ in self.blocks],
            features=self._no_frames(batch_size),
            next_input=self.start_vector.expand(batch_size, 1, -1),
            tokens=frames[:, 0],
            older_tokens=frames[:, 0],
            action=actions[:, 0],
        )
        with rollout_precision(frames.device):
            for t in range(num_frames):
                given = self._begin_frame(state, actions[:, t])
                vectors = self.from_codes(self.codebook[frames[:, t, :-1]])  # (B, N - 1, E)
                self._advance(state, torch.cat([state.next_input.to(vectors.dtype), vectors], dim=1), 0, given)
                self._end_frame(state, frames[:, t], actions[:, t])
        return state

    @torch.no_grad()
    def step(
        self,
        state: GPTState,
        action: Tensor,
        sampling: GPTSampling | None = None,
        generator: torch.Generator | None = None,
        trace: list[DecodingPass] | None = None,
    ) -> Tensor:
        """Sample the next frame under `action` (B,) and append it to `state`. Returns its tokens (B, N).

        Most tokens stay as they are from frame to frame, so a call of the network reads a *draft*, the next tokens of the frame
        before, and samples all of their positions at once. What was sampled is right up to the first position that differs from
        the draft, that one included, because until there the network has read what is true. All after it is thrown away. This
        is speculative decoding (arXiv:2211.17192): the same distribution as token by token, with fewer calls.

        Guidance s (LWM, arXiv:2402.08268) reads the frame a second time as if its action were unknown, and samples from the
        logits unknown + s (known - unknown). Only the action of this frame is hidden, so the difference is what this action
        changes, given all that came before. Both readings share the past with its actions. They differ in the keys and values of
        this frame alone, and the second ones are forgotten when it is complete. LWM drops its whole prompt instead, but then an
        old key would count again in every later frame, and training hardly ever shows a clip without any action.
        trace: receives a pass per call. What is not sampled yet shows the frame before.
        """
        sampling = sampling or GPTSampling()
        num_drafted = max(1, sampling.num_drafted // len(action))  # of many rollouts, one soon differs
        with rollout_precision(action.device):
            given = self._begin_frame(state, action)
            readings = [(state, given)]
            if sampling.guidance != 1 and self.num_actions:
                other = replace(state, memories=deepcopy(state.memories))
                readings.insert(0, (other, self._begin_frame(other, torch.full_like(action, -1))))
            tokens, probability = state.tokens.clone(), torch.zeros(state.tokens.shape, device=action.device)
            place, newest = 0, state.next_input  # (B, 1, E)
            while place < self.tokens_per_frame:
                draft = state.tokens[:, place : place + num_drafted]  # (B, M)
                x = torch.cat([newest, self.from_codes(self.codebook[draft[:, :-1]])], dim=1)  # (B, M, E)
                logits = [self.to_logits(self._advance(read, x, place, shared)) for read, shared in readings]  # (B, M, K) each
                guided = logits[0] if len(logits) == 1 else logits[0].lerp(logits[1], sampling.guidance)
                sampled, log_probability = sample_tokens(
                    guided, sampling.temperature, sampling.top_k, generator, sampling.top_p
                )  # (B, M) each
                agree = (sampled == draft).all(dim=0).cumprod(dim=0)  # (M,), 1 up to the first position that differs
                kept = min(int(agree.sum()) + 1, draft.shape[1])
                for memory in (memory for read, _ in readings for memory in read.memories):
                    memory.filled -= draft.shape[1] - kept
                tokens[:, place : place + kept] = sampled[:, :kept]
                probability[:, place : place + kept] = log_probability[:, :kept].exp()
                place, newest = place + kept, self.from_codes(self.codebook[sampled[:, kept - 1 : kept]])
                if trace is not None:
                    done = torch.arange(self.tokens_per_frame, device=action.device) < place
                    trace.append(DecodingPass(tokens.clone(), probability.clone(), done.expand_as(tokens)))
            self._end_frame(state, tokens, action)
        return tokens

    def _begin_frame(self, state: GPTState, action: Tensor) -> FrameGiven:
        """Make room for a frame in the memories, and compute what all of its tokens share."""
        for memory in state.memories:
            memory.keep((self.context_frames - 1) * self.tokens_per_frame)
        number = torch.tensor([[state.frame]], device=action.device)
        features = state.features if self.config.condition_frames else None
        return self._given(action[:, None], number.expand(len(action), 1), features)

    def _advance(self, state: GPTState, x: Tensor, place: int, given: FrameGiven) -> Tensor:
        """Read M inputs (B, M, E) of the present frame, the first of them at `place`. Returns their outputs (B, M, E)."""
        num_new = x.shape[1]
        x = x[:, None] + given.positions[:, :, place : place + num_new]  # (B, 1, M, E)
        mask = self._mask(state.memories[0].filled, num_new, x.device)
        turn = self._turn(torch.full((num_new,), state.frame, device=x.device))
        return self._run(x, given, mask, turn, state.memories)[:, 0]

    def _end_frame(self, state: GPTState, tokens: Tensor, action: Tensor) -> None:
        """Note a complete frame (B, N) as the newest one."""
        if self.config.condition_frames:
            newest = self.frame_features(self.codebook[tokens][:, None])
            state.features = torch.cat([state.features[:, 1:], newest], dim=1)
        state.next_input = self.from_codes(self.codebook[tokens[:, -1:]])
        state.older_tokens, state.tokens, state.action = state.tokens, tokens, action
        state.frame += 1

    # --- the network ---

    def _run(
        self, x: Tensor, given: FrameGiven, mask: Mask, turn: Rotation | None, memories: list[Memory] | None = None
    ) -> Tensor:
        """All blocks and the last norm. x: (B, T, M, E), M tokens of each of T frames. Returns the same shape."""
        x = self.dropout(x)
        for number, block in enumerate(self.blocks):
            memory = memories[number] if memories else None
            if self.config.activation_checkpointing and self.training:
                x = checkpoint(block, x, *given.blocks[number], mask, turn, memory, use_reentrant=False)
            else:
                x = block(x, *given.blocks[number], mask, turn, memory)
        return self.final_norm(x, given.final_norm)

    def _given(self, actions: Tensor, numbers: Tensor, features: Tensor | None) -> FrameGiven:
        """What the tokens of T frames share. actions, numbers: (B, T). features: (B, condition_frames - 1 + T, N, E), of the
        frames before each."""
        if self.num_actions == 0:
            actions = torch.full_like(actions, -1)
        known = torch.where(actions < 0, self.unknown_action, actions)
        condition = self.action_embedding(known)[:, :, None]  # (B, T, 1, E)
        if features is not None:
            before = features.unfold(1, self.config.condition_frames, 1)  # (B, T, N, E, condition_frames)
            features = (rearrange(before, "b t n e f -> (b t) f n e") + self.ages).flatten(1, 2)
        blocks = [block.conditions(condition, features) for block in self.blocks]  # type: ignore[operator]
        return FrameGiven(self.positions(numbers), blocks, self.final_norm.to_scale_and_shift(condition))

    def _no_frames(self, batch_size: int) -> Tensor:
        """(B, condition_frames, N, E): what stands for the features of frames before the first."""
        if not self.config.condition_frames:
            return self.start_vector.new_zeros(batch_size, 0, self.tokens_per_frame, self.config.embed_dim)
        return self.no_frame.expand(batch_size, self.config.condition_frames, self.tokens_per_frame, -1)

    def _mask(self, num_past: int, num_new: int, device: torch.device) -> Mask:
        """What each of num_new tokens may attend to: all tokens before it in its frame and the context_frames - 1 frames before.

        The past begins with a whole frame. "causal" is the one mask that PyTorch's flash kernel knows; a window shorter than the
        clip and ALiBi's penalty leave it.
        """
        place = torch.arange(num_past + num_new, device=device)
        frame = place // self.tokens_per_frame
        has_penalty = self.config.positions == "alibi"
        in_window = num_past + num_new <= self.context_frames * self.tokens_per_frame
        if in_window and not has_penalty and (num_past == 0 or num_new == 1):
            return "causal" if num_new > 1 else None
        apart = frame[num_past:, None] - frame  # (S, R) frames between a token and what it looks at
        visible = (place <= place[num_past:, None]) & (apart < self.context_frames)
        if not has_penalty:
            return visible
        slopes = torch.tensor(alibi_slopes(self.config.num_heads), device=device)
        return (-slopes[:, None, None] * apart).masked_fill(~visible, float("-inf"))  # (heads, S, R)

    def _turn(self, frames: Tensor) -> Rotation | None:
        """RoPE's angles for tokens with these frame numbers (S,); None for other positions."""
        if self.config.positions != "rope":
            return None
        return rotation(frames, self.config.embed_dim // self.config.num_heads, self.config.rope_base)

    def _random_start(self, batch_size: int, device: torch.device) -> Tensor | int:
        """(B, 1) random numbers of the clips' first frames, where a table of frames can be entered anywhere; else 0."""
        if self.config.positions != "learned" or not self.config.random_start:
            return 0
        return local_shard(torch.randint(self.config.time_rows, (global_batch_size(batch_size), 1), device=device))
