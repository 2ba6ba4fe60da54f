"""The three models together: rollouts compared with the real game under the same keys."""

import time
from typing import Any

import numpy as np
import torch

from dynamics_model.metrics import HorizonScores, delta_psnr_db
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import ball_lights, detect_ball, detect_player, game_facts
from video_tokenizer.metrics import SECOND_BALL, share
from world_model.evaluation.games import Branches, RealGames, directions, usual_step
from world_model.world import WorldModel

HORIZONS = (1, 4, 16, 64)
"""steps after the last real frame at which a rollout is scored"""
DELTA_HORIZONS = (1, 4, 16)
"""the same for delta_psnr_db"""
BALL_GAP_FROM = 16
"""first step of the comparison of ball shares; before it, the prompt's ball is still in the picture"""


def rollout_windows(games: RealGames, context_frames: int, num_frames: int, count: int) -> np.ndarray:
    """First frames of `count` windows of context_frames + num_frames frames, evenly spaced over all that fit into an episode.

    Windows that score a frame of the training, at one of `HORIZONS`, are left out, unless all do.
    """
    length = context_frames + num_frames
    starts = [np.arange(start, stop - length + 1) for start, stop in games.store.episodes if stop - start >= length]
    possible = np.concatenate(starts) if starts else np.empty(0, np.int64)
    scored = context_frames - 1 + np.array([horizon for horizon in HORIZONS if horizon <= num_frames], np.int64)
    unseen = ~games.seen[possible[:, None] + scored].any(axis=1)
    possible = possible[unseen] if unseen.any() else possible
    if len(possible) == 0:
        return possible
    return possible[np.unique(np.linspace(0, len(possible) - 1, min(count, len(possible))).astype(int))]


def world_actions(world: WorldModel, true_actions: np.ndarray, names: list[str]) -> np.ndarray:
    """The world's actions for the game's true ones, -1 where unknown; a world of latent actions uses its action_map."""
    if world.action_kind == "true":
        return true_actions.astype(np.int64)
    codes = np.array([world.action_map.get(name, -1) for name in names] + [-1], dtype=np.int64)  # the last entry serves -1
    return codes[true_actions.astype(np.int64)]


def real_windows(
    world: WorldModel, games: RealGames, num_frames: int, count: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """`count` windows of the real games: C prompt frames and num_frames to predict, with the actions for the world.

    Returns the frames (S, C + num_frames, H, W, 3), the prompt's actions (S, C), None if the world infers them from the frames,
    and the actions to roll out under (S, num_frames).
    """
    context, store = world.context_frames, games.store
    frames = rollout_windows(games, context, num_frames, count)[:, None] + np.arange(context + num_frames)
    actions = world_actions(world, store.actions[frames], store.action_names)
    known = actions[:, :context] if world.action_kind == "true" else None
    return store.frames[frames], known, actions[:, context:]


def rollout_scores(
    world: WorldModel, games: RealGames, count: int, seed: int, max_frames: int = HORIZONS[-1]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score `count` rollouts of max_frames frames under the keys that were pressed in the real game, from the same frames.

    Returns two tables of `horizon_scores`, of the world and of the repeated last frame.
    """
    context, store = world.context_frames, games.store
    longest = min(max_frames, int((store.episodes[:, 1] - store.episodes[:, 0]).max()) - context)
    num_frames = max((horizon for horizon in HORIZONS if horizon <= longest), default=0)
    real, known, actions = real_windows(world, games, num_frames, count)
    if num_frames == 0 or len(real) == 0:
        return {}, {}
    rollout = world.rollout(real[:, :context], known, actions, seed)
    still = np.broadcast_to(real[:, context - 1 : context], rollout.shape)
    scored = real[:, context - 1 :]  # the last prompt frame, then the frames to predict
    return horizon_scores(rollout, scored, store.env_id), horizon_scores(still, scored, store.env_id)


def horizon_scores(rollout: np.ndarray, real: np.ndarray, env_id: str | None) -> dict[str, Any]:
    """Horizon -> scores. rollout: (S, K, H, W, 3) uint8; real: (S, K + 1, H, W, 3), beginning with the last prompt frame.

    Of the frame at the horizon: psnr_db and moving_psnr_db, sprite_error_px and sprite_error_median_px (mean and median distance
    between predicted and real player) and sprite_found (share of frames in which the player is detected). Of all frames since
    the previous horizon: ball_share, the share with a ball, and ball_share_real. In addition to the horizons, ball_share_gap: the
    absolute difference of the two over frames 16 to the last, in percentage points, and one_ball_share: of the frames in which
    the real game shows exactly one ball, the share in which the rollout does.
    """
    horizons = [horizon for horizon in HORIZONS if horizon <= rollout.shape[1]]
    known = game_facts(env_id) if env_id else None
    pictures = HorizonScores(horizons)
    pictures.update(to_video(rollout.copy()), to_video(real[:, 1:]), to_video(real[:, :1])[:, 0])
    table: dict[str, Any] = {
        str(horizon): {name: pictures.result(name)[horizon] for name in ("psnr_db", "moving_psnr_db")} for horizon in horizons
    }
    if env_id is not None and known is not None and known.player is not None:
        for horizon in horizons:
            there, found = detect_player(real[:, horizon], env_id), detect_player(rollout[:, horizon - 1], env_id)
            table[str(horizon)] |= sprite_scores(found, there)
    if env_id is not None and known is not None and known.ball is not None:
        seen, seen_real = balls_seen(rollout, env_id), balls_seen(real[:, 1:], env_id)  # (S, K)
        for before, horizon in zip([0, *horizons], horizons, strict=False):
            shares = (float(balls[:, before:horizon].mean()) for balls in (seen, seen_real))
            table[str(horizon)] |= dict(zip(("ball_share", "ball_share_real"), shares, strict=True))
        if rollout.shape[1] >= BALL_GAP_FROM:
            gap = seen[:, BALL_GAP_FROM - 1 :].mean() - seen_real[:, BALL_GAP_FROM - 1 :].mean()
            table["ball_share_gap"] = 100 * abs(float(gap))
        table["one_ball_share"] = one_ball_share(rollout, real[:, 1:], env_id)
    return table


def one_ball_share(rollout: np.ndarray, real: np.ndarray, env_id: str) -> float:
    """Of the real frames with exactly one ball, the share whose counterpart has exactly one. Both (S, K, H, W, 3) uint8."""
    lights, lights_real = (ball_lights(video.reshape(-1, *video.shape[2:]), env_id) for video in (rollout, real))  # (S*K, 2)
    seen = balls_seen(real, env_id).flatten()
    if not seen.any():
        return np.nan
    enough = SECOND_BALL * np.median(lights_real[seen, 0])
    one, one_real = ((found >= enough).sum(axis=1) == 1 for found in (lights, lights_real))
    return share(float((one & one_real & seen).sum()), float((one_real & seen).sum()))


def sprite_scores(predicted: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """sprite_error_px, sprite_error_median_px and sprite_found of positions in pixels (S,), NaN where no player is detected."""
    errors = np.abs(predicted - there)
    errors = errors[np.isfinite(errors)]
    return {
        "sprite_error_px": share(float(errors.sum()), len(errors)),
        "sprite_error_median_px": float(np.median(errors)) if len(errors) else np.nan,
        "sprite_found": share(len(errors), int(np.isfinite(there).sum())),
    }


def balls_seen(videos: np.ndarray, env_id: str) -> np.ndarray:
    """(S, T) bool: the frames of videos (S, T, H, W, 3) in which a ball is detected."""
    return np.stack([np.isfinite(detect_ball(video, env_id)[:, 0]) for video in videos])


def delta_psnr_scores(world: WorldModel, games: RealGames, count: int, seed: int) -> dict[str, dict[int, float]]:
    """Genie's controllability: PSNR of rollouts under the right actions minus PSNR under random ones, from the same frames.

    Right actions are those that the latent action model infers from the real video, or the true ones in a world of true actions.
    Both rollouts use the same random numbers, so that only the actions differ.
    Returns delta_psnr_db and delta_moving_psnr_db, each horizon -> decibels. Source: Genie, arXiv:2402.15391, section 3.
    """
    context, store, num_frames = world.context_frames, games.store, max(DELTA_HORIZONS)
    windows = rollout_windows(games, context, num_frames, count)
    if len(windows) == 0 or world.num_actions == 0:
        return {}
    places = windows[:, None] + np.arange(context + num_frames)  # (S, C + 16)
    real = to_video(store.frames[places])
    right = store.actions[places].astype(np.int64) if world.action_kind == "true" else world.infer_actions(real.to(world.device))
    random = np.random.default_rng(seed).integers(world.num_actions, size=(len(windows), num_frames))
    scores = []
    for followed in (right[:, context:], random):
        rollout = world.rollout(store.frames[places[:, :context]], right[:, :context], followed, seed)  # the same seed for both
        scores.append(HorizonScores(DELTA_HORIZONS))
        scores[-1].update(to_video(rollout), real[:, context:], real[:, context - 1])
    names = {"delta_psnr_db": "psnr_db", "delta_moving_psnr_db": "moving_psnr_db"}
    of_right, of_random = scores
    return {name: delta_psnr_db(of_right, of_random, picture_score) for name, picture_score in names.items()}


def obedience_scores(world: WorldModel, branches: Branches, env_id: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Does the player move as the held key says?

    A step counts as obeyed if the predicted player moves in the same direction (back, not at all, forth) as the real one. Both
    are found by the same pixel detector, and for both a movement is at least a quarter of the real player's usual step. Steps in
    which the real player is not detected, or which lead to a frame of the training, are left out; steps in which the predicted
    one is not detected are disobeyed. Returns the scores of the world and of the repeated last frame: obedience (all steps),
    obedience_moving (steps in which the real player moves, away from the wall) and obedience_by_key.
    """
    num_steps = branches.frames.shape[1]
    held = np.array([world.action_map.get(key, -1) for key in branches.keys], dtype=np.int64)
    known = branches.start_actions if world.action_kind == "true" else None  # latent actions are inferred from the frames
    rollout = world.rollout(branches.start_frames, known, np.repeat(held[:, None], num_steps, axis=1), seed)
    last = branches.start_frames[:, -1:]
    places = player_positions(np.concatenate([last, branches.frames], axis=1), env_id)  # (B, K + 1)
    still = usual_step(places) / 4
    real = directions(places, still)  # (B, K)
    real[branches.seen] = np.nan
    predicted = directions(player_positions(np.concatenate([last, rollout], axis=1), env_id), still)
    return agreement(predicted, real, branches.keys), agreement(np.zeros_like(real), real, branches.keys)


def player_positions(videos: np.ndarray, env_id: str) -> np.ndarray:
    """Positions of the player in videos (B, T, H, W, 3): (B, T) in pixels, NaN where it is not detected."""
    return detect_player(np.concatenate(list(videos)), env_id).reshape(videos.shape[:2])


def agreement(predicted: np.ndarray, real: np.ndarray, keys: list[str]) -> dict[str, Any]:
    """The obedience scores of directions (B, K), -1, 0, 1 or NaN; row b was played under keys[b]."""
    seen = ~np.isnan(real)
    obeyed = (predicted == real) & seen
    moving = seen & (real != 0)
    rows = {key: np.array(keys) == key for key in dict.fromkeys(keys)}
    return {
        "obedience": share(int(obeyed.sum()), int(seen.sum())),
        "obedience_moving": share(int(obeyed[moving].sum()), int(moving.sum())),
        "obedience_by_key": {key: share(int(obeyed[row].sum()), int(seen[row].sum())) for key, row in rows.items()},
    }


def step_seconds(world: WorldModel, num_frames: int, seed: int = 0) -> np.ndarray:
    """Seconds of each of num_frames calls of `WorldModel.step` under random actions, after a few warm-up steps."""
    world.reset(world.start_frames[0], world.start_actions[0])
    actions = np.random.default_rng(seed).integers(max(1, world.num_actions), size=num_frames + 5)
    seconds = []
    for action in actions:
        begun = time.perf_counter()
        world.step(int(action) if world.num_actions else -1)
        seconds.append(time.perf_counter() - begun)
    return np.array(seconds[5:])


def speed_scores(world: WorldModel, num_frames: int) -> dict[str, Any]:
    """frames_per_second and p95_ms of `WorldModel.step` on this machine."""
    seconds = step_seconds(world, num_frames)
    return {
        "frames_per_second": float(1.0 / seconds.mean()),
        "p95_ms": float(1000 * np.quantile(seconds, 0.95)),
        "device": str(world.device),
        "num_threads": torch.get_num_threads(),
    }
