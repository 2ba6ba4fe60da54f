"""A small transformer over text and video that has to find something again, and the examples that it learns from.

A needle is a frame that carries a key and a value; all other frames are noise. Questions stand behind the video: the word of a
key, then the word of its value, which is the answer. Keys and values are drawn anew for every clip, so that nothing can be
memorized, and needles stand anywhere with the same probability.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor, nn

from dynamics_variants.ring.blockwise import Layout, blockwise_attention, causal_layout
from dynamics_variants.ring.feed_forward import chunked_feed_forward
from dynamics_variants.ring.modalities import ModalityTables, Vocabulary, modality_weights
from dynamics_variants.ring.packing import Packed, example_weights, pack
from tokenizer_variants.dreamer4.block_causal_transformer import angles, rotate
from video_tokenizer.models.st_transformer import SwiGLU, TransformerBlock
from video_tokenizer.training.optimizer import build_optimizer

NUM_KEYS, NUM_VALUES, NUM_NOISE = 16, 16, 16
VOCABULARY = Vocabulary(num_words=NUM_KEYS + NUM_VALUES, num_codes=NUM_KEYS + NUM_VALUES + NUM_NOISE)
"""word and code number i are the same key for i < 16, the same value for 16 <= i < 32; codes from 32 on are noise"""
CHANCE = 1 / NUM_VALUES
FRAME = 15
"""codes of a frame; with its eof it has 16 tokens"""
FIRST_STEPS = 50
"""steps of warm-up"""


class Layer(TransformerBlock):
    """Attention with rotary positions and a feed-forward network, each behind its norm."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feed_forward = SwiGLU(width)

    def forward(self, x: Tensor, layout: Layout, turns: Tensor) -> Tensor:
        """x: (R, S, E). turns: (S, d/2). Returns the same shape as x."""
        heads = rearrange(self.to_qkv(self.attention_norm(x)), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        mixed = blockwise_attention(rotate(heads[0], turns), rotate(heads[1], turns), heads[2], layout)
        x = x + self.output(rearrange(mixed, "b h s d -> b s (h d)"))
        return x + chunked_feed_forward(self.feed_forward, self.feed_forward_norm(x), 1_024)


class RecallTransformer(nn.Module):
    """A decoder over mixed sequences. rope_base: of the rotary positions; it may be changed between two trainings."""

    def __init__(self, width: int = 64, num_layers: int = 2, num_heads: int = 2, rope_base: float = 10_000.0):
        super().__init__()
        self.rope_base, self.num_pairs = rope_base, width // num_heads // 2
        self.tables = ModalityTables(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """tokens: (R, S) int64. Returns (R, S, E)."""
        x, turns = self.tables.embed(tokens), angles(layout.times, self.num_pairs, self.rope_base)
        for layer in self.layers:
            x = layer(x, layout, turns)
        return self.norm(x)

    def token_losses(self, tokens: Tensor, layout: Layout) -> Tensor:
        """(R, S): the cross-entropy of each token, predicted from those before it; 0 for the first."""
        x = self(tokens, layout)
        return F.pad(self.tables.losses(x[:, :-1], tokens[:, 1:]), (1, 0))


class Batch(NamedTuple):
    """What one step learns from."""

    tokens: Tensor
    """(R, S) int64"""
    layout: Layout
    weights: Tensor
    """(R, S) float32: the loss is the sum of weight times loss over all tokens"""
    answers: Tensor
    """(R, S) bool, the tokens that are answers"""


# --- a needle in a video ---


@dataclass(frozen=True)
class NeedleTask:
    """Clips with needles and questions."""

    num_tokens: int
    """of the video"""
    num_needles: int = 8
    """N: needles of a clip"""
    num_questions: int = 8
    """R: questions about them"""

    def batch(self, batch_size: int, random: Generator, depth: float | None = None) -> Batch:
        """depth: where the needle stands, 0 for the first frame and 1 for the last; None: anywhere. Needs num_needles 1."""
        num_frames = self.num_tokens // (FRAME + 1)
        tokens = torch.stack([self.clip(num_frames, random, depth) for _ in range(batch_size)])
        answers = torch.zeros(tokens.shape, dtype=torch.bool)
        answers[:, -2 * self.num_questions + 1 :: 2] = True
        # half of the loss for the answers; the noise of the frames cannot be predicted, and is learned from as in any video
        examples = torch.arange(batch_size)[:, None].expand_as(tokens)
        vision = VOCABULARY.is_vision(tokens)
        return Batch(tokens, causal_layout(tokens.shape[1]), modality_weights(examples, answers | vision, vision), answers)

    def clip(self, num_frames: int, random: Generator, depth: float | None) -> Tensor:
        """One clip and its questions, (num_frames * 16 + 2 + 2 * num_questions,)."""
        codes = NUM_KEYS + NUM_VALUES + torch.randint(NUM_NOISE, (num_frames, FRAME), generator=random)
        frames = torch.randperm(num_frames, generator=random)[: self.num_needles]
        if depth is not None:
            frames = torch.tensor([round(depth * (num_frames - 1))])
        keys = torch.randperm(NUM_KEYS, generator=random)[: self.num_needles]
        values = NUM_KEYS + torch.randint(NUM_VALUES, keys.shape, generator=random)
        codes[frames, 0], codes[frames, 1] = keys, values
        asked = torch.randperm(self.num_needles, generator=random)[: self.num_questions]
        questions = torch.stack([keys[asked], values[asked]], dim=1).flatten()
        return VOCABULARY.pair(questions, codes, text_first=False)


# --- packing: long videos and short answers in the same rows ---


SEGMENT, SEGMENTS = 32, 4
"""tokens of an example, and examples of a row"""
FOLLOWS = 0.6
"""how often a code of a packed video is one more than the code before it; else any code"""


def video_segment(random: Generator) -> tuple[Tensor, Tensor]:
    """A video of 3 frames with 9 codes each and its targets, all of its tokens but the first. (32,) int64 and bool."""
    codes = torch.randint(NUM_NOISE, (27,), generator=random)
    follows = torch.rand(27, generator=random) < FOLLOWS
    for place in range(1, 27):
        if follows[place]:
            codes[place] = (codes[place - 1] + 1) % NUM_NOISE
    tokens = VOCABULARY.video(NUM_KEYS + NUM_VALUES + codes.view(3, 9))
    return tokens, torch.arange(SEGMENT) > 0


def question_segment(random: Generator) -> tuple[Tensor, Tensor]:
    """15 words of keys, each followed by that of its value, then one of the keys again; its value is the only target."""
    keys = torch.randperm(NUM_KEYS, generator=random)[:15]
    values = NUM_KEYS + torch.randint(NUM_VALUES, (15,), generator=random)
    asked = torch.randint(15, (1,), generator=random)
    tokens = torch.cat([torch.stack([keys, values], dim=1).flatten(), keys[asked], values[asked]])
    return tokens, torch.arange(SEGMENT) == SEGMENT - 1


def packed_batch(num_rows: int, masked: bool, weighted: bool, random: Generator) -> Batch:
    """Rows of two videos and two questions in any order.

    masked: attention stays inside an example; else it sees the whole row. weighted: each example counts the same; else each
    target does.
    """
    segments = []
    for _ in range(num_rows):
        order = torch.randperm(SEGMENTS, generator=random).tolist()
        segments += [(video_segment if number < SEGMENTS // 2 else question_segment)(random) for number in order]
    packed: Packed = pack([tokens for tokens, _ in segments], SEGMENT * SEGMENTS)
    targets = torch.stack([is_target for _, is_target in segments]).view(packed.tokens.shape)
    weights = example_weights(packed.examples, targets) if weighted else targets / targets.sum()
    layout = packed.layout if masked else Layout(packed.layout.times)
    questions = ~VOCABULARY.is_vision(packed.tokens) & (packed.tokens < VOCABULARY.start_of_vision)
    return Batch(packed.tokens, layout, weights, targets & questions)


# --- learning and scores ---


def train(
    model: RecallTransformer, batches: Callable[[], Batch], learning_rate: float, num_steps: int | None = None,
    processor_seconds: float | None = None, watch: Callable[[int], None] | None = None,
) -> int:  # fmt: skip
    """Train for a number of steps, or of processor seconds. watch: called after each step. Returns how many steps there were.

    With Muon, the optimizer of the chapters: AdamW finds no answer in the steps after which Muon finds them all (entry 3.14).
    """
    settings = SimpleNamespace(optimizer="muon", learning_rate=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    optimizer = build_optimizer(model, settings)
    began, step = time.process_time(), 0
    while num_steps is None or step < num_steps:
        if processor_seconds is not None and time.process_time() - began >= processor_seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / FIRST_STEPS)
        batch = batches()
        loss = (model.token_losses(batch.tokens, batch.layout) * batch.weights).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if watch is not None:
            watch(step)
    return step


@torch.no_grad()
def scores(model: RecallTransformer, batch: Batch) -> dict[str, float]:
    """Share of the answers that are right, and the mean loss of the vision tokens in nats."""
    x = model(batch.tokens, batch.layout)
    predicted = model.tables.outputs["text"](x[:, :-1]).argmax(dim=-1)
    right = predicted == batch.tokens[:, 1:]
    vision = VOCABULARY.is_vision(batch.tokens[:, 1:])
    losses = model.tables.losses(x[:, :-1], batch.tokens[:, 1:])
    return {"accuracy": right[batch.answers[:, 1:]].float().mean().item(), "vision_loss": losses[vision].mean().item()}
