"""The stages of a world: which command each chapter runs, what it reads, what it leaves and what was learned."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.training.checkpoint import REPOSITORY
from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.results import read_json
from world_model.build_config import BuildConfig, Paths
from world_model.stages import Stage, duration

QUICK_TRAINING = ("--num-steps", "12", "--validation-batches", "1")
QUICK_FRAMES = 1_500
QUICK_FRAME_SIZE = 32


def script(chapter: str, name: str) -> str:
    """A chapter's script as the reader would name it from here."""
    return os.path.relpath(REPOSITORY / chapter / name)


def all_stages(config: BuildConfig, env_id: str, paths: Paths) -> list[Stage]:
    """Everything it takes to build the world, in order; recording only where there are no data yet."""
    recording = recording_stage(config, env_id, paths)
    played = env_id if recording else open_clip_store(paths.data).env_id
    stages = [*([recording] if recording else []), *training_stages(config, paths)]
    return [*stages, *showing_stages(config, paths, played, [stage.copy_to for stage in stages if stage.copy_to])]


def recording_stage(config: BuildConfig, env_id: str, paths: Paths) -> Stage | None:
    """Record the game; None where a clip store is given, or is there without having been recorded by an earlier build."""
    recorded_here = "record" in read_json(paths.state)
    if config.data_path is not None or (paths.data.exists() and not recorded_here):
        store = open_clip_store(paths.data)
        if config.data_path is None and store.env_id != env_id:
            raise InputError(
                f"{paths.data} holds {store.env_id or 'videos'}, not {env_id}; move it away or give it as --data-path"
            )
        print(f"\nlearning from {paths.data}: {len(store.frames):,} frames of {store.env_id or 'video'}, recorded before")
        return None
    num_frames = min(config.num_frames, QUICK_FRAMES) if config.quick else config.num_frames
    command = [script("1.video-tokenizer", "record.py"), "--env", env_id, "--num-frames", str(num_frames),
               "--output", str(paths.data), "--seed", str(config.seed), "--overwrite"]  # fmt: skip
    command += ["--frame-size", str(QUICK_FRAME_SIZE)] if config.quick else []

    def learned() -> str:
        store = open_clip_store(paths.data)
        played = duration(len(store.frames) / store.frames_per_second)
        return f"Recorded {played} of play: {len(store.frames):,} frames in {len(store.episodes)} episodes."

    return Stage("record", f"Chapter 1, data: record {env_id}", command, [], paths.data, learned)


def say(sentence: str, path: Path) -> str:
    """The sentence with the numbers of a metrics.json filled in, "" where one of them was not measured."""
    try:
        return sentence.format(**json.loads(path.read_text()))
    except (OSError, KeyError, TypeError, ValueError):
        return ""


def training_stages(config: BuildConfig, paths: Paths) -> list[Stage]:
    """Tokenizer, latent actions where the world is to have them, dynamics; each copies its best model into the world folder."""
    shared = ["--data-path", str(paths.data), "--preset", config.preset, "--seed", str(config.seed), "--device", config.device]
    shared += QUICK_TRAINING if config.quick else []
    tokenizer, latent, dynamics = (paths.runs / name for name in ("tokenizer", "latent_actions", f"dynamics_{config.actions}"))

    def stage(
        title: str, chapter: str, folder: Path, kind: str, sentence: str, *models: Path, flags: Sequence[str] = ()
    ) -> Stage:
        command = [script(chapter, "train.py"), *shared, "--checkpoint-dir", str(folder), *flags]
        settings = next((REPOSITORY / chapter).glob("*/config.py"))  # a changed default is a changed training
        output = folder / "best_model.pt"
        learned = partial(say, sentence, folder / "metrics.json")
        inputs, copy_to = [paths.data, settings, *models], paths.world / f"{kind}.pt"
        return Stage(folder.name, title, command, inputs, output, learned, copy_to, folder / "metrics.json")

    stages = [
        stage(
            "Chapter 1, video tokenizer: learn to write frames as tokens",
            "1.video-tokenizer",
            tokenizer,
            "tokenizer",
            "Learned to redraw frames: {psnr_db:.1f} dB, {moving_psnr_db:.1f} dB where something moves "
            "(repeating the last frame: {copy_last_moving_psnr_db:.1f}), with {codes_used:.0f} different tokens.",
        )
    ]
    models = [tokenizer / "best_model.pt"]
    flags = ["--actions", config.actions, "--tokenizer-checkpoint", str(models[0])]
    if config.actions == "latent":
        stages.append(
            stage(
                "Chapter 2, latent actions: find out which actions there are",
                "2.latent-action-model",
                latent,
                "latent_action_model",
                "Found {codes_used:.0f} actions that nobody labelled: with the right one, what moves is drawn "
                "{delta_moving_psnr_db:.1f} dB better than with a random one.",
            )
        )
        models.append(latent / "best_model.pt")
        flags += ["--latent-action-checkpoint", str(models[1])]
    flags += ["--prior-steps", "12"] if config.quick else []
    stages.append(
        stage(
            "Chapter 3, dynamics: learn what happens next",
            "3.dynamics-model",
            dynamics,
            "dynamics",
            "Learned what happens next: given the wrong actions, its loss on what changes is {shuffle_ratio:.2f} times as large.",
            *models,
            flags=flags,
        )
    )
    return stages


def showing_stages(config: BuildConfig, paths: Paths, env_id: str | None, models: Sequence[Path]) -> list[Stage]:
    """Measure the world and film it. env_id: its game, None for a world of videos."""
    world = ["--world", str(paths.world), "--device", config.device]
    source = ["--env", env_id] if env_id else ["--data-path", str(paths.data)]
    measure = [script("4.inference", "evaluate.py"), *world, *source, "--json", str(paths.world / "metrics.json")]
    measure += ["--quick"] if config.quick else []
    facts = game_facts(env_id) if env_id else None
    pattern = f"{facts.player_keys[1]}*10,NOOP*2,{facts.player_keys[0]}*10,NOOP*2" if facts else "random"
    film = [script("4.inference", "generate.py"), *world, "--num-frames", "8" if config.quick else "72", "--actions", pattern]
    sentence = "In {obedience:.0%} of the steps the dreamed player moves as the real one under the same key."
    metrics, dream, beside = (paths.world / name for name in ("metrics.json", "dream.gif", "beside.gif"))
    stages = [
        Stage(f"evaluate_{config.actions}", "Chapter 4, evaluation: measure the world against the real game", measure, models,
              metrics, partial(say, sentence, metrics)),
        Stage(f"dream_{config.actions}", "Chapter 4, dream: play the world with chosen keys", [*film, "--output", str(dream)],
              models, dream),
    ]  # fmt: skip
    if env_id:
        command = [*film, "--beside-emulator", env_id, "--output", str(beside)]
        title = "Chapter 4, dream beside the real game: same beginning, same keys"
        stages.append(Stage(f"beside_{config.actions}", title, command, models, beside))
    return stages
