"""Dynamics models side by side: trained on the same clips for the same minutes, and played in the same games.

Some read the tokens of one tokenizer and some the latents of another. What a tokenizer cannot draw, no model behind it can. So
real frames that are only encoded and decoded stand beside the models as a ceiling, and the repeated last frame as a floor.
"""

import os
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest import mock

import numpy as np
import torch
from torch import nn

from dynamics_model.data.metadata import WorldMetadata
from dynamics_model.metrics import copy_bits_per_code
from dynamics_model.models.base import DynamicsModel
from dynamics_model.registry import dynamics_class, load_dynamics
from tokenizer_lab.drawing import Drawing
from tokenizer_lab.sweep import Column, Study, markdown, run_command
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clip_store import open_clip_store
from video_tokenizer.data.seen_frames import frame_hashes
from video_tokenizer.models.base import Tokenizer
from video_tokenizer.training.checkpoint import REPOSITORY, load_checkpoint
from video_tokenizer.training.command_line import parse_config, value_of_flag
from video_tokenizer.training.results import read_json
from world_model.evaluation.games import Branches, RealGames, record_branches, record_games
from world_model.evaluation.long_rollouts import RealFrames, ceiling_scores, long_rollout_scores, real_frames, reconstruct
from world_model.evaluation.rollouts import (
    HORIZONS,
    balls_seen,
    horizon_scores,
    obedience_scores,
    real_windows,
    rollout_scores,
)
from world_model.real_game import open_game
from world_model.world import WorldModel

CHAPTER = "3.dynamics-model"
TEXTS = REPOSITORY / CHAPTER / "dynamics_variants"
"""the folder of the texts that show the tables"""
SEED = 7
"""of the evaluation games, which no recording contains, and of the rollouts"""
CONTEXT = 8
"""frames that every model looks back"""
ARMS = {
    "maskgit": "--model maskgit",
    "gpt": "--model gpt",
    "teco": f"--model teco --num-frames {CONTEXT} --context-frames {CONTEXT}",
    "dreamer4": "--model dreamer4",
    "flow": "--model dreamer4 --bootstrap-every 0",
}
"""name -> flags of train.py; "flow" is Dreamer 4's model without shortcuts, plain flow matching"""
LATENTS = "1.video-tokenizer/tokenizer_variants/train.py --model dreamer4 --largest-hidden-share 0 --validate-every 500"
"""trains the tokenizer of latents; nothing is hidden, because at this size masks cost the paddle more than they teach"""
NETWORK = {
    "maskgit": ("_present_logits", "_prefill"),
    "gpt": ("_advance",),
    "teco": ("temporal", "prior", "decoder"),
    "dreamer4": ("predict",),
}
"""what a step of each model calls, whenever it asks its network something"""
STEPS = (1, 4, 16, 64)
"""denoising steps a frame with which models of latents are scored again"""


def paddle_error(horizon: int) -> Column:
    return Column(f"rollout.{horizon}.sprite_error_px", f"paddle error after {horizon}, pixels", ".1f", "lower")


COLUMNS = (
    Column("obedience_moving", "obedience where the paddle moves", ".2f", "higher"),
    *(paddle_error(horizon) for horizon in HORIZONS),
    Column("rollout.4.moving_psnr_db", "moving PSNR after 4, dB", ".1f", "higher"),
    Column("rollout.64.ball_share", "frames 17 to 64 with a ball", ".2f"),  # no mark: more than in the real game is no better
    Column("rollout.one_ball_share", "exactly one ball, where there is one", ".2f", "higher"),
    Column("long_dream.within_real_range", "long rollouts, frames like real ones", ".2f", "higher"),
    Column("long_dream.worst_stretch", "in the worst 100 frames", ".2f", "higher"),
    Column("long_dream.ball_share", "with a ball", ".2f"),
    Column("bits_per_code", "bits per code", ".3f", "lower"),
    Column("ms_a_frame", "ms a frame, one core", ".0f", "lower"),
    Column("network_calls", "network calls a frame", ".0f", "lower"),
    Column("state_kib", "memory of the state, KiB", ",.0f", "lower"),
    Column("parameters", "parameters, million", ".2f"),
    Column("steps", "steps of training", ",.0f"),
    Column("cpu_minutes", "CPU minutes", ".1f"),
)
TRAININGS = Column("trainings", "trainings", ".0f")
"""how many seeds a row has, which differs between rows while a comparison is not finished"""
IN_THE_TEXT = (
    "obedience_moving", "rollout.16.sprite_error_px", "rollout.64.ball_share", "rollout.one_ball_share",
    "long_dream.within_real_range", "bits_per_code", "ms_a_frame", "network_calls", "state_kib", "steps",
)  # fmt: skip
"""the scores that the page's conclusions read; all others stand in comparison.json"""
STEP_COLUMNS = tuple(
    Column(f"with_steps.{steps}.{metric}", f"{heading}, {steps} step{'s' * (steps > 1)}", ".2f", "higher")
    for metric, heading in (
        ("rollout.1.psnr_db", "PSNR of the next frame, dB"),
        ("rollout.1.moving_psnr_db", "moving PSNR of the next frame, dB"),
        ("obedience_moving", "obedience where the paddle moves"),
    )
    for steps in STEPS
)
PLAYED = [column.metric for column in COLUMNS if column.metric.split(".")[0] in ("obedience_moving", "rollout", "long_dream")]
CONTROLS = {
    "copy-last": {name: f"last_frame.{name}" for name in [*PLAYED, "bits_per_code"]},
    "real frames as tokens": {name: f"as_tokens.{name}" for name in PLAYED},
    "real frames as latents": {name: f"as_latents.{name}" for name in PLAYED},
    "real game": {name: f"real.{name}" for name in PLAYED},
}


def train_script(model: str | None) -> str:
    """The script that trains this dynamics model."""
    return f"{CHAPTER}/train.py" if model in (None, "maskgit") else f"{CHAPTER}/dynamics_variants/train.py"


def read_flags(flags: Sequence[str]) -> Any:
    """The config that train.py makes of these flags; --model among them names the model."""
    model = dynamics_class(value_of_flag(flags, "--model") or "maskgit")
    return parse_config(model.config_class, model.presets, flags)


def latents_tokenizer(study: Study, folder: Path, data: Sequence[str]) -> Path:
    """The tokenizer of latents in this folder of runs, trained on one thread if there is none. data: the flags that name it."""
    checkpoint = folder / "latents" / "best_model.pt"
    if not (checkpoint.parent / "metrics.json").exists():
        command = ["python", *shlex.split(LATENTS), *data, "--checkpoint-dir", study.relative(checkpoint.parent)]
        run_command(study, shlex.join(command), os.environ | {"OMP_NUM_THREADS": "1"})
    return checkpoint


def comparison(name: str, rows: Mapping[str, str], arena: "Arena | None" = None) -> Study:
    """The study of these models. arena: where they are scored; None for a table of numbers that are there."""
    batches = arena.sizes.num_batches if arena else 1
    return Study(
        chapter=CHAPTER, name=name, rows=rows, columns=(*COLUMNS, *STEP_COLUMNS), controls=CONTROLS, read_flags=read_flags,
        models=train_script, validate_flags=lambda _: f"--num-batches {batches} --num-rollouts 2",
        score=arena.score if arena else None, transposed=True,
    )  # fmt: skip


def main_table(study: Study, results: Mapping[str, Any]) -> tuple[Study, dict[str, Any]]:
    """The table of all models, and the results that it shows."""
    shown = (column for column in COLUMNS if column.metric in IN_THE_TEXT)
    return replace(study, columns=(TRAININGS, *shown)), with_counts(results, study.rows)


def steps_table(study: Study, results: Mapping[str, Any]) -> tuple[Study, dict[str, Any]]:
    """The table of models that form a frame out of noise, by the number of their steps, and the results that it shows."""
    rows = [row for row, entry in results["rows"].items() if "dreamer4" in entry["flags"]]
    shown = replace(
        study, name="steps", columns=(TRAININGS, *STEP_COLUMNS), controls={}, rows={row: study.rows[row] for row in rows}
    )
    return shown, with_counts(results, rows)


def with_counts(results: Mapping[str, Any], rows: Iterable[str]) -> dict[str, Any]:
    """The results of these rows; every run also knows how many there are of its row."""
    chosen = {}
    for name in rows:
        runs = results["rows"][name]["runs"] if name in results["rows"] else []
        counted = [run | {"metrics": run["metrics"] | {"trainings": len(runs)}} for run in runs]
        chosen |= {name: results["rows"][name] | {"runs": counted}} if runs else {}
    return {**results, "rows": chosen}


def written_tables(results: Mapping[str, Any]) -> Iterator[tuple[Path, str, str]]:
    """Both tables, as they stand in the texts: the page, the name of the block and its content."""
    study = comparison("comparison", {name: row["flags"] for name, row in results["rows"].items()})
    yield TEXTS / "README.md", "comparison", markdown(*main_table(study, results))
    yield TEXTS / "dreamer4" / "README.md", "steps", markdown(*steps_table(study, results))


# ---- where worlds are played --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How much is played."""

    num_games: int = 6
    num_frames: int = 300
    """longest game, in frames"""
    num_beginnings: int = 6
    """starts from which every key is held"""
    num_rollouts: int = 16
    long_frames: int = 500
    """frames of the long rollout"""
    timed_frames: int = 40
    num_batches: int = 4
    """batches of validation clips for the bits of a token"""


QUICK = Sizes(num_games=2, num_frames=100, num_beginnings=1, num_rollouts=2, long_frames=20, timed_frames=3, num_batches=1)
"""seconds instead of minutes, to check that everything runs; the numbers mean little"""


class Played(NamedTuple):
    """What every world is held against."""

    env_id: str
    games: RealGames
    branches: Branches
    real: RealFrames
    """what is usual in the recording"""


class Arena:
    """The same games for every world, played once."""

    def __init__(self, data: Path, tokenizers: Mapping[str, Path], sizes: Sizes):
        """data: clip store of the training, whose frames are not scored. tokenizers: "tokens" and "latents" -> checkpoint."""
        self.data, self.tokenizers, self.sizes = data, tokenizers, sizes
        self.played: Played | None = None
        self.baselines: dict[str, Any] = {}

    def play(self, metadata: WorldMetadata, frame_size: tuple[int, int]) -> Played:
        """Play the games, at the first call."""
        if self.played is None:
            sizes, store, env_id = self.sizes, open_clip_store(self.data), metadata.env_id or ""
            known, game = frame_hashes(store.frames), open_game(env_id, metadata, frame_size)
            games = record_games(game, sizes.num_games, sizes.num_frames, SEED, known=known)
            branches = record_branches(game, sizes.num_beginnings, CONTEXT, 8, SEED, known)
            some = replace(store, episodes=store.episodes[::4])  # every fourth episode says what is usual as well as all
            real = real_frames(RealGames(some, None, None, np.zeros(len(store.frames), bool)))
            assert real is not None
            self.played = Played(env_id, games, branches, real)
        return self.played

    def score(self, checkpoint: Path) -> dict[str, Any]:
        """All scores of the world with this dynamics model, those of the baselines among them."""
        world = open_world(checkpoint)
        played = self.play(world.metadata, world.frame_size)
        scores, still = scores_of(world, played, self.sizes)
        if world.dynamics.reads == "latents":
            stepped = {str(steps): open_world(checkpoint, num_steps=steps) for steps in STEPS}
            scores["with_steps"] = {
                steps: scores_of(one, played, self.sizes, HORIZONS[1])[0] for steps, one in stepped.items()
            }  # fmt: skip
        if not self.baselines:
            for name, path in self.tokenizers.items():
                redrawn, real = redrawn_scores(load_tokenizer(path), world, played, self.sizes)
                self.baselines |= {f"as_{name}": redrawn, "real": real}
        if world.dynamics.reads == "tokens":
            changed = read_json(checkpoint.with_name("validation.json"))["share_changed"]
            still["bits_per_code"] = copy_bits_per_code(changed, world.dynamics.config.codebook_size)
        return {**scores, **costs_of(world, self.sizes.timed_frames), **self.baselines, "last_frame": still}


def open_world(checkpoint: Path, **sampling: Any) -> WorldModel:
    """The world of a dynamics checkpoint and the tokenizer that it was trained on."""
    dynamics = load_dynamics(checkpoint)
    tokenizer = load_tokenizer(Path(str(dynamics.config.tokenizer_checkpoint)))
    metadata = WorldMetadata.of_checkpoint(load_checkpoint(checkpoint, "dynamics"))
    return WorldModel(tokenizer, dynamics, metadata=metadata, sampling=dynamics.sampling_class(**sampling), seed=SEED)


def scores_of(
    world: WorldModel, played: Played, sizes: Sizes, horizon: int = HORIZONS[-1]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the world and of the repeated last frame. horizon: only so many frames are rolled out, if fewer than 64."""
    scores, still = obedience_scores(world, played.branches, played.env_id, SEED)
    scores["rollout"], still["rollout"] = rollout_scores(world, played.games, sizes.num_rollouts, SEED, horizon)
    if horizon == HORIZONS[-1]:
        scores["long_dream"], still["long_dream"] = long_rollout_scores(
            world, played.games, played.real, sizes.long_frames, 1, SEED
        )  # fmt: skip
    return scores, still


def redrawn_scores(
    tokenizer: Tokenizer, world: WorldModel, played: Played, sizes: Sizes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of real frames that the tokenizer only encodes and decodes, and those of the real frames themselves.

    world: any of them; says which frames are scored.
    """
    env_id, branches = played.env_id, played.branches
    clips = np.concatenate([branches.start_frames, branches.frames], axis=1)
    windows, _, _ = real_windows(world, played.games, HORIZONS[-1], sizes.num_rollouts)
    found = []
    for draw in (lambda video: reconstruct(tokenizer, video), lambda video: video):
        drawn = np.stack([draw(clip) for clip in clips])[:, CONTEXT:]
        player = SimpleNamespace(action_map={}, action_kind="true", rollout=lambda *_, drawn=drawn: drawn)
        scores, _ = obedience_scores(cast(Any, player), branches, env_id, SEED)
        drawn = np.stack([draw(window) for window in windows])[:, CONTEXT:]
        found.append({**scores, "rollout": horizon_scores(drawn, windows[:, CONTEXT - 1 :], env_id)})
    ceiling = ceiling_scores(tokenizer, played.games, played.real)
    found[0]["long_dream"] = {"within_real_range": ceiling["within_real_range_redrawn"]}
    found[1]["long_dream"] = {"within_real_range": ceiling["within_real_range_real"], "ball_share": played.real.ball_share}
    return found[0], found[1]


# ---- what a frame costs -------------------------------------------------------------------------------------------------


def costs_of(world: WorldModel, num_frames: int) -> dict[str, float]:
    """ms_a_frame, network_calls of a frame, state_kib of one rollout, and million parameters.

    ms_a_frame is the median processor time of `WorldModel.step`, which on one thread is the time that it takes on a core of its
    own, also while others work beside it.
    """
    model, milliseconds = world.dynamics, []
    world.reset(world.start_frames[0], world.start_actions[0])
    with counted_calls(model) as calls:
        for number in range(num_frames):
            begun = time.process_time()
            world.step(number % world.num_actions)
            milliseconds.append(1_000 * (time.process_time() - begun))
    assert world.current is not None
    return {
        "ms_a_frame": float(np.median(milliseconds)),
        "network_calls": calls.total() / num_frames,
        "state_kib": sum(storage_sizes(world.current.dynamics_state).values()) / 1024,
        "parameters": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
    }


@contextmanager
def counted_calls(model: DynamicsModel) -> Iterator[Counter[str]]:
    """Counts, while it is open, how often a model asks each part of its network."""
    calls = Counter[str]()

    def counting(name: str, part: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return part(*given, **named)

        return call

    parts = {name: getattr(model, name) for name in NETWORK[model.config.model]}
    with ExitStack() as stack:
        for name, part in parts.items():
            owner, method = (part, "forward") if isinstance(part, nn.Module) else (model, name)
            stack.enter_context(mock.patch.object(owner, method, counting(name, getattr(owner, method))))
        yield calls


def storage_sizes(thing: Any) -> dict[int, int]:
    """Address -> bytes of every storage that the tensors in a state lie in, each once; also what is held only by a view."""
    return {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors_of(thing))}


def tensors_of(thing: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples, dictionaries and objects."""
    if isinstance(thing, torch.Tensor):
        yield thing
        return
    inside = thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
    for part in thing if isinstance(thing, list | tuple) else inside.values():
        yield from tensors_of(part)


# ---- pictures -----------------------------------------------------------------------------------------------------------


def same_keys(worlds: Mapping[str, WorldModel], played: Played, num_frames: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """The real game and every world under the same keys from the same frames: label -> (K, H, W, 3), and the key of each frame.

    Of all windows of the games it is the one in which the paddle moves most often, of those that show a ball throughout, or else
    most of the time.
    """
    any_world = next(iter(worlds.values()))
    windows, known, actions = real_windows(any_world, played.games, num_frames, 200)
    balls = balls_seen(windows[:, CONTEXT:], played.env_id).mean(axis=1)
    moves = np.isin(actions, [any_world.action_map[key] for key in ("LEFT", "RIGHT") if key in any_world.action_map]).mean(axis=1)
    chosen = slice(best := int(np.argmax(np.minimum(balls, 0.95) + 0.1 * moves)), best + 1)
    films = {"real game": windows[best, CONTEXT:]}
    for name, world in worlds.items():
        films[name] = world.rollout(
            windows[chosen, :CONTEXT], None if known is None else known[chosen], actions[chosen], SEED
        )[0]  # fmt: skip
    names = any_world.action_names
    return films, [f"frame {number}, key {names[key]}" for number, key in enumerate(actions[best], 1)]


GAME_SPEED = 1_000 / 15
"""milliseconds that a frame may take at 15 frames a second"""
PANELS = {
    "obedience_moving": "obedience, where the paddle moves",
    "rollout.one_ball_share": "exactly one ball, where there is one",
}
LEFT, TOP, WIDE, HIGH, APART = 52, 46, 330, 250, 414
"""where the plot's first panel lies, its size, and how far the second one is"""


def save_quality_against_time(path: Path, results: Mapping[str, Any]) -> None:
    """Scores against milliseconds a frame, as PATH_light.svg and PATH_dark.svg: a point per model, a line over its seeds."""

    def values(row: str, metric: str) -> list[float]:
        return [float(run["metrics"][metric]) for run in results["rows"][row]["runs"]]

    times = {row: float(np.mean(values(row, "ms_a_frame"))) for row in results["rows"]}
    far = 1.25 * max(*times.values(), GAME_SPEED)
    drawing = Drawing(830, 350, "Quality of each dynamics model against milliseconds a frame on one core")
    for number, (metric, heading) in enumerate(PANELS.items()):
        left = LEFT + number * APART
        drawing.text(left, TOP - 24, heading, 16, anchor="start", bold=True)
        for tick in (0, 0.25, 0.5, 0.75, 1):
            height = TOP + HIGH * (1 - tick)
            drawing.line([(left, height), (left + WIDE, height)], "faint", 1)
            drawing.text(left - 8, height, f"{tick:g}", 13, "muted", "end")
        limit = left + WIDE * GAME_SPEED / far
        drawing.line([(limit, TOP), (limit, TOP + HIGH)], "warm", 1.5, "5 4")
        drawing.text(limit - 5, TOP + HIGH - 10, "15 frames a second", 13, "warm", "end")
        for milliseconds in range(0, int(far) + 1, 20 if far < 150 else 50):
            drawing.text(left + WIDE * milliseconds / far, TOP + HIGH + 16, str(milliseconds), 13, "muted")
        drawing.text(left + WIDE / 2, TOP + HIGH + 38, "ms a frame, one core", 14, "muted")
        marks: list[tuple[float, float, float]] = []  # x, highest and lowest point of each
        for row in times:
            x, seeds = left + WIDE * times[row] / far, values(row, metric)
            y, low, high = (TOP + HIGH * (1 - float(value)) for value in (np.mean(seeds), min(seeds), max(seeds)))
            drawing.line([(x, low), (x, high)], "accent", 2)
            drawing.add("circle", cx=x, cy=y, r=5, fill="accent")
            marks.append((x, min(high, y - 5), max(low, y + 5)))
        taken: list[tuple[float, float, str]] = []
        for row in sorted(times, key=lambda row: float(np.mean(values(row, metric)))):
            x, label = left + WIDE * times[row] / far, TOP + HIGH * (1 - float(np.mean(values(row, metric))))
            # a name that would touch a mark further right stands to the left of its own
            side = "end" if any(x + 8 < other < x + 45 and top - 8 <= label <= end + 8 for other, top, end in marks) else "start"
            while any(abs(label - other) < 15 and abs(x - beside) < 90 and side == its for beside, other, its in taken):
                label -= 4  # and keeps its distance from the one below it
            taken.append((x, label, side))
            drawing.text(x + (9 if side == "start" else -9), label, row, 14, anchor=side)
    drawing.save(path)
