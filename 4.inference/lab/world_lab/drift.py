"""How rollouts drift away from the game: player, picture and ball at every frame, and what long rollouts look like.

`evaluate.py` measures frames 1, 4, 16 and 64; this file adds what lies between them, for the chapter's pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from dynamics_model.models.base import DecodingPass
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import SCREEN_SIZE, detect_ball, detect_player, game_facts
from video_tokenizer.games.emulator import Game
from video_tokenizer.metrics import psnr_from_mean_error, share
from world_model.evaluation.games import OTHER_SEEDS, RealGames, halves, record_games
from world_model.evaluation.long_rollouts import STATISTICS, frame_statistics, long_rollouts, random_keys, real_frames
from world_model.evaluation.rollouts import BALL_GAP_FROM, balls_seen, player_positions, real_windows, sprite_scores
from world_model.starts import frames_to_text
from world_model.world import WorldModel

COLD = {"temperature": 0.5, "top_p": 1.0}
"""sampling that avoids stray tokens by a lower temperature, and loses everything rare with them"""
CHOSEN_BY = 32
"""the stretch that is shown is chosen by its frames 1 to 32"""
SHOWN = (4, 8, 16, 24, 32)
"""and these of them are shown"""
GONE = 16
"""frames in a row without a ball, about a second, after which it counts as gone"""
LONG_POINTS = 50
"""points kept of a long rollout's curve"""
LEVELS = 8
"""stored pictures are rounded to multiples of it, of 256, which is invisible and takes a quarter of the space"""


@dataclass(frozen=True)
class DriftPlan:
    """How many rollouts and games are measured."""

    num_dreams: int = 96
    """rollouts beside the real game"""
    num_frames: int = 64
    """frames of each"""
    num_long_dreams: int = 4
    """long rollouts"""
    long_frames: int = 1000
    """frames of each"""
    num_episodes: int = 8
    """games to record; four times as many show what real frames are like"""
    game_frames: int = 500
    """most frames of these games; of the others, this and long_frames"""
    seed: int = 7
    """of games and rollouts"""


def measure_drift(world: WorldModel, game: Game, plan: DriftPlan) -> dict[str, Any]:
    """All numbers and frames of the chapter's pictures that take minutes, as plain numbers and text.

    Raises InputError for a game whose player or ball is unknown, and if no game lasts long enough.
    """
    known = game_facts(game.env_id)
    if known is None or known.player is None or known.ball is None:
        raise InputError(f"player or ball of {game.env_id} is unknown; choose a --world of Breakout or Pong")
    games = record_games(game, plan.num_episodes, plan.game_frames, plan.seed)
    long = plan.game_frames + plan.long_frames
    others = record_games(game, 8 * plan.num_episodes, long, plan.seed, first_game=OTHER_SEEDS)
    videos, probability = videos_beside(world, games, plan)
    settings = {field.name: getattr(plan, field.name) for field in fields(DriftPlan)}
    settings |= {"num_dreams": len(videos["real"]), "env": game.env_id, "device": str(world.device)}
    return {
        "settings": settings,
        "player": {kind: player_series(videos[kind], videos["real"], game.env_id) for kind in ("dream", "random_keys", "still")},
        "ball": {kind: ball_series(videos[kind], game.env_id) for kind in ("real", "dream", "cold")},
        "standing_still": middle_stretch(videos, game.env_id),
        "vanished_ball": longest_without(videos, game.env_id),
        "confidence": confidence_by_place(probability, videos["dream"], world.tokenizer.grid_size, game.env_id),
        "long": long_series(world, games, others, plan),
    }


def videos_beside(world: WorldModel, games: RealGames, plan: DriftPlan) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Kind -> frames (S, K, H, W, 3) uint8 of the same S stretches, and the probability of each token of "dream", (S, K, N).

    Kinds: real; dream, under the same keys; random_keys; cold, sampled as in `COLD`; still, the frame before repeated.
    """
    real, known, actions = real_windows(world, games, plan.num_frames, plan.num_dreams)
    context, usual = world.context_frames, world.sampling
    if len(real) == 0:
        raise InputError(f"no game lasted {context + plan.num_frames} frames; give more --num-episodes or fewer --num-frames")
    start = real[:, :context]
    kinds = {
        "dream": (usual, actions),
        "random_keys": (usual, random_keys(world, actions.shape, plan.seed)),
        "cold": (replace(usual, **COLD), actions),
    }
    videos = {"real": real[:, context:], "still": np.broadcast_to(start[:, -1:], real[:, context:].shape)}
    probability = {}
    for kind, (sampling, followed) in tqdm(kinds.items(), desc="rollouts", unit="kind", disable=None):
        world.sampling = sampling
        videos[kind], probability[kind] = rollout_with_probability(world, start, known, followed, plan.seed)
    world.sampling = usual
    return videos, probability["dream"]


def rollout_with_probability(
    world: WorldModel, frames: np.ndarray, known: np.ndarray | None, actions: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `WorldModel.rollout`, and beside the frames (B, K, H, W, 3) the probability of each sampled token, (B, K, N)."""
    dream = world.start_rollouts(frames, known, seed)
    pictures, sure = [], []
    for k in range(actions.shape[1]):
        trace: list[DecodingPass] = []
        pictures.append(world.step_rollouts(dream, actions[:, k], trace))
        sure.append(trace[-1].probability.float().cpu().numpy())  # the last pass repeats what earlier ones unmasked
    return np.stack(pictures, axis=1), np.stack(sure, axis=1)


# ---- player and ball, frame by frame ----------------------------------------------------------------------------------


def frame_psnr(video: np.ndarray, real: np.ndarray) -> float:
    """PSNR in dB of uint8 pictures of the same shape, their squared error pooled."""
    return psnr_from_mean_error(float(np.square((video.astype(np.float32) - real) / 255).mean()))


def player_series(video: np.ndarray, real: np.ndarray, env_id: str) -> dict[str, list[float]]:
    """For each of the K frames of videos (S, K, H, W, 3): psnr_db, pooled over the S, and error_px and error_median_px, mean and
    median distance of the player from the real one."""
    found, there = player_positions(video, env_id), player_positions(real, env_id)  # (S, K)
    errors = [sprite_scores(found[:, k], there[:, k]) for k in range(video.shape[1])]
    return {
        "psnr_db": rounded([frame_psnr(video[:, k], real[:, k]) for k in range(video.shape[1])], 2),
        "error_px": rounded([scores["sprite_error_px"] for scores in errors], 2),
        "error_median_px": rounded([scores["sprite_error_median_px"] for scores in errors], 2),
    }


def ball_series(video: np.ndarray, env_id: str) -> dict[str, Any]:
    """Of S videos (S, K, H, W, 3): share with a ball at each frame; late_share, its mean from frame 16; gone, share of videos
    without it for `GONE` frames in a row; comes_back, share of the frames without it that are followed by one with it."""
    seen = balls_seen(video, env_id)  # (S, K)
    missing = ~seen[:, :-1]
    return {
        "share": rounded(seen.mean(axis=0), 4),
        "late_share": share(int(seen[:, BALL_GAP_FROM - 1 :].sum()), seen[:, BALL_GAP_FROM - 1 :].size),
        "gone": float(np.mean([longest_gap(row)[1] >= GONE for row in seen])),
        "comes_back": share(int((missing & seen[:, 1:]).sum()), int(missing.sum())),
    }


def longest_gap(seen: np.ndarray) -> tuple[int, int]:
    """First place and length of the longest run of False in seen (K,): (2, 3) in 1 1 0 0 0 1 0; length 0 without any."""
    best, first = (0, 0), 0
    for place, there in enumerate([*seen, True]):
        if there:
            best = max(best, (first, place - first), key=lambda gap: gap[1])
            first = place + 1
    return best


def middle_stretch(videos: Mapping[str, np.ndarray], env_id: str) -> dict[str, Any]:
    """The stretch with the median error of the player over frames 1 to `CHOSEN_BY`: its number, the frames shown, their pictures
    as text, and PSNR and error of dream and still at every frame."""
    errors = np.abs(player_positions(videos["dream"], env_id) - player_positions(videos["real"], env_id))[:, :CHOSEN_BY]  # (S, K)
    errors = np.nan_to_num(errors, nan=max(videos["real"].shape[2:4]))  # a player that is not found counts as a picture off
    chosen = int(np.argsort(errors.mean(axis=1), kind="stable")[len(errors) // 2])
    shown = [frame for frame in SHOWN if frame <= errors.shape[1]]
    one = {kind: videos[kind][chosen : chosen + 1, : errors.shape[1]] for kind in ("real", "dream", "still")}
    return {
        "stretch": chosen,
        "frames": shown,
        "pictures": {kind: stored_pictures(video[0, np.array(shown) - 1]) for kind, video in one.items()},
        **{kind: player_series(one[kind], one["real"], env_id) for kind in ("dream", "still")},
    }


def longest_without(videos: Mapping[str, np.ndarray], env_id: str, num_shown: int = 5) -> dict[str, Any]:
    """The rollout sampled as in `COLD` whose ball is missing for longest: its number, for how long, and frames from the last one
    with the ball on, as text, beside those of the real game and of the usual sampling."""
    gaps = [longest_gap(row) for row in balls_seen(videos["cold"], env_id)]
    chosen = int(np.argmax([length for _, length in gaps]))
    first, length = gaps[chosen]
    places = np.unique(np.linspace(max(0, first - 1), max(first + length - 1, 1), num_shown).astype(int))
    return {
        "stretch": chosen,
        "gone_for": length,
        "frames": (places + 1).tolist(),
        "pictures": {kind: stored_pictures(videos[kind][chosen, places]) for kind in ("real", "dream", "cold")},
    }


# ---- where the model is unsure ----------------------------------------------------------------------------------------


def confidence_by_place(probability: np.ndarray, video: np.ndarray, grid_size: tuple[int, int], env_id: str) -> dict[str, Any]:
    """Mean probability of the sampled tokens (S, K, N): of every patch, and of those that show the ball, the player or neither.

    video: (S, K, H, W, 3), the decoded frames. share_doubtful: share of all tokens below 0.9.
    """
    tokens = probability.reshape(-1, probability.shape[-1])  # (S * K, N)
    frames = np.concatenate(list(video))
    is_ball, is_player = ball_patches(frames, grid_size, env_id), player_patches(frames, grid_size, env_id)
    places = {"ball": is_ball & ~is_player, "player": is_player, "neither": ~is_ball & ~is_player}
    return {
        "mean": rounded(tokens.mean(axis=0).reshape(grid_size), 4),
        "by_place": {name: float(tokens[where].mean()) if where.any() else None for name, where in places.items()},
        "share_doubtful": float((tokens < 0.9).mean()),
        "frames": len(frames),
    }


def ball_patches(frames: np.ndarray, grid_size: tuple[int, int], env_id: str) -> np.ndarray:
    """(F, N) bool: the patch with the ball's center. frames: (F, H, W, 3)."""
    patch = frames.shape[1] // grid_size[0]
    found = np.zeros((len(frames), *grid_size), bool)
    for frame, (x, y) in enumerate(detect_ball(frames, env_id)):
        if np.isfinite(x):
            found[frame, round(y) // patch, round(x) // patch] = True
    return found.reshape(len(frames), -1)


def player_patches(frames: np.ndarray, grid_size: tuple[int, int], env_id: str) -> np.ndarray:
    """(F, N) bool: the patches that the player covers, at its usual length. frames: (F, H, W, 3)."""
    facts = game_facts(env_id)
    assert facts is not None and facts.player is not None
    top, bottom, left, right = facts.player.boxes[0]
    along = 1 if facts.player_axis == "x" else 0
    middle = (top + bottom) / 2 if along == 1 else (left + right) / 2  # on the other axis, in screen pixels
    across = int(middle * frames.shape[2 - along] / SCREEN_SIZE[1 - along]) // (frames.shape[2 - along] // grid_size[1 - along])
    patch, half = frames.shape[1 + along] // grid_size[along], 0.5
    if facts.player.lengths:
        half = facts.player.lengths[0] / 2 * frames.shape[1 + along] / SCREEN_SIZE[along]
    found = np.zeros((len(frames), *grid_size), bool)
    strip = found[:, across] if along == 1 else found[:, :, across]  # (F, places)
    for row, place in zip(strip, detect_player(frames, env_id), strict=True):
        if np.isfinite(place):
            row[max(0, int(place + 0.5 - half) // patch) : int(place + 0.5 + half - 1e-6) // patch + 1] = True
    return found.reshape(len(frames), -1)


# ---- long rollouts ----------------------------------------------------------------------------------------------------


def long_series(world: WorldModel, games: RealGames, others: RealGames, plan: DriftPlan) -> dict[str, Any]:
    """Shares of foreground and of moving pixels in every n-th frame of long rollouts under random keys and of still pictures,
    (B, n) each; and low and high, the range of the frames of other real games."""
    real = real_frames(halves(others)[0])
    videos = long_rollouts(world, games, plan.long_frames, plan.num_long_dreams, plan.seed)
    if real is None or videos is None:
        raise InputError("the games are too short for long rollouts; give more --num-episodes or more --game-frames")
    every = max(1, plan.long_frames // LONG_POINTS)
    columns = {name: STATISTICS.index(name) for name in ("foreground", "moving")}
    result: dict[str, Any] = {
        "frames": list(range(every, plan.long_frames + 1, every)),
        "low": {name: float(real.low[column]) for name, column in columns.items()},
        "high": {name: float(real.high[column]) for name, column in columns.items()},
    }
    for kind, rollouts in zip(("dream", "still"), videos, strict=True):
        statistics = np.stack([frame_statistics(video, real.background) for video in rollouts])[:, every - 1 :: every]
        result[kind] = {name: rounded(statistics[:, :, column], 5) for name, column in columns.items()}
    return result


def stored_pictures(frames: np.ndarray) -> str:
    """Frames (T, H, W, 3) uint8 as text for `frames_from_text`, rounded to `LEVELS`."""
    return frames_to_text(np.minimum(np.round(frames / LEVELS) * LEVELS, 255).astype(np.uint8))


def rounded(values: Sequence[float] | np.ndarray, digits: int) -> list[Any]:
    """The same numbers with fewer digits, for a smaller file."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
