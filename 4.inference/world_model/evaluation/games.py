"""Games to evaluate a world on: of seeds that no training recording uses, from the middle of play, and checked frame by frame.

A new seed alone is not a new game. Breakout begins nearly the same every time, so half of the frames of games that were recorded
from their first frame on were training frames, bit for bit, and a world scored 3 dB better on those than on the others.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dynamics_model.config import NextFrameConfig
from video_tokenizer.data.clip_store import ClipStore
from video_tokenizer.data.clips import split_episodes
from video_tokenizer.data.seen_frames import frame_hashes, frames_of, seen_frames
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import ball_position, detect_player, game_facts
from video_tokenizer.games.emulator import Game, record_episode
from video_tokenizer.games.policies import MixedPolicy, make_players, random_policy
from world_model.real_game import best_player, play_beginning, play_keys

EVALUATION_SEEDS = 1_000_000_000
"""evaluation with --seed s plays the games EVALUATION_SEEDS + 10,000 s and following; record.py --seed s plays 100,000 s and
following, so the two never meet while s < 10,000"""
LABELLED_SEEDS = 2_000
"""offset of the games with random actions, which show what latent actions mean, from the first evaluation game"""
BRANCH_SEEDS = 5_000
"""offset of the games of the obedience test"""
OTHER_SEEDS = 7_000
"""offset of the games that show how much real games differ among themselves"""
OPENING_STEPS = (100, 400)
"""fewest and most steps that are played before the first frame of an evaluation game"""
STICKY = 0.25
"""probability that a step of the opening repeats the action before it"""


@dataclass(frozen=True)
class RealGames:
    """Episodes to evaluate on, with the positions of ball and player."""

    store: ClipStore
    """frames (F, H, W, 3), actions (F,) and episodes; in memory, never written"""
    ball: np.ndarray | None
    """(F, 2) x and y in pixels from the emulator's memory, NaN where absent; None for a game whose ball is not described"""
    player: np.ndarray | None
    """(F,) the player's position along its axis, detected in the pixels; None for a game whose player is not described"""
    seen: np.ndarray
    """(F,) bool: frames that the world was trained on, bit for bit. They are not scored. All False if that is not known."""

    @property
    def seen_share(self) -> float:
        """Share of the frames that the world was trained on."""
        return float(self.seen[frames_of(self.store, range(len(self.store.episodes)))].mean())


@dataclass(frozen=True)
class Branches:
    """The same starts, each continued under several held keys: B = starts x keys."""

    keys: list[str]
    """(B,) the key held in each branch"""
    start_frames: np.ndarray
    """(B, C, H, W, 3) uint8, the frames before the key goes down"""
    start_actions: np.ndarray
    """(B, C) the true actions that led to them"""
    frames: np.ndarray
    """(B, K, H, W, 3) uint8, the frames under the key"""
    seen: np.ndarray
    """(B, K) bool: those of these frames that the world was trained on"""


def check_seed(seed: int, flag: str = "--seed") -> None:
    """Raise InputError for a seed whose games could be among the recorded ones."""
    if not 0 <= seed < 10_000:
        raise InputError(f"{flag} {seed} must lie between 0 and 9,999, so that no evaluation game is ever recorded for training")


def play_opening(game: Game, rng: np.random.Generator) -> None:
    """Play on for 100 to 400 steps, with a player and sticky keys that no recording has, so that no two games are alike.

    After the end of a game a new one is begun and played for at most half as many steps, so that some of it is left to record
    even of games as short as CartPole.
    """
    player, action = best_player(game), 0
    left, played = int(rng.integers(*OPENING_STEPS, endpoint=True)), 0
    while left > 0:
        if game.needs_fire or rng.random() >= STICKY:
            action = player(game, rng)
        game.play(action)
        left, played = left - 1, played + 1
        if game.over:
            game.reset(int(rng.integers(EVALUATION_SEEDS, 2 * EVALUATION_SEEDS)))
            left, played = min(left, played // 2), 0


def record_games(
    game: Game,
    num_episodes: int,
    num_frames: int,
    seed: int,
    policy_name: str = "mixed",
    first_game: int = 0,
    known: np.ndarray | None = None,
) -> RealGames:
    """Play episodes of at most num_frames frames after `play_opening`: "mixed" with the policies that record training data, in
    turn, "random" with a new random action at every step. first_game: 0, LABELLED_SEEDS or OTHER_SEEDS, so that no game is
    played twice. known: the hashes of the frames that the world was trained on."""
    players = MixedPolicy(make_players(policy_name, game))
    first = EVALUATION_SEEDS + 10_000 * seed + first_game
    episodes = []
    for number in range(num_episodes):
        name, policy = players.next_player()
        episode = record_episode(game, policy, num_frames, first + number, play_opening)
        players.num_frames[name] += len(episode.frames)
        episodes.append(episode)
    stops = np.cumsum([len(episode.frames) for episode in episodes])
    store = ClipStore(
        path=Path(f"games of {game.env_id}"),
        frames=np.concatenate([episode.frames for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        episodes=np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1),
        info={
            "env_id": game.env_id,
            "action_names": game.action_names,
            "frames_per_second": game.frames_per_second,
            "linear_light": game.linear_light,
        },
        arrays={name: np.concatenate([episode.arrays[name] for episode in episodes]) for name in episodes[0].arrays},
    )
    facts = game_facts(game.env_id)
    memories = [episode.ram for episode in episodes if episode.ram is not None]
    has_ball = facts is not None and facts.ball is not None and len(memories) == len(episodes)
    has_player = facts is not None and facts.player is not None
    return RealGames(
        store,
        ball_position(np.concatenate(memories), game.env_id, game.frame_size) if has_ball else None,
        detect_player(store.frames, game.env_id) if has_player else None,
        is_known(store.frames, known),
    )


def is_known(frames: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """bool (F,): the frames (F, H, W, 3) whose hashes are among those in `known`."""
    return np.zeros(len(frames), bool) if known is None else np.isin(frame_hashes(frames), known)


def halves(games: RealGames) -> tuple[RealGames, RealGames]:
    """The games with even and those with odd numbers."""
    stores = [replace(games.store, episodes=games.store.episodes[first::2]) for first in (0, 1)]
    return replace(games, store=stores[0]), replace(games, store=stores[1])


def validation_games(store: ClipStore, config: NextFrameConfig, known: np.ndarray | None = None) -> RealGames:
    """For worlds learned from videos: the episodes that a training with this config keeps for validation.

    known: the hashes of the frames that the world was trained on; None: it was trained on the other episodes.
    """
    training, validation = split_episodes(store, config.validation_share, config.seed)
    seen = seen_frames(store, training, validation, known)
    store = replace(store, episodes=store.episodes[validation])
    return RealGames(store, None, None, seen)


def player_keys(game: Game) -> list[str]:
    """The two keys that move the player along its axis, and the one that does nothing; [] for a game that is not described."""
    known = game_facts(game.env_id)
    if known is None or known.player is None:
        return []
    return [*known.player_keys, *(["NOOP"] if "NOOP" in game.action_names else [])]


def record_branches(
    game: Game, num_beginnings: int, context_frames: int, num_steps: int, seed: int, known: np.ndarray | None = None
) -> Branches:
    """Random starts of 24 to 63 frames after `play_opening`, each played once per key, with that key held for num_steps
    afterwards. known: the hashes of the frames that the world was trained on.

    A start after which the game ends early is left out. Raises InputError if none is left.
    """
    first = EVALUATION_SEEDS + 10_000 * seed + BRANCH_SEEDS
    lengths = np.random.default_rng(first).integers(max(24, context_frames), max(64, context_frames + 40), num_beginnings)
    keys, branches = [], []
    for number, length in enumerate(lengths.tolist()):
        beginning = play_beginning(game, random_policy, length, first + number, play_opening)
        held = {key: play_keys(game, beginning, [key] * num_steps, first + number, play_opening) for key in player_keys(game)}
        if all(len(episode.frames) == length + num_steps for episode in held.values()):
            keys += list(held)
            branches += [(episode.frames[length - context_frames :], episode.actions[length - context_frames :])
                         for episode in held.values()]  # fmt: skip
    if not branches:
        raise InputError(f"every game of {game.env_id} ended within {max(lengths) + num_steps} frames; give another --seed")
    frames = np.stack([frames for frames, _ in branches])  # (B, C + K, H, W, 3)
    actions = np.stack([actions for _, actions in branches])[:, :context_frames].astype(np.int64)
    start_frames, frames = frames[:, :context_frames], frames[:, context_frames:]
    seen = is_known(np.concatenate(list(frames)), known).reshape(frames.shape[:2])
    return Branches(keys, start_frames, actions, frames, seen)


def usual_step(positions: np.ndarray) -> float:
    """Median length of the real player's steps, in pixels, over the steps of half a pixel or more.

    positions: (B, T). Breakout's paddle moves 9 recorded pixels a step, and its detector is off by up to 1.2 (95th percentile
    against the emulator's memory); Freeway's chicken moves 1. NaN if nothing moves.
    """
    steps = np.abs(np.diff(positions, axis=-1))
    return float(np.median(steps[steps >= 0.5])) if (steps >= 0.5).any() else np.nan


def directions(positions: np.ndarray, still: float) -> np.ndarray:
    """-1, 0 or +1 for every step between neighbouring positions (..., T), NaN where one of them is unknown: (..., T-1).

    still: a step shorter than this many pixels counts as 0.
    """
    steps = np.diff(positions, axis=-1)
    return np.where(np.isnan(steps), np.nan, np.sign(steps) * (np.abs(steps) >= still))
