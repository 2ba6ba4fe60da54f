"""How much the latent actions of five games know about the keys, and how much a supervised classifier sees of them.

    python 2.latent-action-model/lab/games.py
    python 2.latent-action-model/lab/games.py --readme

The defaults were chosen on Breakout, Pong and Freeway, and nobody tuned anything on Boxing and Ms. Pac-Man. A game without a
recording in data/ is recorded first. The same command resumes what was stopped, and the second one writes the table into LOG.md.
"""

import os
from dataclasses import dataclass

from latent_action_model.config import LatentActionConfig
from tokenizer_lab.sweep import AblationConfig, Column, Study, run_ablation, run_command
from video_tokenizer.training.command_line import parse_config, run_script

GAMES = {"breakout": "Breakout", "pong": "Pong", "freeway": "Freeway", "boxing": "Boxing", "mspacman": "MsPacman"}
MORE = {
    "freeway-16": ("freeway", "--num-actions 16"),  # is there room for the player beside five steps of traffic?
    "freeway-labels": ("freeway", "--label-share 0.02"),  # what does a key in fifty buy?
    # does it help to look where much changes?
    **{f"{game}-places": (game, "--place-power 1") for game in ("breakout", "pong", "freeway", "boxing")},
}
COLUMNS = (
    Column("action_information", "information", "z.2f"),
    Column("supervised_information", "of the classifier", "z.2f"),
    Column("action_information_ratio", "ratio", "z.2f"),
    Column("mapping_accuracy", "key guessed right", ".2f"),
    Column("supervised_accuracy", "by the classifier", ".2f"),
    Column("majority_accuracy", "most frequent key", ".2f"),
)


@dataclass(frozen=True)
class GamesConfig(AblationConfig):
    """Train the latent action model on five games, and compare what it knows of the keys with what can be seen."""

    data_path: str = "data"
    """folder of the recordings, one for each game"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each game is trained once per seed, which sets the weights, the order of the clips and the validation episodes"""
    rows: tuple[str, ...] = ()
    """names of the games; default: all"""

    def data_flags(self, study: Study) -> list[str]:
        """None: every row names its own recording, which is made now if it does not exist."""
        for row in self.rows or study.rows:
            game, _ = MORE.get(row, (row, ""))
            data = f"{self.data_path}/{game}"
            if not (study.root / data).exists():
                flags = f"--env ALE/{GAMES[game]}-v5 --num-frames 40000 --output {data}"
                run_command(study, f"python 1.video-tokenizer/record.py {flags}", os.environ)
        return []


def validate_flags(row: str) -> str:
    """In Ms. Pac-Man the classifier may see nothing in 1,000 steps. The table has no predictions, so few are scored."""
    return "--num-batches 8" + " --probe-steps 3000" * (row == "mspacman")


def games_study(data_path: str = GamesConfig.data_path) -> Study:
    return Study(
        chapter="2.latent-action-model",
        name="games",
        read_flags=lambda flags: parse_config(LatentActionConfig, argv=flags),
        rows={game: f"--data-path {data_path}/{game}" for game in GAMES}
        | {row: f"--data-path {data_path}/{game} {flags}" for row, (game, flags) in MORE.items()},
        columns=COLUMNS,
        validate_flags=validate_flags,
    )


STUDY = games_study()


def main() -> None:
    config = parse_config(GamesConfig)
    run_ablation(games_study(config.data_path), config)


if __name__ == "__main__":
    run_script(main)
