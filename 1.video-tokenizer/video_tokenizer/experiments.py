"""A claim of a paper as a small experiment: which trainings to compare, which number to read, and which way it should go."""

import itertools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Experiment:
    """The arms of one comparison, from the control to what the paper proposes.

    Every arm is one call of train.py with the same data, steps and seed; flags that all arms share are the runner's.
    """

    name: str
    """short name, fit for a folder"""
    claim: str
    """what should be seen at this size, as a sentence"""
    source: str
    """the paper, the place in it, and its own numbers with their conditions"""
    arms: Mapping[str, str]
    """short name, fit for a folder -> flags of train.py; the control first, then in the order in which the metric should move"""
    metric: str
    """the number that decides, by its name in a run's metrics.json or validation.json"""
    direction: Literal["rises", "falls"]
    """how it should move from each arm to the next"""
    also_shown: tuple[str, ...] = ()
    """numbers worth a column beside it, which decide nothing"""

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ValueError(f"experiment {self.name} has {len(self.arms)} arms; a comparison needs at least 2")

    def flags(self, arm: str) -> list[str]:
        """What train.py is told for an arm, as words."""
        return shlex.split(self.arms[arm])

    def agrees(self, values: Mapping[str, float]) -> bool:
        """Whether the metric moved as claimed between all neighbouring arms. values: arm -> metric.

        Rises: 3, 5, 9 agrees; 3, 9, 5 and 3, 3, 9 do not. One seed proves little: ask every seed, and say how many agree.
        """
        ordered = [values[arm] for arm in self.arms]
        pairs = itertools.pairwise(ordered if self.direction == "rises" else ordered[::-1])
        return all(before < after for before, after in pairs)
