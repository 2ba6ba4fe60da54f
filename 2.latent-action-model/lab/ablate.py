"""What each part of the latent action model buys: train again without it, under the same steps and seeds, and compare.

    python 2.latent-action-model/lab/ablate.py --data-path data/breakout
    python 2.latent-action-model/lab/ablate.py --rows defaults no-noise --seeds 0 1 2

The same command resumes what was stopped. A line added to ROWS is a row added to the table.
"""

from latent_action_model.config import LatentActionConfig
from tokenizer_lab.sweep import AblationConfig, Column, Study, run_ablation
from video_tokenizer.training.command_line import parse_config, run_script

ROWS = {
    "defaults": "",  # what every other row is compared with
    "flatten": "--pooling flatten",  # does it help to know where something moved?
    "no-noise": "--noisy-steps 0",  # do the codes find their places without the noisy phase?
    "short-codes": "--code-dim 8",  # must a code be 32 numbers long, when it is one of eight anyway?
    "sign-bits": "--quantizer fsq",  # does chapter 1's quantizer do as well as a learned codebook?
    "4-codes": "--num-actions 4",  # are as many codes as keys enough?
    "16-codes": "--num-actions 16",  # do more codes tell more of the action, or more of the rest?
    "bce": "--reconstruction-loss bce",  # does it matter how a wrong pixel is counted?
}
COLUMNS = (
    Column("codes_used", "codes used", ".1f"),
    Column("action_information", "information", ".2f", "higher"),
    Column("action_information", "of visible", ".0%", "higher", ceiling="supervised_information"),
    Column("mapping_accuracy", "mapping accuracy", ".2f", "higher"),
    Column("swap_test", "swap test", ".2f", "higher"),
    Column("delta_moving_psnr_db", "right code, dB", ".2f", "higher"),
)
CONTROLS = {
    "supervised": {"action_information": "supervised_information", "mapping_accuracy": "supervised_accuracy"},
    "shuffled-codes": {"action_information": "action_information_shuffled"},
    "most-frequent-key": {"mapping_accuracy": "majority_accuracy"},
}


def validate_flags(row: str) -> str:
    """The supervised classifier sees frames and keys, no codes: one per seed serves all rows."""
    return "" if row == "defaults" else "--probe-steps 0"


STUDY = Study(
    chapter="2.latent-action-model",
    read_flags=lambda flags: parse_config(LatentActionConfig, argv=flags),
    rows=ROWS,
    columns=COLUMNS,
    controls=CONTROLS,
    validate_flags=validate_flags,
)


def main() -> None:
    run_ablation(STUDY, parse_config(AblationConfig))


if __name__ == "__main__":
    run_script(main)
