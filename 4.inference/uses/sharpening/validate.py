"""Score a sharpening network on games that were never recorded, beside repeated pixels and bicubic interpolation.

    python 4.inference/uses/sharpening/validate.py --world assets/worlds/breakout

Writes sharpening.png, and with --json the numbers, into the entry of this world's game.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from uses.sharpening.config import SharpeningConfig
from uses.sharpening.model import Sharpener, load_sharpener
from uses.sharpening.pairs import Pairs, make_pairs, open_pairs, play_games, shrink, training_games
from uses.sharpening.pictures import save_comparison
from uses.sharpening.scores import dream_scores, enlargements, picture_scores
from video_tokenizer.data.clips import Clips
from video_tokenizer.data.seen_frames import frame_hashes, unseen_clips
from video_tokenizer.data.training_data import split_clips
from video_tokenizer.games.emulator import short_name
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import format_table, read_json, save_json
from world_model.evaluation.games import EVALUATION_SEEDS, RealGames, check_seed, is_known
from world_model.evaluation.rollouts import real_windows
from world_model.lively_starts import is_ball_game
from world_model.world import WorldModel

CLIP_FRAMES = 16
"""frames of a clip that is scored, without its first"""


@dataclass(frozen=True)
class ValidateConfig:
    """Score a sharpening network on games that were never recorded."""

    world: str = "assets/worlds/breakout"
    """folder of the world whose frames are sharpened"""
    checkpoint: str | None = None
    """network to score; default: sharpener.pt in the world's folder"""
    num_games: int = 16
    """games that are played for the test"""
    game_frames: int = 200
    """longest game, in frames"""
    num_dreams: int = 16
    """dreams whose frames are sharpened too"""
    dream_frames: int = 32
    """frames of each dream"""
    seed: int = 1
    """of the games; those of the training are others, whatever its seed"""
    output: str = "scores"
    """folder for sharpening.png"""
    json: str | None = None
    """file for the numbers; entries of other games in it are kept"""
    device: str = "auto"
    """auto (CUDA, else cpu), cpu, cuda, cuda:1, mps"""

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_smallest(self, {"num_games": 1, "game_frames": 2, "num_dreams": 1, "dream_frames": 2})
        check_seed(self.seed)


def open_test(world: WorldModel, trained: SharpeningConfig, config: ValidateConfig) -> tuple[Pairs, Clips, np.ndarray]:
    """The pairs to score, clips of them without frames of the training, and which frames (F,) those are.

    A network that was trained on videos or a store is scored on the episodes that the training kept for validation.
    """
    if trained.data_path is not None or trained.use_dummy_data:
        pairs = open_pairs(world, trained)
        data = split_clips(trained, pairs.store)
        return pairs, data.validation, data.seen
    played, linear_light = training_games(world, trained), world.metadata.linear_light
    known = np.concatenate([frame_hashes(shrink(episode.frames, world.frame_size, linear_light)) for episode in played])
    games = play_games(world, config.num_games, config.game_frames, EVALUATION_SEEDS + 10_000 * config.seed)
    pairs = make_pairs(world, games, trained.scale)
    seen = is_known(pairs.small, known)
    longest = int((pairs.store.episodes[:, 1] - pairs.store.episodes[:, 0]).max())
    num_frames = min(CLIP_FRAMES, longest)
    clips = Clips(pairs.store, range(len(pairs.store.episodes)), num_frames, stride=max(1, num_frames - 1))
    return pairs, unseen_clips(clips, seen), seen


def imagine(world: WorldModel, pairs: Pairs, seen: np.ndarray, config: ValidateConfig) -> np.ndarray:
    """Dreams from the test's games under the keys that were pressed in them: (S, K, H, W, 3) uint8."""
    games = RealGames(replace(pairs.store, frames=pairs.small), None, None, seen)
    longest = int((pairs.store.episodes[:, 1] - pairs.store.episodes[:, 0]).max()) - world.context_frames
    windows, known, actions = real_windows(world, games, max(1, min(config.dream_frames, longest)), config.num_dreams)
    return world.rollout(windows[:, : world.context_frames], known, actions, config.seed)


def milliseconds(sharpener: Sharpener, frames: np.ndarray, repetitions: int = 50) -> float:
    """How long one frame takes, the median over some repetitions."""
    taken = []
    for _ in range(repetitions + 5):
        begun = time.perf_counter()
        sharpener.sharpen(frames[:1])
        taken.append(1000 * (time.perf_counter() - begun))
    return float(np.median(taken[5:]))


def main() -> None:
    config = parse_config(ValidateConfig)
    config.check()
    world = WorldModel.load(config.world, config.device)
    checkpoint = Path(config.checkpoint) if config.checkpoint else Path(config.world) / "sharpener.pt"
    sharpener = load_sharpener(checkpoint, world)
    pairs, clips, seen = open_test(world, sharpener.config, config)
    methods, env_id = enlargements(sharpener), world.metadata.env_id or ""

    scores = picture_scores(methods, pairs, clips)
    dreams = imagine(world, pairs, seen, config)
    frames = dreams.reshape(-1, *dreams.shape[2:])
    imagined = dream_scores(methods, frames, pairs.store.frames, env_id, world.metadata.linear_light)
    Path(config.output).mkdir(parents=True, exist_ok=True)
    picture = Path(config.output) / "sharpening.png"
    save_comparison(picture, methods, pairs, clips, frames)

    print(f"{len(clips):,} clips of {clips.num_frames} frames, {seen.mean():.1%} of them frames of the training, not scored")
    print(format_table(scores))
    if is_ball_game(env_id):
        print(f"{len(frames):,} imagined frames")
        print(format_table(imagined))
    facts = {"scale": sharpener.scale, "parameters": sum(weights.numel() for weights in sharpener.parameters())}
    facts |= {"clips": len(clips), "seen_in_training": float(seen.mean()), "imagined_frames": len(frames)}
    facts |= {
        "milliseconds": milliseconds(sharpener, pairs.decoded),
        "threads": torch.get_num_threads(),
        "device": str(world.device),
    }
    print(format_table({"network": facts}))
    gains = {
        f"{kind}gain_db": scores["sharpened"][f"{kind}psnr_db"] - scores["bicubic"][f"{kind}psnr_db"] for kind in ("", "moving_")
    }
    print(f"{picture} | sharpened over bicubic: " + ", ".join(f"{name} {value:.2f}" for name, value in gains.items()))
    if config.json:
        name = short_name(env_id) if env_id else Path(config.world).name
        name += "-trained-on-clean" if sharpener.config.train_on == "clean" else ""
        name += f"-times-{sharpener.scale}" if sharpener.scale != 2 else ""
        save_json(config.json, read_json(Path(config.json)) | {name: facts | gains | {"games": scores, "dreams": imagined}})


if __name__ == "__main__":
    run_script(main)
