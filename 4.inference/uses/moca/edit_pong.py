"""Train MoCA on a recording of Pong in many colors, edit clips of unseen games with it, and measure what became of them.

    python 1.video-tokenizer/record.py --env ALE/Pong-v5 --num-frames 160000 --seed 10 --output data/pong-long
    python 4.inference/uses/moca/edit_pong.py --data-path data/pong-long --json scores/moca_pong.json \
        --picture scores/moca_pong.png

Everything is in --output. What is there already, made with the same flags, is used again.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from uses.moca.conditions import Films
from uses.moca.config import PongConfig
from uses.moca.digits import COLORS
from uses.moca.edit_clips import animated
from uses.moca.pong import PongClips, captions, clip_scores, cut_clips, draw_palette, films, find_cover, look, paint
from uses.moca.train import Draw, open_moca
from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.data.clips import to_frames, to_video
from video_tokenizer.figures import image_grid, save_picture
from video_tokenizer.training.command_line import parse_config, run_script
from video_tokenizer.training.device import choose_device
from video_tokenizer.training.results import format_table, save_json, settings_of

SHOWN = "white"
"""color of the ball in the picture, because it is the easiest to see"""


def in_many_colors(store: ClipStore, config: PongConfig) -> Draw:
    """Films of the games of the training, each time in other colors. Nothing is cut out before the first one is asked for."""

    @cache
    def clips() -> PongClips:
        return cut_clips(store, config.num_cuts, np.random.default_rng((config.seed, 5)), is_training=True)

    def draw(count: int, rng: np.random.Generator) -> Films:
        rows = rng.integers(len(clips().video), size=count)
        return films(PongClips(*(of[rows] for of in clips())), draw_palette(count, rng))

    return draw


def main() -> None:
    config = parse_config(PongConfig)
    config.check()
    config = replace(config, device=str(choose_device(config.device)))
    store = open_clip_store(config.data_path)
    rng = np.random.default_rng((config.seed, 3))
    source = cut_clips(store, config.num_clips, rng, is_training=False)
    moca = open_moca(config, in_many_colors(store, config), store.fingerprint)

    palette = draw_palette(len(source.video), rng)
    first = paint(find_cover(source.video[:, :1]), palette)  # the first-frame editor
    given = Films(first, source.flow, captions(palette))
    target = films(source, palette).video
    with torch.no_grad():
        decoded = to_frames(moca.vae.decode(moca.vae.encode(to_video(target, config.device))))
    clips = {
        "with_flow": animated(moca, given, config, keeps_flow=True),
        "without_flow": animated(moca, given, config, keeps_flow=False),
        "standing_still": np.repeat(first, source.video.shape[1], axis=1),
        "through_the_autoencoder": decoded,
        "every_frame_repainted": target,
    }
    scores = {name: clip_scores(video, source, palette) for name, video in clips.items()}
    print(f"other colors, {len(first)} clips", format_table(scores), sep="\n")
    if config.json:
        settings = settings_of(config, "output", "data_path", "json", "picture")
        save_json(config.json, {"settings": settings, "clips": len(first), **scores})
    if config.picture:
        way = np.abs(look(source.video).ball[:, -1] - look(source.video).ball[:, 0]).sum(axis=1)
        number = int(np.where(palette.ball == [*COLORS].index(SHOWN), way, -1).argmax())
        rows = [("source", source.video[number, ::2]), ("edited frame", first[number])]
        names = "with_flow", "without_flow", "through_the_autoencoder"
        rows += [(name.replace("_", " "), clips[name][number, ::2]) for name in names]
        save_picture(config.picture, image_grid(rows), 256)


if __name__ == "__main__":
    run_script(main)
