"""Train any of the tokenizers on the same clips with the same minutes of processor time, and compare their scores.

    python 1.video-tokenizer/lab/compare.py --data-path data/breakout
    python 1.video-tokenizer/lab/compare.py --models st-fsq st-vq --minutes 2 --seeds 0
    python 1.video-tokenizer/lab/compare.py --equal parameters --num-steps 600

The same command resumes a comparison that was stopped.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizer_lab.comparison import (
    EQUAL_PARAMETERS,
    TEXTS,
    comparison,
    save_gallery,
    save_quality_against_bits,
    steps_that_fit,
    written_table,
)
from tokenizer_lab.sweep import (
    SweepConfig,
    page_with,
    read_results,
    sweep,
    table_of,
    write_block,
)
from video_tokenizer.errors import InputError
from video_tokenizer.registry import TOKENIZERS
from video_tokenizer.training.command_line import parse_config, run_script


@dataclass(frozen=True)
class CompareConfig(SweepConfig):
    """Compare tokenizers with an equal budget."""

    models: tuple[str, ...] = field(default_factory=lambda: tuple(TOKENIZERS))
    """the tokenizers to compare; the others are marked against the first"""
    equal: Literal["minutes", "parameters"] = "minutes"
    """what all have the same of: processor minutes, or parameters (and steps)"""
    minutes: float = 3.0
    """processor minutes of each training; with --equal minutes"""
    num_steps: int = 600
    """optimizer steps of each training; with --equal parameters"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each tokenizer is trained once per seed"""
    num_threads: int = 1
    """threads of each training (OMP_NUM_THREADS)"""
    flags: str = ""
    """more flags of train.py for all of them, as in --flags="--batch-size 4" """

    def check(self) -> None:
        """Raise InputError for an unknown tokenizer or an empty budget."""
        super().check()
        unknown = [name for name in self.models if name not in TOKENIZERS]
        if unknown or not self.models:
            raise InputError(f"--models {' '.join(unknown)}: there is no such tokenizer; choose from {', '.join(TOKENIZERS)}")
        if self.minutes <= 0:
            raise InputError(f"--minutes {self.minutes} leaves no time to train; give more than 0")

    @property
    def name(self) -> str:
        """Names the JSON file, the folder of the runs and the table's place in the text."""
        return "comparison" if self.equal == "minutes" else "comparison_parameters"


def rows_of(config: CompareConfig, runs: Path, data: list[str]) -> dict[str, str]:
    """Name -> flags of train.py with as many steps as fit the budget; each tokenizer is timed once per folder of runs."""
    rows, study = {}, comparison("timing", {})
    for name in config.models:
        equal_parameters = EQUAL_PARAMETERS[name] if config.equal == "parameters" else ""
        flags = shlex.split(f"--model {name} {equal_parameters} {config.flags}")
        steps = config.num_steps
        if config.equal == "minutes":
            steps = steps_that_fit(study, runs, flags, data, config.minutes, config.num_threads)
        rows[name] = shlex.join([*flags, "--num-steps", str(steps)])
    return rows


def main() -> None:
    config = parse_config(CompareConfig)
    study = comparison(config.name, {})
    if config.readme:
        text = written_table(config.name, read_results(study, config))
        write_block(page_with(TEXTS, config.name), config.name, text)
        return print(text)

    config.check()
    if config.equal == "minutes":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # while a GPU works, the processor's minutes stand still
    runs = config.runs_folder(study)
    study = comparison(config.name, rows_of(config, runs, config.data_flags(study)))
    results = sweep(study, config, [])
    print(f"\n{table_of(study, results).T.to_string()}\n\nnumbers and commands in {config.numbers_file(study)}")
    figure = config.numbers_file(study).with_suffix("")
    save_quality_against_bits(figure, results)
    gallery = figure.with_name(f"{figure.name}_frames.png")
    save_gallery(gallery, {name: runs / name / f"seed{config.seeds[0]}" / "best_model.pt" for name in config.models})
    print(f"plot in {figure}_light.svg and _dark.svg, the same frames as each tokenizer reconstructs them in {gallery}")


if __name__ == "__main__":
    run_script(main)
