"""What training, evaluation and the world ask of any dynamics model: past frames and actions in, the next frame out."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from dynamics_model.config import NextFrameConfig
from dynamics_model.models.action_prior import ActionPrior
from video_tokenizer.errors import InputError
from video_tokenizer.models.base import Encoded, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """Base of a model's sampling settings: a frozen dataclass with a default and a help text per field.

    A number's `metadata` holds its "smallest" and "largest" value, from which command line and play page build their limits.
    Raises InputError for a value outside of them, and for a word that its Literal type does not list.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, limits = getattr(self, field.name), field.metadata
            words = get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ()
            if words and value not in words:
                raise InputError(f"{field.name} {value!r} is unknown; choose {' or '.join(words)}")
            if limits and value is not None and not limits["smallest"] <= value <= limits["largest"]:
                raise InputError(f"{field.name} {value} must be between {limits['smallest']} and {limits['largest']}")


class Predictions(NamedTuple):
    """Frames 1 .. T - 1 of a clip, each predicted from the real frames before it."""

    error: Tensor
    """(B, T - 1, N): of each real token its negative log-likelihood in nats; of each real latent the mean squared error"""
    predicted: Tensor
    """the most likely tokens (B, T - 1, N), or the predicted latents (B, T - 1, N, D)"""


class DecodingPass(NamedTuple):
    """One of the passes in which a model of tokens decodes a frame, for readers who want to watch."""

    tokens: Tensor
    """(B, N) int64: what the frame would be if this pass were the last; unmasked tokens keep their value"""
    probability: Tensor
    """(B, N) in [0, 1]: the model's probability of each token, in the pass in which it was last sampled"""
    unmasked: Tensor
    """(B, N) bool, True for the tokens that are final after this pass"""


class DynamicsModel(nn.Module):
    """Base class of all dynamics models.

    frames: tokens (B, T, N) int64 where `reads` is "tokens", latents (B, T, N, D) float where it is "latents".
    actions: (B, T) int64; actions[:, t] led from frame t - 1 to frame t, -1 where unknown.
    """

    reads: ClassVar[Literal["tokens", "latents"]] = "tokens"
    config_class: ClassVar[type[NextFrameConfig]]
    """a model of latents adds a field `code_length`, the numbers per latent"""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {}}
    sampling_class: ClassVar[type[Sampling]]
    is_exact_likelihood: ClassVar[bool] = False
    """True if the errors of `teacher_forced` add up to the negative log-likelihood of a frame under the model that samples it"""
    num_own_codes: int = 0
    """size of a codebook that is the model's own, such as TECO's codes of changes; see `own_codes`"""

    def __init__(self, config: NextFrameConfig):
        super().__init__()
        self.config = config
        self.action_kind = config.actions
        self.num_actions = 0 if config.actions == "none" else config.num_actions
        self.context_frames = config.context_frames
        self.grid_size = (config.grid_size[0], config.grid_size[1])
        self.tokens_per_frame = self.grid_size[0] * self.grid_size[1]
        self.action_prior: ActionPrior | None = None

    def loss(self, frames: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """The terms whose sum a training step minimizes. Computed in `forward`, so that torch.compile and FSDP see it."""
        return self(frames, actions)

    def fit_statistics(self, frames: np.ndarray) -> None:
        """Measure the recording before the first step, without random numbers, into buffers. frames: all of it, encoded,
        memory-mapped: tokens (F, N) or latents (F, N, D)."""

    def teacher_forced(self, frames: Tensor, actions: Tensor) -> Predictions:
        """Predict frames 1 .. T - 1, each from the real frames before it; nothing of the frame itself is visible."""
        raise NotImplementedError

    def own_codes(self, frames: Tensor) -> Tensor:
        """What real frames are in the model's own codebook, int64 of any shape. Metrics count how much of it is in use."""
        raise NotImplementedError

    def start(self, frames: Tensor, actions: Tensor | None = None) -> Any:
        """The state of a rollout after these prompt frames, T >= 1. actions: None where all are unknown."""
        raise NotImplementedError

    def step(self, state: Any, action: Tensor, sampling: Any = None, generator: Any = None, trace: list | None = None) -> Tensor:
        """Sample the next frame, (B, N) or (B, N, D), under `action` (B,), and append it to `state`.

        sampling: an instance of `sampling_class`, None for its defaults. generator: RNG on the model's device. trace: a list
        that receives a `DecodingPass` per pass, if the model has such passes.
        """
        raise NotImplementedError

    @torch.no_grad()
    def next_action_probabilities(self, state: Any) -> Tensor | None:
        """(B, num_actions): how probable each action is in this state; None for a model without an action prior.

        With one, the state holds the last frames, `older_tokens` and `tokens` (B, N), and the `action` (B,) between them.
        """
        if self.action_prior is None:
            return None
        return self.action_prior(state.older_tokens, state.tokens, state.action).float().softmax(dim=-1)

    # --- between tokenizer and model ---

    @classmethod
    def sizes_from(cls, tokenizer: Tokenizer) -> dict[str, Any]:
        """The config fields that follow from the tokenizer. Raises InputError for one whose frames the model cannot read."""
        if cls.reads == "tokens" and not tokenizer.codebook_size:
            raise InputError(f"this {tokenizer.config.model} tokenizer has no codebook; the dynamics model needs tokens")
        if cls.reads == "latents" and tokenizer.codebook_size:
            raise InputError(f"this {tokenizer.config.model} tokenizer rounds to a codebook; the dynamics model needs latents")
        if tokenizer.frames_per_step > 1:
            steps = f"one step for {tokenizer.frames_per_step} frames"
            raise InputError(f"this {tokenizer.config.model} tokenizer has {steps}; the dynamics model needs one for each")
        sizes: dict[str, Any] = {"grid_size": tuple(tokenizer.grid_size)}
        name = "codebook_size" if cls.reads == "tokens" else "code_length"
        return sizes | {name: getattr(tokenizer, name)}

    def fit_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Copy what the model needs of the tokenizer besides sizes, such as its codes, into a buffer. Called before training."""

    @classmethod
    def frames_of(cls, encoded: Encoded) -> Tensor:
        """What the model reads of an encoded video: its tokens (B, T, N) or its latents (B, T, N, D)."""
        return encoded.indices if cls.reads == "tokens" else encoded.codes


def codes_of(frames: Tensor, tokenizer: Tokenizer) -> Tensor:
    """What the tokenizer decodes: the codes (..., N, D) of tokens (..., N), or latents (..., N, D), which are codes already."""
    return frames if frames.is_floating_point() else tokenizer.indices_to_codes(frames)
