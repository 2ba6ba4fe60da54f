"""Roll a world out under chosen keys and save it as a film.

    python 4.inference/generate.py --world assets/worlds/breakout --num-frames 64 --output dream.gif
    python 4.inference/generate.py --world worlds/breakout --actions "RIGHT*8,LEFT*8" --output steered.gif
    python 4.inference/generate.py --world worlds/breakout --actions "RIGHT*8,LEFT*8" --beside-emulator ALE/Breakout-v5

The file's ending decides what is written: .gif or .mp4 for a film, .png for a strip of all frames.
"""

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes

from dynamics_model.sampling_flags import SamplingFlags, sampling_of
from video_tokenizer.errors import InputError
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from world_model.actions import ActionFile, action_label, action_number, parse_actions, read_action_file
from world_model.film import check_suffix, save_film
from world_model.real_game import open_its_game, play_after_beginning
from world_model.starts import frames_from_text, read_start
from world_model.world import WorldModel


@dataclass(frozen=True)
class GenerateConfig:
    """Roll a world out and save it as a film."""

    world: str = "assets/worlds/breakout"
    """folder of a world: tokenizer.pt, dynamics.pt and, for latent actions, latent_action_model.pt"""
    num_frames: int | None = None
    """frames to predict; default: 64, or as many as the actions file has"""
    output: str = "dream.gif"
    """file to write; .gif, .mp4, or .png for a strip"""
    actions: str = "random"
    """random, numbers (3,3,1), key names (RIGHT,LEFT) or a pattern (RIGHT*8,LEFT*8), repeated for all frames"""
    actions_file: str | None = None
    """JSON file: what the play page saves beside a film, a list of actions, or {"actions": [...]} with any of seed, temperature,
    num_steps, top_k, top_p, schedule, order, start_index"""
    start: str | None = None
    """where the rollout starts: a clip store, a video or a picture; default: the world's own start clips"""
    start_index: int | None = None
    """which of the world's own start clips, or the first frame of a clip store or video; default 0"""
    seed: int | None = None
    """the same seed, start and actions give the same rollout; default 0"""
    sampling: OmitArgPrefixes[SamplingFlags] = field(default_factory=SamplingFlags)
    """how frames are sampled"""
    scale: int | None = None
    """enlargement of every pixel; default: depends on the frame size"""
    fps: float | None = None
    """frames per second of the film; default: the recorded game's"""
    caption: bool = True
    """write the pressed key beside each frame"""
    beside_emulator: str | None = None
    """Gymnasium id of the world's own game: press the same keys in it, from the same frames, and show it beside the rollout"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"num_frames": 1, "scale": 1, "fps": 0.1})
        if self.beside_emulator is not None and self.start is not None:
            raise InputError(
                "--start and --beside-emulator exclude each other: beside the emulator the rollout starts from the game's frames"
            )
        check_suffix(Path(self.output))


def settings_of(config: GenerateConfig, recorded: ActionFile | None) -> dict[str, Any]:
    """seed, start_index and sampling settings: flags take precedence over the actions file, and that over the defaults."""
    flags = {name: getattr(config, name) for name in ("seed", "start_index") if getattr(config, name) is not None}
    return {"seed": 0, "start_index": 0} | (recorded.settings if recorded else {}) | flags | config.sampling.given()


def prompt_of(
    config: GenerateConfig, world: WorldModel, recorded: ActionFile | None, index: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames (T, H, W, 3) to start from and their actions: those of the flags, else of the actions file, else stored ones."""
    if recorded is None or recorded.start_frames is None or config.start is not None or config.start_index is not None:
        return read_start(world, config.start, index)
    frames = frames_from_text(recorded.start_frames, world.frame_size)
    known = recorded.start_actions
    if known is not None and len(known) != len(frames):
        raise InputError(f"--actions-file {config.actions_file} has {len(frames)} start frames and {len(known)} start_actions")
    return frames, None if known is None else np.array(known, dtype=np.int64)


def roll_out(world: WorldModel, actions: np.ndarray, changes: dict[int, dict[str, Any]]) -> np.ndarray:
    """One frame for each action: (num_frames, H, W, 3) uint8. changes: frame -> sampling settings from there on."""
    frames = []
    assert world.current is not None, "the world has been reset"
    for number, action in enumerate(tqdm(actions, desc="dreaming", unit="frame", disable=None)):
        world.current.sampling = replace(world.current.sampling, **changes.get(number, {}))
        frames.append(world.step(int(action)))
    return np.stack(frames)


def comparison(recorded: ActionFile | None, frames: np.ndarray) -> str:
    """Whether these are the frames of the recording, in words; "" if the file holds no digest of them."""
    if recorded is None or recorded.frames_sha256 is None:
        return ""
    if hashlib.sha256(frames.tobytes()).hexdigest() == recorded.frames_sha256:
        return " | the recorded frames, bit for bit"
    return " | not the recorded frames: other flags, another world, device or number of threads"


def chosen_actions(config: GenerateConfig, world: WorldModel, recorded: ActionFile | None, seed: int) -> np.ndarray:
    """One action number for each frame of the film: (num_frames,) int64."""
    listed = None if recorded is None else recorded.actions
    if config.beside_emulator is not None and listed is None and config.actions == "random":
        keys = np.array(sorted(set(world.action_map.values())) or [-1])  # the real game has no other actions
        return np.random.default_rng(seed).choice(keys, size=config.num_frames or 64)
    if listed is None:
        return parse_actions(config.actions, config.num_frames or 64, world.num_actions, world.action_map, seed)
    numbers = [action_number(action, world.num_actions, world.action_map) for action in listed] if world.num_actions else [-1]
    return np.resize(np.array(numbers, dtype=np.int64), config.num_frames or len(listed))


def play_beside(env_id: str, world: WorldModel, keys: list[str], seed: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Press the keys in the real game. Returns the frames before, the world's actions that led to them, and the frames after."""
    game = open_its_game(env_id, world)
    unknown = sorted(set(keys) - set(game.action_names))
    if unknown:
        raise InputError(
            f"the real game has no key {unknown[0]!r}; beside the emulator give --actions from {', '.join(game.action_names)}"
        )
    beginning, episode = play_after_beginning(game, keys, world.context_frames, seed)
    real = episode.frames[len(beginning) + 1 :]
    past = slice(max(0, len(beginning) + 1 - world.context_frames), len(beginning) + 1)
    known = episode.actions[past].astype(np.int64) if world.action_kind == "true" else None
    return episode.frames[past], known, real


def main() -> None:
    config = parse_config(GenerateConfig)
    config.check()
    world = WorldModel.load(config.world, config.device)
    recorded = read_action_file(config.actions_file, world.dynamics.sampling_class) if config.actions_file else None
    settings = settings_of(config, recorded)
    seed, start_index = settings.pop("seed"), settings.pop("start_index")
    world.sampling = sampling_of(world.dynamics, settings)
    actions = chosen_actions(config, world, recorded, seed)
    labels = [action_label(int(action), world.action_names, world.action_map) for action in actions]

    real = None
    if config.beside_emulator is not None:
        frames, known, real = play_beside(config.beside_emulator, world, labels, seed)
        if len(real) < len(actions):
            print(f"{config.beside_emulator} ended after {len(real)} of {len(actions)} frames; the film is as long as the game")
            actions, labels = actions[: len(real)], labels[: len(real)]
    else:
        frames, known = prompt_of(config, world, recorded, start_index)

    world.reset(frames, known, seed)
    begun = time.perf_counter()
    dream = roll_out(world, actions, {} if recorded is None else recorded.changes)
    seconds = time.perf_counter() - begun

    videos = {"": dream} if real is None else {"dream": dream, "real game": real}
    captions = labels if config.caption else [""] * len(dream)
    save_film(Path(config.output), videos, captions, config.fps or world.frames_per_second, config.scale)
    print(
        f"{len(dream)} frames of {config.world} dreamed in {seconds:.1f} s, {len(dream) / seconds:.0f} a second on {world.device}"
        f" | seed {seed} | {config.output}{comparison(recorded, dream)}"
    )


if __name__ == "__main__":
    run_script(main)
