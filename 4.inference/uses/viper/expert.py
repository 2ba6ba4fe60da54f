"""Games for VIPER: films of an expert to learn from, and games of better and worse players to judge."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from uses.viper.reward import alone
from video_tokenizer.data.clip_store import ClipStoreWriter
from video_tokenizer.games.emulator import Game, Policy, record_episode
from video_tokenizer.games.policies import scripted_policy

JUDGED_SEEDS = 1_800_000_000
"""seed of the first game that is judged; no recording uses it"""


MOST_OPENING_STEPS = 40
"""a game begins after up to this many steps that are not filmed, half of them random: else the expert's games would be copies of
one another, since the emulator itself knows no chance"""


class Played(NamedTuple):
    """One game. frames: uint8 (F, H, W, 3), with the scoreboard. score: what the game paid for these frames."""

    frames: np.ndarray
    score: float


def noisy_expert(game: Game, noise: float) -> Policy:
    """The player that follows the ball, with this share of random actions: 0 is the expert, 1 random play."""
    return scripted_policy(game, noise=noise)


def never_serves(game: Game, rng: np.random.Generator) -> int:
    """Touches nothing, so that in Breakout nothing ever happens once the ball is lost."""
    return game.action_names.index("NOOP")


def stands_still(game: Game, rng: np.random.Generator) -> int:
    """Serves where the game waits for it, and never moves."""
    waits = game.needs_fire and game.fire_action is not None
    return game.fire_action if waits else game.action_names.index("NOOP")  # type: ignore[return-value]


def play(game: Game, policy: Policy, num_frames: int, seed: int) -> Played:
    """At most num_frames frames of a game that begins with an opening of its own. Players with the same seed take over from the
    same opening."""
    scores = []

    def opening(game: Game, rng: np.random.Generator) -> None:
        player = noisy_expert(game, 0.5)
        for _ in range(rng.integers(MOST_OPENING_STEPS * 4 // game.frame_skip)):
            game.step(player(game, rng))
        scores.append(game.score)

    frames = record_episode(game, policy, num_frames, seed, opening).frames
    return Played(frames, game.score - scores[0])


def record_expert(
    path: Path, game: Game, mask: np.ndarray, num_frames: int, episode_frames: int, seed: int, is_alone: bool = False
) -> None:
    """Write a clip store of the expert's games, without the actions: nothing but masked frames.

    is_alone: each frame becomes an episode of its own, behind a black frame. A model of such clips learns how likely a frame is
    when nothing is known of the past.
    """
    info = {
        "source": "game",
        "env_id": game.env_id,
        "frame_skip": game.frame_skip,
        "frames_per_second": game.frames_per_second,
        "linear_light": game.linear_light,
        "picture_delay": game.picture_delay,
        "merged_frames": game.merged_frames,
        "seed": seed,
        "policy": "expert",
    }
    number = 0
    with ClipStoreWriter(path, game.frame_size, info) as writer, tqdm(total=num_frames, desc="filming", disable=None) as bar:
        while writer.num_frames < num_frames:
            length = min(episode_frames, num_frames - writer.num_frames)
            frames = play(game, noisy_expert(game, 0.0), length, seed * 100_000 + number).frames * mask
            for part in alone(frames) if is_alone else [frames]:
                writer.add_episode(part)
            number += 1
            bar.update(len(frames))
