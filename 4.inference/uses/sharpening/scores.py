"""Scores of enlarged pictures: against the emulator where there is one, and by detectors where the world imagines."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from uses.sharpening.model import Sharpener, bicubic
from uses.sharpening.pairs import Pairs, shrink
from video_tokenizer.data.clips import Clips, to_frames, to_video
from video_tokenizer.data.validation import even_batches, local_background
from video_tokenizer.figures import enlarge
from video_tokenizer.games.detectors import ball_lights, detect_ball, player_distortion
from video_tokenizer.losses import background_of
from video_tokenizer.metrics import SECOND_BALL, VideoScores, share
from world_model.lively_starts import is_ball_game

BATCH_SIZE = 8
"""clips that are scored at a time"""
CRUMB = 0.05
"""least light of a crumb, as a share of a ball's; what is fainter, nobody sees"""
Enlarge = Callable[[np.ndarray], np.ndarray]


def enlargements(sharpener: Sharpener) -> dict[str, Enlarge]:
    """Name -> what makes (T, sH, sW, 3) uint8 of (T, H, W, 3) uint8: pixels repeated, bicubic interpolation, and the network."""

    def interpolate(frames: np.ndarray) -> np.ndarray:
        return to_frames(bicubic(to_video(frames[None])[0], sharpener.scale)[None])[0]

    return {"nearest": lambda frames: enlarge(frames, sharpener.scale), "bicubic": interpolate, "sharpened": sharpener.sharpen}


def picture_scores(
    methods: Mapping[str, Enlarge], pairs: Pairs, clips: Clips, num_batches: int | None = None
) -> dict[str, dict[str, float]]:
    """Each method's scores on decoded frames against the truth: those of `VideoScores`, and flicker.

    flicker: by how many of 255 levels a pixel changes, on average, from one frame to the next where the truth does not change.
    The first frame of a clip is not scored. clips: of pairs.store. num_batches: of 8 clips, evenly spaced; None: all clips.
    """
    background = background_of(pairs.store.frames)
    scores = {name: VideoScores() for name in methods}
    flicker, at_rest = dict.fromkeys(methods, 0.0), 0
    for indices in even_batches(len(clips), BATCH_SIZE, num_batches):
        places = clips.starts[indices][:, None] + np.arange(clips.num_frames)  # (B, T)
        truth, decoded = pairs.store.frames[places], pairs.decoded[places]
        video = to_video(truth)
        ball, scene = None, None
        if pairs.ball is not None:
            ball, scene = torch.from_numpy(pairs.ball[places[:, 1:]]), local_background(pairs.store, clips, indices)
        still = (truth[:, 1:] == truth[:, :-1]).all(axis=-1)  # (B, T - 1, sH, sW)
        at_rest += int(still.sum())
        for name, method in methods.items():
            pictures = method(decoded.reshape(-1, *decoded.shape[2:])).reshape(truth.shape)
            scores[name].update(to_video(pictures)[:, 1:], video[:, 1:], video[:, :-1], background, ball, scene)
            change = np.abs(pictures[:, 1:].astype(np.int16) - pictures[:, :-1]).mean(axis=-1)  # (B, T - 1, sH, sW)
            flicker[name] += float(change[still].sum())
    return {name: scores[name].result() | {"flicker": share(flicker[name], at_rest)} for name in methods}


def dream_scores(
    methods: Mapping[str, Enlarge], dream: np.ndarray, real: np.ndarray, env_id: str, linear_light: bool
) -> dict[str, dict[str, float]]:
    """Each method's scores on imagined frames of a ball game, of which there is no truth, by the detectors of chapter 1.

        ball_light          the ball's light, summed over 2x2 pixels: median, as a share of that in real pictures of this size
        ball_found          of the frames that show a ball before they are enlarged: share that still shows one
        one_ball            of the same frames: share with exactly one ball
        crumbs              of the same frames: share whose second brightest spot is a crumb
        player_distortion   how much the player deviates from its sprite, mean; 0 for a perfect one

    A ball has at least SECOND_BALL of a real ball's light, a crumb less than that and more than CRUMB. Both are counted in
    pictures that are shrunk again, since around a blurred ball of 128 pixels the detector of second balls finds its rim.
    dream: (F, H, W, 3) uint8. real: (F', sH, sW, 3) uint8, real pictures, whose scores are the row "real".
    linear_light: how they were shrunk.
    """
    pictures = {name: method(dream) for name, method in methods.items()} | {"real": real}
    table: dict[str, dict[str, float]] = {name: {} for name in pictures}
    if is_ball_game(env_id):
        size = dream.shape[1], dream.shape[2]
        large = {name: ball_lights(frames, env_id) for name, frames in pictures.items()}  # each (F, 2)
        small = {name: ball_lights(shrink(frames, size, linear_light), env_id) for name, frames in pictures.items()}
        there = np.isfinite(detect_ball(real, env_id)[:, 0])
        usual, usual_large = (float(np.median(lights["real"][there, 0])) if there.any() else np.nan for lights in (small, large))
        before = ball_lights(dream, env_id)[:, 0]
        for name, lights in small.items():
            seen = (lights[:, 0] if name == "real" else before) >= SECOND_BALL * usual
            balls, spots = (lights[seen] >= least * usual for least in (SECOND_BALL, CRUMB))
            table[name]["ball_light"] = float(np.median(large[name][seen, 0])) / usual_large if seen.any() else np.nan
            table[name]["ball_found"] = share(int(balls[:, 0].sum()), int(seen.sum()))
            table[name]["one_ball"] = share(int((balls.sum(axis=1) == 1).sum()), int(seen.sum()))
            table[name]["crumbs"] = share(int((spots[:, 1] & ~balls[:, 1]).sum()), int(seen.sum()))
            table[name]["player_distortion"] = float(player_distortion(pictures[name], env_id, linear_light).mean())
    return table
