"""Draw the pictures of this chapter: its parts, where the encoder looks, where its latents lie, which keys they stand for, and
how codes collapse.

    python 2.latent-action-model/lab/illustrate.py
    python 2.latent-action-model/lab/illustrate.py --train-collapse --data-path data/breakout

The second command first trains twice, in minutes, for the curves of the collapse and the gallery of a collapsed model.
"""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from action_lab.chapter_drawings import save_drawings
from action_lab.draw import (
    game_of,
    play_at_random,
    read_curves,
    save_collapse,
    save_collapsed_gallery,
    save_latents,
    save_pooling,
)
from latent_action_model.figures import draw_confusion
from latent_action_model.loading import build_latent_action_model, load_latent_action_model
from latent_action_model.models.latent_action_model import LatentActionModel
from tokenizer_lab.draw import scores_of
from tokenizer_lab.drawing import save_chart
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.command_line import check_smallest, parse_config, run_script
from video_tokenizer.training.results import read_json, save_json

SCRIPT = Path(__file__).resolve().parents[1] / "train.py"
TRAININGS = {"defaults": "", "collapsed": "--pooling flatten --noisy-steps 0 --code-dim 8"}
"""name -> flags of train.py"""


@dataclass(frozen=True)
class IllustrateConfig:
    """Draw the model, where its encoder looks, where its latents lie, which keys they stand for, and how codes collapse."""

    world: str = "assets/worlds/breakout"
    """folder of a world; the pictures show its latent action model on the start frames stored with it"""
    num_frames: int = 1_500
    """frames of real games with random actions whose latents are shown"""
    train_collapse: bool = False
    """first train twice, with the defaults and so that the codes collapse, and save the curves"""
    data_path: str = "data/breakout"
    """clip store of these trainings"""
    num_steps: int = 600
    """optimizer steps of these trainings"""
    curves: str = "assets/2.latent-action-model/collapse.json"
    """file with their curves"""
    scores: str = "assets/2.latent-action-model/metrics.json"
    """file that validate.py --json writes, with how often each latent action came with each key"""
    output: str = "assets/2.latent-action-model"
    """folder for the pictures"""


def train(name: str, config: IllustrateConfig, folder: Path) -> dict[str, Any]:
    """Run train.py with the flags of `name` in folder/name and return its command and curves. Raises InputError if it fails."""
    settings = f"--num-steps {config.num_steps} --log-every 20 --validate-every 50 {TRAININGS[name]}"
    words = ["--data-path", config.data_path, *shlex.split(settings)]
    shown = shlex.join(["python", f"{SCRIPT.parent.name}/{SCRIPT.name}", *words])
    print(f"$ {shown}", flush=True)
    if code := subprocess.run([sys.executable, SCRIPT, *words, "--checkpoint-dir", folder / name]).returncode:
        raise InputError(f"training failed with exit code {code} for the reason above: {shown}")
    noisy_steps = load_latent_action_model(folder / name / "final_model.pt").config.noisy_steps
    history = read_json(folder / name / "metrics.json")["history"]
    return {"command": shown, "noisy_steps": noisy_steps, "curves": read_curves(history)}


def draw_latents(path: Path, model: LatentActionModel, facts: Mapping[str, Any], num_frames: int) -> bool:
    """Draw the latents of games played now. Returns False, and prints why, if the world's game cannot be played."""
    try:
        game = game_of(facts, model.frame_size)
    except InputError as error:
        print(f"{path.name} is left out: {error}")
        return False
    torch.manual_seed(0)
    untrained = build_latent_action_model(model.config).eval()
    save_latents(path, model, untrained, play_at_random(game, num_frames), game.action_names)
    game.close()
    return True


def main() -> None:
    config = parse_config(IllustrateConfig)
    check_smallest(config, {"num_frames": 50, "num_steps": 1})
    folder, curves = Path(config.output), Path(config.curves)
    model = load_latent_action_model(Path(config.world) / "latent_action_model.pt")
    facts = load_checkpoint(Path(config.world) / "dynamics.pt", "dynamics")
    video = to_video(facts["start_frames"].numpy())  # (S, T, 3, H, W)
    drawn = save_drawings(folder, model, video, facts.get("env_id") or "")
    if model.config.pooling == "change":
        save_pooling(folder / "pooling.png", model, video)
        drawn.append("pooling.png")
    else:
        print(f"pooling.png is left out: with --pooling {model.config.pooling} cells have no weights")
    if draw_latents(folder / "latents", model, facts, config.num_frames):
        drawn.append("latents")
    if scores := scores_of(config.world, Path(config.scores), ("counts", "action_map", "latent_names"), "confusion"):
        confusion = draw_confusion(np.array(scores["counts"]), list(scores["action_map"]), scores["latent_names"])
        save_chart(folder / "confusion", confusion, "How often each latent action came with each key")
        drawn.append("confusion")
    if config.train_collapse:
        with tempfile.TemporaryDirectory() as runs:
            save_json(curves, {name: train(name, config, Path(runs)) for name in TRAININGS})
            collapsed = load_latent_action_model(Path(runs) / "collapsed" / "final_model.pt")
        save_collapsed_gallery(folder / "collapsed_gallery.png", {"healthy": model, "collapsed": collapsed}, video)
        drawn.append("collapsed_gallery.png")
    if trainings := read_json(curves):
        save_collapse(folder / "collapse", trainings)
        drawn.append("collapse")
    else:
        print(f"collapse is left out: {curves} holds no curves yet; --train-collapse makes them")
    print(f"{', '.join(drawn)} are in {folder}")


if __name__ == "__main__":
    run_script(main)
