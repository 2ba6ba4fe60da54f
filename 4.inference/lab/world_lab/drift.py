"""How a dream drifts away from the game: player, picture and ball at every dreamed frame, and what long dreams look like.

The numbers of `evaluate.py` are taken at frames 1, 4, 16 and 64; here stands what lies between them, for the chapter's pictures.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from dynamics_model.models.maskgit import DecodingPass
from video_tokenizer.games.detectors import SCREEN_SIZE, detect_ball, detect_player, game_facts
from video_tokenizer.games.emulator import Game
from video_tokenizer.metrics import psnr_from_mean_error, share
from video_tokenizer.training.command_line import InputError
from world_model.evaluation.dreams import BALL_GAP_FROM, balls_seen, players, real_stretches, sprite_scores
from world_model.evaluation.games import RealGames, halves, record_game_sets
from world_model.evaluation.long_dream import STATISTICS, frame_statistics, long_dreams, random_keys, real_frames
from world_model.starts import frames_to_text
from world_model.world import WorldModel

COLD = {"temperature": 0.5, "top_p": 1.0}
"""draws that sweep up strays by lowering the temperature, and everything rare with them"""
CHOSEN_BY = 32
"""the stretch that is shown is chosen by its frames 1 to 32"""
SHOWN = (4, 8, 16, 24, 32)
"""and these of them are shown"""
GONE = 16
"""frames in a row without a ball, a second, from which on it counts as gone"""
LONG_POINTS = 50
"""points that are kept of a long dream's curve"""
LEVELS = 8
"""kept pictures are rounded to multiples of it, of 256, which nobody sees and which takes a quarter of the room"""


@dataclass(frozen=True)
class DriftPlan:
    """How much is dreamed and recorded."""

    num_dreams: int = 96
    """dreams beside the real game"""
    num_frames: int = 64
    """frames of each"""
    num_long_dreams: int = 4
    """long dreams"""
    long_frames: int = 1000
    """frames of each"""
    num_episodes: int = 8
    """games to record; four times as many tell what real frames are like"""
    game_frames: int = 500
    """longest of these games, in frames; of the others, this and long_frames"""
    seed: int = 7
    """of the games and the dreams"""


def measure_drift(world: WorldModel, game: Game, plan: DriftPlan) -> dict[str, Any]:
    """All numbers and frames of the chapter's pictures that take minutes, as plain numbers and text.

    Raises InputError for a game whose player or ball nobody knows, and where no game lasts long enough.
    """
    known = game_facts(game.env_id)
    if known is None or known.player is None or known.ball is None:
        raise InputError(
            f"the place of the player and the ball in {game.env_id} is not known; choose a --world of Breakout or Pong"
        )
    games, others, _ = record_game_sets(game, plan.num_episodes, 0, plan.game_frames, plan.long_frames, plan.seed)
    beside = dreams_beside(world, games, plan)
    settings = {**asdict(plan), "num_dreams": len(beside["real"]), "env": game.env_id, "device": str(world.device)}
    return {
        "settings": settings,
        "player": {kind: player_series(beside[kind], beside["real"], game.env_id) for kind in ("dream", "random_keys", "still")},
        "ball": {kind: ball_series(beside[kind], game.env_id) for kind in ("real", "dream", "cold")},
        "standing_still": middle_stretch(beside, game.env_id),
        "vanished_ball": longest_without(beside, game.env_id),
        "confidence": confidence_by_place(beside["probability"], beside["dream"], world.tokenizer.grid_size, game.env_id),
        "long": long_series(world, games, others, plan),
    }


def dreams_beside(world: WorldModel, games: RealGames, plan: DriftPlan) -> dict[str, np.ndarray]:
    """Name -> frames (S, K, H, W, 3) uint8 of the same S stretches: real, dream, random_keys, cold (draws as in `COLD`) and
    still, the last frame before them; and under "probability" how sure each token of `dream` was, (S, K, N)."""
    real, known, actions = real_stretches(world, games, plan.num_frames, plan.num_dreams)
    context = world.context_frames
    if len(real) == 0:
        raise InputError(f"no game lasted {context + plan.num_frames} frames; give more --num-episodes or fewer --num-frames")
    start, usual = real[:, :context], world.sampling
    kinds = {
        "dream": (usual, actions),
        "random_keys": (usual, random_keys(world, actions.shape, plan.seed)),
        "cold": (replace(usual, **COLD), actions),
    }
    beside = {"real": real[:, context:], "still": np.broadcast_to(start[:, -1:], real[:, context:].shape)}
    for kind, (sampling, followed) in tqdm(kinds.items(), desc="dreams beside the game", unit="kind", disable=None):
        world.sampling = sampling
        beside[kind], probability = watched_dream(world, start, known, followed, plan.seed)
        if kind == "dream":
            beside["probability"] = probability
    world.sampling = usual
    return beside


def watched_dream(
    world: WorldModel, frames: np.ndarray, known: np.ndarray | None, actions: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `WorldModel.dream`, and beside the frames (B, K, H, W, 3) what the model gave each token that it settled for, (B, K, N)
    in [0, 1]."""
    dream = world.begin(frames, known, seed)
    pictures, sure = [], []
    for k in range(actions.shape[1]):
        trace: list[DecodingPass] = []
        pictures.append(world.advance(dream, actions[:, k], trace))
        sure.append(trace[-1].probability.float().cpu().numpy())  # a token settled earlier keeps that pass's
    return np.stack(pictures, axis=1), np.stack(sure, axis=1)


def frame_psnr(video: np.ndarray, real: np.ndarray) -> float:
    """PSNR in dB of uint8 pictures of the same shape, their squared error pooled."""
    return psnr_from_mean_error(float(np.square((video.astype(np.float32) - real) / 255).mean()))


def player_series(video: np.ndarray, real: np.ndarray, env_id: str) -> dict[str, list[float]]:
    """For each of the K frames of videos (S, K, H, W, 3): psnr_db, pooled over the S, error_px and error_median_px, the mean and
    median distance of the player from the real one."""
    dreamed, there = players(video, env_id), players(real, env_id)  # (S, K)
    errors = [sprite_scores(dreamed[:, k], there[:, k]) for k in range(video.shape[1])]
    return {
        "psnr_db": rounded([frame_psnr(video[:, k], real[:, k]) for k in range(video.shape[1])], 2),
        "error_px": rounded([scores["sprite_error_px"] for scores in errors], 2),
        "error_median_px": rounded([scores["sprite_error_median_px"] for scores in errors], 2),
    }


def ball_series(video: np.ndarray, env_id: str) -> dict[str, Any]:
    """Of S videos (S, K, H, W, 3): share, which part of them shows a ball, for each frame; late_share, its mean from frame 16 on;
    gone, share of the videos without it for `GONE` frames in a row; comes_back, how often it follows on a frame without it."""
    seen = balls_seen(video, env_id)  # (S, K)
    missing = ~seen[:, :-1]
    return {
        "share": rounded(seen.mean(axis=0), 4),
        "late_share": share(int(seen[:, BALL_GAP_FROM - 1 :].sum()), seen[:, BALL_GAP_FROM - 1 :].size),
        "gone": float(np.mean([longest_gap(row)[1] >= GONE for row in seen])),
        "comes_back": share(int((missing & seen[:, 1:]).sum()), int(missing.sum())),
    }


def longest_gap(seen: np.ndarray) -> tuple[int, int]:
    """First place and length of the longest run of False in seen (K,): (2, 3) in 1 1 0 0 0 1 0; length 0 where there is none."""
    best, first = (0, 0), 0
    for place, there in enumerate([*seen, True]):
        if there:
            best = max(best, (first, place - first), key=lambda gap: gap[1])
            first = place + 1
    return best


def middle_stretch(beside: dict[str, np.ndarray], env_id: str) -> dict[str, Any]:
    """Of all stretches the middle one, sorted by the dreamed player's mean error over frames 1 to `CHOSEN_BY`: its number, frames
    shown, their pictures as text, and PSNR and error of dream and still at every frame."""
    errors = np.abs(players(beside["dream"], env_id) - players(beside["real"], env_id))[:, :CHOSEN_BY]  # (S, K)
    errors = np.nan_to_num(errors, nan=max(beside["real"].shape[2:4]))  # a player that is not found is a whole picture off
    chosen = int(np.argsort(errors.mean(axis=1), kind="stable")[len(errors) // 2])
    shown = [frame for frame in SHOWN if frame <= errors.shape[1]]
    one = {kind: beside[kind][chosen : chosen + 1, : errors.shape[1]] for kind in ("real", "dream", "still")}
    return {
        "stretch": chosen,
        "frames": shown,
        "pictures": {kind: kept_pictures(video[0, np.array(shown) - 1]) for kind, video in one.items()},
        **{kind: player_series(one[kind], one["real"], env_id) for kind in ("dream", "still")},
    }


def longest_without(beside: dict[str, np.ndarray], env_id: str, num_shown: int = 5) -> dict[str, Any]:
    """Of all dreams with `COLD` draws the one in which the ball is missing longest: its number, for how long, and frames from the
    last one with the ball on, as text, beside the same frames of the real game and of the dream with the usual draws."""
    gaps = [longest_gap(row) for row in balls_seen(beside["cold"], env_id)]
    chosen = int(np.argmax([length for _, length in gaps]))
    first, length = gaps[chosen]
    places = np.unique(np.linspace(max(0, first - 1), max(first + length - 1, 1), num_shown).astype(int))
    return {
        "stretch": chosen,
        "gone_for": length,
        "frames": (places + 1).tolist(),
        "pictures": {kind: kept_pictures(beside[kind][chosen, places]) for kind in ("real", "dream", "cold")},
    }


def confidence_by_place(probability: np.ndarray, video: np.ndarray, grid_size: tuple[int, int], env_id: str) -> dict[str, Any]:
    """Mean probability of the drawn tokens, (S, K, N): for every patch, as rows of columns, and of those that show the ball, the
    player, or neither. video: (S, K, H, W, 3), the frames that were dreamed. share_doubtful: of all tokens, those below 0.9."""
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
    """(F, N) bool: the patch in which the ball's centre is. frames: (F, H, W, 3)."""
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
    middle = (top + bottom) / 2 if along == 1 else (left + right) / 2  # where it stands on the other axis, screen pixels
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


def long_series(world: WorldModel, games: RealGames, others: RealGames, plan: DriftPlan) -> dict[str, Any]:
    """Of long dreams under random keys, and of pictures that stand still, every n-th frame's share of foreground and of moving
    pixels, (B, n) each; and low and high, the range of the frames of other real games."""
    real = real_frames(halves(others)[0])
    videos = long_dreams(world, games, plan.long_frames, plan.num_long_dreams, plan.seed)
    if real is None or videos is None:
        raise InputError("the games are too short for long dreams; give more --num-episodes or longer --game-frames")
    every = max(1, plan.long_frames // LONG_POINTS)
    shown = {name: STATISTICS.index(name) for name in ("foreground", "moving")}
    result: dict[str, Any] = {
        "frames": list(range(every, plan.long_frames + 1, every)),
        "low": {name: float(real.low[column]) for name, column in shown.items()},
        "high": {name: float(real.high[column]) for name, column in shown.items()},
    }
    for kind, dreams in zip(("dream", "still"), videos, strict=True):
        statistics = np.stack([frame_statistics(video, real.background) for video in dreams])[:, every - 1 :: every]
        result[kind] = {name: rounded(statistics[:, :, column], 5) for name, column in shown.items()}
    return result


def kept_pictures(frames: np.ndarray) -> str:
    """Frames (T, H, W, 3) uint8 as text for `frames_from_text`, their levels rounded."""
    return frames_to_text(np.minimum(np.round(frames / LEVELS) * LEVELS, 255).astype(np.uint8))


def rounded(values: Sequence[float] | np.ndarray, digits: int) -> list[Any]:
    """The same numbers with few digits, so that a file stays small."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
