"""One player: a dream, the real game beside it, and what was played so far."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from video_tokenizer.training.command_line import InputError
from world_model.actions import action_label
from world_model.play.codes import pictures_of_actions
from world_model.play.game_log import GameLog, written_start
from world_model.play.inspector import Inspection
from world_model.play.parting import parting
from world_model.play.protocol import Answer, answer
from world_model.play.shelf import Shelf, ShelvedWorld
from world_model.real_game import RealGame
from world_model.sampling import Sampling
from world_model.starts import decode_picture
from world_model.world import Dream


class Player:
    """What lies behind one connection. Every public method that answers a question is called `do_` and its name.

    They raise InputError for what cannot be done, and leave the game as it was.
    """

    def __init__(self, shelf: Shelf):
        self.shelf = shelf
        self.shelved: ShelvedWorld | None = None
        self.game: RealGame | None = None
        self.mirrored = False
        self.picture: np.ndarray | None = None
        self.sampling: Sampling | None = None
        self.dream: Dream | None = None
        self.log: GameLog | None = None
        self.beginning: np.ndarray | None = None
        self.inspection: Inspection | None = None

    # ---- worlds and beginnings ------------------------------------------------------------------------------------------

    def do_open(self, world: str) -> Answer:
        """Take a world from the shelf; what was played before is gone."""
        shelved = self.shelf.open(world)
        self.close()
        self.shelved, self.sampling = shelved, self.sampling or shelved.world.sampling
        return answer("world", **shelved.description())

    def take_picture(self, data: bytes) -> Answer:
        """Keep a picture file, shrunk to the world's size, to begin dreams with."""
        picture = self.opened.world.fit_frames(decode_picture(data)[None])[0]
        self.picture = picture
        return answer("picture", picture.tobytes())

    def do_begin(self, start: str, index: int, seed: int, mirror: bool) -> Answer:
        """Begin a dream. mirror: the real game is played beside it, where it starts in the game."""
        world, actions = self.opened.world, None
        stored = world.start_frames
        if start == "game":
            frames, actions = self.begin_game(index)
        elif start == "stored":
            if index >= len(stored):
                raise InputError(f"there is no start {index}; there are 0 to {len(stored) - 1}")
            frames, actions = stored[index], world.start_actions[index]
        elif self.picture is None or self.picture.shape[:2] != world.frame_size:
            raise InputError("there is no picture to begin with; send one first")
        else:
            frames = self.picture[None]
        self.mirrored = mirror and start == "game"
        where = {"start_index": index} if start == "stored" else written_start(frames, actions)
        return self.begin_dream(frames, actions, where, seed)

    def do_resync(self, seed: int) -> Answer:
        """Begin the dream again where the real game is now."""
        if self.game is None or not self.mirrored:
            raise InputError("there is no real game beside this dream; begin with a game and the mirror first")
        frames, actions = np.stack(self.game.frames), self.game.known_actions()
        return self.begin_dream(frames, actions, written_start(frames, actions), seed)

    def begin_game(self, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Play the beginning of a real game. Returns its newest frames and, in a world of true actions, their actions."""
        shelved = self.opened
        if shelved.env_id is None:
            raise InputError(f"the real game cannot be played: {shelved.no_game}")
        if self.game is None:
            self.game = RealGame(shelved.env_id, shelved.world)
        self.game.reset(seed)
        return np.stack(self.game.frames), self.game.known_actions()

    def begin_dream(self, frames: np.ndarray, actions: np.ndarray | None, where: dict[str, Any], seed: int) -> Answer:
        """Let the world dream on from frames (T, H, W, 3). The first picture shown is the last of them, in both games."""
        shelved, begun = self.opened, time.perf_counter()
        sampling = self.sampling or shelved.world.sampling
        self.dream = shelved.world.begin(frames[None], None if actions is None else actions[None], seed)
        self.dream.sampling = sampling
        self.log = GameLog(shelved.name, where, seed, sampling)
        self.beginning, self.inspection = frames, None
        pictures = [frames[-1]] * (1 + self.mirrored)
        return answer(
            "frame",
            b"".join(picture.tobytes() for picture in pictures),
            frame=0,
            mirrored=self.mirrored,
            film_frames=0,
            ms={"begin": 1000 * (time.perf_counter() - begun)},
        )

    # ---- playing --------------------------------------------------------------------------------------------------------

    def do_step(self, key: str | None, action: int | None, inspect: bool) -> Answer:
        """The next frame, and with it, where the real game is played, the real one."""
        world, dream = self.opened.world, self.dream
        if dream is None or self.log is None:
            raise InputError("begin a dream before the first step")
        key, action = self.chosen(key, action)
        if self.mirrored and self.game is not None and self.game.game.over:
            raise InputError("the real game is over; begin again")
        trace, decoder = ([], dream.decoder) if inspect else (None, None)
        frames = {"dream": world.advance(dream, np.array([action]), trace)[0]}
        ms = {"dynamics": world.stage_seconds["dynamics"], "decode": world.stage_seconds["decoder"]}
        facts: dict[str, Any] = {}
        if self.mirrored and self.game is not None:
            begun, before = time.perf_counter(), self.game.frames[-1]
            frames["real game"] = self.game.step(key)
            facts["apart"] = parting(frames["dream"], frames["real game"], before, self.game)
            facts["over"] = self.game.game.over
            ms["game"] = time.perf_counter() - begun
        self.log.add(action, action_label(action, world.action_names, world.action_map), dream.sampling, frames)
        if trace is not None:
            self.inspection = Inspection(trace, decoder)
            facts["inspect"] = self.inspection.facts(world.dynamics.grid_size)
        return answer(
            "frame",
            b"".join(frame.tobytes() for frame in frames.values()),
            frame=len(self.log.actions),
            mirrored=self.mirrored,
            action=action,
            film_frames=len(self.log.actions),
            film_full=self.log.full,
            ms={name: round(1000 * seconds, 2) for name, seconds in ms.items()},
            **facts,
        )

    def chosen(self, key: str | None, action: int | None) -> tuple[str, int]:
        """The game's key and the world's action that are meant; one of the two may be missing."""
        world = self.opened.world
        names = {number: name for name, number in reversed(world.action_map.items())}  # of two keys with one code the first
        if key is not None:
            if key not in world.action_map:
                raise InputError(f"this world has no key {key[:40]!r}; there are {', '.join(world.action_map) or 'none'}")
            return key, world.action_map[key]
        if action is None and world.num_actions:
            raise InputError("a step needs a key or an action")
        number = -1 if action is None or not world.num_actions else int(world.checked(np.array([action]))[0])
        return names.get(number, "NOOP"), number

    def do_sampling(self, **settings: Any) -> Answer:
        """Draw tokens otherwise from the next frame on; what is not given stays as it is."""
        sampling = self.sampling or self.opened.world.sampling
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("top_k") == 0:
            given["top_k"] = None
        self.sampling = Sampling(**(vars(sampling) | given))
        if self.dream is not None:
            self.dream.sampling = self.sampling
        return answer("sampling", **vars(self.sampling))

    # ---- looking closer -------------------------------------------------------------------------------------------------

    def do_passes(self) -> Answer:
        """The sampling steps of the newest frame as pictures."""
        if self.inspection is None:
            raise InputError("there is nothing to look into; step with inspect first")
        pictures = self.inspection.pictures(self.opened.world)
        settled = [step.settled[0].int().tolist() for step in self.inspection.trace]
        return answer("passes", pictures.tobytes(), settled=settled)

    def do_codes(self) -> Answer:
        """The newest beginning and the next frame under every action."""
        if self.beginning is None or not self.opened.world.num_actions:
            raise InputError("there are no actions to draw; begin a dream in a world that has some")
        pictures, part = pictures_of_actions(self.opened.world, self.beginning)
        return answer("codes", pictures.tobytes(), part=part)

    def do_shares(self) -> Answer:
        """How often each latent code came with each true action."""
        return answer("shares", **self.opened.shares())

    def do_film(self, format: str) -> Answer:
        """The game so far as a file: a film, or the actions as JSON."""
        if self.log is None:
            raise InputError("begin a dream before it is saved")
        log, rate = self.log, self.opened.world.frames_per_second
        name = f"{Path(self.opened.name).name}-{log.facts['seed']}.{format}"
        if format == "json":
            return answer("file", log.to_json(), name=name, type="application/json")
        return answer("file", log.to_film(f".{format}", rate), name=name, type="image/gif" if format == "gif" else "video/mp4")

    # ---- the rest -------------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> ShelvedWorld:
        """The world that is played. Raises InputError before one is opened."""
        if self.shelved is None:
            raise InputError("open a world first")
        return self.shelved

    def close(self) -> None:
        """Let go of everything that takes memory."""
        if self.game is not None:
            self.game.close()
        self.game = self.dream = self.log = self.picture = self.beginning = self.inspection = self.shelved = None
        self.mirrored = False
