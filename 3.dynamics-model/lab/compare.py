"""Train the dynamics models of the field on the same clips with the same minutes of processor time, and play in their worlds.

    python 3.dynamics-model/lab/compare.py --data-path data/breakout
    python 3.dynamics-model/lab/compare.py --models maskgit gpt --minutes 1 --seeds 0
    python 3.dynamics-model/lab/compare.py --readme

Models of tokens learn those of the reference world's tokenizer. Dreamer 4's model learns the latents of Dreamer 4's tokenizer,
which is trained first. The same command resumes a comparison that was stopped.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from dynamics_lab.comparison import (
    ARMS,
    QUICK,
    Arena,
    Sizes,
    comparison,
    latents_tokenizer,
    main_table,
    open_world,
    same_keys,
    save_quality_against_time,
    steps_table,
    written_tables,
)
from tokenizer_lab.comparison import steps_that_fit
from tokenizer_lab.sweep import (
    Study,
    SweepConfig,
    read_results,
    sweep,
    table_of,
    write_block,
)
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.errors import InputError
from video_tokenizer.figures import save_gif
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.checkpoint import resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script

TIMED = (10, 50)
"""steps of the two trainings that time a model"""


@dataclass(frozen=True)
class CompareConfig(SweepConfig):
    """Compare dynamics models with an equal budget."""

    models: tuple[str, ...] = tuple(ARMS)
    """what to compare; the others are marked against the first"""
    minutes: float = 2.0
    """processor minutes of each training"""
    num_steps: int = 0
    """optimizer steps of each training; 0: as many as fit into --minutes"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each model is trained once per seed"""
    num_threads: int = 1
    """threads of trainings and rollouts (OMP_NUM_THREADS)"""
    tokenizer_checkpoint: str = "assets/worlds/breakout/tokenizer.pt"
    """the tokenizer whose tokens are learned"""
    latents_checkpoint: str | None = None
    """the tokenizer whose latents are learned; default: Dreamer 4's, trained in --output"""
    quick: bool = False
    """play seconds instead of minutes, to check that everything runs; the numbers mean little"""

    def check(self) -> None:
        """Raise InputError for an unknown model or an empty budget."""
        unknown = [name for name in self.models if name not in ARMS]
        if unknown or not self.models:
            raise InputError(f"--models {' '.join(unknown)}: there is no such model; choose from {', '.join(ARMS)}")
        if self.minutes <= 0:
            raise InputError(f"--minutes {self.minutes} leaves no time to train; give more than 0")
        check_seeds(self, "seeds")
        check_smallest(self, {"num_steps": 0, "num_threads": 1})


def tokenizers(config: CompareConfig, study: Study) -> dict[str, Path]:
    """ "tokens" and "latents" -> checkpoint; the tokenizer of latents is trained if there is none."""
    given = config.latents_checkpoint
    latents = Path(given) if given else latents_tokenizer(study, config.runs_folder(study), config.data_flags(study))
    found = {"tokens": resolve_path(config.tokenizer_checkpoint, study.root), "latents": resolve_path(latents, study.root)}
    for name, path in found.items():
        if not path.exists():
            raise InputError(f"the tokenizer of {name}, {path}, does not exist; give another checkpoint, or none for the default")
    return found


def rows_of(config: CompareConfig, study: Study, common: list[str], paths: dict[str, Path]) -> dict[str, str]:
    """Name -> flags of train.py, with as many steps as fit the minutes."""
    rows = {}
    for name in config.models:
        reads = "latents" if "dreamer4" in ARMS[name] else "tokens"
        flags = [*shlex.split(ARMS[name]), "--tokenizer-checkpoint", study.relative(paths[reads])]
        steps = config.num_steps
        if not steps:
            data = [*config.data_flags(study), *common]
            steps = steps_that_fit(study, config.runs_folder(study), flags, data, config.minutes, config.num_threads, TIMED)
        rows[name] = shlex.join([*flags, "--num-steps", str(steps)])
    return rows


def main() -> None:
    config = parse_config(CompareConfig)
    if config.readme:
        for page, name, text in written_tables(read_results(comparison("comparison", {}), config)):
            write_block(page, name, text)
            print(f"{text}\n")
        return

    config.check()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # while a GPU works, the processor's minutes stand still
    study, common = comparison("comparison", {}), ["--actions", "true", "--validation-batches", "1" if config.quick else "4"]
    data = study.root / config.data_flags(study)[1]
    env_id = open_clip_store(data).env_id
    facts = game_facts(env_id) if env_id else None
    if facts is None or facts.player is None or facts.ball is None:
        raise InputError(f"--data-path {config.data_path} shows no game whose ball and player are described; record Breakout")
    paths = tokenizers(config, study)
    arena = Arena(data, paths, QUICK if config.quick else Sizes())
    study = comparison("comparison", rows_of(config, study, common, paths), arena)
    results = sweep(study, config, common)
    print(f"\n{table_of(*main_table(study, results)).T.to_string()}")
    if any("dreamer4" in row["flags"] for row in results["rows"].values()):
        print(f"\n{table_of(*steps_table(study, results)).T.to_string()}")

    file = config.numbers_file(study)
    save_quality_against_time(file.with_name(f"{file.stem}_time"), results)
    runs = config.runs_folder(study)
    worlds = {name: open_world(runs / name / f"seed{config.seeds[0]}" / "best_model.pt") for name in config.models}
    first = next(iter(worlds.values()))
    films, captions = same_keys(worlds, arena.play(first.metadata, first.frame_size), 20 if config.quick else 96)
    save_gif(file.with_name(f"{file.stem}.gif"), films, first.frames_per_second, captions=captions)
    print(f"\nnumbers and commands in {file}, plot in {file.stem}_time_light.svg and _dark.svg, film in {file.stem}.gif")


if __name__ == "__main__":
    run_script(main)
