"""One player: a dream, the real game beside it, and the log of both. `MESSAGES` at the end lists what pages can ask for."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_model.models.base import Sampling, codes_of
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import detect_ball
from video_tokenizer.training.command_line import config_from_dict
from world_model.actions import action_label
from world_model.lively_starts import is_ball_game
from world_model.play.action_previews import action_previews
from world_model.play.divergence import frame_divergence
from world_model.play.game_log import GameLog, start_facts
from world_model.play.inspector import Inspection
from world_model.play.protocol import Field, Message, Reply
from world_model.play.world_registry import LoadedWorld, WorldRegistry
from world_model.real_game import RealGame
from world_model.starts import decode_picture
from world_model.world import RolloutState

LOST_FRAMES = 20
"""the dream has lost its ball if hardly any of so many frames shows one; the reference worlds mostly serve a new one sooner"""
MOST_SEEN = 3
"""of these frames, that a crumb may be taken for a ball"""


class Player:
    """What stands behind one connection. A method that cannot do its work raises InputError and leaves the game as it was."""

    def __init__(self, registry: WorldRegistry):
        self.registry = registry
        self.loaded: LoadedWorld | None = None
        self.game: RealGame | None = None
        self.mirrored = False
        self.picture: np.ndarray | None = None
        self.sampling: Sampling | None = None
        self.dream: RolloutState | None = None
        self.log: GameLog | None = None
        self.start_frames: np.ndarray | None = None
        self.inspection: Inspection | None = None
        self.ball_seen: deque[bool] = deque(maxlen=LOST_FRAMES)
        self.sharpens = self.sounds = False
        self.stream: Any = None  # the sound of this dream, while it is switched on
        self.newest: list[np.ndarray] = []  # the frames that are shown: the dream's and, where it is played, the real game's

    # ---- worlds and starts ----------------------------------------------------------------------------------------------

    def open(self, world: str) -> Reply:
        """Open a world of the registry; the game played before is gone, the sampling settings stay where they apply."""
        loaded = self.registry.load(world)
        self.close()
        self.loaded = loaded
        self.sharpens &= loaded.sharpener is not None
        self.sounds &= loaded.sound is not None
        if type(self.sampling) is not type(loaded.world.sampling):
            self.sampling = loaded.world.sampling
        return Reply("world", facts=loaded.description() | {"sampling": vars(self.sampling)})

    def upload_picture(self, data: bytes) -> Reply:
        """Keep a picture file, shrunk to the world's size, to start dreams from."""
        picture = self.opened.world.fit_frames(decode_picture(data)[None])[0]
        self.picture = picture
        return Reply("picture", picture.tobytes())

    def begin(self, start: str, index: int, seed: int, mirror: bool) -> Reply:
        """Start a dream. mirror: play the real game beside it, which is possible after the start "game"."""
        world, actions = self.opened.world, None
        stored = world.start_frames
        if start == "game":
            frames, actions = self.begin_game(index)
        elif start == "stored":
            if index >= len(stored):
                raise InputError(f"there is no start {index}; choose one of 0 to {len(stored) - 1}")
            frames, actions = stored[index], world.start_actions[index]
        elif self.picture is None or self.picture.shape[:2] != world.frame_size:
            raise InputError("there is no picture to start from; send one first")
        else:
            frames = self.picture[None]
        self.mirrored = mirror and start == "game"
        where = {"start_index": index} if start == "stored" else start_facts(frames, actions)
        return self.begin_dream(frames, actions, where, seed)

    def resync(self, seed: int) -> Reply:
        """Start the dream again where the real game is now."""
        if self.game is None or not self.mirrored:
            raise InputError("there is no real game beside this dream; begin with a game and the mirror first")
        frames, actions = np.stack(self.game.frames), self.game.known_actions()
        return self.begin_dream(frames, actions, start_facts(frames, actions), seed)

    def serve(self, seed: int) -> Reply:
        """Start the dream again with the ball in flight: no action of a world is sure to serve one.

        Beside a real game it starts where that game is, which serves first if it has to; alone, from the next lively start.
        """
        loaded = self.opened
        if self.game is not None and self.mirrored:
            self.game.serve()
            return self.resync(seed)
        last = -1 if self.log is None else self.log.facts.get("start_index", -1)
        later = [index for index in loaded.lively_starts if index > last]
        return self.begin("stored", (later or loaded.lively_starts)[0], seed, mirror=False)

    def begin_game(self, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Start a real game. Returns its newest frames and, in a world of true actions, their actions."""
        loaded = self.opened
        if loaded.env_id is None:
            raise InputError(f"the real game cannot be played: {loaded.no_game}")
        if self.game is None:
            self.game = RealGame(loaded.env_id, loaded.world)
        self.game.reset(seed)
        return np.stack(self.game.frames), self.game.known_actions()

    def begin_dream(self, frames: np.ndarray, actions: np.ndarray | None, where: dict[str, Any], seed: int) -> Reply:
        """Start the dream after frames (T, H, W, 3), of which both games show the last one first."""
        loaded, begun = self.opened, time.perf_counter()
        sampling = self.sampling or loaded.world.sampling
        self.dream = loaded.world.start_rollouts(frames[None], None if actions is None else actions[None], seed)
        self.dream.sampling = sampling
        self.log = GameLog(loaded.name, where, seed, sampling)
        self.start_frames, self.inspection = frames, None
        self.ball_seen.clear()
        self.stream = self.new_stream()
        self.newest = [frames[-1]] * (1 + self.mirrored)
        pictures, facts = self.pictures()
        ms = {"begin": 1000 * (time.perf_counter() - begun)}
        return Reply("frame", pictures, facts | {"frame": 0, "film_frames": 0, "ms": ms})

    # ---- playing --------------------------------------------------------------------------------------------------------

    def step(self, key: str | None, action: int | None, inspect: bool) -> Reply:
        """The next frame of the dream and, where it is played, of the real game."""
        world, dream = self.opened.world, self.dream
        if dream is None or self.log is None:
            raise InputError("begin a dream before the first step")
        key, action = self.key_and_action(key, action)
        if self.mirrored and self.game is not None and self.game.game.over:
            raise InputError("the real game is over; begin again")
        trace, decoder = ([], dream.decoder_cache) if inspect else (None, None)
        frames = {"dream": world.step_rollouts(dream, np.array([action]), trace)[0]}
        ms = {"dynamics": world.stage_seconds["dynamics"], "decode": world.stage_seconds["decoder"]}
        facts: dict[str, Any] = {}
        if self.mirrored and self.game is not None:
            begun, previous = time.perf_counter(), self.game.frames[-1]
            frames["real game"] = self.game.step(key)
            facts["divergence"] = frame_divergence(frames["dream"], frames["real game"], previous, self.game)
            facts["over"] = self.game.game.over
            ms["game"] = time.perf_counter() - begun
        self.log.add(action, action_label(action, world.action_names, world.action_map), dream.sampling, frames)
        self.inspection = Inspection(trace, decoder) if trace else None  # only a model that decodes in passes leaves a trace
        if self.inspection is not None:
            facts["inspect"] = self.inspection.facts(world.dynamics.grid_size)
        begun, self.newest = time.perf_counter(), list(frames.values())
        pictures, shown = self.pictures()
        if self.sharpens:
            ms["sharpen"] = time.perf_counter() - begun
        if self.stream is not None:
            begun, codes = time.perf_counter(), codes_of(dream.latest, world.tokenizer)[0]  # (N, D)
            sound = self.stream.next(codes)  # (samples,) uint8, what is heard between the frame before and this one
            pictures, facts["samples"], ms["sound"] = pictures + sound.tobytes(), len(sound), time.perf_counter() - begun
        facts |= shown | {
            "no_ball": self.lost_balls(frames["dream"]),
            "frame": len(self.log.actions),
            "action": action,
            "film_frames": len(self.log.actions),
            "film_full": self.log.full,
            "ms": {name: round(1000 * seconds, 2) for name, seconds in ms.items()},
        }
        return Reply("frame", pictures, facts)

    def pictures(self) -> tuple[bytes, dict[str, Any]]:
        """The newest frames as bytes, then, where that is wished, all of them enlarged, and how often a side is as long."""
        shown, scale = b"".join(frame.tobytes() for frame in self.newest), 1
        if self.sharpens and self.newest:
            shown += self.opened.sharpener.sharpen(np.stack(self.newest)).tobytes()
            scale = self.opened.sharpener.scale
        return shown, {"mirrored": len(self.newest) == 2, "scale": scale}

    def lost_balls(self, frame: np.ndarray) -> list[str]:
        """Which of the two games has no ball in it and will hardly get one without help. frame: the dream's newest, (H, W, 3)."""
        env_id = self.opened.world.metadata.env_id or ""
        if not is_ball_game(env_id):
            return []
        self.ball_seen.append(not np.isnan(detect_ball(frame[None], env_id)).any())
        lost = {
            "dream": len(self.ball_seen) == LOST_FRAMES and sum(self.ball_seen) <= MOST_SEEN,
            "real game": self.mirrored and self.game is not None and self.game.ball_is_lost,
        }
        return [name for name, is_lost in lost.items() if is_lost]

    def key_and_action(self, key: str | None, action: int | None) -> tuple[str, int]:
        """The real game's key and the world's action, of which the page gives one."""
        world = self.opened.world
        if key is not None:
            if key not in world.action_map:
                raise InputError(f"this world has no key {key[:40]!r}; there are {', '.join(world.action_map) or 'none'}")
            return key, world.action_map[key]
        if action is None and world.num_actions:
            raise InputError("a step needs a key or an action")
        number = -1 if action is None or not world.num_actions else int(world.checked(np.array([action]))[0])
        return self.opened.key_of(number), number

    def set_sampling(self, name: str, value: Any) -> Reply:
        """Change one sampling setting from the next frame on; the reply holds all of them."""
        sampling = self.sampling or self.opened.world.sampling
        self.sampling = sampling = config_from_dict(type(sampling), vars(sampling) | {name[:40]: value})
        if self.dream is not None:
            self.dream.sampling = sampling
        return Reply("sampling", facts=vars(sampling))

    def set_sharpening(self, on: bool) -> Reply:
        """Send every frame enlarged too, from now on, or no longer; the reply shows the newest ones."""
        if on and self.opened.sharpener is None:
            raise InputError("this world has no sharpener.pt; train one with python 4.inference/uses/sharpening/train.py")
        self.sharpens = on
        return Reply("sharpened", *self.pictures())

    def set_sound(self, on: bool) -> Reply:
        """Send the dream's sound with every frame, from the next one on, or no longer."""
        if on and self.opened.sound is None:
            raise InputError(
                "this world has no sound.pt; train one with python 4.inference/uses/sound/train.py, and copy its best_model.pt "
                "into the world's folder as sound.pt"
            )
        self.sounds = on
        self.stream = self.new_stream()
        return Reply("sound", facts={"on": on})

    def new_stream(self) -> Any:
        """The sound of the dream from its next frame on; None while it is switched off, or there is no dream."""
        if not self.sounds or self.dream is None:
            return None
        return self.opened.sound.stream(codes_of(self.dream.latest, self.opened.world.tokenizer))

    # ---- looking closer -------------------------------------------------------------------------------------------------

    def passes(self) -> Reply:
        """The decoding passes of the newest frame as pictures."""
        if self.inspection is None:
            raise InputError("there are no decoding passes to show; step with inspect first, in a world that decodes in passes")
        pictures = self.inspection.pictures(self.opened.world)
        return Reply("passes", pictures.tobytes(), {"unmasked": self.inspection.unmasked.int().tolist()})

    def previews(self) -> Reply:
        """The frame from which the dream started, and the next frame under every action."""
        if self.start_frames is None or not self.opened.world.num_actions:
            raise InputError("there are no actions to preview; begin a dream in a world that has some")
        pictures, region = action_previews(self.opened.world, self.start_frames)
        return Reply("previews", pictures.tobytes(), {"region": region})

    def code_meanings(self) -> Reply:
        """How often each latent action came with each true action."""
        return Reply("code_meanings", facts=self.opened.code_meanings())

    def film(self, format: str) -> Reply:
        """The game so far as a file: a film, or the actions as JSON."""
        if self.log is None:
            raise InputError("begin a dream before you save it")
        facts = {"name": f"{Path(self.opened.name).name}-{self.log.facts['seed']}.{format}"}
        if format == "json":
            return Reply("file", self.log.to_json(), facts | {"type": "application/json"})
        film = self.log.to_film(f".{format}", self.opened.world.frames_per_second)
        return Reply("file", film, facts | {"type": "image/gif" if format == "gif" else "video/mp4"})

    # ---- the rest -------------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> LoadedWorld:
        """The world that is played. Raises InputError before one is opened."""
        if self.loaded is None:
            raise InputError("open a world first")
        return self.loaded

    def close(self) -> None:
        """Release everything that takes memory."""
        if self.game is not None:
            self.game.close()
        self.game = self.dream = self.log = self.picture = self.start_frames = self.inspection = self.loaded = None
        self.mirrored, self.newest, self.stream = False, [], None


MESSAGES = {
    # load a world from the list; the reply describes it
    "open": Message(Player.open, {"world": Field(str, "")}),
    # start a dream from a new game in the emulator (index: its seed), from one of the world's starts, or from the picture sent
    "begin": Message(
        Player.begin,
        {
            "start": Field(str, "stored", choices=("game", "stored", "picture")),
            "index": Field(int, 0),
            "seed": Field(int, 0),
            "mirror": Field(bool, False),
        },
    ),
    # start the dream again where the real game is now
    "resync": Message(Player.resync, {"seed": Field(int, 0)}),
    # start the dream again with the ball in flight
    "serve": Message(Player.serve, {"seed": Field(int, 0)}),
    # the next frame, under a key of the game or under an action of the world; inspect: with the tokens' probabilities
    "step": Message(Player.step, {"key": Field(str), "action": Field(int), "inspect": Field(bool, False)}),
    # change one of the world's sampling settings from the next frame on
    "sampling": Message(Player.set_sampling, {"name": Field(str, ""), "value": Field()}),
    # enlarge every frame that is shown, in a world that comes with a network for it
    "sharpen": Message(Player.set_sharpening, {"on": Field(bool, False)}),
    # send the dream's sound with every frame, in a world that comes with a network for it
    "sound": Message(Player.set_sound, {"on": Field(bool, False)}),
    # the decoding passes of the newest frame, which must have been inspected, as pictures
    "passes": Message(Player.passes),
    # the next frame under every action
    "previews": Message(Player.previews),
    # which true actions each latent action stands for
    "code_meanings": Message(Player.code_meanings),
    # the game so far as a file
    "film": Message(Player.film, {"format": Field(str, "gif", choices=("gif", "mp4", "json"))}, uses_models=False),
}
