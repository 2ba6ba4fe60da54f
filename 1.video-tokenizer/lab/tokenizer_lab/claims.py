"""A claim of a paper as a small experiment: which trainings to compare, which number decides, and which way it should go.

The experiments themselves are data, in a file of each chapter's lab. Many of them share a training, which is then done once.
"""

import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from tokenizer_lab.sweep import (
    Column,
    Study,
    SweepConfig,
    as_markdown,
    page_with,
    read_results,
    runs_of,
    sweep,
    table,
    write_block,
)
from video_tokenizer.errors import InputError

CHECKPOINT_OF = re.compile(r"\{([a-z0-9.-]+)\}")
"""in an arm's flags: the best checkpoint of another arm with the same seed"""


@dataclass(frozen=True)
class Experiment:
    """The arms of one comparison, from the control to what the paper proposes."""

    name: str
    """short name, fit for a folder"""
    claim: str
    """what should be seen at this size, as a sentence"""
    source: str
    """the paper, the place in it, and its own numbers with their conditions"""
    arms: Mapping[str, str]
    """short name -> flags of train.py; the control first, then in the order in which the metric should move. {name} in the flags
    is the best checkpoint of the arm of that name"""
    metric: str
    """the number that decides, by its name in metrics.json, validation.json or the study's own scores"""
    direction: Literal["rises", "falls", "stays"] = "rises"
    """how it should move from each arm to the next; stays: it falls by at most `tolerance`"""
    tolerance: float = 0.0
    bound: float = 0.0
    """with a single arm: what the metric must lie above (rises) or below (falls)"""
    also_shown: tuple[str, ...] = ()
    """numbers worth a column that decide nothing"""

    def __post_init__(self) -> None:
        if not self.arms or (len(self.arms) < 2 and self.direction == "stays"):
            raise ValueError(f"experiment {self.name} has {len(self.arms)} arms; give at least 2 to compare")

    @property
    def shown(self) -> list[str]:
        """The deciding number, then the others."""
        return list(dict.fromkeys([self.metric, *self.also_shown]))

    def verdict(self, values: Mapping[str, Sequence[float]]) -> str:
        """What the seeds say. values: arm -> its metric for each seed; every arm has the same seeds.

        "agrees": every seed of an arm lies beyond every seed of the arm before; [3, 4] and [5, 6] rise. "agrees seed by seed":
        each lies beyond the same seed of the arm before; [3, 5] and [4, 6]. "within the noise": only the means do; [3, 5] and
        [6, 4]. Otherwise "disagrees". A single seed shows no noise, so the verdict says "one seed". "open": no numbers yet.
        """
        arms = [list(values.get(arm, ())) for arm in self.arms]
        if not all(arms):
            return "open"
        means = [[fmean(arm)] for arm in arms]
        if self.direction == "stays":
            found = "agrees" if all(b >= a - self.tolerance for [a], [b] in itertools.pairwise(means)) else "disagrees"
        elif self._ordered(arms):
            found = "agrees"
        elif all(self._ordered([[value] for value in seed]) for seed in zip(*arms, strict=True)) and len(arms) > 1:
            found = "agrees seed by seed"
        else:
            found = "within the noise" if self._ordered(means) else "disagrees"
        return f"{found}, one seed" if len(arms[0]) == 1 else found

    def _ordered(self, arms: list[list[float]]) -> bool:
        """Whether all values of each arm lie beyond all values of the arm before, or of a single arm beyond the bound."""
        arms = arms if len(arms) > 1 else [[self.bound], *arms]
        arms = arms if self.direction == "rises" else arms[::-1]
        return all(max(lower) < min(upper) for lower, upper in itertools.pairwise(arms))


def training_name(flags: str) -> str:
    """The name of the training with these flags: "--model videogpt --num-codes 64" is videogpt-num-codes-64."""
    words = CHECKPOINT_OF.sub(r"\1", flags).removeprefix("--model ").replace("--", " ").split()
    return "-".join(words).replace("/", "-")


def trainings_of(experiments: Iterable[Experiment]) -> dict[str, str]:
    """Name -> flags of every training that these experiments read, each once, a training before those that start from it.

    {arm} in the flags becomes {training}.
    """
    pool: dict[str, str] = {}
    for experiment in experiments:
        for flags in experiment.arms.values():
            if match := CHECKPOINT_OF.search(flags):
                start = experiment.arms[match[1]]
                pool[training_name(start)] = start
                pool[training_name(flags)] = flags.replace(match[0], "{" + training_name(start) + "}")
            else:
                pool[training_name(flags)] = flags
    return pool


def runs_of_arms(experiment: Experiment, results: Mapping[str, Any]) -> pd.DataFrame:
    """The scores of the arms, as `sweep.runs_of` returns them, with the seeds that all arms have; empty if an arm has none.

    results: content of experiments.json.
    """
    arms = {arm: training_name(flags) for arm, flags in experiment.arms.items()}
    if not set(arms.values()) <= results["rows"].keys():
        return pd.DataFrame()
    runs = runs_of(results, arms).dropna(subset=[experiment.metric])
    seeds = [seed for _, seed in runs.index]
    return runs.loc[[seeds.count(seed) == len(arms) for seed in seeds]]


def reading(experiment: Experiment, runs: pd.DataFrame) -> str:
    """ "perplexity should rise: agrees", the last line of a table."""
    values = {arm: runs.loc[arm, experiment.metric].tolist() for arm in experiment.arms} if len(runs) else {}
    bound = (
        f" {'above' if experiment.direction == 'rises' else 'below'} {experiment.bound:g}" if len(experiment.arms) == 1 else ""
    )
    direction = experiment.direction.removesuffix("s")
    return f"{experiment.metric} should {direction}{bound}: {experiment.verdict(values)}"


def heading_of(metric: str) -> str:
    """A metric's name as words that fit a narrow column: moving_psnr_db is "moving PSNR, dB"."""
    words = re.sub(r"_(\d+)_db$", r" \1 dB", metric)  # tokens_at_24_db
    words = re.sub(r"_db_(\d+)_tokens$", r" with \1 tokens, dB", words)  # prefix_gain_db_32_tokens
    return re.sub(r"_db$", ", dB", words).replace("_", " ").replace("psnr", "PSNR")


def table_of(experiment: Experiment, runs: pd.DataFrame) -> pd.DataFrame:
    """One line per arm and one column per number that the experiment shows."""
    return table(runs, [Column(metric, heading_of(metric)) for metric in experiment.shown])


def markdown(experiment: Experiment, runs: pd.DataFrame) -> str:
    """Claim, table and verdict for a text."""
    seeds = runs.index.get_level_values("seed").nunique()
    about = f"**{experiment.name}**, {seeds} seed{'s' * (seeds != 1)}. {experiment.claim} ({experiment.source}.)"
    rows = as_markdown(table_of(experiment, runs), experiment.arms, "arm")
    return f"{about}\n\n{rows}\n\n{reading(experiment, runs)}."


@dataclass(frozen=True)
class ExperimentsConfig(SweepConfig):
    """Test claims of papers by training."""

    names: tuple[str, ...] = ()
    """experiments to run; default: all"""
    num_steps: int = 400
    """optimizer steps of each training, except of arms whose flags say otherwise"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    num_threads: int = 1
    """threads of each training; with 1, two of these can run side by side with other names or seeds"""
    flags: str = ""
    """more flags of train.py for all arms, as in --flags="--batch-size 4" """
    list: bool = False
    """train nothing; print names, claims and arms"""


def run_experiments(
    config: ExperimentsConfig, study: Study, experiments: Mapping[str, Experiment], texts: Path, common_flags: Sequence[str] = ()
) -> None:
    """What experiments.py does in every chapter.

    study: its rows are `trainings_of` the experiments. texts: the folder of the pages with the tables. common_flags: those that
    every training has. Raises InputError for a name that is not among the experiments.
    """
    config.check()
    if unknown := sorted(set(config.names) - set(experiments)):
        raise InputError(f"--names {unknown[0]}: there is no such experiment; choose from {', '.join(experiments)}")
    chosen = [experiments[name] for name in config.names or experiments]
    if config.list:
        for one in chosen:
            about = textwrap.fill(f"{one.claim} ({one.source})", 110)
            print(
                one.name,
                textwrap.indent(about, "    "),
                *(f"        {arm}: {flags}" for arm, flags in one.arms.items()),
                sep="\n",
            )
    elif config.readme:
        results = read_results(study, config)
        for one in chosen:
            if not (runs := runs_of_arms(one, results)).empty:
                write_block(page_with(texts, one.name), one.name, markdown(one, runs))
                print(markdown(one, runs) + "\n")
    else:
        flags = ["--num-steps", str(config.num_steps), *common_flags, *config.flags.split()]
        results = sweep(study, config, flags, trainings_of(chosen))
        for one in chosen:
            runs = runs_of_arms(one, results)
            print(f"\n{one.name}: {one.claim}\n({one.source})\n{table_of(one, runs).to_string()}\n{reading(one, runs)}")
        print(f"\nnumbers and commands in {config.numbers_file(study)}")
