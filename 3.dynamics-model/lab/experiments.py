"""Test what the papers claim of their dynamics models: train the arms of small experiments, and read the number that decides.

    python 3.dynamics-model/lab/experiments.py --list
    python 3.dynamics-model/lab/experiments.py --names twice-the-context
    python 3.dynamics-model/lab/experiments.py --readme

An arm that several experiments share is trained once. The same command resumes what was stopped.
"""

from dataclasses import dataclass
from pathlib import Path

from dynamics_lab.claims_of_papers import EXPERIMENTS, bits_at_two_lengths
from dynamics_lab.comparison import CHAPTER, TEXTS, read_flags, train_script
from tokenizer_lab.claims import ExperimentsConfig, run_experiments, trainings_of
from tokenizer_lab.sweep import Column, Study
from video_tokenizer.training.checkpoint import resolve_path
from video_tokenizer.training.command_line import parse_config, run_script

STUDY = Study(
    chapter=CHAPTER,
    name="experiments",
    rows=trainings_of(EXPERIMENTS.values()),
    columns=[Column(name, name) for name in dict.fromkeys(name for one in EXPERIMENTS.values() for name in one.shown)],
    read_flags=read_flags,
    models=train_script,
    validate_flags=lambda row: "--num-batches 1 --batch-size 2 --num-rollouts 2",
    score=bits_at_two_lengths,
)


@dataclass(frozen=True)
class DynamicsExperimentsConfig(ExperimentsConfig):
    """Test claims of papers by training."""

    num_steps: int = 1_000
    """optimizer steps of each training"""
    tokenizer_checkpoint: str = "assets/worlds/breakout/tokenizer.pt"
    """the tokenizer whose tokens every arm learns; the reference world's, so that everybody has the same"""


def main() -> None:
    config = parse_config(DynamicsExperimentsConfig)
    tokenizer = STUDY.relative(resolve_path(Path(config.tokenizer_checkpoint), STUDY.root))
    common = f"--actions true --batch-size 8 --validation-batches 1 --tokenizer-checkpoint {tokenizer}".split()
    run_experiments(config, STUDY, EXPERIMENTS, TEXTS / "gpt", common)


if __name__ == "__main__":
    run_script(main)
