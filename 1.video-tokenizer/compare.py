"""Train and score any of the tokenizers on the same clips under the same minutes of processor time, and set them side by side.

    python 1.video-tokenizer/compare.py --data-path data/breakout
    python 1.video-tokenizer/compare.py --models st-fsq st-vq --minutes 2 --seeds 0

Stopped and started again, it goes on where it was.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from video_tokenizer.ablation import AblationConfig, from_folder, run_study
from video_tokenizer.command_line import InputError, parse_config, run_script
from video_tokenizer.comparison import (
    CHAPTER,
    COLUMNS,
    CONTROLS,
    TokenizerStudy,
    facts_and_speed,
    save_quality_against_bits,
    steps_for,
)
from video_tokenizer.config import TokenizerConfig
from video_tokenizer.loading import TOKENIZERS
from video_tokenizer.report import read_json, save_json
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path

STEPS_FILE = "steps.json"
"""in --output: how long a step of each tokenizer takes, so that a comparison that goes on keeps its steps"""


@dataclass(frozen=True)
class CompareConfig:
    """Set tokenizers side by side under an equal budget."""

    data_path: str = "data/breakout"
    """clip store, folder of videos, folder of images or .h5 file that all learn from"""
    models: tuple[str, ...] = field(default_factory=lambda: tuple(TOKENIZERS))
    """the tokenizers to compare, the first being what the others are held against"""
    minutes: float = 4.0
    """processor minutes of each training"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each is trained once per seed"""
    flags: str = ""
    """more flags of train.py for all of them, in quotes"""
    num_threads: int = 1
    """threads of each training"""
    output: str | None = None
    """folder of the training runs; default: checkpoints/comparison inside the chapter"""
    json: str | None = None
    """file for the numbers; default: assets/1.video-tokenizer/comparison.json"""
    figure: str | None = None
    """file for the plot; default: comparison.png beside the numbers"""
    markdown: bool = False
    """train nothing; print the table of the numbers in --json as Markdown"""

    def check(self) -> None:
        """Raise InputError for an unknown tokenizer, or a budget of nothing."""
        unknown = [name for name in self.models if name not in TOKENIZERS]
        if unknown or not self.models:
            raise InputError(f"--models {' '.join(unknown)}: there is no such tokenizer; there are {', '.join(TOKENIZERS)}")
        if self.minutes <= 0 or not self.seeds or self.num_threads < 1:
            raise InputError(
                f"--minutes {self.minutes}, --seeds {self.seeds} and --num-threads {self.num_threads} leave nothing to do"
            )


def rows_of(config: CompareConfig, runs: Path, data: str) -> dict[str, str]:
    """Name -> flags of train.py, with as many steps as fit into the budget; every tokenizer is timed once per folder of runs."""
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
        validate_flags=lambda row: "", score=facts_and_speed,
    )  # fmt: skip


def main() -> None:
    config = parse_config(CompareConfig)
    config.check()
    runs = Path(os.path.abspath(config.output or REPOSITORY / CHAPTER / "checkpoints" / "comparison"))
    path = Path(config.json) if config.json else REPOSITORY / "assets" / CHAPTER / "comparison.json"
    if config.markdown:
        rows = {name: row["flags"] for name, row in read_json(path).get("rows", {}).items()}
    else:
        data = resolve_path(config.data_path, REPOSITORY)
        if not data.exists():
            raise InputError(f"--data-path {data} does not exist; record a game first: python {CHAPTER}/record.py")
        rows = rows_of(config, runs, from_folder(REPOSITORY, data))
    ablation = AblationConfig(
        data_path=config.data_path, num_steps=1, seeds=config.seeds, output=str(runs), json=str(path),
        num_threads=config.num_threads, markdown=config.markdown,
    )  # fmt: skip
    run_study(study_of(rows), ablation)
    figure = Path(config.figure) if config.figure else path.with_name("comparison.png")
    save_quality_against_bits(figure, read_json(path))
    print(f"plot in {figure}")


if __name__ == "__main__":
    run_script(main)
