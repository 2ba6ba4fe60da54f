"""What each part of a model buys: train again without it, under the same steps and seeds.

A study is a chapter's list of rows: a name, and the flags of train.py in which it differs from the defaults. Every row is trained
once per seed with the chapter's own train.py, one training after the other, and scored with its validate.py. A finished training
is not repeated, so a stopped study goes on where it was, and a new row costs its own trainings only. The table itself is in
ablation_table.py.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenizer_lab.ablation_table import Table, format_markdown, format_text, summarise, update_readme
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import InputError, parse_config, value_of_flag
from video_tokenizer.training.results import look_up, read_json, save_json
from video_tokenizer.training.run import FIELDS_THAT_MAY_CHANGE

NOTE = "ablation.json"
"""file in a run folder that says which command has finished there"""
FILES_READ = ("data_path", "init_from")
"""fields of a config that name what a training reads, besides those that end in _checkpoint"""


@dataclass(frozen=True)
class AblationConfig:
    """Train again without each part, and compare."""

    data_path: str = "data/breakout"
    """clip store, folder of videos, folder of images or .h5 file that every row learns from"""
    num_steps: int | None = 1_000
    """optimizer steps of each training; None: as the flags of each row say"""
    seeds: tuple[int, ...] = (0, 1)
    """each row is trained once per seed; it chooses the weights, the order of the clips and the validation episodes"""
    rows: tuple[str, ...] = ()
    """names of the rows to train; default: all"""
    output: str | None = None
    """folder of the training runs, <row>/seed<S>; default: checkpoints/ablations inside the chapter"""
    json: str | None = None
    """file for the numbers of all rows finished so far; default: assets/<chapter>/ablations.json"""
    num_threads: int | None = None
    """threads of each training (OMP_NUM_THREADS); give 1 to run two chapters, or two halves of the rows, side by side"""
    markdown: bool = False
    """train nothing; print the table of the numbers in --json as Markdown"""
    readme: bool = False
    """train nothing; write the table of the numbers in --json into the chapter's README.md"""


@dataclass(frozen=True, kw_only=True)
class Study(Table):
    """What a chapter compares, and how its numbers are made."""

    config_class: type
    """config of the chapter's train.py, with which all flags are read before anything is trained"""
    validate_flags: Callable[[str], str] | None = None
    """row name -> flags of validate.py; None where the metrics.json of a training says enough"""
    score: Callable[[Path], dict[str, float]] | None = None
    """checkpoint -> scores that neither script writes"""
    folder: Path = REPOSITORY
    """where the chapter's folder lies; commands are run and written from here"""

    def read_flags(self, flags: Sequence[str]) -> Any:
        """The config that train.py makes of these flags."""
        return parse_config(self.config_class, argv=flags)


def train_script(chapter: str, model: str | None) -> str:
    """The script that trains a model: the chapter's own, or one of the variants'."""
    script = {None: "train.py", "st-fsq": "train.py", "magvit2": "tokenizer_variants/magvit2/train.py"}
    return f"{chapter}/{script.get(model, 'tokenizer_variants/train.py')}"


@dataclass(frozen=True)
class Training:
    """One row under one seed: the command, and the folder in which it leaves its results."""

    study: Study
    row: str
    seed: int
    common_flags: Sequence[str]
    runs: Path
    """folder of all runs"""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.runs / self.row / f"seed{self.seed}"

    @property
    def flags(self) -> list[str]:
        """Everything that train.py is told. {name} in a row's flags is the best checkpoint of that row under the same seed."""
        place = from_folder(self.study.folder, self.folder)
        folders = {row: self.runs / row / f"seed{self.seed}" for row in self.study.rows}
        others = {row: f"{from_folder(self.study.folder, folder)}/best_model.pt" for row, folder in folders.items()}
        own = [word.format_map(others) for word in shlex.split(self.study.rows[self.row])]
        return [*self.common_flags, *own, "--seed", str(self.seed), "--checkpoint-dir", place]

    @property
    def command(self) -> list[str]:
        """Script and flags, without the interpreter."""
        return [train_script(self.study.chapter, value_of_flag(self.flags, "--model")), *self.flags]

    @property
    def validate_command(self) -> list[str]:
        """The same for validate.py; [] where the study needs none."""
        if self.study.validate_flags is None:
            return []
        place = from_folder(self.study.folder, self.folder)
        files = ["--checkpoint", f"{place}/best_model.pt", "--json", f"{place}/validation.json"]
        return [f"{self.study.chapter}/validate.py", *files, *shlex.split(self.study.validate_flags(self.row))]

    def settings(self) -> dict[str, Any]:
        """What a finished run must have been made with: the command, every field of its config, and what it read."""
        config = self.study.read_flags(self.flags)  # an unknown flag ends the script here, with code 2
        fields = json.loads(json.dumps(dataclasses.asdict(config)))
        paths = [value for name, value in fields.items() if value and (name in FILES_READ or name.endswith("_checkpoint"))]
        digests = {path: digest(self.study.folder / path) for path in paths}
        return {"command": shown(self.command), "config": fields, "inputs": digests}

    def note(self) -> dict[str, Any]:
        """What is remembered of the run in the folder; {} where no training has finished there, or one with other settings."""
        note, settings = read_json(self.folder / NOTE), self.settings()
        same = note and not different(note, settings) and (self.folder / "metrics.json").exists()
        return note if same else {}

    def is_scored(self, note: Mapping[str, Any]) -> bool:
        """Whether a run with this note has, besides its training, all scores of the study."""
        validated = note.get("validate_command", "") == shown(self.validate_command)
        return bool(note) and validated and (self.study.score is None or "scores" in note)

    def result(self) -> dict[str, Any] | None:
        """Seed, commands, seconds of the training and scores of the finished run; None where it is not finished."""
        note = self.note()
        if not self.is_scored(note):
            return None
        scores = read_json(self.folder / "metrics.json")
        scores |= read_json(self.folder / "validation.json") if self.validate_command else {}
        scores |= scores.get("own_scores", {})
        scores |= note.get("scores", {})
        kept = {name: look_up(scores, name) for name in self.study.metrics}
        commands = {"command": note["command"], "validate_command": note.get("validate_command", "")}
        return {"seed": self.seed, **commands, "seconds": note["seconds"], "metrics": kept}

    def run(self, environment: Mapping[str, str]) -> None:
        """Train, validate and score, leaving out what is done already. Raises InputError where a script fails."""
        note, what = self.note(), f"row {self.row}, seed {self.seed}"
        if not note:
            old, note = read_json(self.folder / NOTE), self.settings()
            if changes := different(old, note) if old else []:
                print(f"trained before with another {', '.join(changes)}")
            (self.folder / NOTE).unlink(missing_ok=True)
            note["seconds"] = run_script_of(self.study, self.command, environment, f"the training of {what}")
            save_json(self.folder / NOTE, note)
        if self.validate_command and note.get("validate_command") != shown(self.validate_command):
            run_script_of(self.study, self.validate_command, environment, f"the validation of {what}")
            note["validate_command"] = shown(self.validate_command)
            save_json(self.folder / NOTE, note)
        if self.study.score is not None and "scores" not in note:
            with contextlib.chdir(self.study.folder):
                note["scores"] = self.study.score(self.folder / "best_model.pt")
            save_json(self.folder / NOTE, note)


def run_study(study: Study, config: AblationConfig, common_flags: Sequence[str] = ()) -> None:
    """Train what is not finished yet, write the numbers after each run, and print the table.

    common_flags: flags of every training, behind --data-path and --num-steps. Raises InputError for rows that are not there.
    """
    path = Path(config.json) if config.json else study.folder / "assets" / study.chapter / "ablations.json"
    if config.markdown or config.readme:
        results = read_results(path, study)
        if config.readme:
            update_readme(study.folder / study.chapter / "README.md", study, results)
        print(format_markdown(study, results))
        return
    unknown = sorted(set(config.rows) - set(study.rows))
    if unknown:
        raise InputError(f"--rows {unknown[0]}: there is no such row; there are {', '.join(study.rows)}")
    if not config.seeds or (config.num_steps is not None and config.num_steps < 1):
        raise InputError(f"--seeds {config.seeds} and --num-steps {config.num_steps} leave nothing to train")
    data = existing_data(config.data_path, study.folder)
    steps = [] if config.num_steps is None else ["--num-steps", str(config.num_steps)]
    flags = ["--data-path", from_folder(study.folder, data), *steps, *common_flags]
    runs = Path(os.path.abspath(config.output or study.folder / study.chapter / "checkpoints" / "ablations"))
    trainings = [Training(study, row, seed, flags, runs) for seed in config.seeds for row in config.rows or study.rows]
    run_trainings(trainings, path, config.num_threads)
    print(f"\n{format_text(study, read_results(path, study))}\n\nnumbers and commands in {path}")


def existing_data(data_path: str, folder: Path) -> Path:
    """Where the data lie, seen from `folder`. Raises InputError where nothing is there."""
    data = resolve_path(data_path, folder)
    if not data.exists():
        raise InputError(f"--data-path {data} does not exist; record a game first: python 1.video-tokenizer/record.py")
    return data


def run_trainings(trainings: Sequence[Training], path: Path, num_threads: int | None) -> None:
    """Do those that are not finished, and write the numbers of their study to `path` after each.

    trainings: at least one, all of one study, with the same common flags and folder of runs.
    """
    for training in trainings:
        training.settings()  # a wrong flag ends the script before anything is trained
    environment = dict(os.environ)
    if num_threads:
        environment["OMP_NUM_THREADS"] = str(num_threads)
        torch.set_num_threads(num_threads)
    for number, training in enumerate(trainings, 1):
        print(f"\n[{number}/{len(trainings)}] {training.row}, seed {training.seed}", flush=True)
        if training.result() is None:
            training.run(environment)
        else:
            print("finished before with the same command")
        save_json(path, collect(training.study, training.common_flags, training.runs, read_json(path)))


def collect(study: Study, common_flags: Sequence[str], runs: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of every run that is finished, whoever started it, as they are written to the JSON file.

    before: what that file held; of it stays what would be trained with the same command today and has no folder here, so that
    a new row can be put beside rows that were trained elsewhere.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in study.rows:
        stored = {run["seed"]: run for run in before.get("rows", {}).get(row, {}).get("runs", [])}
        here = {int(folder.name[4:]) for folder in (runs / row).glob("seed*") if folder.name[4:].isdigit()}
        results = []
        for seed in sorted(stored.keys() | here):
            training = Training(study, row, seed, common_flags, runs)
            result = training.result() if seed in here else stored[seed]
            if result is not None and result["command"] == shown(training.command):
                results.append(result)
        if results:
            found[row] = results
    return {"chapter": study.chapter, "common_flags": shlex.join(common_flags), **summarise(study, found)}


def run_script_of(study: Study, command: Sequence[str], environment: Mapping[str, str], what: str) -> float:
    """Run a script with its output on this terminal. Returns its seconds. Raises InputError, naming the command, if it fails."""
    print(f"$ {shown(command)}", flush=True)
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], cwd=study.folder, env=dict(environment))
    try:
        code = process.wait()
    except KeyboardInterrupt:  # Ctrl-C reaches the training as well; let it save what it has
        process.wait()
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise InputError(f"{what} ended with exit code {code}, for the reason given above; alone it is: {shown(command)}")
    return round(time.monotonic() - begun, 1)


def shown(command: Sequence[str]) -> str:
    """A command as a reader types it; "" for none."""
    return shlex.join(["python", *command]) if command else ""


def different(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two runs' settings differ: "command", names of inputs, and fields of the config that say what is learnt.

    A field that was not there then counts as well: its default may be another training than the one of that day.
    """
    found = ["command"] * (old.get("command") != new["command"])
    for part, free in (("inputs", set()), ("config", FIELDS_THAT_MAY_CHANGE)):
        before, now = old.get(part, {}), new[part]
        names = sorted((before.keys() | now.keys()) - free)
        found += [name for name in names if name not in before or name not in now or before[name] != now[name]]
    return found


def from_folder(folder: Path, path: Path) -> str:
    """The path as seen from `folder` where it lies inside, else whole: the same command wherever it is typed."""
    path = Path(os.path.abspath(path))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def digest(path: Path) -> str:
    """A short name for a file's content, or a clip store's description: 16 hex digits of its SHA-256; "" for other folders."""
    file = path / "clip_store.json" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else ""


def read_results(path: Path, study: Study) -> dict[str, Any]:
    """The numbers of a study. Raises InputError where there are none yet."""
    results = read_json(path)
    if not results.get("rows"):
        raise InputError(f"{path} holds no numbers yet; train first: python {study.chapter}/lab/ablate.py")
    return results
