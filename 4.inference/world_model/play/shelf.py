"""The worlds that can be played: those that came with the repository and the reader's own, loaded when somebody asks."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.device import choose_device
from world_model.play.codes import count_meanings
from world_model.real_game import open_game
from world_model.world import WorldModel

MOST_LOADED = 3
"""worlds kept in memory; the one that was not asked for longest makes room"""
ARROWS = {"ArrowUp": "UP", "ArrowDown": "DOWN", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT", " ": "FIRE", "": "NOOP"}


@dataclass
class ShelvedWorld:
    """A loaded world and what the page has to know about it."""

    name: str
    world: WorldModel
    env_id: str | None
    """the real game, where it can be played here"""
    no_game: str
    """why it cannot be, as a sentence; "" where it can"""
    counts: list[list[int]] | None = None
    """how often each latent code came with each true action; None while nothing is counted"""
    counting: threading.Thread | None = None

    def description(self) -> dict[str, Any]:
        """All that stays the same while it is played."""
        world = self.world
        return {
            "name": self.name,
            "height": world.frame_size[0],
            "width": world.frame_size[1],
            "action_kind": world.action_kind,
            "num_actions": world.num_actions,
            "action_names": world.action_names,
            "action_map": world.action_map,
            "keys": arrow_keys(world),
            "num_starts": len(world.start_frames),
            "frames_per_second": world.frames_per_second,
            "sampling": vars(world.sampling),
            "env_id": world.facts.get("env_id"),
            "real_game": self.env_id,
            "no_game": self.no_game,
        }

    def shares(self) -> dict[str, Any]:
        """What each code stands for, as far as it has been counted: `counts` (codes, true actions), the names of the true
        actions, and whether that is all. The first call lets the counting begin, in a thread of its own."""
        if self.env_id is None or self.world.latent_action_model is None:
            return {"counts": None, "actions": [], "complete": True}
        if self.counting is None:
            self.counting = threading.Thread(target=self.count, daemon=True)
            self.counting.start()
        names = list(self.world.facts.get("action_names") or [])
        return {"counts": self.counts, "actions": names, "complete": not self.counting.is_alive()}

    def count(self) -> None:
        """Play at random in an emulator of its own, and compare codes with keys."""
        assert self.env_id is not None
        game = open_game(self.env_id, self.world.facts, self.world.frame_size)
        for counts in count_meanings(self.world, game):
            self.counts = counts.tolist()
        game.close()


class Shelf:
    """Worlds by name. A name is the folder's path as it was found: what a client says is looked up here and never opened."""

    def __init__(self, folders: list[Path], device: str = "auto", env_id: str | None = None, **options: Any):
        """folders: worlds, the first one is opened first. env_id: the real game of the first one, if not the one it was learnt
        from. options: of `WorldModel.load`."""
        self.folders = {folder.as_posix(): folder for folder in folders}
        self.device, self.env_id, self.options = device, env_id, options
        self.loaded: OrderedDict[str, ShelvedWorld] = OrderedDict()

    @property
    def device_name(self) -> str:
        return str(choose_device(self.device))

    @property
    def first(self) -> str:
        return next(iter(self.folders))

    def names(self) -> list[str]:
        """All worlds, in the order in which the page lists them."""
        return list(self.folders)

    def open(self, name: str) -> ShelvedWorld:
        """The world of this name, loaded where it is not yet. Raises InputError for a name that is not on the shelf."""
        name = name or self.first
        if name not in self.folders:
            raise InputError(f"there is no world {name[:80]!r}; there are {', '.join(self.folders)}")
        if name not in self.loaded:
            world = WorldModel.load(self.folders[name], self.device, **self.options)
            self.loaded[name] = ShelvedWorld(name, world, *self.real_game(name, world))
        self.loaded.move_to_end(name)
        while len(self.loaded) > MOST_LOADED:
            self.loaded.popitem(last=False)
        return self.loaded[name]

    def real_game(self, name: str, world: WorldModel) -> tuple[str | None, str]:
        """The id of the world's own game, or None and the reason. A game that was asked for by name must be there."""
        wanted = self.env_id if name == self.first else None
        env_id = wanted or world.facts.get("env_id")
        if not env_id:
            return None, "this world was learnt from videos, not from a game that can be played"
        try:
            open_game(env_id, world.facts, world.frame_size).close()
        except InputError as error:
            if wanted:
                raise
            return None, str(error)
        return env_id, ""


def find_worlds(chosen: Path | str, root: Path) -> list[Path]:
    """Folders with a world: the chosen one, then assets/worlds/* and worlds/* below root, as seen from the working directory.

    Nothing is opened here.
    """
    folders = [Path(chosen)]
    known = {folders[0].resolve()}
    for pattern in ("assets/worlds/*/dynamics.pt", "worlds/*/dynamics.pt"):
        for folder in sorted(path.parent for path in root.glob(pattern)):
            if (folder / "tokenizer.pt").exists() and folder.resolve() not in known:
                folders.append(Path(os.path.relpath(folder)))
                known.add(folder.resolve())
    return folders


def arrow_keys(world: WorldModel) -> dict[str, str]:
    """Names of keyboard keys -> keys of the game. Where the player only moves up and down, up and down do what the stick does."""
    keys = dict(ARROWS)
    known = game_facts(world.facts.get("env_id") or "")
    if known is not None and known.player_axis == "y" and "UP" not in world.action_map:
        keys |= dict(zip(("ArrowUp", "ArrowDown"), known.player_keys, strict=True))
    return {key: name for key, name in keys.items() if name in world.action_map}
