"""From nothing to a world that can be played: record a game, train chapters 1 to 3 on it, measure, film, report.

    python 4.inference/build_world.py --game breakout
    python 4.inference/build_world.py --game breakout --actions true

This is what `make world` runs. It only calls the chapters' own scripts and prints each command, so that every step can be
repeated by hand. Stopped and started again, it goes on where it was; what has not changed is not done twice.
"""

import sys
import time

from video_tokenizer.training.atomic_files import FolderLock
from video_tokenizer.training.command_line import parse_config, run_script
from world_model.build_config import BuildConfig, Paths, choose_environment, choose_paths
from world_model.recipe import all_stages, script
from world_model.stages import StageFailed, duration, run_stages, shown_command


def true_actions_flags(config: BuildConfig, paths: Paths) -> list[str]:
    """The flags that build the same world once more with true actions, from the same data and tokenizer."""
    flags = ["--game", config.game, "--actions", "true"]
    for name, default in {"preset": "tiny", "seed": 0, "num_frames": 40_000}.items():
        if getattr(config, name) != default:
            flags += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    if config.output is not None:
        flags += ["--output", f"{config.output}-true", "--runs", str(paths.runs), "--data-path", str(paths.data)]
    return flags


def main() -> None:
    config = parse_config(BuildConfig)
    env_id = choose_environment(config.game)
    paths = choose_paths(config, env_id)
    begun = time.monotonic()
    print(f"building a world of {env_id} with {config.actions} actions, {config.preset} preset, in {paths.world}")
    stages = all_stages(config, env_id, paths)
    paths.runs.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(paths.runs)
    try:
        remembered = run_stages(stages, paths.state, config.restart)
    except StageFailed as failure:
        print(f"\n{failure}; the same command goes on from there", file=sys.stderr)
        sys.exit(failure.exit_code)

    from world_model.report import write_report  # only now: the stages had the memory to themselves

    lock.release()
    minutes = duration(time.monotonic() - begun)
    report = write_report(paths, stages, remembered)
    print(f"\ndone after {minutes}; the report is {report}")
    print(f"play it:  {shown_command([script('4.inference', 'play.py'), '--world', str(paths.world)])}")
    if config.actions == "latent":
        again = [script("4.inference", "build_world.py"), *true_actions_flags(config, paths)]
        print(f"the same world steered by the true keys, a few minutes more:  {shown_command(again)}")


if __name__ == "__main__":
    run_script(main)
