"""A claim of a paper as a small experiment: which trainings to compare, which number to read, and which way it should go.

The experiments themselves stand beside this file, in claims_<system>.py. Many of them share a training:
what is trained is the set of all arms, each once per seed, and an experiment reads its numbers from it.
"""

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from tokenizer_lab.ablation_table import aligned, mean_and_spread

CHECKPOINT_OF = re.compile(r"\{([a-z0-9.-]+)\}")
"""in an arm's flags: the best checkpoint of another arm, under the same seed"""


@dataclass(frozen=True)
class Experiment:
    """The arms of one comparison, from the control to what the paper proposes.

    Every arm is one training with the same data, steps and seeds; flags that all arms share are the runner's.
    """

    name: str
    """short name, fit for a folder"""
    claim: str
    """what should be seen at this size, as a sentence"""
    source: str
    """the paper, the place in it, and its own numbers with their conditions"""
    arms: Mapping[str, str]
    """short name -> flags of train.py; the control first, then in the order in which the metric should move. {name} in the flags
    stands for the best checkpoint of the arm of that name"""
    metric: str
    """the number that decides, by its name in a run's metrics.json or validation.json; those of `own_scores` by their own"""
    direction: Literal["rises", "falls", "stays"]
    """how it should move from each arm to the next; stays: it falls by at most `tolerance`"""
    tolerance: float = 0.0
    """of stays: what counts as nothing"""
    bound: float = 0.0
    """of an experiment with a single arm: what the metric must lie above (rises) or below (falls)"""
    also_shown: tuple[str, ...] = ()
    """numbers worth a column beside it, which decide nothing"""

    def __post_init__(self) -> None:
        if not self.arms or (len(self.arms) < 2 and self.direction == "stays"):
            raise ValueError(f"experiment {self.name} has {len(self.arms)} arms; a comparison needs at least 2")

    @property
    def shown(self) -> tuple[str, ...]:
        """The deciding number, then the others."""
        return (self.metric, *(name for name in self.also_shown if name != self.metric))

    def verdict(self, values: Mapping[str, Sequence[float]]) -> str:
        """What the seeds say. values: arm -> its metric under each seed; every arm has the same seeds.

        "agrees": every seed of an arm lies beyond every seed of the arm before; [3, 4] and [5, 6] rise. "within the noise": the
        means do, the seeds overlap; [3, 5] and [4, 6] rise on average. Else "disagrees". One seed alone cannot tell noise: it
        says "agrees, one seed" or "disagrees, one seed". "open" where an arm has no number.
        """
        arms = [[*values.get(arm, ())] for arm in self.arms]
        if not all(arms):
            return "open"
        found = "agrees" if self._strictly(arms) else "within the noise" if self._on_average(arms) else "disagrees"
        return f"{found}, one seed" if max(map(len, arms)) == 1 else found

    def _strictly(self, arms: Sequence[Sequence[float]]) -> bool:
        if self.direction == "stays":
            return self._on_average(arms)
        sign = 1 if self.direction == "rises" else -1
        ordered = [[sign * value for value in arm] for arm in arms]
        ordered = [[sign * self.bound], *ordered] if len(ordered) == 1 else ordered
        return all(max(one) < min(other) for one, other in itertools.pairwise(ordered))

    def _on_average(self, arms: Sequence[Sequence[float]]) -> bool:
        means = [statistics.fmean(arm) for arm in arms]
        if self.direction == "stays":
            return all(after >= before - self.tolerance for before, after in itertools.pairwise(means))
        means = [self.bound, *means] if len(means) == 1 else means
        sign = 1 if self.direction == "rises" else -1
        return all(sign * before < sign * after for before, after in itertools.pairwise(means))


def all_experiments() -> dict[str, Experiment]:
    """Name -> experiment, of every file claims_*.py."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("claims_*.py"))
    found = [one for file in files for one in import_module(f"tokenizer_lab.{file}").EXPERIMENTS]
    return {one.name: one for one in found}


def folder_of(flags: str) -> str:
    """A training's name, made of its flags: "--model videogpt --num-codes 64" is videogpt-num-codes-64."""
    words = CHECKPOINT_OF.sub(lambda match: match[1], flags).removeprefix("--model ").replace("--", " ").split()
    return "-".join(words).replace("/", "-")


def trainings_of(experiments: Iterable[Experiment]) -> dict[str, str]:
    """Name -> flags of every training that these experiments read, each once, those first from which others start.

    In the flags {arm} has become {training}.
    """
    pool: dict[str, str] = {}
    for experiment in experiments:
        for flags in experiment.arms.values():
            if match := CHECKPOINT_OF.search(flags):
                first = experiment.arms[match[1]]
                pool.setdefault(folder_of(first), first)
                pool.setdefault(folder_of(flags), flags.replace(match[0], "{" + folder_of(first) + "}"))
            pool.setdefault(folder_of(flags), flags)
    return pool


def values_of(experiment: Experiment, metric: str, results: Mapping[str, Any]) -> dict[str, list[float]]:
    """Arm -> the metric under each seed that all arms have. results: the JSON file of the runner."""
    runs = {
        arm: {run["seed"]: run["metrics"].get(metric) for run in results["rows"].get(folder_of(flags), {}).get("runs", [])}
        for arm, flags in experiment.arms.items()
    }
    seeds = sorted(set.intersection(*(set(found) for found in runs.values())))
    return {arm: [found[seed] for seed in seeds if found[seed] is not None] for arm, found in runs.items()}


def cells(experiment: Experiment, results: Mapping[str, Any]) -> list[list[str]]:
    """Heading and one line per arm: name, then mean ± spread of every shown number."""
    lines = [["arm", *map(heading_of, experiment.shown)]]
    for arm in experiment.arms:
        lines.append([arm, *(formatted(values_of(experiment, metric, results)[arm]) for metric in experiment.shown)])
    return lines


def heading_of(metric: str) -> str:
    """A metric's name as words that fit a narrow column: moving_psnr_db is "moving PSNR, dB"."""
    words = re.sub(r"_(\d+)_db$", r" \1 dB", metric)  # tokens_at_24_db
    words = re.sub(r"_db_(\d+)_tokens$", r" with \1 tokens, dB", words)  # prefix_gain_db_32_tokens
    return re.sub(r"_db$", ", dB", words).replace("_", " ").replace("psnr", "PSNR")


def formatted(values: Sequence[float]) -> str:
    """[1.0, 2.0, 3.0] is "2.00 ± 1.00", the standard deviation; of two values half the range; one value alone; "" for none."""
    found = mean_and_spread(values)
    mean, spread = found["mean"], found["spread"]
    if mean is None:
        return ""
    digits = 0 if abs(mean) >= 100 else 1 if abs(mean) >= 10 else 2 if abs(mean) >= 1 else 3
    return f"{mean:,.{digits}f}" + (f" ± {spread:,.{digits}f}" if spread is not None else "")


def as_text(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """Claim, table and verdict for a terminal."""
    about = [f"{experiment.name}: {experiment.claim}", f"({experiment.source})"]
    return "\n".join([*about, *aligned(cells(experiment, results)), reading(experiment, results)])


def reading(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """ "perplexity should rise: agrees", for the end of a table."""
    towards = (
        "" if len(experiment.arms) > 1 else f" {'above' if experiment.direction == 'rises' else 'below'} {experiment.bound:g}"
    )
    verdict = experiment.verdict(values_of(experiment, experiment.metric, results))
    return f"{experiment.metric} should {experiment.direction.removesuffix('s')}{towards}: {verdict}"


def as_markdown(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """The same for a text, under the experiment's name."""
    heading, *rows = cells(experiment, results)
    seeds = max((len(found) for found in values_of(experiment, experiment.metric, results).values()), default=0)
    lines = [f"**{experiment.name}**, {seeds} seed{'s' * (seeds != 1)}. {experiment.claim} ({experiment.source}.)", ""]
    lines += ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    for (name, *numbers), flags in zip(rows, experiment.arms.values(), strict=True):
        lines.append("| " + " | ".join([f"{name}<br>`{flags}`", *(number.replace(" ", "") for number in numbers)]) + " |")
    return "\n".join([*lines, "", reading(experiment, results) + "."])
