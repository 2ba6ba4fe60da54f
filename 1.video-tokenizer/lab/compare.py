"""Train and score any of the tokenizers on the same clips under the same minutes of processor time, and set them side by side.

    python 1.video-tokenizer/lab/compare.py --data-path data/breakout
    python 1.video-tokenizer/lab/compare.py --models st-fsq st-vq --minutes 2 --seeds 0
    python 1.video-tokenizer/lab/compare.py --equal parameters --num-steps 600

Stopped and started again, it goes on where it was.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizer_lab.ablation import AblationConfig, existing_data, from_folder, read_results, run_study
from tokenizer_lab.ablation_table import format_markdown, write_block
from tokenizer_lab.comparison import (
    CHAPTER,
    COLUMNS,
    CONTROLS,
    EQUAL_PARAMETERS,
    PAGE,
    TokenizerStudy,
    facts_and_speed,
    save_gallery,
    save_quality_against_bits,
    steps_for,
)
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.registry import TOKENIZERS
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import InputError, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

STEPS_FILE = "steps.json"
"""in --output: how long a step of each tokenizer takes, so that a comparison that goes on keeps its steps"""


@dataclass(frozen=True)
class CompareConfig:
    """Set tokenizers side by side under an equal budget."""

    data_path: str = "data/breakout"
    """clip store, folder of videos, folder of images or .h5 file that all learn from"""
    models: tuple[str, ...] = field(default_factory=lambda: tuple(TOKENIZERS))
    """the tokenizers to compare, the first being what the others are held against"""
    equal: Literal["minutes", "parameters"] = "minutes"
    """what all have the same of: processor minutes, or parameters (and steps)"""
    minutes: float = 3.0
    """processor minutes of each training; with --equal minutes"""
    num_steps: int = 600
    """optimizer steps of each training; with --equal parameters"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each is trained once per seed"""
    flags: str = ""
    """more flags of train.py for all of them, as in --flags="--batch-size 4" """
    num_threads: int = 1
    """threads of each training"""
    output: str | None = None
    """folder of the training runs; default: checkpoints/comparison inside the chapter"""
    json: str | None = None
    """file for the numbers; default: assets/1.video-tokenizer/comparison.json, or comparison_parameters.json"""
    figure: str | None = None
    """file for the plot; default: beside the numbers, with the same name"""
    markdown: bool = False
    """train nothing; print the table of the numbers in --json as Markdown"""
    readme: bool = False
    """train nothing; write the table of the numbers in --json into the text of the variants"""

    def check(self) -> None:
        """Raise InputError for an unknown tokenizer, or a budget of nothing."""
        unknown = [name for name in self.models if name not in TOKENIZERS]
        if unknown or not self.models:
            raise InputError(f"--models {' '.join(unknown)}: there is no such tokenizer; there are {', '.join(TOKENIZERS)}")
        numbers = {
            "minutes": self.minutes,
            "num-steps": self.num_steps,
            "num-threads": self.num_threads,
            "seeds": len(self.seeds),
        }
        for name, number in numbers.items():
            if number <= 0:
                raise InputError(f"--{name} {number} leaves nothing to do; give more")

    @property
    def name(self) -> str:
        """Of the table, its file, its folder of runs and its place in the text."""
        return "comparison" if self.equal == "minutes" else "comparison_parameters"


def rows_of(config: CompareConfig, runs: Path, data: str) -> dict[str, str]:
    """Name -> flags of train.py, with as many steps as fit into the budget; every tokenizer is timed once per folder of runs."""
    if config.equal == "parameters":
        steps = ["--num-steps", str(config.num_steps)]
        flags = {name: shlex.split(f"--model {name} {EQUAL_PARAMETERS[name]} {config.flags}") for name in config.models}
        return {name: shlex.join([*own, *steps]) for name, own in flags.items()}
    timed = read_json(runs / STEPS_FILE)
    environment = os.environ | {"OMP_NUM_THREADS": str(config.num_threads)}
    rows = {}
    for name in config.models:
        flags = ["--model", name, *shlex.split(config.flags)]
        key = f"{shlex.join(flags)} | {config.minutes} minutes, {config.num_threads} threads, {data}"
        if key not in timed:
            study = study_of({name: ""})
            steps, seconds = steps_for(study, ["--data-path", data, *flags], config.minutes, environment)
            timed[key] = {"num_steps": steps, "seconds_per_step": seconds}
            save_json(runs / STEPS_FILE, timed)
        print(f"{name}: {timed[key]['num_steps']:,} steps of {1000 * timed[key]['seconds_per_step']:.0f} ms")
        rows[name] = shlex.join([*flags, "--num-steps", str(timed[key]["num_steps"])])
    return rows


def study_of(rows: dict[str, str]) -> TokenizerStudy:
    """The comparison as a study: what is trained, and which scores are shown."""
    return TokenizerStudy(
        chapter=CHAPTER, config_class=TokenizerConfig, rows=rows, columns=COLUMNS, controls=CONTROLS,
        validate_flags=lambda row: "", score=facts_and_speed, transposed=True,
    )  # fmt: skip


def main() -> None:
    config = parse_config(CompareConfig)
    config.check()
    runs = Path(os.path.abspath(config.output or REPOSITORY / CHAPTER / "checkpoints" / config.name))
    path = Path(config.json) if config.json else REPOSITORY / "assets" / CHAPTER / f"{config.name}.json"
    if config.markdown or config.readme:
        study = study_of({name: row["flags"] for name, row in read_json(path).get("rows", {}).items()})
        table = format_markdown(study, read_results(path, study))
        if config.readme:
            write_block(PAGE, config.name, table)
        return print(table)

    data = existing_data(config.data_path, REPOSITORY)
    study = study_of(rows_of(config, runs, from_folder(REPOSITORY, data)))
    ablation = AblationConfig(
        data_path=config.data_path, num_steps=None, seeds=config.seeds, output=str(runs), json=str(path),
        num_threads=config.num_threads,
    )  # fmt: skip
    run_study(study, ablation)
    figure = Path(config.figure) if config.figure else path.with_suffix(".png")
    save_quality_against_bits(figure, read_json(path))
    gallery = figure.with_name(f"{figure.stem}_frames.png")
    save_gallery(gallery, {name: runs / name / f"seed{config.seeds[0]}" / "best_model.pt" for name in config.models})
    print(f"plot in {figure}, the same frames as each draws them in {gallery}")


if __name__ == "__main__":
    run_script(main)
