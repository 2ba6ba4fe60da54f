"""Does noise in the past keep the long rollouts of Dreamer 4 from drifting?

    python 3.dynamics-model/lab/context_noise.py --data-path data/breakout
    python 3.dynamics-model/lab/context_noise.py --readme

Trains the model once per seed on the latents of compare.py's tokenizer, which is trained first if there is none. Then it rolls
each out for 256 frames under random keys, with more and with less noise in the frames that it has formed itself. As usual counts
what real frames look like that went through the same tokenizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynamics_lab.comparison import (
    CHAPTER,
    SEED,
    TEXTS,
    Arena,
    Sizes,
    comparison,
    latents_tokenizer,
    open_world,
    read_flags,
    train_script,
)
from tokenizer_lab.sweep import Column, Study, SweepConfig, read_results, sweep, write_block
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import resolve_path
from video_tokenizer.training.command_line import parse_config, run_script
from world_model.evaluation.long_rollouts import (
    LEAD,
    RealFrames,
    frame_statistics,
    long_rollouts,
    pieces,
    realism_scores,
    reconstruct,
    usual_range,
)
from world_model.evaluation.rollouts import rollout_scores

LEVELS = 16
"""signal levels that training knows; the past has at least one sixteenth of noise"""
NOISE = (1, 2, 3, 6)
"""sixteenths of noise in the past; 2 is the default"""
FRAMES, ROLLOUTS, STRETCH = 256, 4, 64
"""length and number of the rollouts, and frames of which the first and the last so many are scored"""
SCORES = {
    "first": f"first {STRETCH} frames like real ones",
    "last": f"last {STRETCH}",
    "changed": "changing pixels, over real ones",
    "paddle": "paddle error after 16 frames, pixels",
}


@dataclass(frozen=True)
class ContextNoiseConfig(SweepConfig):
    """Train Dreamer 4's dynamics model, and roll it out with more and less noise in its past."""

    num_steps: int = 494
    """optimizer steps of each training; 494 are those of the comparison"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """the model is trained once per seed"""
    num_threads: int = 1
    """threads of each training"""
    latents_checkpoint: str | None = None
    """the tokenizer whose latents are learned; default: the comparison's"""


def usual(tokenizer: Tokenizer, real: RealFrames, data: Path) -> RealFrames:
    """What is usual in real frames that only went through the tokenizer, from every sixteenth episode."""
    store = open_clip_store(data)
    some = replace(store, episodes=store.episodes[::16])
    low, high = usual_range([frame_statistics(reconstruct(tokenizer, piece), real.background) for piece in pieces(some)])
    return replace(real, low=low, high=high)


def drift(arena: Arena, checkpoint: Path) -> dict[str, Any]:
    """The scores of this model with each amount of noise in its past, and those of repeated last frames."""
    world = open_world(checkpoint)
    played = arena.play(world.metadata, world.frame_size)
    real, env_id, scores = usual(world.tokenizer, played.real, arena.data), played.env_id, {}
    for noise in NOISE:
        noised = open_world(checkpoint, context_signal=1 - noise / LEVELS)
        found = long_rollouts(noised, played.games, FRAMES, ROLLOUTS, SEED)
        assert found is not None
        for name, videos in ((f"noise_{noise}", found[0]), ("still", found[1])):
            first = realism_scores(videos[:, : LEAD + STRETCH], real, env_id)["within_real_range"]
            last = realism_scores(videos[:, -LEAD - STRETCH :], real, env_id)
            scores[name] = {"first": first, "last": last["within_real_range"], "changed": last["changed_ratio"]}
        moved, still = rollout_scores(noised, played.games, arena.sizes.num_rollouts, SEED, 16)
        scores[f"noise_{noise}"]["paddle"] = moved["16"]["sprite_error_px"]
        scores["still"]["paddle"] = still["16"]["sprite_error_px"]
    return scores


def study_of(rows: Mapping[str, str], arena: Arena | None = None) -> Study:
    """The study of one model. arena: where it is scored; None for a table of numbers that are there."""
    names = [*(f"noise_{noise}" for noise in NOISE), "still"]
    return Study(
        chapter=CHAPTER, name="context_noise", rows=rows, read_flags=read_flags, models=train_script,
        columns=[Column(f"{name}.{score}", score) for name in names for score in SCORES],
        validate_flags=lambda _: "--num-batches 1 --num-rollouts 2", score=partial(drift, arena) if arena else None,
    )  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """Markdown: an amount of noise per line; mean over the seeds and half their range."""
    runs = results["rows"]["dreamer4"]["runs"]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    lines = [f"| noise in the past, seeds {seeds} | " + " | ".join(SCORES.values()) + " |", "|---|" + "---|" * len(SCORES)]
    for name in (*(f"noise_{noise}" for noise in NOISE), "still"):
        cells = []
        for score in SCORES:
            values = [run["metrics"][f"{name}.{score}"] for run in runs]
            spread = f" ±{np.ptp(values) / 2:.2f}" if np.ptp(values) else ""
            cells.append(f"{np.mean(values):.2f}{spread}")
        label = "(copy-last)" if name == "still" else f"{int(name[6:]) / LEVELS:.2f}"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    config = parse_config(ContextNoiseConfig)
    study = study_of({"dreamer4": ""})
    if config.readme:
        text = table(read_results(study, config))
        write_block(TEXTS / "dreamer4" / "README.md", "context-noise", text)
        return print(text)
    config.check()
    data = config.data_flags(study)
    given = config.latents_checkpoint
    folder = config.runs_folder(comparison("comparison", {}))
    latents = resolve_path(given, study.root) if given else latents_tokenizer(study, folder, data)
    arena = Arena(resolve_path(config.data_path, study.root), {"latents": latents}, Sizes())
    study = study_of({"dreamer4": f"--model dreamer4 --tokenizer-checkpoint {study.relative(latents)}"}, arena)
    flags = ["--num-steps", str(config.num_steps), "--actions", "true", "--validation-batches", "4"]
    print(table(sweep(study, config, flags)))


if __name__ == "__main__":
    run_script(main)
