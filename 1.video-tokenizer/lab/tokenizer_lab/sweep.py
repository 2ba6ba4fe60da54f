"""Train every row of a study once per seed, score it, and show the rows side by side with their spread over the seeds.

A study is data: rows (a name, and the flags of train.py that differ from the defaults), columns (scores) and controls. Rows are
trained with the chapter's own train.py and scored with its validate.py, one after the other. A finished run leaves sweep.json in
its folder and is not repeated, and a stopped training resumes from its last saved step. So a study can be stopped and started
again at any time, and a new row costs only its own trainings.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from video_tokenizer.errors import InputError
from video_tokenizer.training.atomic_files import write_text_atomically
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, value_of_flag
from video_tokenizer.training.results import look_up, plain, read_json, save_json

try:
    import pandas as pd
except ModuleNotFoundError:
    sys.exit('error: the tables need pandas and tabulate; install them with: python -m pip install -e ".[lab]"')


@dataclass(frozen=True)
class Column:
    """A score that the table shows."""

    metric: str
    """its name in metrics.json or validation.json; "delta_psnr_db.4" is entry 4 of delta_psnr_db"""
    heading: str
    """what the table calls it, with its unit"""
    format: str = ""
    """a format specification such as ".2f"; "" shows three significant digits"""
    better: Literal["higher", "lower", ""] = ""
    """which direction is better; "" if neither is"""
    ceiling: str = ""
    """show the score as a share of this metric's mean in the first row; "" shows the score itself"""

    def number(self, mean: float, spread: float = 0.0) -> str:
        """ "22.07±0.09"; without a spread that is 0 or NaN; "" for a mean of NaN."""
        digits = 0 if abs(mean) >= 100 else 1 if abs(mean) >= 10 else 2 if abs(mean) >= 1 else 3
        shown = [format(value, self.format or f",.{digits}f") for value in (mean, spread)]
        return "" if pd.isna(mean) else "±".join(shown) if spread > 0 else shown[0]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared, and how its numbers are made. The first row is the one that the others are compared with."""

    chapter: str
    """folder of the chapter, such as "1.video-tokenizer" """
    name: str = "ablations"
    """names the JSON file, the folder of the runs and the table's place in the text"""
    rows: Mapping[str, str]
    """name -> flags of train.py; {other} in the flags is the best checkpoint of the row `other` with the same seed"""
    columns: Sequence[Column]
    controls: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """name -> {metric of a column: metric of the first row that is the control's score in that column}"""
    read_flags: Callable[[Sequence[str]], Any]
    """flags -> the config that train.py makes of them; a wrong flag ends the script"""
    models: Callable[[str | None], str] | None = None
    """name behind --model -> the script that trains it; None: the chapter's train.py trains all rows"""
    trained_alike: str = ""
    """flags that train the chapter's own model as the others are trained"""
    validate_flags: Callable[[str], str] = lambda row: ""
    """row name -> flags of validate.py"""
    score: Callable[[Path], dict[str, float]] | None = None
    """checkpoint -> scores that neither script writes"""
    transposed: bool = False
    """one line per score and one column per row, for few rows with many scores"""
    root: Path = REPOSITORY
    """the folder that holds the chapter; commands run in it"""

    @property
    def metrics(self) -> list[str]:
        """Names of all scores that are kept of a run."""
        shown = [name for column in self.columns for name in (column.metric, column.ceiling) if name]
        return list(dict.fromkeys([*shown, *(name for control in self.controls.values() for name in control.values())]))

    def train_script(self, flags: Sequence[str]) -> str:
        """The script that takes these flags."""
        return self.models(value_of_flag(flags, "--model")) if self.models else f"{self.chapter}/train.py"

    def all_flags(self, flags: Sequence[str]) -> list[str]:
        """These flags behind `trained_alike`, where it applies: the last of two equal flags counts."""
        alike = self.trained_alike if self.train_script(flags) == f"{self.chapter}/train.py" else ""
        return [*shlex.split(alike), *flags]

    def relative(self, path: Path) -> str:
        """The path relative to the root if it lies inside, so that the commands are the same on every machine."""
        path = Path(os.path.abspath(path))
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True)
class SweepConfig:
    """Train the rows of a study and compare them."""

    data_path: str = "data/breakout"
    """clip store, folder of videos, folder of images or .h5 file that every training learns from"""
    num_steps: int = 400
    """optimizer steps of each training"""
    seeds: tuple[int, ...] = (0, 1)
    """each row is trained once per seed, which sets the weights, the order of the clips and the validation episodes"""
    num_threads: int | None = None
    """threads of each training (OMP_NUM_THREADS); with 1, two of these scripts can run side by side with other rows or seeds"""
    output: str | None = None
    """folder of the runs, <row>/seed<S>; default: a folder in the chapter's checkpoints/"""
    json: str | None = None
    """file for the numbers of all finished runs; default: a file in assets/<chapter>/"""
    readme: bool = False
    """train nothing; print the table of the numbers in --json as Markdown and write it into the text"""

    def check(self) -> None:
        """Raise InputError for numbers that cannot be trained with."""
        check_seeds(self, "seeds")
        check_smallest(self, {"num_steps": 1, "num_threads": 1})

    def runs_folder(self, study: Study) -> Path:
        return Path(os.path.abspath(self.output or study.root / study.chapter / "checkpoints" / study.name))

    def numbers_file(self, study: Study) -> Path:
        return Path(self.json) if self.json else study.root / "assets" / study.chapter / f"{study.name}.json"

    def data_flags(self, study: Study) -> list[str]:
        """What tells train.py the data, as seen from the study's root. Raises InputError if they do not exist."""
        data = resolve_path(self.data_path, study.root)
        if not data.exists():
            raise InputError(f"--data-path {data} does not exist; record a game first: python 1.video-tokenizer/record.py")
        return ["--data-path", study.relative(data)]


# ---- training -----------------------------------------------------------------------------------------------------------


class Training:
    """One row with one seed: the commands that train and validate it, and the folder of its run."""

    def __init__(self, study: Study, row: str, seed: int, common_flags: Sequence[str], runs: Path):
        folders = {name: study.relative(runs / name / f"seed{seed}") for name in study.rows}
        best = {name: f"{folder}/best_model.pt" for name, folder in folders.items()}
        own = [word.format_map(best) for word in shlex.split(study.rows[row])]
        self.study, self.row, self.seed, self.folder = study, row, seed, study.root / folders[row]
        self.note = self.folder / "sweep.json"  # the settings of the finished training, and later its result
        self.flags = study.all_flags([*common_flags, *own, "--seed", str(seed), "--checkpoint-dir", folders[row]])
        self.command = shlex.join(["python", study.train_script(self.flags), *self.flags])
        files = ["--checkpoint", best[row], "--json", f"{folders[row]}/validation.json"]
        validate = ["python", f"{study.chapter}/validate.py", *files, *shlex.split(study.validate_flags(row))]
        self.validate_command = shlex.join(validate)

    def settings(self) -> dict[str, Any]:
        """What makes the training what it is: every field of its config, and fingerprints of the files that it reads."""
        config = plain(dataclasses.asdict(self.study.read_flags(self.flags)))
        inputs = {name: fingerprint(self.study.root / value) for name, value in config.items() if isinstance(value, str)}
        return {"config": config, "inputs": {name: digest for name, digest in inputs.items() if digest}}

    def run(self, environment: Mapping[str, str]) -> None:
        """Train, validate and score, leaving out what is done. Raises InputError if a script fails."""
        note, settings = read_json(self.note), self.settings()
        if note.get("settings") != settings or not (self.folder / "metrics.json").exists():
            self.note.unlink(missing_ok=True)
            seconds = run_command(self.study, self.command, environment)
            note = {"settings": settings, "seconds": seconds}
            save_json(self.note, note)
        result = note.get("result", {"metrics": {}})
        if result.get("validate_command") == self.validate_command and result["metrics"].keys() >= set(self.study.metrics):
            return print("already finished with the same settings")
        run_command(self.study, self.validate_command, environment)
        scores = read_json(self.folder / "metrics.json") | read_json(self.folder / "validation.json")
        scores |= scores.get("own_scores", {})
        if self.study.score:
            with contextlib.chdir(self.study.root):  # the checkpoint's config names its data as seen from there
                scores |= self.study.score(self.folder / "best_model.pt")
        commands = {"command": self.command, "validate_command": self.validate_command}
        metrics = {name: look_up(scores, name) for name in self.study.metrics}
        save_json(self.note, note | {"result": {"seed": self.seed, **commands, "seconds": note["seconds"], "metrics": metrics}})


def fingerprint(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file, or of a clip store's description; "" for anything else."""
    file = path / "clip_store.json" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def run_command(study: Study, command: str, environment: Mapping[str, str]) -> float:
    """Run a script with its output on this terminal. Returns its seconds. Raises InputError, naming the command, if it fails."""
    print(f"$ {command}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *shlex.split(command)[1:]], cwd=study.root, env=dict(environment))
    try:
        code = process.wait()
    except KeyboardInterrupt:  # Ctrl-C reaches the training as well; let it save its state
        code = process.wait() or 130
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise InputError(f"exit code {code}, for the reason given above, from: {command}")
    return round(time.monotonic() - start, 1)


def sweep(study: Study, config: SweepConfig, common_flags: Sequence[str], rows: Iterable[str] | None = None) -> dict[str, Any]:
    """Run what is not finished, and write all numbers after each run. Returns what the JSON file holds.

    common_flags: flags of every training after --data-path. rows: names of the rows to run; None: all.
    Raises InputError if there are no data or a script fails.
    """
    flags, runs, file = [*config.data_flags(study), *common_flags], config.runs_folder(study), config.numbers_file(study)
    trainings = [Training(study, row, seed, flags, runs) for seed in config.seeds for row in rows or study.rows]
    for training in trainings:
        study.read_flags(training.flags)  # a wrong flag ends the script before anything is trained
    environment, results = dict(os.environ), {}
    if config.num_threads:
        environment["OMP_NUM_THREADS"] = str(config.num_threads)
        torch.set_num_threads(config.num_threads)  # for scores that are computed in this process
    for number, training in enumerate(trainings, 1):
        print(f"\n[{number}/{len(trainings)}] {training.row}, seed {training.seed}", flush=True)
        training.run(environment)
        results = collect(study, flags, runs, read_json(file))
        save_json(file, results)
    return results


def collect(study: Study, common_flags: Sequence[str], runs: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of every finished run in the folder, and of runs elsewhere that `before` holds with the same flags.

    before: content of the JSON file. Its runs stay, so that new rows can stand beside rows that another machine trained.
    """
    common, rows = shlex.join(common_flags), {}
    for row, flags in study.rows.items():
        stored = before["rows"].get(row, {}) if before.get("common_flags") == common else {}
        found = {run["seed"]: run for run in stored["runs"]} if stored.get("flags") == flags else {}
        for note in (runs / row).glob("seed*/sweep.json"):
            result = read_json(note).get("result")
            if result and result["command"] == Training(study, row, result["seed"], common_flags, runs).command:
                found[result["seed"]] = result
        if found:
            ordered = [found[seed] for seed in sorted(found)]
            seconds = sum(run["seconds"] for run in ordered) / len(ordered)
            scores = {name: mean_and_spread([run["metrics"].get(name) for run in ordered]) for name in study.metrics}
            rows[row] = {"flags": flags, "seeds": sorted(found), "seconds": seconds, "scores": scores, "runs": ordered}
    for column in (column for column in study.columns if column.ceiling and rows):
        ceiling = next(iter(rows.values()))["scores"][column.ceiling]["mean"]
        for entry in rows.values():
            entry["scores"][f"{column.metric}_share"] = {"mean": entry["scores"][column.metric]["mean"] / ceiling}
    return {"chapter": study.chapter, "common_flags": common, "rows": rows}


MARKED_CHANCE = 0.1
"""a mark appears by chance in at most this share of the cells of a table in which no row differs"""

# ---- tables -------------------------------------------------------------------------------------------------------------


def read_results(study: Study, config: SweepConfig) -> dict[str, Any]:
    """What the JSON file holds. Raises InputError if there are no numbers yet."""
    return read_numbers(config.numbers_file(study), "rows")


def read_numbers(file: Path, *names: str) -> dict[str, Any]:
    """What a JSON file holds. Raises InputError if one of these names is missing or empty, as before the first measurement."""
    results = read_json(file)
    if not all(results.get(name) for name in names):
        raise InputError(f"{file} holds no numbers of this command yet; run the same command without --readme first")
    return results


def runs_of(results: Mapping[str, Any], rows: Mapping[str, str]) -> pd.DataFrame:
    """The scores of every run: indexed by (row, seed), one column per metric, NaN where a run has no such score.

    rows: name in the table -> name in the results.
    """
    runs = {(name, run["seed"]): run["metrics"] for name, row in rows.items() for run in results["rows"][row]["runs"]}
    index = pd.MultiIndex.from_tuples(list(runs), names=["row", "seed"])
    return pd.DataFrame(list(runs.values()), index=index).astype(float)


def spread(values: np.ndarray) -> float:
    """How far the seeds are apart: half the range of two, the standard deviation of more, NaN of one or if one has no value."""
    return float(np.ptp(values) / 2 if len(values) == 2 else values.std(ddof=1) if len(values) > 2 else np.nan)


def mean_and_spread(values: Sequence[float | None]) -> dict[str, float]:
    """What the texts quote of a row's seeds; NaN if one has no value."""
    numbers = np.array(values, float)
    return {"mean": float(numbers.mean()), "spread": spread(numbers)}


def chance(seeds: int, other_seeds: int) -> float:
    """How often all values of one row lie beyond all of another, above or below, although both are drawn alike.

    Of the comb(4, 2) = 6 orders of two values and two others, 2 are so separated: a third. Three and three: 2 in 20, a tenth.
    """
    return 2 / math.comb(seeds + other_seeds, seeds)


def mark(better: str, values: np.ndarray, defaults: np.ndarray) -> str:
    """ "▲" if every value is better than every value of the defaults, "▼" if every value is worse; "" for fewer than three seeds,
    whose order says too little."""
    if not better or chance(len(values), len(defaults)) > MARKED_CHANCE:
        return ""
    sign = 1 if better == "higher" else -1
    own, others = sign * values, sign * defaults
    return "▲" if own.min() > others.max() else "▼" if own.max() < others.min() else ""  # no comparison with NaN holds


def table(runs: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """One line per row and one column per score, as text: "22.07±0.09▲".

    runs: as `runs_of` returns them; the first row holds the defaults.
    """
    defaults, shown = runs.index[0][0], {}
    for column in columns:
        scores = runs[column.metric] if column.metric in runs else pd.Series(float("nan"), runs.index)
        rows = {str(row): values.to_numpy() for row, values in scores.groupby(level="row", sort=False)}
        if column.ceiling:
            ceiling = runs.loc[defaults, column.ceiling].to_numpy().mean()
            rows = {row: values / ceiling for row, values in rows.items()}
        heading = column.heading + {"higher": " ↑", "lower": " ↓", "": ""}[column.better]
        shown[heading] = {
            row: column.number(values.mean(), spread(values)) + mark(column.better, values, rows[defaults])
            for row, values in rows.items()
        }
    return pd.DataFrame(shown)


def table_of(study: Study, results: Mapping[str, Any]) -> pd.DataFrame:
    """The study's table with its controls in brackets, without empty lines."""
    runs = runs_of(results, {row: row for row in study.rows if row in results["rows"]})
    rows, defaults = table(runs, study.columns), runs.loc[runs.index[0][0]]
    for name, control in study.controls.items():
        metrics = ["" if column.ceiling else control.get(column.metric, "") for column in study.columns]
        found = [defaults[metric].to_numpy().mean() if metric in defaults else np.nan for metric in metrics]
        rows.loc[f"({name})"] = [column.number(value) for column, value in zip(study.columns, found, strict=True)]
    return rows.loc[(rows != "").any(axis=1), (rows != "").any()]


def markdown(study: Study, results: Mapping[str, Any]) -> str:
    """What all rows share, then the table, with each row's flags below its name, or folded below a table of columns."""
    rows, flags = table_of(study, results), {row: entry["flags"] for row, entry in results["rows"].items()}
    seeds = sorted({str(seed) for row in results["rows"].values() for seed in row["seeds"]})
    over = f"mean of seeds {', '.join(seeds[:-1])} and {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    over += ["", " ± half their range where they differ", " ± their standard deviation where they differ"][min(len(seeds), 3) - 1]
    script = "its model's `train.py" if study.models else f"`python {study.chapter}/train.py"
    text = f"Each {'column' if study.transposed else 'row'}: {script} {results['common_flags']}` and its flags; {over}."
    if any(column.better for column in study.columns):
        text += about_marks(len(seeds)).format(rows.index[0])
    if study.transposed:  # there is no room for the flags above a column
        folded = "\n".join(f"- {row}: `{flags[row]}`" for row in rows.index if flags.get(row))
        folded = f"<details><summary>The flags of each column</summary>\n\n{folded}\n\n</details>"
        return f"{text}\n\n{as_markdown(rows.T.replace('±', '<br>±', regex=True), corner='score')}\n\n{folded}"
    return f"{text}\n\n{as_markdown(rows, flags)}"


def about_marks(seeds: int) -> str:
    """What ▲ and ▼ mean in a table of so many seeds and how often chance makes one, or why there are none."""
    share = f"{chance(seeds, seeds):.0%} of the cells"
    if chance(seeds, seeds) > MARKED_CHANCE:
        return f" There is no ▲ or ▼: with {seeds} seed{'s' * (seeds != 1)}, {share} would get one by chance."
    return f" ▲ and ▼: every seed is better, or worse, than every seed of {{}}. Where nothing differs, {share} get one by chance."


def as_markdown(rows: pd.DataFrame, flags: Mapping[str, str] | None = None, corner: str = "row") -> str:
    """A table for a text, with each row's flags below its name."""
    flags = flags or {}
    names = {row: f"{row}<br>`{flags[row]}`" for row in rows.index if flags.get(row)}
    named = rows.rename(index=names).rename_axis(corner).reset_index()
    return named.to_markdown(index=False, tablefmt="github", disable_numparse=True)


def block_of(name: str) -> re.Pattern[str]:
    """What stands in a text between `<!-- name: begin -->` and `<!-- name: end -->`."""
    return re.compile(rf"(?<=<!-- {re.escape(name)}: begin -->\n).*?(?=<!-- {re.escape(name)}: end -->)", re.DOTALL)


def page_with(folder: Path, name: str) -> Path:
    """The text in a chapter's folder with a place for the block of this name; LOG.md if none has one."""
    pages = (page for page in sorted(folder.glob("*.md")) if block_of(name).search(page.read_text(encoding="utf-8")))
    return next(pages, folder / "LOG.md")


def text_with(page: Path, *names: str) -> str:
    """A text that has a place for the block of each name. Raises InputError if it is missing or has no such place."""
    if not page.is_file():
        raise InputError(f"{page} does not exist; give a Markdown file with a place for the table")
    text = page.read_text(encoding="utf-8")
    for name in names:
        if not block_of(name).search(text):
            raise InputError(f"{page} has no line <!-- {name}: begin --> followed by a line <!-- {name}: end -->")
    return text


def write_block(page: Path, name: str, block: str) -> None:
    """Replace the block of this name in a text. Raises InputError if the text has none."""
    text = text_with(page, name)
    write_text_atomically(page, block_of(name).sub(lambda _: block + "\n", text, count=1))


# ---- ablations ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AblationConfig(SweepConfig):
    """Train a model again without each of its parts, and compare."""

    rows: tuple[str, ...] = ()
    """names of the rows to train; default: all"""


def run_ablation(study: Study, config: AblationConfig, common_flags: Sequence[str] = ()) -> None:
    """What ablate.py does in every chapter. common_flags: flags of every training after --data-path and --num-steps."""
    if config.readme:
        text = markdown(study, read_results(study, config))
        write_block(page_with(study.root / study.chapter, study.name), study.name, text)
        return print(text)
    config.check()
    if unknown := sorted(set(config.rows) - set(study.rows)):
        raise InputError(f"--rows {unknown[0]}: there is no such row; choose from {', '.join(study.rows)}")
    results = sweep(study, config, ["--num-steps", str(config.num_steps), *common_flags], config.rows)
    print(f"\n{table_of(study, results).to_string()}\n\nnumbers and commands in {config.numbers_file(study)}")
