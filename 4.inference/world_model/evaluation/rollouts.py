"""The three models together: dreams held against the real game under the same keys."""

import time
from typing import Any

import numpy as np
import torch

from dynamics_model.metrics import HorizonScores, delta_psnr_db
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.detectors import detect_ball, detect_player, game_facts
from video_tokenizer.metrics import share
from world_model.evaluation.games import Branches, RealGames, directions, usual_step
from world_model.world import WorldModel

HORIZONS = (1, 4, 16, 64)
"""dreamed frames after the last real one at which a rollout is scored"""
DELTA_HORIZONS = (1, 4, 16)
"""the same for the difference that the right actions make"""
BALL_GAP_FROM = 16
"""dreamed frame from which on the share of frames with a ball is compared; before, the ball of the start frames is still there"""


def rollout_windows(games: RealGames, context_frames: int, num_frames: int, count: int) -> np.ndarray:
    """First frames of `count` stretches of context_frames + num_frames frames, evenly spaced over all that fit in an episode."""
    length = context_frames + num_frames
    starts = [np.arange(start, stop - length + 1) for start, stop in games.store.episodes if stop - start >= length]
    possible = np.concatenate(starts) if starts else np.empty(0, np.int64)
    if len(possible) == 0:
        return possible
    return possible[np.unique(np.linspace(0, len(possible) - 1, min(count, len(possible))).astype(int))]


def world_actions(world: WorldModel, true_actions: np.ndarray, names: list[str]) -> np.ndarray:
    """The numbers to give to the world for true actions of the game, -1 where unknown; latent worlds go through action_map."""
    if world.action_kind == "true":
        return true_actions.astype(np.int64)
    codes = np.array([world.action_map.get(name, -1) for name in names] + [-1], dtype=np.int64)  # the last entry serves -1
    return codes[true_actions.astype(np.int64)]


def real_stretches(
    world: WorldModel, games: RealGames, num_frames: int, count: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """`count` stretches of the real games, C start frames and num_frames to be dreamed, and what the world is to be told.

    Returns the frames (S, C + num_frames, H, W, 3), the start frames' actions (S, C), None where the world reads them off the
    pictures, and the actions to be followed (S, num_frames).
    """
    context, store = world.context_frames, games.store
    frames = rollout_windows(games, context, num_frames, count)[:, None] + np.arange(context + num_frames)
    actions = world_actions(world, store.actions[frames], store.action_names)
    known = actions[:, :context] if world.action_kind == "true" else None
    return store.frames[frames], known, actions[:, context:]


def rollout_scores(
    world: WorldModel, games: RealGames, count: int, seed: int, max_frames: int = HORIZONS[-1]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`count` dreams of max_frames frames under the keys that were pressed in the real game, from the same frames.

    Returns two tables as in `horizon_scores`, of the world and of a picture that stands still.
    """
    context, store = world.context_frames, games.store
    longest = min(max_frames, int((store.episodes[:, 1] - store.episodes[:, 0]).max()) - context)
    num_frames = max((horizon for horizon in HORIZONS if horizon <= longest), default=0)
    real, known, actions = real_stretches(world, games, num_frames, count)
    if num_frames == 0 or len(real) == 0:
        return {}, {}
    dream = world.rollout(real[:, :context], known, actions, seed)
    still = np.broadcast_to(real[:, context - 1 : context], dream.shape)
    scored = real[:, context - 1 :]  # the last start frame, then the frames to be dreamed
    return horizon_scores(dream, scored, store.env_id), horizon_scores(still, scored, store.env_id)


def horizon_scores(dream: np.ndarray, real: np.ndarray, env_id: str | None) -> dict[str, Any]:
    """Horizon -> scores. dream: (S, K, H, W, 3) uint8; real: (S, K + 1, H, W, 3), with the frame before the dream.

    Of the frame at the horizon: psnr_db and moving_psnr_db, sprite_error_px and sprite_error_median_px (mean and median distance
    of the dreamed player from the real one) and sprite_found (share of frames in which the player is still to be found). Of all
    frames from the horizon before to this one: ball_share, the share with a ball, and ball_share_real. Beside the horizons, as
    ball_share_gap, the difference of the two over frames 16 to the last, in percentage points, never negative.
    """
    horizons = [horizon for horizon in HORIZONS if horizon <= dream.shape[1]]
    known = game_facts(env_id) if env_id else None
    pictures = HorizonScores(horizons)
    pictures.update(to_video(dream.copy()), to_video(real[:, 1:]), to_video(real[:, :1])[:, 0])
    table: dict[str, Any] = {
        str(horizon): {name: pictures.result(name)[horizon] for name in ("psnr_db", "moving_psnr_db")} for horizon in horizons
    }
    if env_id is not None and known is not None and known.player is not None:
        for horizon in horizons:
            there, dreamed = detect_player(real[:, horizon], env_id), detect_player(dream[:, horizon - 1], env_id)
            table[str(horizon)] |= sprite_scores(dreamed, there)
    if env_id is not None and known is not None and known.ball is not None:
        seen, seen_real = balls_seen(dream, env_id), balls_seen(real[:, 1:], env_id)  # (S, K)
        for before, horizon in zip([0, *horizons], horizons, strict=False):
            shares = (float(balls[:, before:horizon].mean()) for balls in (seen, seen_real))
            table[str(horizon)] |= dict(zip(("ball_share", "ball_share_real"), shares, strict=True))
        if dream.shape[1] >= BALL_GAP_FROM:
            gap = seen[:, BALL_GAP_FROM - 1 :].mean() - seen_real[:, BALL_GAP_FROM - 1 :].mean()
            table["ball_share_gap"] = 100 * abs(float(gap))
    return table


def sprite_scores(dreamed: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """sprite_error_px, sprite_error_median_px and sprite_found of places in pixels (S,), NaN where the player is not found."""
    errors = np.abs(dreamed - there)
    errors = errors[np.isfinite(errors)]
    return {
        "sprite_error_px": share(float(errors.sum()), len(errors)),
        "sprite_error_median_px": float(np.median(errors)) if len(errors) else np.nan,
        "sprite_found": share(len(errors), int(np.isfinite(there).sum())),
    }


def balls_seen(videos: np.ndarray, env_id: str) -> np.ndarray:
    """(S, T) bool: the frames of videos (S, T, H, W, 3) in which a ball is to be found."""
    return np.stack([np.isfinite(detect_ball(video, env_id)[:, 0]) for video in videos])


def delta_psnr_scores(world: WorldModel, games: RealGames, count: int, seed: int) -> dict[str, dict[int, float]]:
    """Genie's controllability: PSNR of dreams under the right actions minus PSNR under random ones, from the same frames.

    Right actions are those that the latent action model reads off the real video, or the true ones in a world that knows them.
    Both dreams draw their tokens with the same dice, so that only the actions differ.
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
        dream = world.rollout(store.frames[places[:, :context]], right[:, :context], followed, seed)  # one seed, the same dice
        scores.append(HorizonScores(DELTA_HORIZONS))
        scores[-1].update(to_video(dream), real[:, context:], real[:, context - 1])
    names = {"delta_psnr_db": "psnr_db", "delta_moving_psnr_db": "moving_psnr_db"}
    of_right, of_random = scores
    return {name: delta_psnr_db(of_right, of_random, picture_score) for name, picture_score in names.items()}


def obedience_scores(world: WorldModel, branches: Branches, env_id: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Does the player go where the held key sends it?

    A step counts as obeyed when the dreamed player moves the same way (back, not at all, forth) as the real one at that step.
    Both are found by the same pixel detector, and for both a quarter of the real player's usual step is the least that counts
    as a movement. Steps where the real player is not found are left out, steps where the dreamed one is not are disobeyed.
    Returns the world's scores and those of a picture that stands still: obedience (all steps), obedience_moving (steps in
    which the real player moves, away from the wall) and obedience_by_key.
    """
    num_steps = branches.frames.shape[1]
    held = np.array([world.action_map.get(key, -1) for key in branches.keys], dtype=np.int64)
    known = branches.start_actions if world.action_kind == "true" else None  # latent actions are read off the frames
    dream = world.rollout(branches.start_frames, known, np.repeat(held[:, None], num_steps, axis=1), seed)
    last = branches.start_frames[:, -1:]
    places = players(np.concatenate([last, branches.frames], axis=1), env_id)  # (B, K + 1)
    still = usual_step(places) / 4
    real = directions(places, still)  # (B, K)
    dreamed = directions(players(np.concatenate([last, dream], axis=1), env_id), still)
    return agreement(dreamed, real, branches.keys), agreement(np.zeros_like(real), real, branches.keys)


def players(videos: np.ndarray, env_id: str) -> np.ndarray:
    """Where the player is in videos (B, T, H, W, 3): (B, T), NaN where it is not found."""
    return detect_player(np.concatenate(list(videos)), env_id).reshape(videos.shape[:2])


def agreement(dreamed: np.ndarray, real: np.ndarray, keys: list[str]) -> dict[str, Any]:
    """The obedience scores of directions (B, K), -1, 0, 1 or NaN, whose rows were played under `keys`."""
    seen = ~np.isnan(real)
    obeyed = (dreamed == real) & seen
    moving = seen & (real != 0)
    rows = {key: np.array(keys) == key for key in dict.fromkeys(keys)}
    return {
        "obedience": share(int(obeyed.sum()), int(seen.sum())),
        "obedience_moving": share(int(obeyed[moving].sum()), int(moving.sum())),
        "obedience_by_key": {key: share(int(obeyed[row].sum()), int(seen[row].sum())) for key, row in rows.items()},
    }


def step_seconds(world: WorldModel, num_frames: int, seed: int = 0) -> np.ndarray:
    """Seconds of each of num_frames calls of `WorldModel.step` under random actions, after a few steps of warming up."""
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
