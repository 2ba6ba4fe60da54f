"""Score the sound of a world on games that were never recorded, and of its dreams of them, beside chance and silence.

    python 4.inference/uses/sound/validate.py --world assets/worlds/breakout

Writes sound.png, and a dream as dream.gif with its sound in dream.wav; with --json the numbers too, under the game's name.
"""

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_model.models.base import codes_of
from uses.sound.config import check_num_games
from uses.sound.games import Heard, encode, play_games
from uses.sound.model import SoundModel, SoundStream, load_sound
from uses.sound.pictures import save_sound
from uses.sound.scores import baselines, frames_alike, game_scores, onset_scores, played_sound
from video_tokenizer.errors import InputError
from video_tokenizer.games.emulator import SOUND_RATE, short_name
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, read_json, save_json, settings_of
from world_model.evaluation.games import RealGames, check_seed
from world_model.evaluation.rollouts import rollout_windows, world_actions
from world_model.film import save_film
from world_model.world import WorldModel

DREAM_LENGTHS = (8, 16)
"""frames after which the sound of a dream is compared with that of the game, in addition to its end"""


@dataclass(frozen=True)
class ValidateConfig:
    """Score the sound of a world on games that were never recorded, and of its dreams."""

    world: str = "assets/worlds/breakout"
    """folder of the world that sounds"""
    checkpoint: str | None = None
    """network to score; default: sound.pt in the world's folder"""
    num_games: int = 24
    """games that are played for the test"""
    game_frames: int = 200
    """longest game, in frames"""
    num_dreams: int = 64
    """dreams that begin in these games, under the keys that were pressed in them"""
    dream_frames: int = 32
    """frames of each dream; later it no longer shows what happened in the game"""
    seed: int = 1
    """of the games; those of the training are others, whatever its seed"""
    output: str = "scores"
    """folder for sound.png, and for dream.gif and dream.wav, a dream with its sound"""
    json: str | None = None
    """file for the numbers; entries of other games in it are kept"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"num_games": 1, "game_frames": 2, "num_dreams": 1, "dream_frames": 2})
        check_num_games(self.num_games)
        check_seed(self.seed)


def dream(
    world: WorldModel, model: SoundModel, games: RealGames, heard: Heard, starts: np.ndarray, num_frames: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Dreams from frames of real games under the keys that were pressed there. starts: (S,) first prompt frames in the store.

    Returns the frames (S, num_frames, H, W, 3) and the sound (S, num_frames, chunks * 512), both uint8.
    """
    context, store = world.context_frames, games.store
    places = starts[:, None] + np.arange(context + num_frames)  # (S, C + K)
    actions = world_actions(world, store.actions[places], store.action_names)
    known = actions[:, :context] if world.action_kind == "true" else None
    state = world.start_rollouts(store.frames[places[:, :context]], known, seed)
    device = next(model.parameters()).device
    streams = [SoundStream(model, heard.codes[first : first + context].to(device)) for first in starts]
    frames, sounds = [], []
    for action in actions[:, context:].T:
        frames.append(world.step_rollouts(state, action))
        codes = codes_of(state.latest, world.tokenizer)  # (S, N, D)
        sounds.append(np.stack([stream.next(one) for stream, one in zip(streams, codes, strict=True)]))
    return np.stack(frames, axis=1), np.stack(sounds, axis=1)


def dream_scores(dreamed: np.ndarray, real: np.ndarray, lengths: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare the sound of dreams with that of the games from which they started, both (S, K, chunks * 512), up to these lengths
    (S,)."""
    pairs = [(there[:length], here[:length]) for there, here, length in zip(real, dreamed, lengths, strict=True) if length > 1]
    game, dream = [there for there, _ in pairs], [here for _, here in pairs]
    return {"mean_frames": float(lengths.mean())} | onset_scores(game, dream) | {"baselines": baselines(game, dream, seed)}


def save_dream(folder: Path, frames: np.ndarray, sound: np.ndarray, frames_per_second: float) -> None:
    """Write frames (K, H, W, 3) as dream.gif and sound (K, chunks * 512) as dream.wav."""
    folder.mkdir(parents=True, exist_ok=True)
    save_film(folder / "dream.gif", {"": frames}, [""] * len(frames), frames_per_second)
    with wave.open(str(folder / "dream.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(SOUND_RATE)
        file.writeframes(sound.tobytes())


def main() -> None:
    config = parse_config(ValidateConfig)
    config.check()
    world = WorldModel.load(config.world, config.device)
    checkpoint = Path(config.checkpoint) if config.checkpoint else Path(config.world) / "sound.pt"
    model = load_sound(checkpoint, world)
    games = play_games(world, config.num_games, config.game_frames, config.seed)
    starts = rollout_windows(games, world.context_frames, config.dream_frames, config.num_dreams)
    if not len(starts):
        raise InputError(f"no game lasted {world.context_frames + config.dream_frames} frames; give fewer --dream-frames")
    heard = encode(world, games.store)

    scores = game_scores(model, heard, games.store.episodes, config.seed)
    frames, sound = dream(world, model, games, heard, starts, config.dream_frames, config.seed)
    places = starts[:, None] + world.context_frames + np.arange(config.dream_frames)
    lengths = [length for length in DREAM_LENGTHS if length < config.dream_frames] + [config.dream_frames]
    cuts = {f"first_{length}": np.full(len(starts), length) for length in lengths}
    cuts["alike"] = frames_alike(frames, games.store.frames[places], games.store.env_id)
    imagined = {name: dream_scores(sound, heard.sound[places], cut, config.seed) for name, cut in cuts.items()}

    titled = {f"dreams, {name.replace('_', ' ')}": table for name, table in imagined.items()}
    for title, table in ({"real games": scores} | titled).items():
        print(f"{title}: {table['onsets']} sounds begin in the emulator, {table['predicted_onsets']} in the prediction")
        rows = {"the network": table} | table["baselines"]
        print(format_table({name: {key: row[key] for key in ("found", "false", "in_silence")} for name, row in rows.items()}))
        print("offset in frames: " + ", ".join(f"{offset} {count}" for offset, count in table["offsets"].items() if count))
    print(f"tokenizer: snr {scores['snr_db']:.1f} dB | pitch {scores['pitch']:.3f} | {scores['codes_used']} tokens used")
    folder = Path(config.output)
    save_dream(folder, frames[0], sound[0], world.frames_per_second)
    longest = slice(*max(games.store.episodes.tolist(), key=lambda episode: episode[1] - episode[0]))
    offsets = {"real games": scores["offsets"], "dreams": imagined[f"first_{lengths[0]}"]["offsets"]}
    save_sound(folder / "sound.png", heard.sound[longest], played_sound(model, heard.codes[longest]), offsets)
    print(f"{folder / 'sound.png'} | {folder / 'dream.gif'}, and its sound in dream.wav")
    if config.json:
        name = short_name(world.metadata.env_id or "")
        facts = {"parameters": sum(weights.numel() for weights in model.parameters()), "frames": len(games.store.frames)}
        facts |= {
            "dreams_played": len(starts),
            "settings": settings_of(config, "world", "checkpoint", "output", "json", "device"),
        }
        save_json(config.json, read_json(Path(config.json)) | {name: facts | {"games": scores, "dreams": imagined}})


if __name__ == "__main__":
    run_script(main)
