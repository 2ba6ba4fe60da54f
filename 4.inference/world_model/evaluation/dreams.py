"""The three models together: dreams held against the real game under the same keys."""

import time
from typing import Any

import numpy as np
import torch

from dynamics_model.metrics import HorizonScores, delta_psnr_db
from video_tokenizer.data.clips import to_video
from video_tokenizer.data.games import detect_ball, detect_player, game_facts
from video_tokenizer.metrics import share
from world_model.evaluation.games import Branches, RealGames, directions, usual_step
from world_model.world import WorldModel

HORIZONS = (1, 4, 16, 64)
"""dreamed frames after the last real one at which a rollout is scored"""
DELTA_HORIZONS = (1, 4, 16)
"""the same for the difference that the right actions make"""


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


def rollout_scores(world: WorldModel, games: RealGames, count: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dreams of 64 frames under the keys that were pressed in the real game, from the same frames.

    Returns two tables horizon -> scores, of the world and of a picture that stands still: psnr_db and moving_psnr_db of the
    frame at the horizon, sprite_error_px, sprite_found (share of frames in which the player is still to be found), ball_share
    (share of dreamed frames with a ball, from the horizon before to this one) and ball_share_real.
    """
    context, store = world.context_frames, games.store
    longest = int((store.episodes[:, 1] - store.episodes[:, 0]).max()) - context
    num_frames = max((horizon for horizon in HORIZONS if horizon <= longest), default=0)
    windows = rollout_windows(games, context, num_frames, count)
    if num_frames == 0 or len(windows) == 0:
        return {}, {}
    frames = windows[:, None] + np.arange(context + num_frames)  # (S, C + K)
    actions = world_actions(world, store.actions[frames], store.action_names)
    known = actions[:, :context] if world.action_kind == "true" else None
    real = store.frames[frames]
    dream = world.dream(real[:, :context], known, actions[:, context:], seed)
    still = np.broadcast_to(real[:, context - 1 : context], dream.shape)
    scored = real[:, context - 1 :]  # the last start frame, then the frames to be dreamed
    return horizon_scores(dream, scored, store.env_id), horizon_scores(still, scored, store.env_id)


def horizon_scores(dream: np.ndarray, real: np.ndarray, env_id: str | None) -> dict[str, dict[str, float | None]]:
    """Horizon -> scores, as in `rollout_scores`. dream: (S, K, H, W, 3) uint8; real: (S, K + 1, H, W, 3), one frame before it."""
    horizons = [horizon for horizon in HORIZONS if horizon <= dream.shape[1]]
    known = game_facts(env_id) if env_id else None
    pictures = HorizonScores(horizons)
    pictures.update(to_video(dream.copy()), to_video(real[:, 1:]), to_video(real[:, :1])[:, 0])
    table: dict[str, dict[str, float | None]] = {
        str(horizon): {name: pictures.result(name)[horizon] for name in ("psnr_db", "moving_psnr_db")} for horizon in horizons
    }
    for before, horizon in zip([0, *horizons], horizons, strict=False):
        row = table[str(horizon)]
        if env_id is not None and known is not None and known.player is not None:
            there, dreamed = detect_player(real[:, horizon], env_id), detect_player(dream[:, horizon - 1], env_id)
            both = ~np.isnan(there) & ~np.isnan(dreamed)
            row["sprite_error_px"] = share(float(np.abs(there - dreamed)[both].sum()), int(both.sum()))
            row["sprite_found"] = share(int(both.sum()), int((~np.isnan(there)).sum()))
        if env_id is not None and known is not None and known.ball is not None:
            for name, video in (("ball_share", dream[:, before:horizon]), ("ball_share_real", real[:, before + 1 : horizon + 1])):
                row[name] = float(np.isfinite(detect_ball(np.concatenate(list(video)), env_id)[:, 0]).mean())
    return table


def delta_psnr_scores(world: WorldModel, games: RealGames, count: int, seed: int) -> dict[str, dict[int, float]]:
    """Genie's controllability: PSNR of dreams under the right actions minus PSNR under random ones, from the same frames.

    Right actions are those that the latent action model reads off the real video, or the true ones in a world that knows them.
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
    twice = np.concatenate([store.frames[places[:, :context]]] * 2), np.concatenate([right[:, :context]] * 2)
    dreams = world.dream(*twice, np.concatenate([right[:, context:], random]), seed)  # (2 S, 16, H, W, 3), one batch
    scores = []
    for dream in np.split(dreams, 2):
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
    dream = world.dream(branches.start_frames, known, np.repeat(held[:, None], num_steps, axis=1), seed)
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


def speed_scores(world: WorldModel, num_frames: int) -> dict[str, Any]:
    """frames_per_second and p95_ms of `WorldModel.step` on this machine, after a few steps of warming up."""
    world.reset(world.start_frames[0], world.start_actions[0])
    actions = np.random.default_rng(0).integers(max(1, world.num_actions), size=num_frames + 5)
    seconds = []
    for action in actions:
        begun = time.perf_counter()
        world.step(int(action) if world.num_actions else -1)
        seconds.append(time.perf_counter() - begun)
    measured = np.array(seconds[5:])
    return {
        "frames_per_second": float(1.0 / measured.mean()),
        "p95_ms": float(1000 * np.quantile(measured, 0.95)),
        "device": str(world.device),
        "num_threads": torch.get_num_threads(),
    }
