"""Long contexts in stages: train on short ones, then go on with longer ones from there (EECS-2024-193, section 5.2.1).

A rotary position turns a pair of numbers by base^(-2i/d) a step, and a context longer than those in training has angles that the
model has never seen. With a larger base, the slow pairs turn more slowly, and a long context has the angles of a short one.
"""

from dataclasses import dataclass

from video_tokenizer.errors import InputError


@dataclass(frozen=True)
class Stage:
    """Training on one length of context."""

    num_tokens: int
    rope_base: float
    share: float
    """of the whole budget"""


def grow(shortest: int, longest: int, factor: int, base: float, base_factor: float) -> list[Stage]:
    """Stages whose length grows by `factor` and whose base by `base_factor`; each has the same share of the budget.

    256 to 4,096 by 4, base 10,000 by 10: 256 tokens at 10,000; 1,024 at 100,000; 4,096 at 1,000,000. LWM went from 32,768 to
    1,048,576 tokens in five stages with bases of 1, 10, 10, 25 and 50 million. Raises InputError if no stage has `longest`.
    """
    lengths = [shortest]
    while lengths[-1] < longest and factor > 1:
        lengths.append(lengths[-1] * factor)
    if lengths[-1] != longest:
        raise InputError(f"from {shortest} tokens, steps of {factor} times do not lead to {longest}; they lead to {lengths[-1]}")
    return [Stage(length, base * base_factor**number, 1 / len(lengths)) for number, length in enumerate(lengths)]
