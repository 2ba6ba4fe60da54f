"""Build a playable world: record a game, train chapters 1 to 3 on it, evaluate the world, film it, write a report.

    python 4.inference/build_world.py --game breakout
    python 4.inference/build_world.py --game breakout --actions true
    python 4.inference/build_world.py --data-path my-videos

This is what `make world` runs. It only calls the chapters' own scripts and prints each command, so that you can repeat any step
by hand. Stop it or kill it at any moment: the same command resumes, and repeats a step only if its command or its inputs changed.
"""

import base64
import hashlib
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple

from video_tokenizer.data.clip_store import ClipStore, open_clip_store
from video_tokenizer.data.training_data import open_source
from video_tokenizer.errors import InputError
from video_tokenizer.games.detectors import game_facts
from video_tokenizer.games.emulator import short_name
from video_tokenizer.training.atomic_files import FolderLock, write_atomically, write_text_atomically
from video_tokenizer.training.command_line import parse_config, run_script, shown_command
from video_tokenizer.training.config import SourceFlags, height_and_width
from video_tokenizer.training.device import choose_device
from video_tokenizer.training.results import read_json, save_json
from video_tokenizer.training.run import STOP_SIGNALS
from world_model.evaluation.table import results_table

REPOSITORY = Path(__file__).resolve().parents[1]
GAMES = {
    "breakout": "ALE/Breakout-v5",
    "pong": "ALE/Pong-v5",
    "boxing": "ALE/Boxing-v5",
    "freeway": "ALE/Freeway-v5",
    "mspacman": "ALE/MsPacman-v5",
}


@dataclass(frozen=True)
class BuildConfig(SourceFlags):
    """Build a playable world from a game, or from videos."""

    data_path: str | None = None
    """clip store, folder of videos or images, or .h5 file to train on; default: record the game in data/<game>, or in data/ in
    the given output"""
    game: str | None = None
    """default: breakout, or the game of the data path if it is a recording; for videos of a game: score the world beside it.
    breakout, pong, boxing, freeway, mspacman, or the Gymnasium id of any game with discrete actions, such as CartPole-v1 or
    minigrid:MiniGrid-Empty-8x8-v0 (package:id)"""
    actions: Literal["latent", "true"] = "latent"
    """what controls the world: latent actions discovered from video (chapter 2), or the recorded keys"""
    preset: Literal["tiny", "small", "paper"] = "tiny"
    """sizes: tiny (two CPU cores, minutes), small (one GPU), paper (Genie's Appendix F)"""
    output: str | None = None
    """folder for the finished world; default worlds/<game or folder of videos>, with -true behind it for true actions"""
    runs: str | None = None
    """folder for the training runs, shared by both kinds of actions; default worlds/<game>/runs, or runs/ in the given output"""
    num_frames: int = 40_000
    """frames to record"""
    seed: int = 0
    """seed of the recording and the trainings; the evaluation plays games of its own"""
    restart: str | None = None
    """step to repeat although nothing has changed, such as tokenizer, latent_actions, dynamics_latent or evaluate_latent"""
    quick: bool = False
    """smoke test of a minute or two with little data and a dozen training steps; the world it builds shows noise"""
    device: str = "auto"
    """auto (CUDA; Apple's mps only for presets above tiny, which is unmeasured; else cpu), cpu, cuda, cuda:1, mps"""


class Folders(NamedTuple):
    """Where a build reads and writes."""

    data: Path
    world: Path
    runs: Path


@dataclass(frozen=True)
class Step:
    """One command of a build."""

    name: str
    title: str
    command: list[str]
    """script and flags, without the interpreter"""
    inputs: list[Path]
    """files whose content decides the result: if one changes, the step runs again"""
    outputs: list[Path]
    """files that the command writes"""
    result: str = ""
    """a sentence whose numbers come from outputs[0], a JSON file"""
    picture: Path | None = None
    """shown in the report"""
    copy_to: Path | None = None
    """where the last output is copied: into the world folder"""

    def fingerprint(self) -> str:
        """SHA-256 in hex of the command and the content of the inputs."""
        digest = hashlib.sha256(json.dumps(self.command).encode())
        for path in self.inputs:
            digest.update(f"{path} ".encode() + (path.read_bytes() if path.exists() else b""))
        return digest.hexdigest()

    def described_result(self) -> str:
        """The result sentence with its numbers; "" if one of them was not measured."""
        try:
            return self.result.format(**read_json(self.outputs[0])) if self.result else ""
        except (KeyError, TypeError, ValueError):
            return ""


# ---- what to run --------------------------------------------------------------------------------------------------------


def choose_environment(game: str | None, store: ClipStore | None) -> str | None:
    """The Gymnasium id of the game, given by a short name or an id, else that of the store; None for videos.

    Raises InputError for an unknown game, and for another one than the store's.
    """
    if store is not None and (game is None or store.env_id is not None):
        if game is not None and choose_environment(game, None) != store.env_id:
            raise InputError(f"{store.path} holds {store.env_id}, not {game}; leave --game out")
        return store.env_id
    game = game or "breakout"
    if game.lower() in GAMES:
        return GAMES[game.lower()]
    if "-v" in game:
        return game
    raise InputError(f"there is no game {game!r}; choose one of {', '.join(GAMES)}, or give a Gymnasium id such as ALE/Pong-v5")


def subject(store: ClipStore | None, env_id: str | None) -> str:
    """What the world is of: its game, or the name of the folder or file of videos."""
    if store is None or store.env_id is not None:
        assert env_id is not None
        return env_id
    return Path(store.info.get("source_path") or store.path).resolve().stem


def choose_folders(config: BuildConfig, store: ClipStore | None, name: str) -> Folders:
    """The given folders, or defaults inside the repository; relative paths where they lie below the current folder.

    store: of the data path. name: what the world is of.
    """
    name = short_name(name) + ("-quick" if config.quick else "")
    worlds, output = REPOSITORY / "worlds", Path(config.output) if config.output else None

    def shorten(path: str | Path) -> Path:
        path = Path(path).resolve()
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    return Folders(
        data=shorten(store.path if store else (output / "data" if output else REPOSITORY / "data" / name)),
        world=shorten(output or worlds / (name + ("-true" if config.actions == "true" else ""))),
        runs=shorten(config.runs or (output or worlds / name) / "runs"),
    )


def script(path: str) -> str:
    """A script of the repository, as a path from the current folder."""
    try:
        return os.path.relpath(REPOSITORY / path)
    except ValueError:  # another drive of Windows
        return str(REPOSITORY / path)


def recording_step(config: BuildConfig, store: ClipStore | None, env_id: str | None, folders: Folders) -> Step | None:
    """Record the game; None if there are data that this build did not record. store: of the data path."""
    recorded_here = store is None and (folders.runs / "record.stamp").exists()
    if store is None and (folders.data / "clip_store.json").exists():
        store = open_clip_store(folders.data)
    if config.data_path is None and store is not None and store.env_id != env_id:
        raise InputError(f"{folders.data} holds {store.env_id or 'videos'}, not {env_id}; move it away or give it as --data-path")
    if not recorded_here and store is not None:
        print(f"\ntraining on {folders.data}: {len(store.frames):,} existing frames of {store.env_id or 'video'}")
        return None
    assert env_id is not None
    num_frames = min(config.num_frames, 1_500) if config.quick else config.num_frames
    command = [script("1.video-tokenizer/record.py"), "--env", env_id, "--num-frames", str(num_frames),
               "--output", str(folders.data), "--seed", str(config.seed), "--overwrite"]  # fmt: skip
    command += frame_size_flag(config) or (["--frame-size", "32"] if config.quick else [])
    result = "Recorded {num_frames:,} frames in {num_episodes} episodes."
    return Step("record", f"Chapter 1, data: record {env_id}", command, [], [folders.data / "clip_store.json"], result)


def frame_size_flag(config: BuildConfig) -> list[str]:
    """--frame-size as it was given, [] if it was not."""
    return ["--frame-size", *map(str, height_and_width(config.frame_size))] if config.frame_size else []


def training_steps(config: BuildConfig, folders: Folders) -> list[Step]:
    """Train the tokenizer, the latent action model for a world with latent actions, and the dynamics model."""
    shared = ["--data-path", str(folders.data), "--preset", config.preset, "--seed", str(config.seed), "--device", config.device]
    shared += frame_size_flag(config)
    shared += ["--fit", config.fit] if config.fit != "crop" else []  # how chapter 4 will fit pictures to start from
    shared += ["--num-steps", "12", "--validation-batches", "1"] if config.quick else []
    models: list[Path] = []

    def train(name: str, title: str, chapter: str, model: str, result: str, flags: list[str]) -> Step:
        run = folders.runs / name
        command = [script(f"{chapter}/train.py"), *shared, "--checkpoint-dir", str(run), *flags]
        settings = [*REPOSITORY.glob(f"{chapter}/*/config.py"), *REPOSITORY.glob("1.video-tokenizer/*/training/config.py")]
        inputs = [folders.data / "clip_store.json", *sorted(settings), *models]  # a changed default means training again
        models.append(run / "best_model.pt")
        outputs = [run / "metrics.json", models[-1]]
        return Step(name, title, command, inputs, outputs, result, run / "samples.png", folders.world / model)

    tokenized = (
        "Reconstructs frames with {psnr_db:.1f} dB and moving pixels with {moving_psnr_db:.1f} dB "
        "(repeating the last frame: {copy_last_moving_psnr_db:.1f} dB), using {codes_used:.0f} different tokens."
    )
    discovered = (
        "Found {codes_used:.0f} actions that nobody labelled: with the right one, moving pixels are predicted "
        "{delta_moving_psnr_db:.1f} dB better than with a random one."
    )
    predicted = "With wrong actions, the loss on changed tokens is {shuffle_ratio:.2f} times as large."
    title = "Chapter 1, video tokenizer: turn frames into tokens"
    steps = [train("tokenizer", title, "1.video-tokenizer", "tokenizer.pt", tokenized, [])]
    flags = ["--actions", config.actions, "--tokenizer-checkpoint", str(models[0])]
    if config.actions == "latent":
        title = "Chapter 2, latent actions: discover the actions in the video"
        steps += [train("latent_actions", title, "2.latent-action-model", "latent_action_model.pt", discovered, [])]
        flags += ["--latent-action-checkpoint", str(models[1])]
    flags += ["--prior-steps", "12"] if config.quick else []
    title = "Chapter 3, dynamics: predict the next frame"
    steps += [train(f"dynamics_{config.actions}", title, "3.dynamics-model", "dynamics.pt", predicted, flags)]
    return steps


def world_steps(config: BuildConfig, folders: Folders, env_id: str | None, knows_keys: bool, models: list[Path]) -> list[Step]:
    """Evaluate the world and film it. env_id: its game, if there is one. knows_keys: it was recorded with its keys. models: its
    checkpoints."""
    world = ["--world", str(folders.world), "--device", config.device]
    source = ["--env", env_id, "--trained-on", str(folders.data)] if env_id else ["--data-path", str(folders.data)]
    metrics, dream, beside = (folders.world / name for name in ("metrics.json", "dream.gif", "beside.gif"))
    evaluate = [script("4.inference/evaluate.py"), *world, *source, "--json", str(metrics)]
    evaluate += ["--quick" if config.quick else "--brief"]
    facts = game_facts(env_id) if env_id and knows_keys else None
    keys = f"{facts.player_keys[1]}*10,NOOP*2,{facts.player_keys[0]}*10,NOOP*2" if facts else "random"
    film = [script("4.inference/generate.py"), *world, "--num-frames", "8" if config.quick else "72", "--actions", keys]
    result = (
        "In {obedience:.0%} +- {margin_of_error[obedience]:.0%} (95% confidence) of the steps the player moves as in the game "
        "under the same key."
    )
    title = f"Chapter 4, evaluation: compare the world with {'the real game' if env_id else 'videos it has not seen'}"
    steps = [Step(f"evaluate_{config.actions}", title, evaluate, models, [metrics], result)]
    title = f"Chapter 4, dream: play the world with {'a fixed sequence of keys' if facts else 'random actions'}"
    command = [*film, "--output", str(dream)]
    steps += [Step(f"dream_{config.actions}", title, command, models, [dream], picture=dream)]
    if env_id and knows_keys:
        title = "Chapter 4, dream beside the real game: same first frames, same keys"
        command = [*film, "--beside-emulator", env_id, "--output", str(beside)]
        steps += [Step(f"beside_{config.actions}", title, command, models, [beside], picture=beside)]
    return steps


def all_steps(config: BuildConfig, store: ClipStore | None, env_id: str | None, folders: Folders) -> list[Step]:
    """The steps of a build in order. store: of the data path."""
    recording = recording_step(config, store, env_id, folders)
    training = training_steps(config, folders)
    models = [step.copy_to for step in training if step.copy_to]
    knows_keys = store is None or store.env_id is not None
    return [*([recording] if recording else []), *training, *world_steps(config, folders, env_id, knows_keys, models)]


# ---- running it ---------------------------------------------------------------------------------------------------------


def run_steps(steps: list[Step], runs: Path, restart: str | None = None) -> list[dict[str, Any]]:
    """Run every step that is not finished. Returns the stamp of each: its seconds and peak memory in MiB.

    A stamp, a small JSON file, is written before a step starts. The step is finished when its stamp holds the present command and
    inputs and its outputs are newer than the stamp: even if the build was killed before it could note the end.
    """
    names = [step.name for step in steps]
    if restart is not None and restart not in names:
        raise InputError(f"--restart {restart}: there is no such step; choose one of {', '.join(names)}")
    stamps = []
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.title}", flush=True)
        file, fingerprint = runs / f"{step.name}.stamp", step.fingerprint()
        stamp = read_json(file)
        unchanged = stamp.get("fingerprint") == fingerprint and step.name != restart
        if unchanged and all(output.exists() and output.stat().st_mtime >= stamp["started"] for output in step.outputs):
            print("      finished earlier, and nothing has changed since")
        else:
            print(f"      $ {shown_command(step.command)}", flush=True)
            stamp = {"fingerprint": fingerprint, "started": stamp["started"] if unchanged else time.time()}
            save_json(file, stamp)
            stamp |= run_command(step)
            save_json(file, stamp)
            print(f"      {describe_cost(stamp)}")
        if step.copy_to is not None:
            write_atomically(step.copy_to, partial(shutil.copyfile, step.outputs[-1]))
        if result := step.described_result():
            print(f"      {result}", flush=True)
        stamps.append(stamp)
    return stamps


def run_command(step: Step) -> dict[str, Any]:
    """Run a step's command in this terminal. Returns its seconds and peak memory; if it fails, exits with its exit code."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *step.command])
    signals = [number for number in STOP_SIGNALS[1:] if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, lambda *_: process.terminate()) for number in signals}  # a training saves and ends
    try:
        memory = wait(process)
    except KeyboardInterrupt:  # Ctrl-C reached the training too; wait until it has saved
        process.wait()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if process.returncode:
        again = "once that is corrected, the same command" if process.returncode == 2 else "the same command"
        print(f"\nstep {step.name} ended with exit code {process.returncode}; {again} resumes from there", file=sys.stderr)
        sys.exit(process.returncode if process.returncode > 0 else 128 - process.returncode)
    return {"seconds": round(time.monotonic() - started, 1), "peak_memory_mib": memory}


def wait(process: subprocess.Popen) -> int | None:
    """Wait until a process has ended. Returns its peak memory in MiB; None on Windows, which does not say."""
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return round(usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))  # macOS counts in bytes, Linux in KiB


def describe_cost(stamp: dict[str, Any]) -> str:
    """For example: 3.5 min, peak memory 1,204 MiB; "" if the build was killed before it could note them."""
    if "seconds" not in stamp:
        return ""
    memory = stamp["peak_memory_mib"]
    return duration(stamp["seconds"]) + (f", peak memory {memory:,} MiB" if memory is not None else "")


def duration(seconds: float) -> str:
    """For example: 42 s, 3.5 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


# ---- the report ---------------------------------------------------------------------------------------------------------

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; }
  img { max-width: 100%; image-rendering: pixelated; }
  pre { white-space: pre-wrap; padding: 0.5rem; background: rgba(128, 128, 128, 0.15); }
</style>
</head>
<body>
<h1>$title</h1>
<p>Play it:</p>
<pre>$play</pre>
<p>How it was built, the last step first, with the command of each:</p>
$steps
<h2>All metrics</h2>
<p>Measured on frames that this world was not trained on. Each number is the mean over several seeds, and +- is half of its 95%
confidence interval: it covers the choice of the games, not the luck of another training. The controls are the same models
without training, and a predictor that repeats the last frame, which already scores high where little moves.</p>
<pre>$metrics</pre>
</body>
</html>
""")


def write_report(title: str, folders: Folders, steps: list[Step], stamps: list[dict[str, Any]]) -> Path:
    """Write report.html into the world folder, a single file with its pictures inside. Returns its path."""

    def describe(step: Step, stamp: dict[str, Any]) -> str:
        lines = [f"<h2>{html.escape(step.title)}</h2>"]
        if step.picture and step.picture.exists():
            content = base64.b64encode(step.picture.read_bytes()).decode()
            lines += [f'<img src="data:image/{step.picture.suffix[1:]};base64,{content}" alt="{html.escape(step.title)}">']
        lines += [f"<p>{html.escape(text)}</p>" for text in (step.described_result(), describe_cost(stamp)) if text]
        return "\n".join([*lines, f"<pre>{html.escape(shown_command(step.command))}</pre>"])

    page = PAGE.substitute(
        title=html.escape(title),
        play=html.escape(shown_command([script("4.inference/play.py"), "--world", str(folders.world)])),
        steps="\n".join(describe(step, stamp) for step, stamp in zip(steps[::-1], stamps[::-1], strict=True)),
        metrics=html.escape(results_table(read_json(folders.world / "metrics.json"))),
    )
    write_text_atomically(folders.world / "report.html", page)
    return folders.world / "report.html"


def main() -> None:
    config = parse_config(BuildConfig)
    choose_device(config.device)  # refused here, before anything is recorded
    store = open_source(config) if config.data_path is not None else None
    env_id = choose_environment(config.game, store)
    name = subject(store, env_id)
    if store is not None and config.actions == "true" and store.num_actions == 0:
        raise InputError(f"{config.data_path} does not say which keys were pressed; build its world with --actions latent")
    folders = choose_folders(config, store, name)
    started = time.monotonic()
    print(f"building a world of {name} with {config.actions} actions, {config.preset} preset, in {folders.world}")
    steps = all_steps(config, store, env_id, folders)
    lock = FolderLock(folders.runs)
    stamps = run_steps(steps, folders.runs, config.restart)
    report = write_report(f"A world of {name} with {config.actions} actions", folders, steps, stamps)
    lock.release()
    print(f"\ndone after {duration(time.monotonic() - started)}; the report is {report}")
    print(f"play it:  {shown_command([script('4.inference/play.py'), '--world', str(folders.world)])}")
    if config.actions == "latent" and config.restart is None and (store is None or store.num_actions):
        places = {"output": f"{config.output}-true", "runs": folders.runs, "data_path": folders.data} if config.output else {}
        command = shown_command(sys.argv, actions="true", **places)
        print(f"the same world controlled by the true keys, a few minutes more:  {command}")


if __name__ == "__main__":
    run_script(main)
