"""What each part of the dynamics model buys: train again without it, under the same steps and seeds, and compare.

    python 3.dynamics-model/lab/ablate.py --data-path data/breakout
    python 3.dynamics-model/lab/ablate.py --rows defaults no-corruption --seeds 0 1 2

Every row learns from the same tokens and is steered by the recorded keys, so that no row is better for its tokenizer or its
latent actions. The same command resumes what was stopped. A line added to ROWS is a row added to the table.
"""

from dataclasses import dataclass
from pathlib import Path

from dynamics_model.config import DynamicsConfig
from tokenizer_lab.sweep import AblationConfig, Column, Study, run_ablation
from video_tokenizer.training.checkpoint import REPOSITORY, resolve_path
from video_tokenizer.training.command_line import parse_config, run_script

ROWS = {
    "defaults": "",  # what every other row is compared with
    "few-masked": "--smallest-mask-rate 0.05",  # should it also practise on frames that are nearly full?
    "masked-past": "--clean-context-share 0",  # Genie's training: masked tokens in every past
    "clean-past": "--clean-context-share 1",  # must it ever see a masked past?
    "no-corruption": "--context-corruption 0",  # must it learn to look past mistakes?
    "all-alike": "--changed-weight 1",  # does it learn what changes, if that counts no more than the rest?
    "no-action-dropout": "--action-dropout 0",  # what does it cost to practise without the action as well?
    "adamw": "--optimizer adamw",  # what does Muon buy over plain AdamW?
    "short-memory": "--context-frames 4",  # are four frames enough to look back?
    "16-frames": "--num-frames 16 --context-frames 16 --batch-size 4",  # does a longer memory help? As many frames a step.
}
COLUMNS = (
    Column("loss_changed", "loss on changed tokens", ".3f", "lower"),
    Column("accuracy_changed", "changed tokens right", ".3f", "higher"),
    Column("shuffle_ratio", "shuffle ratio", ".2f", "higher"),
    Column("delta_psnr_db.4", "worth of the right actions at step 4, dB", ".2f", "higher"),
)
CONTROLS = {
    "copy-last": {"accuracy_changed": "copy_accuracy_changed"},
    "wrong-actions": {"loss_changed": "loss_changed_shuffled"},
}
STUDY = Study(
    chapter="3.dynamics-model",
    read_flags=lambda flags: parse_config(DynamicsConfig, argv=flags),
    rows=ROWS,
    columns=COLUMNS,
    controls=CONTROLS,
)


@dataclass(frozen=True)
class DynamicsAblationConfig(AblationConfig):
    """Train the dynamics model again without each of its parts, and compare."""

    tokenizer_checkpoint: str = "assets/worlds/breakout/tokenizer.pt"
    """the tokenizer whose tokens every row learns; the reference world's, so that everybody has the same"""


def main() -> None:
    config = parse_config(DynamicsAblationConfig)
    tokenizer = STUDY.relative(resolve_path(Path(config.tokenizer_checkpoint), REPOSITORY))
    run_ablation(STUDY, config, ["--actions", "true", "--tokenizer-checkpoint", tokenizer])


if __name__ == "__main__":
    run_script(main)
