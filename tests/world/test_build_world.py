"""The build: stages run once, go on where they stopped, and end in a page."""

import json
import os
import signal
import sys
import threading
import time
from html.parser import HTMLParser

import pytest
from script_runner import load_script, run
from structure_checks import REPOSITORY

from video_tokenizer.training.atomic_files import FolderLock
from video_tokenizer.training.command_line import InputError
from world_model.build_config import BuildConfig, choose_environment, choose_paths
from world_model.recipe import all_stages, say
from world_model.stages import Stage, StageFailed, duration, run_stage, run_stages, stage_hash
from world_model.world import WorldModel

BUILD = REPOSITORY / "4.inference" / "build_world.py"


@pytest.fixture
def stage(tmp_path):
    """A stage that appends a line to its output, so that its runs can be counted."""
    (tmp_path / "input.txt").write_text("one")
    program = tmp_path / "program.py"
    program.write_text(f"open({str(tmp_path / 'output.txt')!r}, 'a').write('ran\\n')")
    return Stage(
        "count", "Count the runs", [str(program)], [tmp_path / "input.txt"], tmp_path / "output.txt", lambda: "Learned to count."
    )


def runs_of(stage: Stage) -> int:
    return stage.output.read_text().count("ran")


def test_a_finished_stage_is_not_run_again(stage, tmp_path, capsys):
    for _ in range(2):
        remembered = run_stages([stage], tmp_path / "state.json")
    assert runs_of(stage) == 1
    assert remembered["count"]["seconds"] >= 0 and remembered["count"]["peak_memory_mib"] > 0
    printed = capsys.readouterr().out
    assert printed.count("[1/1] Count the runs") == 2 and printed.count("Learned to count.") == 2
    assert printed.count(f"python {tmp_path / 'program.py'}") == 1 and "finished before" in printed


@pytest.mark.parametrize("change", ["input", "command", "output", "state", "restart"])
def test_a_stage_is_run_again_when_something_has_changed(stage, tmp_path, change):
    run_stages([stage], tmp_path / "state.json")
    expected = 2
    if change == "input":
        stage.inputs[0].write_text("two")
    elif change == "command":
        stage = Stage(stage.name, stage.title, [*stage.command, "--flag"], stage.inputs, stage.output)
    elif change == "output":
        stage.output.unlink()
        expected = 1
    elif change == "state":
        (tmp_path / "state.json").write_text("{ damaged")
    run_stages([stage], tmp_path / "state.json", restart="count" if change == "restart" else None)
    assert runs_of(stage) == expected


def test_a_stage_that_ended_before_the_build_could_note_it_is_not_run_again(stage, tmp_path, monkeypatch):
    """Killed between a training's last file and the build's note of it: minutes of training are not made twice."""
    monkeypatch.setattr("world_model.stages.run_stage", lambda stage: (run_stage(stage), os._exit(9)))
    child = os.fork()
    if child == 0:
        run_stages([stage], tmp_path / "state.json")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9 and runs_of(stage) == 1
    monkeypatch.undo()
    remembered = run_stages([stage], tmp_path / "state.json")
    assert runs_of(stage) == 1 and remembered["count"]["seconds"] >= 0
    stage.inputs[0].write_text("something else")
    run_stages([stage], tmp_path / "state.json")
    assert runs_of(stage) == 2


def test_a_failing_stage_shows_its_own_error_and_passes_its_exit_code_on(stage, tmp_path, capfd):
    program = tmp_path / "fails.py"
    program.write_text(
        "import sys; sys.exit(f'error: no such game') if False else (print('error: no such game', file=sys.stderr), sys.exit(2))"
    )
    failing = Stage("fail", "Fail", [str(program)], [], tmp_path / "never.txt")
    with pytest.raises(StageFailed) as failure:
        run_stages([stage, failing], tmp_path / "state.json")
    assert failure.value.exit_code == 2
    assert "error: no such game" in capfd.readouterr().err
    state = json.loads((tmp_path / "state.json").read_text())
    assert [name for name, entry in state.items() if "hash" in entry] == ["count"]  # what came before stays done
    program.write_text(f"open({str(failing.output)!r}, 'w')")
    run_stages([stage, failing], tmp_path / "state.json")
    assert runs_of(stage) == 1 and failing.output.exists()


def test_a_stage_is_told_when_the_build_is_told_to_stop(tmp_path):
    """SIGTERM to the build alone, as `kill` and schedulers send it: the stage saves, and nothing goes on without a parent."""
    program = tmp_path / "saves.py"
    program.write_text(
        "import pathlib, signal, sys, time; here = pathlib.Path(sys.argv[0]).parent\n"
        "def stop(*_):\n    (here / 'saved').write_text(''); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop); (here / 'ready').write_text(''); time.sleep(60)"
    )

    def tell_to_stop() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell_to_stop).start()
    with pytest.raises(StageFailed) as failure:
        run_stages([Stage("save", "Save", [str(program)], [], tmp_path / "never.txt")], tmp_path / "state.json")
    assert failure.value.exit_code == 130 and (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_two_builds_of_one_world_do_not_meet(tmp_path, monkeypatch, capsys):
    module = load_script(BUILD)
    (tmp_path / "world" / "runs").mkdir(parents=True)
    lock = FolderLock(tmp_path / "world" / "runs")
    monkeypatch.setattr(sys, "argv", ["build_world.py", "--quick", "--output", str(tmp_path / "world")])
    with pytest.raises(SystemExit) as ended:
        module.run_script(module.main)
    assert ended.value.code == 2 and f"runs is in use by process {os.getpid()};" in capsys.readouterr().err
    lock.release()


def test_a_finished_output_is_copied_where_it_belongs(stage, tmp_path):
    copied = Stage(stage.name, stage.title, stage.command, stage.inputs, stage.output, copy_to=tmp_path / "world" / "model.pt")
    run_stages([copied], tmp_path / "state.json")
    assert (tmp_path / "world" / "model.pt").read_text() == stage.output.read_text()


def test_an_unknown_stage_cannot_be_restarted(stage, tmp_path):
    with pytest.raises(InputError, match="there are count"):
        run_stages([stage], tmp_path / "state.json", restart="dynamic")


def test_a_clip_store_counts_by_its_description_not_by_its_caches(tmp_path):
    store = tmp_path / "store"
    (store / "token_cache").mkdir(parents=True)
    (store / "clip_store.json").write_text("{}")
    stage = Stage("train", "Train", ["train.py"], [store], tmp_path / "model.pt")
    before = stage_hash(stage)
    (store / "token_cache" / "tokens.npy").write_text("new")
    assert stage_hash(stage) == before
    (store / "clip_store.json").write_text('{"seed": 1}')
    assert stage_hash(stage) != before


def test_seconds_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (3.2, 89, 150)] == ["3 s", "89 s", "2.5 min"]


def test_a_sentence_without_its_number_is_not_said(tmp_path):
    (tmp_path / "metrics.json").write_text('{"psnr_db": 41.26, "recall": null}')
    assert say("{psnr_db:.1f} dB", tmp_path / "metrics.json") == "41.3 dB"
    assert (
        say("{recall:.1f}", tmp_path / "metrics.json")
        == say("{gone}", tmp_path / "metrics.json")
        == say("x", tmp_path / "no")
        == ""
    )


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def test_a_game_has_a_short_name_or_its_gymnasium_id():
    assert choose_environment("MsPacman") == "ALE/MsPacman-v5"
    assert choose_environment("CartPole-v1") == "CartPole-v1"
    with pytest.raises(InputError, match="no game 'brekout'; choose one of breakout"):
        choose_environment("brekout")


def test_the_default_folders_are_those_of_the_repository():
    paths = choose_paths(BuildConfig(), "ALE/Breakout-v5")
    assert (paths.data.resolve(), paths.world.resolve()) == (REPOSITORY / "data" / "breakout", REPOSITORY / "worlds" / "breakout")
    true = choose_paths(BuildConfig(actions="true"), "ALE/Breakout-v5")
    assert (true.data, true.runs) == (paths.data, paths.runs)
    assert true.world.name == "breakout-true"


def test_true_actions_reuse_data_and_tokenizer(tmp_path):
    def stages(actions: str) -> dict[str, Stage]:
        config = BuildConfig(actions=actions, output=str(tmp_path / actions), runs=str(tmp_path / "runs"))
        paths = choose_paths(config, "ALE/Breakout-v5")
        return {stage.name: stage for stage in all_stages(config, "ALE/Breakout-v5", paths)}

    latent, true = stages("latent"), stages("true")
    assert list(latent) == [
        "record",
        "tokenizer",
        "latent_actions",
        "dynamics_latent",
        "evaluate_latent",
        "dream_latent",
        "beside_latent",
    ]
    assert list(true) == ["record", "tokenizer", "dynamics_true", "evaluate_true", "dream_true", "beside_true"]
    assert latent["tokenizer"].output == true["tokenizer"].output
    assert "--latent-action-checkpoint" in latent["dynamics_latent"].command
    assert "--latent-action-checkpoint" not in true["dynamics_true"].command


def test_a_whole_world_is_built_from_nothing_and_not_twice(tmp_path):
    flags = ["--game", "breakout", "--quick", "--num-frames", 400, "--output", tmp_path / "world", "--device", "cpu"]
    done = run(BUILD, *flags, folder=tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("[1/7] Chapter 1, data", "[7/7] Chapter 4", "$ python", "Learned to redraw frames", "play it:", "report.html"):
        assert words in done.stdout
    world = WorldModel.load(tmp_path / "world", "cpu")
    assert world.action_kind == "latent" and world.frame_size == (32, 32)
    assert set(world.action_map) == {"NOOP", "FIRE", "RIGHT", "LEFT"}
    page = (tmp_path / "world" / "report.html").read_text()
    reader = PageReader()
    reader.feed(page)
    assert reader.pictures == 4 and reader.open_tags == []
    assert "prefers-color-scheme: dark" in page and "http" not in page  # everything is inside
    again = run(BUILD, *flags, folder=tmp_path)
    assert again.returncode == 0 and again.stdout.count("finished before") == 7


class PageReader(HTMLParser):
    """Counts the pictures inside a page, and the tags that were never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = 0
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "img" and str(dict(attrs)["src"]).startswith("data:image/")
        if tag not in ("img", "meta"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


def test_bad_input_is_answered_with_one_sentence(tmp_path, monkeypatch, capsys):
    module = load_script(BUILD)
    for flags, words in {
        ("--game", "brekout"): "no game 'brekout'",
        ("--data-path", str(tmp_path / "nowhere")): "nowhere does not exist",
    }.items():
        monkeypatch.setattr(sys, "argv", ["build_world.py", "--output", str(tmp_path / "world"), *flags])
        with pytest.raises(SystemExit) as ended:
            module.run_script(module.main)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and words in error
