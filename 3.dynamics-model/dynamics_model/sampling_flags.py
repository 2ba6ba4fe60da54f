"""Sampling settings on the command line, for whichever dynamics model a world has."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from dynamics_model.models.base import DynamicsModel, Sampling
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import config_from_dict


@dataclass(frozen=True)
class SamplingFlags:
    """How the frames are sampled; a flag that is not given keeps the model's own default."""

    num_steps: int | None = None
    """decoding passes per frame, of dreamer4 denoising steps; default 4. Fewer are faster"""
    temperature: float | None = None
    """divides the logits: 0 takes the most likely token, 1 samples as predicted; default 1"""
    top_k: int | None = None
    """sample from the k most likely tokens only; default: from all"""
    top_p: float | None = None
    """sample from the most likely tokens that together have this probability only; 1: from all; default 0.9"""
    schedule: Literal["halving", "cosine"] | None = None
    """how many tokens are unmasked in each pass: most at once and the last few one by one, or few first; default halving"""
    order: Literal["confidence", "random"] | None = None
    """which tokens of a frame are unmasked first; default confidence"""
    context_signal: float | None = None
    """dreamer4 only: share of signal in the past frames, the rest is noise; default 0.9"""
    draft_chunks: int | None = None
    """teco only: chunks in which the codes of a change are sampled; default 4"""
    revise_rounds: int | None = None
    """teco only: rounds after the draft, in which every code is sampled again; default 2"""
    feedback: Literal["change", "frame"] | None = None
    """teco only: remember the change that was sampled, or the one that is seen in the decoded frame; default change"""
    num_drafted: int | None = None
    """gpt only: tokens per call of the network that are drafted, as copies of the frame before; 1 drafts none; default 64"""
    guidance: float | None = None
    """gpt only: how much the action counts: 0 as if it were unknown, 1 as trained, above 1 exaggerated at twice the cost;
    default 1"""

    def given(self) -> dict[str, Any]:
        """Name -> value of the flags that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


def sampling_of(model: DynamicsModel, given: Mapping[str, Any]) -> Sampling:
    """The settings by name, all others at the model's defaults. Raises InputError for one that this model does not have."""
    known = [field.name for field in fields(model.sampling_class)]
    unknown = [name for name in given if name not in known]
    if unknown:
        wrong, *flags = ("--" + name.replace("_", "-") for name in (unknown[0], *known))
        raise InputError(f"{wrong} is not a sampling flag of the dynamics model {model.config.model}; it has {', '.join(flags)}")
    return config_from_dict(model.sampling_class, dict(given))
