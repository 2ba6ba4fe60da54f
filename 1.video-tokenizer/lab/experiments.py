"""Ask what the papers claim of their tokenizers: train the arms of small experiments, and read the number that decides.

    python 1.video-tokenizer/lab/experiments.py --list
    python 1.video-tokenizer/lab/experiments.py --names videogpt-collapse
    python 1.video-tokenizer/lab/experiments.py --seeds 0 1 2

An arm that several experiments share is trained once. Stopped and started again, it goes on where it was.
"""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tokenizer_lab.ablation import Training, existing_data, from_folder, read_results, run_trainings
from tokenizer_lab.ablation_table import Column, write_block
from tokenizer_lab.claims import Experiment, all_experiments, as_markdown, as_text, trainings_of, values_of
from tokenizer_lab.comparison import CHAPTER, PAGE, TokenizerStudy
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import InputError, parse_config, run_script


@dataclass(frozen=True)
class ExperimentsConfig:
    """Ask claims of papers by training."""

    names: tuple[str, ...] = ()
    """experiments to run; default: all"""
    data_path: str = "data/breakout"
    """clip store, folder of videos, folder of images or .h5 file that all arms learn from"""
    num_steps: int = 400
    """optimizer steps of each training, except of arms whose flags say otherwise"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    flags: str = ""
    """more flags of train.py for all arms, as in --flags="--batch-size 4" """
    num_threads: int = 1
    """threads of each training; 1 lets two of these run side by side, each with other names or seeds"""
    output: str | None = None
    """folder of the training runs; default: checkpoints/experiments inside the chapter"""
    json: str | None = None
    """file for the numbers; default: assets/1.video-tokenizer/experiments.json"""
    list: bool = False
    """train nothing; print names, claims and arms"""
    markdown: bool = False
    """train nothing; print the tables of the numbers in --json as Markdown"""
    readme: bool = False
    """train nothing; write the tables of the numbers in --json into the text of the variants"""

    def check(self) -> None:
        """Raise InputError for an experiment that is not there, or nothing to train."""
        unknown = sorted(set(self.names) - set(all_experiments()))
        if unknown:
            raise InputError(f"--names {unknown[0]}: there is no such experiment; there are {', '.join(all_experiments())}")
        if not self.seeds or self.num_steps < 1 or self.num_threads < 1:
            raise InputError(
                f"--seeds {self.seeds}, --num-steps {self.num_steps} and --num-threads {self.num_threads} leave nothing to train"
            )


def study_of(experiments: list[Experiment]) -> TokenizerStudy:
    """All trainings of these experiments, and every number that they read."""
    names = dict.fromkeys(name for experiment in all_experiments().values() for name in experiment.shown)
    return TokenizerStudy(
        chapter=CHAPTER, config_class=TokenizerConfig, rows=trainings_of(experiments), controls={},
        columns=[Column(name, name) for name in names], validate_flags=lambda row: "--num-batches 40",
    )  # fmt: skip


def page_of(name: str) -> Path:
    """The text beside the comparison's that has a place for this experiment's table."""
    pages = [page for page in PAGE.parent.rglob("*.md") if f"<!-- {name}: begin -->" in page.read_text()]
    return pages[0] if pages else PAGE


def print_list(experiments: list[Experiment]) -> None:
    """Name, claim, source and arms of each."""
    for experiment in experiments:
        print(experiment.name)
        print(textwrap.indent(textwrap.fill(f"{experiment.claim} ({experiment.source})", 110), "    "))
        for arm, flags in experiment.arms.items():
            print(f"        {arm}: {flags}")


def main() -> None:
    config = parse_config(ExperimentsConfig)
    config.check()
    experiments = [one for name, one in all_experiments().items() if name in config.names or not config.names]
    path = Path(config.json) if config.json else REPOSITORY / "assets" / CHAPTER / "experiments.json"
    everything = study_of([*all_experiments().values()])  # the file keeps what other calls have found
    if config.list:
        return print_list(experiments)
    if config.markdown or config.readme:
        results = read_results(path, everything)
        measured = [one for one in experiments if all(values_of(one, one.metric, results).values())]
        for experiment in measured:
            if config.readme:
                write_block(page_of(experiment.name), experiment.name, as_markdown(experiment, results))
            print(as_markdown(experiment, results) + "\n")
        return None

    data = existing_data(config.data_path, REPOSITORY)
    study = study_of(experiments)
    flags = ["--data-path", from_folder(REPOSITORY, data), "--num-steps", str(config.num_steps), *config.flags.split()]
    runs = Path(os.path.abspath(config.output or REPOSITORY / CHAPTER / "checkpoints" / "experiments"))
    trainings = [Training(everything, row, seed, flags, runs) for seed in config.seeds for row in study.rows]
    run_trainings(trainings, path, config.num_threads)
    results = read_results(path, everything)
    print("\n" + "\n\n".join(as_text(one, results) for one in experiments) + f"\n\nnumbers and commands in {path}")


if __name__ == "__main__":
    run_script(main)
