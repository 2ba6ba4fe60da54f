"""The worlds that can be played: those that came with the repository and the reader's own, loaded on first use."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.device import choose_device
from world_model.lively_starts import is_ball_game, lively_starts
from world_model.play.action_previews import count_code_meanings
from world_model.play.sampling_controls import sampling_controls
from world_model.real_game import open_game, open_its_game
from world_model.world import WorldModel

MAX_LOADED = 3
"""worlds kept in memory; the one that was used least recently makes room"""
SHARPENER = "sharpener.pt"
"""file in a world's folder that holds a network which enlarges its frames"""
SOUND = "sound.pt"
"""file in a world's folder that holds a network which makes its sound"""
ARROWS = {"ArrowUp": "UP", "ArrowDown": "DOWN", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT", " ": "FIRE", "": "NOOP"}


@dataclass
class LoadedWorld:
    """A world in memory and what the page has to know about it."""

    name: str
    world: WorldModel
    env_id: str | None
    """the real game, where it can be played here"""
    no_game: str
    """why it cannot be, as a sentence; "" where it can"""
    code_counts: list[list[int]] | None = None
    """how often each latent action came with each true action; None before counting has begun"""
    counting: threading.Thread | None = None
    sharpener: Any = None
    """the network of `SHARPENER`, with `scale` and `sharpen(frames)`; None for a world without one"""
    sound: Any = None
    """the network of `SOUND`, with `stream(codes)`; None for a world without one"""

    @cached_property
    def lively_starts(self) -> list[int]:
        """Numbers of the start clips in which something is under way; the page opens with the first of them."""
        return lively_starts(self.world)

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
            "first_start": self.lively_starts[0],
            "ball_game": is_ball_game(world.metadata.env_id),
            "frames_per_second": world.frames_per_second,
            "sampling_controls": sampling_controls(type(world.sampling)),
            "env_id": world.metadata.env_id,
            "real_game": self.env_id,
            "can_sharpen": self.sharpener is not None,
            "can_sound": self.sound is not None,
            "no_game": self.no_game,
        }

    def code_meanings(self) -> dict[str, Any]:
        """What each code stands for, as far as it has been counted: `counts` (codes, true actions), the names of the true
        actions, and whether the count is complete. The first call starts counting, in its own thread."""
        if self.env_id is None or self.world.latent_action_model is None:
            return {"counts": None, "actions": [], "complete": True}
        if self.counting is None:
            self.counting = threading.Thread(target=self.count, daemon=True)
            self.counting.start()
            if self.world.device.type == "mps":  # two threads that use it at once end the process (pytorch#197805)
                self.counting.join()
        names = list(self.world.metadata.action_names)
        return {"counts": self.code_counts, "actions": names, "complete": not self.counting.is_alive()}

    def key_of(self, action: int) -> str:
        """The real game's key for a world's action: the key mapped to it, else the one it came with most often, else NOOP."""
        for key, number in self.world.action_map.items():
            if number == action:
                return key
        counts = self.code_counts[action] if self.code_counts and action >= 0 else [0]
        return self.world.metadata.action_names[counts.index(max(counts))] if any(counts) else "NOOP"

    def count(self) -> None:
        """Play at random in a separate emulator, and compare codes with keys."""
        assert self.env_id is not None
        game = open_game(self.env_id, self.world.metadata, self.world.frame_size)
        for counts in count_code_meanings(self.world, game):
            self.code_counts = counts.tolist()
        game.close()


class WorldRegistry:
    """Worlds by name. A name is the path of the folder as it was found: a name from a client is looked up, never opened."""

    def __init__(self, folders: list[Path], device: str = "auto", env_id: str | None = None, **options: Any):
        """folders: worlds, of which the first is opened first. env_id: the real game of that one, if it is not the game the
        world was learned from. options: passed to `WorldModel.load`."""
        self.folders = {folder.as_posix(): folder for folder in folders}
        self.first = next(iter(self.folders))
        self.device, self.env_id, self.options = device, env_id, options
        self.device_name = str(choose_device(device))  # now, because on Apple's GPUs only the models' thread may ask later
        self.loaded: OrderedDict[str, LoadedWorld] = OrderedDict()

    def load(self, name: str) -> LoadedWorld:
        """The world of this name, "" for the first, loaded if it is not yet in memory. Raises InputError for an unknown name."""
        name = name or self.first
        if name not in self.folders:
            raise InputError(f"there is no world {name[:80]!r}; choose one of {', '.join(self.folders)}")
        if name not in self.loaded:
            world = WorldModel.load(self.folders[name], self.device, **self.options)
            uses = {
                "sharpener": load_use(self.folders[name] / SHARPENER, world, "uses.sharpening.model", "load_sharpener"),
                "sound": load_use(self.folders[name] / SOUND, world, "uses.sound.model", "load_sound"),
            }
            self.loaded[name] = LoadedWorld(name, world, *self.find_real_game(name, world), **uses)
        self.loaded.move_to_end(name)
        while len(self.loaded) > MAX_LOADED:
            self.loaded.popitem(last=False)
        return self.loaded[name]

    def find_real_game(self, name: str, world: WorldModel) -> tuple[str | None, str]:
        """The id of the world's real game, or None and the reason. Raises InputError where the reader named a game that cannot
        be played."""
        named = self.env_id if name == self.first else None
        env_id = named or world.metadata.env_id
        if not env_id:
            return None, "this world was learned from videos; if they show a game that can be played here, name it with --env"
        try:
            open_its_game(env_id, world).close()
        except InputError as error:
            if named:
                raise
            return None, str(error)
        return env_id, ""


def load_use(path: Path, given: Any, module: str, load: str) -> Any:
    """The network in a file, None if there is no file. given: what `load` needs in addition to the path.

    Its class is imported only now: the lesson imports no use.
    """
    return getattr(import_module(module), load)(path, given) if path.exists() else None


def find_worlds(chosen: Path | str, root: Path) -> list[Path]:
    """Folders that hold a world, relative to the working directory: the chosen one, then assets/worlds/* and worlds/* below root.

    Nothing is opened here.
    """
    folders = [Path(chosen)]
    known = {folders[0].resolve()}
    for pattern in ("assets/worlds/*/dynamics.pt", "worlds/*/dynamics.pt"):
        for folder in sorted(path.parent for path in root.glob(pattern)):
            if (folder / "tokenizer.pt").exists() and folder.resolve() not in known:
                folders.append(relative_to_here(folder))
                known.add(folder.resolve())
    return folders


def relative_to_here(folder: Path) -> Path:
    """The folder as a path from the working directory; as it is where that is on another drive of Windows."""
    try:
        return Path(os.path.relpath(folder))
    except ValueError:
        return folder


def arrow_keys(world: WorldModel) -> dict[str, str]:
    """Keyboard keys -> keys of the game. Up and down alone steer a player that moves vertically, whatever its game calls them."""
    keys = dict(ARROWS)
    known = game_facts(world.metadata.env_id or "")
    if known is not None and known.player_axis == "y" and "UP" not in world.action_map:
        up_and_down = dict(zip(("ArrowUp", "ArrowDown"), known.player_keys, strict=True))
        keys = {key: name for key, name in keys.items() if name not in known.player_keys} | up_and_down
    return {key: name for key, name in keys.items() if name in world.action_map}
