"""The build of a world: steps run once, resume where they stopped, and end in a report."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_names import has_every_score
from script_runner import call, load_script
from structure_checks import REPOSITORY

from video_tokenizer.data.video_files import write_video
from video_tokenizer.errors import InputError
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.atomic_files import FolderLock
from video_tokenizer.training.results import read_json
from world_model.play.action_previews import action_previews
from world_model.play.world_registry import WorldRegistry
from world_model.world import WorldModel

SCRIPT = REPOSITORY / "4.inference" / "build_world.py"
build = load_script(SCRIPT)


@pytest.fixture
def step(tmp_path):
    """A step that appends a line to its output, so that its runs can be counted."""
    (tmp_path / "input.txt").write_text("one")
    (tmp_path / "program.py").write_text(f"print('', file=open({str(tmp_path / 'output.txt')!r}, 'a'))")
    return build.Step("count", "Count", [str(tmp_path / "program.py")], [tmp_path / "input.txt"], [tmp_path / "output.txt"])


def test_a_finished_step_is_not_run_again(step, tmp_path, capsys):
    for _ in range(2):
        (stamp,) = build.run_steps([step], tmp_path)
    assert step.outputs[0].read_text() == "\n"
    assert stamp["seconds"] >= 0 and stamp["peak_memory_mib"] > 0
    printed = capsys.readouterr().out
    assert printed.count(build.shown_command(step.command)) == 1 and printed.count("finished earlier") == 1


@pytest.mark.parametrize("change", ["input", "command", "output", "stamp", "restart"])
def test_a_step_is_run_again_when_something_has_changed(step, tmp_path, change):
    build.run_steps([step], tmp_path)
    if change == "input":
        step.inputs[0].write_text("two")
    elif change == "command":
        step = replace(step, command=[*step.command, "--flag"])
    elif change == "output":
        step.outputs[0].write_text("\n")
        os.utime(step.outputs[0], (0, 0))  # older than the start of the step
    elif change == "stamp":
        (tmp_path / "count.stamp").write_text("{ damaged")
    build.run_steps([step], tmp_path, restart="count" if change == "restart" else None)
    assert step.outputs[0].read_text() == "\n\n"


def test_a_step_that_ended_before_the_build_could_note_it_is_not_run_again(step, tmp_path, monkeypatch):
    run_command = build.run_command
    monkeypatch.setattr(build, "run_command", lambda step: (run_command(step), os._exit(9)))
    child = os.fork()
    if child == 0:
        build.run_steps([step], tmp_path)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    build.run_steps([step], tmp_path)
    assert step.outputs[0].read_text() == "\n"


def test_a_failing_step_passes_its_exit_code_on_and_what_came_before_stays_finished(step, tmp_path, capfd):
    (tmp_path / "fails.py").write_text("import sys; print('error: no such game', file=sys.stderr); sys.exit(2)")
    failing = build.Step("fail", "Fail", [str(tmp_path / "fails.py")], [], [tmp_path / "never.txt"])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            build.run_steps([step, failing], tmp_path)
        said = capfd.readouterr().err
        assert ended.value.code == 2 and "error: no such game" in said
        assert "step fail ended with exit code 2; once that is corrected, the same command resumes from there" in said
    assert step.outputs[0].read_text() == "\n"


def test_sigterm_to_the_build_alone_reaches_its_step(tmp_path):
    program = tmp_path / "saves.py"
    program.write_text(
        "import pathlib, signal, sys, time; here = pathlib.Path(sys.argv[0]).parent\n"
        "def stop(*_):\n    (here / 'saved').write_text(''); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop); (here / 'ready').write_text(''); time.sleep(60)"
    )

    def terminate_when_ready() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate_when_ready).start()
    with pytest.raises(SystemExit) as ended:
        build.run_steps([build.Step("save", "Save", [str(program)], [], [tmp_path / "never.txt"])], tmp_path)
    assert ended.value.code == 130 and (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_result_is_left_out_where_a_number_was_not_measured(step):
    step = replace(step, outputs=[step.inputs[0].with_name("metrics.json")], result="{psnr_db:.1f} dB")
    for text, result in {'{"psnr_db": 41.26}': "41.3 dB", '{"psnr_db": null}': "", "{}": ""}.items():
        step.outputs[0].write_text(text)
        assert step.described_result() == result


def test_default_folders_lie_in_the_repository_and_both_kinds_of_actions_share_data_and_runs():
    latent, true = (build.choose_folders(build.BuildConfig(actions=kind), None, "ALE/Breakout-v5") for kind in ("latent", "true"))
    assert latent.data.resolve() == REPOSITORY / "data" / "breakout"
    assert latent.world.resolve() == REPOSITORY / "worlds" / "breakout"
    assert (true.data, true.runs, true.world.name) == (latent.data, latent.runs, "breakout-true")


def test_true_actions_reuse_data_and_tokenizer(tmp_path):
    def steps(actions: str) -> dict:
        config = build.BuildConfig(actions=actions, output=str(tmp_path / actions), data_path=None, runs=str(tmp_path / "runs"))
        folders = build.choose_folders(config, None, "ALE/Breakout-v5")._replace(data=tmp_path / "data")
        return {step.name: step for step in build.all_steps(config, None, "ALE/Breakout-v5", folders)}

    latent, true = steps("latent"), steps("true")
    trained = ["record", "tokenizer", "latent_actions", "dynamics_latent"]
    assert list(latent) == [*trained, "evaluate_latent", "dream_latent", "beside_latent"]
    assert list(true) == ["record", "tokenizer", "dynamics_true", "evaluate_true", "dream_true", "beside_true"]
    for name in ("record", "tokenizer"):
        assert latent[name].fingerprint() == true[name].fingerprint()


def test_two_builds_of_one_world_do_not_meet(tmp_path, is_refused):
    (tmp_path / "world" / "runs").mkdir(parents=True)
    lock = FolderLock(tmp_path / "world" / "runs")
    is_refused(f"runs is in use by process {os.getpid()};", "--quick")
    lock.release()


def test_the_subject_is_the_game_of_the_data_else_the_name_of_the_videos(tmp_path):
    recorded = dummy_clip_store(tmp_path / "store", frame_size=(16, 16))
    game = replace(recorded, info=recorded.info | {"env_id": "ALE/Pong-v5"})
    videos = replace(recorded, info={"source_path": "elsewhere/films"})
    choose = build.choose_environment
    assert (choose(None, None), choose("pong", None), choose(None, game)) == ("ALE/Breakout-v5", "ALE/Pong-v5", "ALE/Pong-v5")
    assert (choose(None, videos), choose("pong", videos)) == (None, "ALE/Pong-v5")
    with pytest.raises(InputError, match="holds ALE/Pong-v5, not breakout"):
        choose("breakout", game)
    assert build.subject(game, "ALE/Pong-v5") == "ALE/Pong-v5" and build.subject(videos, "ALE/Pong-v5") == "films"
    folders = build.choose_folders(build.BuildConfig(), videos, "films")
    assert (folders.data, folders.world.name) == (videos.path, "films")


def test_bad_input_is_refused_with_one_sentence(tmp_path, is_refused):
    is_refused("no game 'brekout'; choose one of breakout", "--game", "brekout")
    is_refused("nowhere does not exist", "--data-path", str(tmp_path / "nowhere"))
    is_refused("--restart dynamic: there is no such step; choose one of record, tokenizer", "--restart", "dynamic")


@pytest.fixture
def is_refused(tmp_path, capsys):
    """Checks that the build ends with exit code 2 and one sentence that holds the given words."""

    def check(words: str, *flags: str) -> None:
        assert call(SCRIPT, "--output", tmp_path / "world", *flags) == 2
        assert words in (error := capsys.readouterr().err) and error.count("\n") == 1

    return check


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs the steps' scripts here: eight times fewer imports of torch. That a step is a process of its own is tested above."""

    def run_command(step: Any) -> dict[str, float]:
        script, *flags = step.command
        assert call(Path(script), *flags) == 0
        return {"seconds": 0.0, "peak_memory_mib": 0}

    monkeypatch.setattr(build, "run_command", run_command)


def test_a_world_is_built_from_nothing_and_not_twice(tmp_path, in_this_process, capsys):
    flags = ["--game", "breakout", "--quick", "--num-frames", 400, "--output", tmp_path / "world", "--device", "cpu"]
    assert call(SCRIPT, *flags) == 0
    printed = capsys.readouterr().out
    for words in (
        "[1/7] Chapter 1, data",
        "[7/7] Chapter 4",
        "record.py --env",
        "Reconstructs frames",
        "play it:",
        "report.html",
    ):
        assert words in printed
    world = WorldModel.load(tmp_path / "world", "cpu")
    assert world.action_kind == "latent" and world.frame_size == (32, 32)
    assert set(world.action_map) == {"NOOP", "FIRE", "RIGHT", "LEFT"}
    has_every_score(tmp_path / "world" / "metrics.json", "latent")
    page = (tmp_path / "world" / "report.html").read_text()
    assert page.count('<img src="data:image/') == 5 and "http" not in page  # one file, with everything inside
    assert call(SCRIPT, *flags) == 0 and capsys.readouterr().out.count("finished earlier") == 7


def test_a_world_is_built_from_a_folder_of_videos_alone(tmp_path, in_this_process, capsys):
    """From .mp4 files to a world that plays, with arrow keys, pictures of its actions, scores and a report."""
    square = dummy_clip_store(tmp_path / "square", num_episodes=4, episode_frames=24, frame_size=(16, 16))
    for number, (start, stop) in enumerate(square.episodes):
        write_video(tmp_path / "films" / f"{number}.mp4", square.frames[start:stop], 15)
    flags = ["--data-path", tmp_path / "films", "--quick", "--output", tmp_path / "world", "--device", "cpu"]
    assert call(SCRIPT, *flags, "--actions", "true") == 2
    assert "films does not say which keys were pressed; build its world with --actions latent" in capsys.readouterr().err
    assert call(SCRIPT, *flags) == 0
    printed = capsys.readouterr().out
    assert "building a world of films with latent actions" in printed and "true keys" not in printed
    assert "A world of films" in (tmp_path / "world" / "report.html").read_text()
    assert read_json(tmp_path / "world" / "metrics.json")["delta_psnr_db"]["1"] is not None
    loaded = WorldRegistry([tmp_path / "world"], "cpu").load("")
    world = loaded.world
    assert loaded.env_id is None and world.frame_size == (16, 16) and "NOOP" in world.action_map
    assert loaded.description()["keys"][""] == "NOOP"
    world.reset(world.start_frames[0])
    assert world.step(0).shape == (16, 16, 3)
    pictures, _ = action_previews(world, world.start_frames[0])
    assert len(pictures) == 1 + world.num_actions
    assert call(SCRIPT, *flags) == 0 and capsys.readouterr().out.count("finished earlier") == 5
