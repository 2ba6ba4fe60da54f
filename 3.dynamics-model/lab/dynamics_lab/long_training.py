"""The experiments of long_context.py that train the small transformer of recall.py, arm by arm."""

import copy
from typing import Any

import torch

from dynamics_lab.recall import CHANCE, NeedleTask, RecallTransformer, packed_batch, scores, train
from dynamics_variants.ring.growth import Stage, grow

PACKING = {"masked-and-weighted": (True, True), "masked-only": (True, False), "naive": (False, False)}
"""arm -> does attention stay inside an example, does each example count the same"""
ROWS = 16
"""packed rows of a batch"""
WATCHED_EVERY = 50
"""steps between two looks at the accuracy"""
REACHED = 0.9
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEVERAL = ((2, 2), (4, 1), (4, 2))
"""(N, R): needles of a clip, and questions about them, as in table 5.3"""
QUESTIONS = 256
"""asked for each score of the needles"""
TEST_SEED = 1_000_000
"""test clips are drawn from seeds that no training uses"""


def packing_arms(config: Any) -> dict[str, dict[str, Any]]:
    """Every arm is asked questions in rows where attention stays inside an example, whatever it was trained with.

    A row has the accuracy of each seed after all steps, and the step at which it first reached 90%, None if it never did.
    """
    rows = {}
    for arm, (masked, weighted) in PACKING.items():
        row: dict[str, Any] = {"accuracy": [], "video_loss": [], "steps_to_90": []}
        for seed in config.seeds:
            torch.manual_seed(seed)
            model, random = RecallTransformer(), torch.Generator().manual_seed(seed)
            test = packed_batch(64, True, True, torch.Generator().manual_seed(TEST_SEED))
            reached: list[int] = []

            def watch(step: int, model: Any = model, test: Any = test, reached: list[int] = reached) -> None:
                if step % WATCHED_EVERY == 0 and not reached and scores(model, test)["accuracy"] >= REACHED:
                    reached.append(step)

            train(
                model, lambda masked=masked, weighted=weighted, random=random: packed_batch(ROWS, masked, weighted, random),
                config.learning_rate, config.num_steps, watch=watch,
            )  # fmt: skip
            found = scores(model, test)
            row["accuracy"].append(found["accuracy"])
            row["video_loss"].append(found["vision_loss"])
            row["steps_to_90"].append(reached[0] if reached else None)
            print(f"{arm} | seed {seed} | accuracy {found['accuracy']:.3f} | video loss {found['vision_loss']:.3f} nats")
        rows[arm] = _mean(row) | row
    return rows | {"chance": {"mean_accuracy": CHANCE}}


def needle_grid(config: Any) -> dict[str, dict[str, Any]]:
    """A model that grows from length to length, asked at each about a needle at each depth, and about several needles.

    Baseline: how often a reader who sees only 8 of the frames, at equal distances, is right: 8/T of the time, and by chance.
    """
    found: dict[int, dict[str, list[float]]] = {length: {} for length in config.lengths}
    for seed in config.seeds:
        torch.manual_seed(seed)
        model = RecallTransformer()
        for number, length in enumerate(config.lengths):
            base, answers = config.rope_base * config.base_factor**number, found[length]
            _trained_on(length, config, seed + number, base, model, num_steps=config.num_steps)
            for depth in DEPTHS:
                answers.setdefault(f"depth_{100 * depth:g}", []).append(_accuracy(model, NeedleTask(length, 1, 1), depth))
            for needles, questions in SEVERAL:
                name = f"{needles}_needles_{questions}_asked"
                answers.setdefault(name, []).append(_accuracy(model, NeedleTask(length, needles, questions)))
            print(f"{length} tokens | seed {seed} | " + ", ".join(f"{name} {row[-1]:.2f}" for name, row in answers.items()))
    rows = {}
    for length, answers in found.items():
        share = min(1.0, 8 / (length // 16))
        rows[str(length)] = {name: sum(values) / len(values) for name, values in answers.items()}
        rows[str(length)] |= {"eight_frames": share + (1 - share) * CHANCE, "chance": CHANCE, "seeds": answers}
    return rows


def growth_arms(config: Any) -> dict[str, dict[str, Any]]:
    """The same processor minutes for each arm; all are asked about needles at all of the lengths."""
    lengths, base = config.lengths, config.rope_base
    factor = lengths[1] // lengths[0] if len(lengths) > 1 else 1
    arms = {
        "grown": grow(lengths[0], lengths[-1], factor, base, config.base_factor),
        "grown-fixed-base": grow(lengths[0], lengths[-1], factor, base, 1.0),
        "from-scratch": grow(lengths[-1], lengths[-1], factor, base * config.base_factor ** (len(lengths) - 1), 1.0),
    }
    found: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
    for seed in config.seeds:
        begun: dict[Stage, RecallTransformer] = {}  # after their first stage; both grown arms go on from the same model
        for arm, (first, *later) in arms.items():
            if first not in begun:
                torch.manual_seed(seed)
                begun[first] = _stage(RecallTransformer(), first, config, seed)
            model, scores_of_arm = copy.deepcopy(begun[first]), found[arm]
            # what the first stage can do with videos of the second length, before it has seen one
            scores_of_arm.setdefault("next_length_at_first", []).append(_next_length(model, config, arm))
            for number, stage in enumerate(later, 1):
                _stage(model, stage, config, seed + number)
            for length in lengths:
                scores_of_arm.setdefault(f"{length}_tokens", []).append(_accuracy(model, NeedleTask(length)))
            print(f"{arm} | seed {seed} | " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in scores_of_arm.items()))
    rows = {
        arm: {name: sum(values) / len(values) for name, values in seeds.items()} | {"seeds": seeds}
        for arm, seeds in found.items()
    }
    return rows | {"chance": {f"{length}_tokens": CHANCE for length in lengths}}


def _stage(model: RecallTransformer, stage: Stage, config: Any, seed: int) -> RecallTransformer:
    seconds = 60 * config.minutes * stage.share
    return _trained_on(stage.num_tokens, config, seed, stage.rope_base, model, processor_seconds=seconds)


def _next_length(model: RecallTransformer, config: Any, arm: str) -> float:
    """Accuracy at the second length with the base that the second stage will have."""
    before = model.rope_base
    if arm == "grown":
        model.rope_base = before * config.base_factor
    accuracy = _accuracy(model, NeedleTask(config.lengths[min(1, len(config.lengths) - 1)]))
    model.rope_base = before
    return accuracy


def _trained_on(length: int, config: Any, seed: int, base: float, model: RecallTransformer, **budget: Any) -> RecallTransformer:
    """Train on videos of one length, 8 needles and 8 questions each."""
    task, random = NeedleTask(length), torch.Generator().manual_seed(seed)
    model.rope_base = base
    train(model, lambda: task.batch(config.batch_tokens // length, random), config.learning_rate, **budget)
    return model


def _accuracy(model: RecallTransformer, task: NeedleTask, depth: float | None = None) -> float:
    """Share of 256 questions whose answer is right, four clips at a time."""
    random = torch.Generator().manual_seed(TEST_SEED)
    num_batches = QUESTIONS // (4 * task.num_questions)
    return sum(scores(model, task.batch(4, random, depth))["accuracy"] for _ in range(num_batches)) / num_batches


def _mean(row: dict[str, list[Any]]) -> dict[str, float]:
    return {f"mean_{name}": sum(values) / len(values) for name, values in row.items() if None not in values}
