"""What to build a world from, and where it goes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import InputError

GAMES = {
    "breakout": "ALE/Breakout-v5",
    "pong": "ALE/Pong-v5",
    "boxing": "ALE/Boxing-v5",
    "freeway": "ALE/Freeway-v5",
    "mspacman": "ALE/MsPacman-v5",
}


@dataclass(frozen=True)
class BuildConfig:
    """Build a world from a game, from recording to report."""

    game: str = "breakout"
    """breakout, pong, boxing, freeway, mspacman, or the Gymnasium id of any game with discrete actions, such as CartPole-v1"""
    actions: Literal["latent", "true"] = "latent"
    """what steers the world: actions discovered from video (chapter 2), or the recorded keys, with the same data and tokenizer"""
    preset: Literal["tiny", "small", "paper"] = "tiny"
    """sizes: tiny (two CPU cores, minutes), small (one GPU), paper (Genie's Appendix F)"""
    output: str | None = None
    """folder of the finished world; default worlds/<game>, with -true added for true actions"""
    runs: str | None = None
    """folder of the training runs, shared by both kinds of actions; default worlds/<game>/runs, or runs/ inside a given output"""
    data_path: str | None = None
    """clip store to learn from; default: one is recorded to data/<game>, or to data/ inside a given output"""
    num_frames: int = 40_000
    """frames to record"""
    seed: int = 0
    """seeds the recording and the trainings; the evaluation plays games of its own"""
    restart: str | None = None
    """stage to run again although nothing has changed: record, tokenizer, latent_actions, dynamics, evaluate, dream, ..."""
    quick: bool = False
    """a smoke test of a minute or two: little data, a dozen training steps; the world it leaves is noise"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""


@dataclass(frozen=True)
class Paths:
    """Where a build reads and writes, relative to the present folder where that is shorter."""

    data: Path
    world: Path
    runs: Path

    @property
    def state(self) -> Path:
        """What is remembered of finished stages."""
        return self.runs / "stages.json"


def choose_environment(game: str) -> str:
    """The Gymnasium id for a short name or an id. Raises InputError for a word that is neither."""
    if game.lower() in GAMES:
        return GAMES[game.lower()]
    if "-v" in game:
        return game
    raise InputError(f"there is no game {game!r}; choose one of {', '.join(GAMES)}, or give a Gymnasium id such as ALE/Pong-v5")


def choose_paths(config: BuildConfig, env_id: str) -> Paths:
    """Default folders lie in the repository, whatever the present folder is."""
    name = env_id.split("/")[-1].split("-v")[0].lower() + ("-quick" if config.quick else "")

    def shown(given: str | None, default: Path) -> Path:
        path = Path(given) if given is not None else default
        return Path(os.path.relpath(path)) if path.resolve().is_relative_to(Path.cwd()) else path.resolve()

    worlds = REPOSITORY / "worlds"
    world = shown(config.output, worlds / (name + ("-true" if config.actions == "true" else "")))
    runs = shown(config.runs, Path(config.output) / "runs" if config.output else worlds / name / "runs")
    data = shown(config.data_path, Path(config.output) / "data" if config.output else REPOSITORY / "data" / name)
    return Paths(data, world, runs)
