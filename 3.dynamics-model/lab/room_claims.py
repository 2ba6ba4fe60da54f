"""Two more claims of TECO, in rooms: is DropLoss nearly free, and does the prior make up rooms that the game could draw?

    python 3.dynamics-model/lab/room_claims.py
    python 3.dynamics-model/lab/room_claims.py --readme

Trains TECO on the rooms of rooms.py for the same number of steps, with several shares of frames dropped, and once with a finer
grid of changes. Recordings and models are kept in the folder of rooms.py, and what is finished is not trained again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rooms import recorded, tokenizer_of

from dynamics_lab.comparison import TEXTS
from dynamics_lab.room_claims import WAYS, loss_of_unseen, new_rooms, shares
from dynamics_lab.room_recall import BINS, WINDOW, config_of, gaps_of, predictions, read_episodes, trained
from dynamics_lab.rooms import NUM_ROOMS
from tokenizer_lab.sweep import read_numbers, text_with, write_block
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import check_seeds, check_smallest, parse_config, run_script
from video_tokenizer.training.results import save_json, settings_of

ARMS: dict[str, dict[str, Any]] = {
    "none": dict(drop_rate=0.0),
    "half": dict(drop_rate=0.5),
    "half with a third more steps": dict(drop_rate=0.5),
    "nine in ten": dict(drop_rate=0.9),
    "nine in ten, twice the steps": dict(drop_rate=0.9),
    "none, 16 codes a room": dict(drop_rate=0.0, change_downsample=2),
}
"""frames that prior and decoder skip -> what differs from the settings of rooms.py"""
MORE_STEPS = {"half with a third more steps": 4 / 3, "nine in ten, twice the steps": 2}
"""arms that take about as much time as the one that drops none -> how many times its steps"""
HEADS = {"first": "never seen", "2-7": "2 to 7 frames ago", "8-15": "8 to 15", "16+": "16 and more"}


@dataclass(frozen=True)
class RoomClaimsConfig:
    """Train TECO on rooms with more and fewer frames dropped, and sample rooms that nobody has seen."""

    arms: tuple[str, ...] = ()
    """what to train, such as "half"; default: all"""
    num_steps: int = 300
    """optimizer steps of each training"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each arm is trained once per seed"""
    extra_seeds: tuple[int, ...] = (0,)
    """seeds of the arms with twice the steps and with 16 codes a room, which take longest"""
    num_episodes: int = 256
    """episodes to learn from; a tenth as many others are scored"""
    tokenizer_steps: int = 400
    """optimizer steps of the tokenizer"""
    repeats: int = 3
    """how often every new room is sampled"""
    folder: str = "data/rooms"
    """folder for recordings, tokenizer and models"""
    json: str = "assets/3.dynamics-model/variants/room_claims.json"
    """file for the numbers"""
    page: str = str(TEXTS / "teco" / "README.md")
    """text that receives the tables between its marks `drop-loss` and `room-prior`"""
    readme: bool = False
    """write the tables from the numbers in the file, without any training"""

    def check(self) -> None:
        """Raise InputError for numbers that cannot be trained or scored with."""
        check_smallest(self, {"num_steps": 1, "num_episodes": 8, "tokenizer_steps": 1, "repeats": 1})
        if unknown := sorted(set(self.arms) - set(ARMS)):
            raise InputError(f"--arms {unknown[0]!r}: there is no such arm; choose from {', '.join(map(repr, ARMS))}")
        check_seeds(self, "seeds", "extra_seeds")


def measure(config: RoomClaimsConfig) -> dict[str, Any]:
    """Train and score every arm with each of its seeds. Returns what goes into the file."""
    folder = resolve_path(Path(config.folder), REPOSITORY)
    stores = [
        recorded(folder / "training", config.num_episodes, 0),
        recorded(folder / "unseen", max(2, config.num_episodes // 10), 1),
    ]
    tokenizer = tokenizer_of(stores[0], folder / "tokenizer", config.tokenizer_steps)
    training, unseen = (read_episodes(store, tokenizer) for store in stores)
    gap, arms = gaps_of(unseen), {}
    for name, changes in ARMS.items():
        if config.arms and name not in config.arms:
            continue
        row: dict[str, Any] = {"seeds": config.extra_seeds if ", " in name else config.seeds, "ms_a_step": [], "loss": []}
        row |= {"right": {one: [] for one in BINS}, "two_colors": {way: [] for way in WAYS}, "rooms": {way: [] for way in WAYS}}
        for seed in row["seeds"]:
            settings = config_of("TECO, whole episode", tokenizer, seed, NUM_ROOMS, **changes)
            num_steps = round(config.num_steps * MORE_STEPS.get(name, 1))
            path = folder / "models" / f"{name.replace(', ', '-').replace(' ', '-')}-{num_steps}-{seed}.pt"
            model, steps, seconds = trained(path, settings, tokenizer, training, 0, num_steps)
            row["ms_a_step"].append(1_000 * seconds / steps)
            row["loss"].append(loss_of_unseen(model, unseen))
            accuracy = (predictions(model, unseen) == unseen.tokens[:, WINDOW - 1 :]).float().mean(dim=-1).numpy()
            for one, (smallest, largest) in BINS.items():
                row["right"][one].append(float(accuracy[(gap >= smallest) & (gap <= largest)].mean()))
            for way, sampling in WAYS.items():
                repeats = range(config.repeats if sampling else 1)
                drawings = torch.cat([new_rooms(model, unseen, sampling, number) for number in repeats])
                for score, share in zip(("two_colors", "rooms"), shares(drawings, tokenizer), strict=True):
                    row[score][way].append(share)
            found = {"ms a step": row["ms_a_step"], "loss": row["loss"], **row["right"]}
            found |= {f"{way}, {score}": row[score][way] for way in WAYS for score in ("two_colors", "rooms")}
            print(f"{name} | seed {seed} | " + ", ".join(f"{one} {values[-1]:.3f}" for one, values in found.items()), flush=True)
        arms[name] = row
    return {
        "settings": settings_of(config, "arms", "folder", "json", "page", "readme"),
        "arms": arms,
        "real": shares(unseen.tokens[:, ::8].flatten(0, 1), tokenizer),
    }


def shown(values: list[float], digits: int = 2) -> str:
    """ "0.50 ±0.10": the mean, and half the range if there is one."""
    return f"{np.mean(values):,.{digits}f}" + (f" ±{np.ptp(values) / 2:,.{digits}f}" if len(values) > 1 else "")


def drop_table(arms: dict[str, Any]) -> str:
    """Markdown: an arm with four codes a room per line; its cost, its loss, and tokens right by when the room was last seen."""
    heads = ["frames dropped", "ms a step", "loss, nats", *HEADS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in (name for name in arms if "16 codes" not in name):
        row = arms[name]
        cells = [shown(row["ms_a_step"], 0), shown(row["loss"]), *(shown(row["right"][one]) for one in BINS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def prior_table(results: dict[str, Any]) -> str:
    """Markdown: share of new rooms with two colors and of those with a digit as well, by how their codes were chosen."""
    lines = ["| frames dropped | a frame has | " + " | ".join(WAYS) + " | real tokens |", "|---|---|" + "---|" * (len(WAYS) + 1)]
    for name, row in results["arms"].items():
        for number, (score, what) in enumerate((("two_colors", "one wall and one ink"), ("rooms", "and a digit"))):
            cells = [*(shown(row[score][way]) for way in WAYS), shown(results["real"][number : number + 1])]
            lines.append(f"| {name} | {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    config = parse_config(RoomClaimsConfig)
    config.check()
    torch.set_num_threads(1)
    file, page = (resolve_path(Path(path), REPOSITORY) for path in (config.json, config.page))
    text_with(page, "drop-loss", "room-prior")
    if not config.readme:
        save_json(file, measure(config))
    results = read_numbers(file, "arms", "real")
    for name, text in (("drop-loss", drop_table(results["arms"])), ("room-prior", prior_table(results))):
        print(f"{text}\n")
        write_block(page, name, text)


if __name__ == "__main__":
    run_script(main)
