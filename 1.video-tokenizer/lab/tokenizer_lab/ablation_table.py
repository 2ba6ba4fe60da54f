"""The table of a study: mean and spread over the seeds, in the terminal and in the chapter's text.

Two seeds are few. So beside every mean stands how far apart the seeds are, and a score is only called better (▲) or worse (▼)
than the defaults where every seed of the row is better, or worse, than every seed of the defaults.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from video_tokenizer.training.atomic_files import write_text_atomically
from video_tokenizer.training.command_line import InputError

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def block_of(mark: str) -> re.Pattern[str]:
    """What stands in a text between `<!-- mark: begin -->` and `<!-- mark: end -->`."""
    return re.compile(rf"(?<=<!-- {re.escape(mark)}: begin -->\n).*?(?=<!-- {re.escape(mark)}: end -->)", re.DOTALL)


BLOCK = block_of("ablations")


@dataclass(frozen=True)
class Column:
    """A score that the table shows."""

    metric: str
    """its name in a run's metrics.json or validation.json; "delta_psnr_db.4" is entry 4 of delta_psnr_db"""
    heading: str
    """what the table calls it, with its unit"""
    format: str = ".2f"
    """as in a format string"""
    better: Literal["higher", "lower", ""] = ""
    """which way is better; "" where neither is"""
    ceiling: str = ""
    """metric of the first row that counts as 1, as a share of which the score is shown; "" shows the score itself"""

    @property
    def key(self) -> str:
        """Its name in the JSON file, without dots."""
        return self.metric.replace(".", "_") + ("_share" if self.ceiling else "")


@dataclass(frozen=True)
class Table:
    """What a chapter compares. The first row is what the others are compared with."""

    chapter: str
    """folder of the chapter, such as "1.video-tokenizer" """
    rows: Mapping[str, str]
    """name -> flags of train.py"""
    columns: Sequence[Column]
    """the scores to show"""
    controls: Mapping[str, Mapping[str, str]]
    """name -> {metric of a column: metric of the first row that is this control's score in the column}"""
    transposed: bool = False
    """show a line per score and a column per row, for few rows with many scores"""

    @property
    def first(self) -> str:
        """Name of the row that the others are compared with."""
        return next(iter(self.rows))

    @property
    def metrics(self) -> list[str]:
        """Names of all scores that are kept of a run."""
        names = [name for column in self.columns for name in (column.metric, column.ceiling) if name]
        return list(dict.fromkeys([*names, *(name for control in self.controls.values() for name in control.values())]))


def mean_and_spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, and how far the seeds are apart: half the range of two values, the standard deviation of more, None for one.

    [1.0, 2.0] gives 1.5 and 0.5; [1.0, 2.0, 3.0] gives 2.0 and 1.0; a value that is missing leaves no mean.
    """
    known = [value for value in values if value is not None and value == value]  # a number that differs from itself is NaN
    if not values or len(known) < len(values):
        return {"values": list(values), "mean": None, "spread": None}
    spread = None if len(known) == 1 else (max(known) - min(known)) / 2 if len(known) == 2 else statistics.stdev(known)
    return {"values": known, "mean": statistics.fmean(known), "spread": spread}


def summarise(table: Table, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The rows and controls of the JSON file. found: row name -> its finished runs, each with its seed and metrics."""

    def values(row: str, metric: str) -> list[float | None]:
        return [run["metrics"].get(metric) for run in found.get(row, ())]

    rows = {}
    for name, runs in found.items():
        scores = {}
        for column in table.columns:
            ceiling = mean_and_spread(values(table.first, column.ceiling))["mean"] if column.ceiling else 1.0
            shares = [value / ceiling if value is not None and ceiling else None for value in values(name, column.metric)]
            scores[column.key] = mean_and_spread(shares)
        seconds = mean_and_spread([run["seconds"] for run in runs])["mean"]
        about = {"flags": table.rows[name], "seeds": [run["seed"] for run in runs], "seconds": seconds}
        rows[name] = {**about, "scores": scores, "runs": list(runs)}
    controls = {
        name: {metric: mean_and_spread(values(table.first, source))["mean"] for metric, source in control.items()}
        for name, control in table.controls.items()
    }
    return {"spread": "half the range of two seeds, the standard deviation of more", "rows": rows, "controls": controls}


def verdict(column: Column, values: Sequence[float | None], defaults: Sequence[float | None]) -> str:
    """A mark where every value is better (▲) or worse (▼) than every value of the defaults; "" elsewhere, and for single runs."""
    if not column.better or min(len(values), len(defaults)) < 2 or None in (*values, *defaults):
        return ""
    sign = 1 if column.better == "higher" else -1
    own, others = ([sign * value for value in part if value is not None] for part in (values, defaults))
    return " ▲" if min(own) > max(others) else " ▼" if max(own) < min(others) else ""


def cells(table: Table, results: Mapping[str, Any]) -> list[list[str]]:
    """Heading and rows of the table as text, the rows in the study's order, then the controls; "" where there is no number."""
    lines = [["row", "flags", *(column.heading + ARROWS[column.better] for column in table.columns)]]
    defaults = results["rows"].get(table.first, {}).get("scores", {})
    for name in [name for name in table.rows if name in results["rows"]]:
        row = results["rows"][name]
        line = [name, row["flags"]]
        for column in table.columns:
            score = row["scores"].get(column.key, {"values": [], "mean": None, "spread": None})
            text = "" if score["mean"] is None else format(score["mean"], column.format)
            known = score["spread"] is not None and not (table.transposed and score["spread"] == 0)  # a fact has none
            text += f" ± {format(score['spread'], column.format)}" if known else ""
            compared = defaults.get(column.key, {}).get("values", []) if name != table.first else []
            line.append(text + verdict(column, score["values"], compared))
        lines.append(line)
    for name, control in results["controls"].items():
        known = {column.key: None if column.ceiling else control.get(column.metric) for column in table.columns}
        shown = ["" if (value := known[column.key]) is None else format(value, column.format) for column in table.columns]
        if any(shown):
            lines.append([f"({name})", "", *shown])
    return lines


def turned(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lines as columns, without those in which nothing stands but the heading."""
    return [list(column) for column in zip(*lines, strict=True) if any(column[1:])]


def format_text(table: Table, results: Mapping[str, Any]) -> str:
    """The table for a terminal, without the flags."""
    lines = [[line[0], *line[2:]] for line in cells(table, results)]
    if table.transposed:
        lines = turned(lines)
    return "\n".join(aligned(lines))


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with their cells below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines)
    return ["  ".join(line).rstrip() for line in padded]


def format_markdown(table: Table, results: Mapping[str, Any]) -> str:
    """The table for a text: what all rows share, then one line per row, its flags below its name."""
    seeds = sorted({seed for row in results["rows"].values() for seed in row["seeds"]})
    spread = "" if len(seeds) == 1 else " ± half their range" if len(seeds) == 2 else " ± their standard deviation"
    over = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}{spread}"
    lines = [f"Each row: `python {results['chapter']}/train.py {results['common_flags']}` and its flags; {over}.", ""]
    heading, *rows = cells(table, results)
    shown = [[heading[0], *heading[2:]]]
    for name, flags, *scores in rows:
        first = f"{name}<br>`{flags}`" if flags and not table.transposed else name
        breaks = "<br>" if table.transposed else ""  # narrow columns: the spread below its mean
        shown.append([first, *(score.replace(" ± ", f"{breaks}±").replace(" ", "") for score in scores)])
    if table.transposed:  # there is no room for the flags above a column
        lines[0] += f" The flags: {', '.join(f'`{flags}`' for _, flags, *_ in rows if flags)}."
        shown = turned(shown)
    lines += [f"| {' | '.join(shown[0])} |", "|" + "---|" * len(shown[0])]
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in shown[1:])])


def update_readme(page: Path, table: Table, results: Mapping[str, Any]) -> None:
    """Write the table between the marks `<!-- ablations: begin -->` and `<!-- ablations: end -->` of a text."""
    write_block(page, "ablations", format_markdown(table, results))


def write_block(page: Path, mark: str, block: str) -> None:
    """Put a block between the marks of that name in a text. Raises InputError where they are not there."""
    text = page.read_text()
    if not block_of(mark).search(text):
        raise InputError(f"{page} has no line <!-- {mark}: begin --> followed by a line <!-- {mark}: end -->")
    write_text_atomically(page, block_of(mark).sub(lambda _: block + "\n", text, count=1))
