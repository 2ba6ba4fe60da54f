"""Test what the papers claim of their tokenizers: train the arms of small experiments, and read the number that decides.

    python 1.video-tokenizer/lab/experiments.py --list
    python 1.video-tokenizer/lab/experiments.py --names videogpt-collapse
    python 1.video-tokenizer/lab/experiments.py --seeds 0 1 2

An arm that several experiments share is trained once. The same command resumes what was stopped.
"""

import textwrap
from dataclasses import dataclass

from tokenizer_lab.claims import markdown, reading, runs_of_arms, table_of, trainings_of
from tokenizer_lab.claims_of_papers import EXPERIMENTS
from tokenizer_lab.comparison import TEXTS, tokenizer_study
from tokenizer_lab.elastic_lengths import length_scores
from tokenizer_lab.sweep import Column, SweepConfig, page_with, read_results, sweep, write_block
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import parse_config, run_script

STUDY = tokenizer_study(
    name="experiments",
    rows=trainings_of(EXPERIMENTS.values()),
    columns=[Column(name, name) for name in dict.fromkeys(name for one in EXPERIMENTS.values() for name in one.shown)],
    validate_flags=lambda row: "--num-batches 40",
    score=length_scores,
)


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

    def check(self) -> None:
        """Raise InputError for an unknown experiment, or if there is nothing to train."""
        super().check()
        if unknown := sorted(set(self.names) - set(EXPERIMENTS)):
            raise InputError(f"--names {unknown[0]}: there is no such experiment; choose from {', '.join(EXPERIMENTS)}")


def main() -> None:
    config = parse_config(ExperimentsConfig)
    config.check()
    experiments = [EXPERIMENTS[name] for name in config.names or EXPERIMENTS]
    if config.list:
        for one in experiments:
            about = textwrap.fill(f"{one.claim} ({one.source})", 110)
            print(
                one.name,
                textwrap.indent(about, "    "),
                *(f"        {arm}: {flags}" for arm, flags in one.arms.items()),
                sep="\n",
            )
    elif config.readme:
        results = read_results(STUDY, config)
        for one in experiments:
            if not (runs := runs_of_arms(one, results)).empty:
                write_block(page_with(TEXTS, one.name), one.name, markdown(one, runs))
                print(markdown(one, runs) + "\n")
    else:
        flags = ["--num-steps", str(config.num_steps), *config.flags.split()]
        results = sweep(STUDY, config, flags, trainings_of(experiments))
        for one in experiments:
            runs = runs_of_arms(one, results)
            print(f"\n{one.name}: {one.claim}\n({one.source})\n{table_of(one, runs).to_string()}\n{reading(one, runs)}")
        print(f"\nnumbers and commands in {config.numbers_file(STUDY)}")


if __name__ == "__main__":
    run_script(main)
