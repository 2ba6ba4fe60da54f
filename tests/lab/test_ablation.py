"""Ablations: rows are trained once, their numbers are put together as by hand, and the tables in the texts are those numbers."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from script_runner import call, load_script
from structure_checks import CHAPTERS, REPOSITORY

from tokenizer_lab.ablation import AblationConfig, Study, collect, different, run_study
from tokenizer_lab.ablation_table import BLOCK, Column, format_markdown, format_text, mean_and_spread, update_readme, verdict
from video_tokenizer.games.moving_square import dummy_clip_store
from video_tokenizer.training.command_line import InputError, parse_config

CHAPTERS_WITH_ABLATIONS = list(CHAPTERS)[:3]
TRAIN = """
import json, os, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(flags["--checkpoint-dir"])
folder.mkdir(parents=True, exist_ok=True)
with open("calls.txt", "a") as calls:
    calls.write(f"train {folder.parent.name} {flags['--seed']} {os.environ.get('OMP_NUM_THREADS')}\\n")
if flags.get("--size") == "13":
    sys.exit(3)
recall = 0.1 * int(flags.get("--size", 4)) + 0.02 * int(flags["--seed"])
(folder / "metrics.json").write_text(json.dumps({"recall": recall, "copy_recall": 0.25, "loss": {"4": 2.0}}))
"""
VALIDATE = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open("calls.txt", "a") as calls:
    calls.write("validate " + flags.get("--more", "") + "\\n")
pathlib.Path(flags["--json"]).write_text(json.dumps({"ceiling": 0.8}))
"""


@dataclass(frozen=True)
class ToyConfig:
    """The flags of the training below."""

    data_path: str = ""
    num_steps: int = 1
    size: int = 4
    seed: int = 0
    checkpoint_dir: str = ""


@dataclass(frozen=True)
class LaterConfig(ToyConfig):
    """The same flags when a default has changed."""

    size: int = 5


class Chapter:
    """A chapter whose train.py takes no time, and a study of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "toy").mkdir()
        (folder / "data").mkdir()
        (folder / "toy" / "train.py").write_text(TRAIN)
        (folder / "toy" / "validate.py").write_text(VALIDATE)
        (folder / "toy" / "README.md").write_text("# Toy\n<!-- ablations: begin -->\nold\n<!-- ablations: end -->\nend\n")
        self.rows = {"defaults": "", "small": "--size 2"}
        self.more: dict = {}

    @property
    def study(self) -> Study:
        recall = (Column("recall", "recall", ".2f", "higher"), Column("recall", "of the ceiling", ".0%", "higher", "ceiling"))
        columns = (*recall, Column("loss.4", "loss", ".1f", "lower"))
        controls = {"copying": {"recall": "copy_recall"}}
        made = {"columns": columns, "controls": controls, "config_class": ToyConfig, "validate_flags": lambda row: ""}
        return Study(chapter="toy", rows=self.rows, folder=self.folder, **(made | self.more))

    def ablate(self, **flags) -> dict:
        """Run the study and return what it wrote."""
        run_study(self.study, AblationConfig(**{"data_path": str(self.folder / "data"), "num_steps": 5, **flags}))
        return json.loads((self.folder / "assets" / "toy" / "ablations.json").read_text())

    def calls(self) -> list[str]:
        """What has been run since the last time somebody asked."""
        file = self.folder / "calls.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return [" ".join(line.split()[:3]) for line in lines]


@pytest.fixture
def chapter(tmp_path):
    return Chapter(tmp_path)


# ---- running ------------------------------------------------------------------------------------------------------------


def test_every_row_is_trained_and_validated_once_per_seed(chapter, capfd):
    rows = chapter.ablate(num_threads=1)["rows"]
    assert (chapter.folder / "calls.txt").read_text().startswith("train defaults 0 1\n")  # on one thread
    trained = ["train defaults 0", "train small 0", "train defaults 1", "train small 1"]
    assert chapter.calls() == [line for one in trained for line in (one, "validate")]
    assert rows["small"]["seeds"] == [0, 1] and rows["small"]["flags"] == "--size 2"
    command = (
        "python toy/train.py --data-path data --num-steps 5 --size 2 --seed 1 --checkpoint-dir toy/checkpoints/ablations/small"
    )
    assert rows["small"]["runs"][1]["command"] == command + "/seed1"  # as typed in the root of the repository, wherever that is
    assert f"$ {command}/seed1" in capfd.readouterr().out


def test_a_finished_run_is_not_run_again(chapter, capfd):
    first = chapter.ablate()
    chapter.calls()
    assert chapter.ablate() == first and chapter.calls() == []
    assert capfd.readouterr().out.count("finished before") == 4


def test_a_part_of_the_rows_is_added_to_what_is_finished_and_the_rest_goes_on_from_there(chapter):
    assert list(chapter.ablate(rows=("small",), seeds=(1,))["rows"]) == ["small"]
    results = chapter.ablate(rows=("defaults",), seeds=(0,))  # as another process would, beside the first
    assert {name: row["seeds"] for name, row in results["rows"].items()} == {"defaults": [0], "small": [1]}
    chapter.calls()
    assert chapter.ablate()["rows"]["small"]["seeds"] == [0, 1]
    assert [line for line in chapter.calls() if line != "validate"] == ["train small 0", "train defaults 1"]


@pytest.mark.parametrize("change", ["flags", "steps", "data", "default", "metrics"])
def test_a_run_is_repeated_when_what_it_was_made_from_has_changed(chapter, change):
    chapter.ablate(seeds=(0,))
    chapter.calls()
    if change == "flags":
        chapter.rows["small"] = "--size 3"
    elif change == "data":
        (chapter.folder / "data" / "clip_store.json").write_text("{}")
    elif change == "default":
        chapter.more = {"config_class": LaterConfig}  # the row that sets the size itself stays as it was
    elif change == "metrics":
        (chapter.folder / "toy/checkpoints/ablations/small/seed0/metrics.json").unlink()
    results = chapter.ablate(seeds=(0,), num_steps=6 if change == "steps" else 5)
    repeated = {"flags": 1, "steps": 2, "data": 2, "default": 1, "metrics": 1}[change]
    assert sum(line.startswith("train") for line in chapter.calls()) == repeated
    assert len(results["rows"]) == 2  # and none is lost


def test_a_flag_that_has_come_counts_as_a_change_and_the_place_of_the_run_does_not():
    old = {"command": "a", "inputs": {"data": "12"}, "config": {"size": 4, "checkpoint_dir": "here"}}
    assert different(old, old) == different(old, old | {"config": {"size": 4, "checkpoint_dir": "there"}}) == []
    assert different(old, old | {"config": {"size": 4, "optimizer": None}}) == ["optimizer"]
    assert different(old, {"command": "b", "inputs": {"data": "34"}, "config": {"size": 5}}) == ["command", "data", "size"]


def test_a_new_validation_does_not_train_again(chapter):
    chapter.ablate(seeds=(0,))
    chapter.calls()
    chapter.more = {"validate_flags": lambda row: "" if row == "defaults" else "--more yes"}
    chapter.ablate(seeds=(0,))
    assert chapter.calls() == ["validate yes"]


def test_scores_of_the_study_itself_are_kept_beside_those_of_the_scripts(chapter):
    chapter.ablate(seeds=(0,))
    chapter.calls()
    chapter.more = {"score": lambda checkpoint: {"length": len(checkpoint.name)}, "columns": (Column("length", "length"),)}
    assert chapter.ablate(seeds=(0,))["rows"]["small"]["scores"]["length"]["mean"] == len("best_model.pt")
    assert chapter.calls() == []


def test_a_row_can_be_put_beside_rows_that_were_trained_elsewhere(chapter, tmp_path):
    before = chapter.ablate()
    (chapter.folder / "toy" / "checkpoints").rename(tmp_path / "gone")
    chapter.rows["large"] = "--size 9"
    after = chapter.ablate(rows=("large",))["rows"]
    assert list(after) == ["defaults", "small", "large"] and after["small"] == before["rows"]["small"]
    flags = ["--data-path", "data", "--num-steps", "6"]  # another budget: not to be compared
    assert collect(chapter.study, flags, chapter.folder / "nowhere", before)["rows"] == {}


def test_a_failed_training_ends_with_a_sentence_that_names_its_command(chapter):
    chapter.rows = {"defaults": "", "unlucky": "--size 13", "small": "--size 2"}
    with pytest.raises(InputError, match=r"the training of row unlucky, seed 0 ended with exit code 3") as failure:
        chapter.ablate(seeds=(0,))
    assert "python toy/train.py --data-path data --num-steps 5 --size 13 --seed 0" in str(failure.value)
    assert chapter.calls() == ["train defaults 0", "validate", "train unlucky 0"]
    assert list(json.loads((chapter.folder / "assets/toy/ablations.json").read_text())["rows"]) == ["defaults"]


def test_a_flag_that_train_does_not_know_is_found_before_anything_is_trained(chapter, capsys):
    chapter.rows["typo"] = "--sise 2"
    with pytest.raises(SystemExit):
        chapter.ablate()
    assert chapter.calls() == [] and "sise" in capsys.readouterr().err


def test_what_cannot_be_run_is_refused(chapter):
    with pytest.raises(InputError, match="there are defaults, small"):
        chapter.ablate(rows=("smal",))
    with pytest.raises(InputError, match="does not exist"):
        chapter.ablate(data_path="gone")
    with pytest.raises(InputError, match="leave nothing to train"):
        chapter.ablate(seeds=())
    with pytest.raises(InputError, match="holds no numbers yet"):
        chapter.ablate(readme=True)


# ---- numbers and tables -------------------------------------------------------------------------------------------------


def test_mean_and_spread_are_those_of_the_docstring():
    assert mean_and_spread([1.0, 2.0]) == {"values": [1.0, 2.0], "mean": 1.5, "spread": 0.5}
    assert mean_and_spread([1.0, 2.0, 3.0])["spread"] == 1.0
    assert mean_and_spread([4.0]) == {"values": [4.0], "mean": 4.0, "spread": None}
    assert (
        mean_and_spread([1.0, None])["mean"]
        is mean_and_spread([1.0, float("nan")])["mean"]
        is mean_and_spread([])["mean"]
        is None
    )


def test_two_seeds_are_put_together_as_by_hand(chapter):
    results = chapter.ablate()
    small = results["rows"]["small"]["scores"]  # 0.20 with seed 0 and 0.22 with seed 1; the ceiling is 0.8
    assert small["recall"]["values"] == pytest.approx([0.20, 0.22])
    assert (small["recall"]["mean"], small["recall"]["spread"]) == pytest.approx((0.21, 0.01))
    assert (small["recall_share"]["mean"], small["recall_share"]["spread"]) == pytest.approx((0.2625, 0.0125))
    assert small["loss_4"]["mean"] == 2.0
    assert results["controls"] == {"copying": {"recall": 0.25}}


def test_a_mark_needs_every_seed():
    higher, lower = Column("a", "a", better="higher"), Column("a", "a", better="lower")
    assert verdict(higher, [3.0, 4.0], [1.0, 2.0]) == verdict(lower, [1.0, 2.0], [3.0, 4.0]) == " ▲"
    assert verdict(higher, [1.0, 2.0], [3.0, 4.0]) == " ▼"
    assert verdict(higher, [2.0, 4.0], [1.0, 3.0]) == verdict(Column("a", "a"), [3.0, 4.0], [1.0, 2.0]) == ""
    assert verdict(higher, [4.0], [1.0, 2.0]) == verdict(higher, [3.0, None], [1.0, 2.0]) == ""


def test_the_table_shows_every_row_with_its_flags(chapter):
    table = """\
Each row: `python toy/train.py --data-path data --num-steps 5` and its flags; mean of seeds 0 and 1 ± half their range.

| row | recall ↑ | of the ceiling ↑ | loss ↓ |
|---|---|---|---|
| defaults | 0.41±0.01 | 51%±1% | 2.0±0.0 |
| small<br>`--size 2` | 0.21±0.01▼ | 26%±1%▼ | 2.0±0.0 |
| (copying) | 0.25 |  |  |"""
    chapter.ablate(rows=("defaults",))
    assert "| small<br>`--size 2` | 0.20 | 25% | 2.0 |" in format_markdown(chapter.study, chapter.ablate(seeds=(0,)))
    results = chapter.ablate()  # now with the second seed, which brings spreads and marks
    assert format_markdown(chapter.study, results) == table
    text = format_text(chapter.study, results).splitlines()
    assert text[0].split() == ["row", "recall", "↑", "of", "the", "ceiling", "↑", "loss", "↓"]
    assert text[2].startswith("small      0.21 ± 0.01 ▼  26% ± 1% ▼")


def test_the_text_gets_the_table_between_its_marks_and_nothing_else_changes(chapter, capsys):
    results, page = chapter.ablate(), chapter.folder / "toy" / "README.md"
    chapter.calls()
    chapter.ablate(readme=True)
    table = format_markdown(chapter.study, results)
    assert page.read_text() == f"# Toy\n<!-- ablations: begin -->\n{table}\n<!-- ablations: end -->\nend\n"
    assert chapter.calls() == [] and table in capsys.readouterr().out
    page.write_text("# Toy\n")
    with pytest.raises(InputError, match="ablations: begin"):
        update_readme(page, chapter.study, results)


# ---- the chapters' own tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAPTERS_WITH_ABLATIONS)
def test_every_row_is_accepted_by_the_chapters_train(name):
    study = load_script(REPOSITORY / name / "lab" / "ablate.py").STUDY
    assert study.chapter == name and study.rows[study.first] == ""
    for flags in study.rows.values():
        parse_config(study.config_class, argv=[*flags.split(), "--frame-size", "64"]).check()


@pytest.mark.parametrize("name", CHAPTERS_WITH_ABLATIONS)
def test_the_table_in_the_text_is_that_of_the_numbers(name):
    study, numbers = load_script(REPOSITORY / name / "lab" / "ablate.py").STUDY, REPOSITORY / "assets" / name / "ablations.json"
    shown = BLOCK.search((REPOSITORY / name / "README.md").read_text())
    assert shown is not None
    if not numbers.exists():
        assert shown[0] == ""  # nothing is claimed before it is measured
        return
    results = json.loads(numbers.read_text())
    assert {row: entry["flags"] for row, entry in results["rows"].items()}.items() <= dict(study.rows).items()
    assert shown[0] == format_markdown(study, results) + "\n", f"refresh it: python {name}/ablate.py --readme"


def test_chapter_1_trains_and_scores_a_row(tmp_path, capfd):
    data = dummy_clip_store(tmp_path / "data", num_episodes=4, episode_frames=16, frame_size=(16, 16)).path
    flags = ("--data-path", data, "--num-steps", 2, "--seeds", 0, "--rows", "defaults", "--num-threads", 1)
    files = ("--output", tmp_path / "runs", "--json", tmp_path / "ablations.json")
    assert call(REPOSITORY / "1.video-tokenizer" / "lab" / "ablate.py", *flags, *files) == 0
    scores = json.loads((tmp_path / "ablations.json").read_text())["rows"]["defaults"]["scores"]
    assert scores["moving_psnr_db"]["mean"] > 0 and 0 <= scores["changed_tokens"]["mean"] <= 1
    assert scores["object_recall"]["mean"] is None  # a square is no ball
    assert "moving PSNR, dB ↑" in capfd.readouterr().out
