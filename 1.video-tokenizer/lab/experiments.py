"""Test what the papers claim of their tokenizers: train the arms of small experiments, and read the number that decides.

    python 1.video-tokenizer/lab/experiments.py --list
    python 1.video-tokenizer/lab/experiments.py --names videogpt-collapse
    python 1.video-tokenizer/lab/experiments.py --seeds 0 1 2

An arm that several experiments share is trained once. The same command resumes what was stopped.
"""

from tokenizer_lab.claims import ExperimentsConfig, run_experiments, trainings_of
from tokenizer_lab.claims_of_papers import EXPERIMENTS
from tokenizer_lab.comparison import TEXTS, tokenizer_study
from tokenizer_lab.elastic_lengths import length_scores
from tokenizer_lab.sweep import Column
from video_tokenizer.training.command_line import parse_config, run_script

STUDY = tokenizer_study(
    name="experiments",
    rows=trainings_of(EXPERIMENTS.values()),
    columns=[Column(name, name) for name in dict.fromkeys(name for one in EXPERIMENTS.values() for name in one.shown)],
    validate_flags=lambda row: "--num-batches 40",
    score=length_scores,
)


def main() -> None:
    run_experiments(parse_config(ExperimentsConfig), STUDY, EXPERIMENTS, TEXTS)


if __name__ == "__main__":
    run_script(main)
